"""Tables of a model's calls beside their times: what rewriting covers, and what the host does."""

import math
from collections import defaultdict
from dataclasses import dataclass

import pandas as pd

from benchmarks.details import PARTS, Rewrite, details_of
from dashboards import order, text
from dashboards.data import summary
from dashboards.data.frames import rows_of
from dashboards.tabular import model_tables
from dashboards.tabular.tables import Cell, Table, word

_WORDS = {
    "replaced": "kernl's operator",
    "left": "left to PyTorch",
    "refused": "looked at and left",
}


@dataclass(frozen=True)
class Rewritten:
    """What rewriting made of a model's graphs, a graph a case.

    Attributes:
        covered: in words, how many of the calls that compute are kernl's.
        table: what stands in the graphs, and how often.
    """

    covered: str
    table: Table


def rewritten(rows: pd.DataFrame) -> Rewritten | None:
    """That of one machine, commit and model; None where nothing is known of it."""
    graphs = _graphs(rows)
    if not graphs:
        return None
    counts: dict[tuple[str, str], list[int]] = defaultdict(list)
    for graph in graphs:
        for part in PARTS:
            for name, count in getattr(graph, part).items():
                counts[part, name].append(count)
    body = []
    for part in PARTS:
        ours = [(name, seen) for (of, name), seen in counts.items() if of == part]
        for name, seen in sorted(ours, key=lambda one: (-max(one[1]), one[0])):
            shown = f"aten.{name}" if part == "left" else name
            least = min(seen) if len(seen) == len(graphs) else 0
            cell = Cell(_span(least, max(seen)), max(seen))
            body.append((word(_WORDS[part]), word(shown, 120), cell))
    return Rewritten(_covered(graphs), Table(("In the graph", "What", "Times"), tuple(body)))


def _graphs(rows: pd.DataFrame) -> list[Rewrite]:
    """What kernl's graphs became, by case; of kernl without CUDA graphs where kernl has none."""
    found: dict[str, Rewrite] = {}
    times = model_tables.tried(rows)
    for name in (summary.OURS, *summary.PARTS):
        mine = times[times["variant"] == name]
        for case, said in rows_of(mine, "case", "details"):
            rewrite = details_of(said).rewrite
            if rewrite is not None:
                found.setdefault(str(case), rewrite)
    return [found[case] for case in sorted(found, key=order.natural)]


def _covered(graphs: list[Rewrite]) -> str:
    ours = [sum(graph.replaced.values()) for graph in graphs]
    every = [mine + sum(graph.left.values()) for mine, graph in zip(ours, graphs, strict=True)]
    shares = [graph.coverage for graph in graphs if not math.isnan(graph.coverage)]
    if not shares:
        return "none of its graphs computes anything"
    least, most = (f"{100 * share:.0f} %" for share in (min(shares), max(shares)))
    share = least if least == most else f"{least} to {most}"
    calls = f"{_span(min(ours), max(ours))} of {_span(min(every), max(every))}"
    return f"{calls} calls that compute are kernl's ({share})"


def _span(least: int, most: int) -> str:
    return str(most) if least == most else f"{least} to {most}"


def host(rows: pd.DataFrame) -> Table:
    """How long a call kept the host, of each implementation; no rows where nobody took it."""
    times = model_tables.tried(rows)
    known: dict[tuple[str, str], tuple[float, float]] = {}
    told = times[(times["status"] == "ok") & (times["details"] != "")]
    for case, name, value, said in rows_of(told, "case", "variant", "value", "details"):
        seconds = details_of(said).host
        if math.isfinite(seconds):
            known[str(case), str(name)] = seconds, float(value)
    others = [*summary.PARTS, *model_tables.opponents(times)]
    names = [summary.OURS, *sorted(others, key=lambda name: name != summary.BASELINE)]
    names = [name for name in names if any(name == of for _, of in known)]
    cases = sorted({case for case, _ in known}, key=order.natural)
    body = tuple(
        (word(case, 80), *(_host_cell(*known.get((case, name), (math.nan, 0))) for name in names))
        for case in cases
    )
    return Table(("Case", *(f"{text.short(name, 24)}, µs" for name in names)), body)


def _host_cell(seconds: float, call: float) -> Cell:
    if not math.isfinite(seconds):
        return Cell("–", None)
    share = f"{100 * seconds / call:.0f} %" if call > 0 else ""
    return Cell(text.duration(seconds, "µs"), text.number(seconds, 6), note=share)
