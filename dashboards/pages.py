"""Everything the site consists of, as relative path → bytes. Writing it is `build`'s work.

Templates escape every value by default, figure data lies in script files of its own, and each
page's content-security policy allows scripts and styles from the site alone.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import chain
from pathlib import Path
from typing import Any

import plotly
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from benchmarks.gate.history import MIN_COMMITS
from dashboards import text, views
from dashboards.data.cache import Cache
from dashboards.data.source import Source
from dashboards.loaded import shards
from dashboards.plots import drawing, preview, theme
from dashboards.plots.drawing import Drawing
from dashboards.plots.figures import Marks
from dashboards.plots.preview import Preview
from dashboards.suites import MODELS, SUITES
from dashboards.tabular import (
    bars,
    by_commit,
    changed,
    compiled_steps,
    machines,
    markup,
    regressions,
)
from dashboards.tabular.commit_links import NO_LINKS, CommitLinks
from dashboards.tabular.regressions import Moves

_HERE = Path(__file__).parent
_PLOTLY = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src data:; "
    "base-uri 'none'; form-action 'none'"
)
"""Plotly sets style attributes, so styles may be inline; scripts never are."""
FIGURES = ("assets/plotly.min.js", "assets/themes.js")
"""What a figure needs besides its data."""
STATIC = (
    "style.css",
    "theme-start.js",
    "address.js",
    "navigation.js",
    "tables.js",
    "parquet.js",
    "downloads.js",
    "site.js",
    "search.js",
    "columns.js",
    "verdicts.js",
    "outcomes.js",
    "reached.js",
    "compared.js",
    "compare-table.js",
    "compare.js",
    "trend-marks.js",
    "trend-times.js",
    "figure-tools.js",
    "trend-choices.js",
    "series.js",
    "second-machine.js",
    "trends.js",
    "case.js",
)


Part = Callable[[], Iterator[tuple[str, bytes]]]
"""Makes some files of a site, as relative path and content."""


@dataclass(frozen=True)
class Placed:
    """A drawing with its id on the page, and the select's keys in the address."""

    id: str
    drawing: Drawing
    preview: Preview | None = None

    @cached_property
    def table(self) -> list[list[str]]:
        """The first choice as rows of text."""
        return drawing.table(self.drawing)


def files(source: Source, raw: str = "") -> dict[str, bytes]:
    """The whole site in memory; see `stream`."""
    return {
        name: content if isinstance(content, bytes) else content.read_bytes()
        for name, content in stream(source, raw)
    }


def stream(
    source: Source, raw: str = "", cache: Cache | None = None
) -> Iterator[tuple[str, bytes | Path]]:
    """The whole site, as relative path and content, or the file that holds it.

    `raw` is where the result files lie for a browser, empty without links; `cache` holds what does
    not change from build to build.
    """
    site = Site.of(source, raw)
    for part in site.parts():
        yield from part()
    yield from site.columns(cache)


class Site:
    """Makes files; one method a kind of page."""

    def __init__(
        self,
        source: Source,
        hrefs: Mapping[str, str],
        model_hrefs: Mapping[str, str],
        raw: str = "",
        links: CommitLinks = NO_LINKS,
    ) -> None:
        self.source = source
        self.links = links
        self.hrefs = hrefs
        self.model_hrefs = model_hrefs
        self.files: dict[str, bytes] = {}
        self.environment = Environment(
            loader=FileSystemLoader(_HERE / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self.environment.filters.update(
            ratio=text.ratio, short=text.short, breakable=text.breakable
        )
        self.environment.globals.update(
            policy=POLICY,
            bar=bars.speed,
            shares=bars.shares,
            raw=raw,
            links=links,
            body=markup.body,
            numbers=markup.numbers,
        )

    @classmethod
    def of(cls, source: Source, raw: str = "", links: CommitLinks = NO_LINKS) -> "Site":
        """That of a source; `raw` is as `stream` takes it, `links` are where commits are shown."""
        ops, models = text.slugs(source.ops()), text.slugs(source.models())
        hrefs = {op: f"op-{slug}.html" for op, slug in ops.items()}
        model_hrefs = {name: f"model-{of}.html" for name, of in models.items()}
        return cls(source, hrefs, model_hrefs, raw, links)

    @cached_property
    def moves(self) -> Moves:
        """What moved over the commits."""
        return regressions.find(self.source)

    @cached_property
    def paired(self) -> list[by_commit.PairedView]:
        """What each of the newest commits did to each operator and model."""
        return by_commit.views(self.source, {**self.hrefs, **self.model_hrefs})

    def parts(self) -> list[Part]:
        """All but `columns`, in parts that may be made in any order; the longest come first."""
        every = partial(
            self._made,
            self.add_assets,
            self.add_overview,
            self.add_regressions,
            self.add_machines,
            *(partial(self.add_page, name, name, []) for name in ("compare.html", "case.html")),
        )
        of_one = [partial(self.add_operator, op) for op in self.hrefs]
        of_one += [partial(self.add_model, model) for model in self.model_hrefs]
        lists = partial(shards.series_lists, self.source, self._marks)
        series = shards.series(self.source)
        return [
            lambda: chain(every(), lists()),
            *series,
            *(partial(self._made, of) for of in of_one),
        ]

    def _made(self, *makers: Callable[[], None]) -> Iterator[tuple[str, bytes]]:
        """The files that some methods add."""
        self.files = {}
        for make in makers:
            make()
        yield from self.files.items()

    def columns(self, cache: Cache | None) -> Iterator[tuple[str, bytes | Path]]:
        """What the pages load when they are asked for commits."""
        yield from shards.files(self.source, {**self.hrefs, **self.model_hrefs}, cache)

    def add_assets(self) -> None:
        """Plotly, the style sheet, the scripts and the themes."""
        self.files["assets/plotly.min.js"] = _PLOTLY.read_bytes()
        for name in STATIC:
            self.files[f"assets/{name}"] = (_HERE / "static" / name).read_bytes()
        themes = text.script_json(theme.themes())
        self.files["assets/themes.js"] = f"window.KERNL_THEMES={themes};\n".encode()
        names = text.script_json(self._cases())
        self.files["data/cases.js"] = f"window.KERNL_CASES={names};\n".encode()

    def _cases(self) -> list[dict[str, Any]]:
        """What the search finds: the timed cases of each operator and model, and its page."""
        hrefs = {**self.hrefs, **self.model_hrefs}
        found = []
        for points in (self.source.points[name] for name in SUITES if name in self.source.points):
            for name, cases in points.slices.items():
                listed = [text.short(case) for _, case in points.cases[cases]]
                found.append({"name": text.short(name, 60), "href": hrefs[name], "cases": listed})
        return sorted(found, key=lambda one: str(one["name"]))

    def add_page(
        self,
        name: str,
        template: str,
        drawings: list[Drawing],
        *,
        later: bool = False,
        soon: bool = False,
        **values: Any,
    ) -> None:
        """One page, and its figures' data if it has any.

        `later` says that Plotly and the data come when somebody wants to read off a figure, `soon`
        that they come once the page is there.
        """
        shard_name = f"data/{name.removesuffix('.html')}.js" if drawings else ""
        if drawings:
            lines = [
                f"window.KERNL_FIGURES[{text.script_json(f'figure-{place}')}]="
                f"{text.script_json(drawn.payload())};\n"
                for place, drawn in enumerate(drawings)
            ]
            shard = "window.KERNL_FIGURES={};\n" + "".join(lines)
            self.files[shard_name] = shard.encode()
        page = self.environment.get_template(template).render(
            name=name,
            shard=shard_name,
            figure_files=[one for one in (*FIGURES, shard_name) if one],
            later=later or soon,
            soon=soon,
            pages_of_ops=sorted(self.hrefs.items()),
            pages_of_models=sorted(self.model_hrefs.items()),
            **values,
        )
        self.files[name] = page.encode("utf-8", "replace")

    def add_overview(self) -> None:
        """`index.html`, and `losses.html` with the whole lists of losses."""
        gpus = self.source.machine_names("kernels")
        compilers = self.source.machine_names("codegen")
        drawings: list[Drawing] = []
        speeds = [views.speed(self.source, machine, self.hrefs) for machine in gpus]
        models = [
            views.speed(self.source, machine, self.model_hrefs, suite=MODELS)
            for machine in self.source.machine_names(MODELS.name)
        ]
        compiled = [views.codegen(self.source, machine, self.hrefs) for machine in compilers]
        self.add_page(
            "index.html",
            "index.html",
            drawings,
            later=True,
            speeds=[(view, previewed(view.drawings, drawings)) for view in speeds if view],
            models=[(view, previewed(view.drawings, drawings)) for view in models if view],
            compiled=[view for view in compiled if view],
            problems=len(self.source.problems),
            open_moves=len(self.moves.open),
            changes=self._changes(),
            paired=self.paired,
            fresh=changed.freshness(self.source, self.links),
            most=changed.MOST,
            empty=self.source.empty,
        )
        self.add_page(
            "losses.html",
            "losses.html",
            [],
            parts=[
                (kind, [view for view in some if view])
                for kind, some in (("operators", speeds), ("models", models))
            ],
        )

    def _changes(self) -> dict[str, dict[str, tuple[changed.Change, ...]]]:
        """Suite → machine → what changed since the last commit and the last release."""
        hrefs = {**self.hrefs, **self.model_hrefs}
        return {
            name: {
                machine: changed.changes(self.source, machine, hrefs, suite, self.links)
                for machine in self.source.machine_names(name)
            }
            for name, suite in SUITES.items()
        }

    def add_operator(self, op: str) -> None:
        """The page of one operator."""
        gpus = self.source.machine_names("kernels")
        compilers = self.source.machine_names("codegen")
        drawings: list[Drawing] = []
        speeds = [views.speed(self.source, machine, self.hrefs, op) for machine in gpus]
        compiled = [views.codegen(self.source, machine, self.hrefs, op) for machine in compilers]
        placed_speeds = [(view, place(view.drawings, drawings)) for view in speeds if view]
        placed_compiled = [(view, place(view.drawings, drawings)) for view in compiled if view]
        self.add_page(
            self.hrefs[op],
            "op.html",
            drawings,
            soon=True,
            op=op,
            opt_in=op in self.source.opt_in,
            speeds=placed_speeds,
            compiled=placed_compiled,
            metrics=text.METRIC_TITLES,
        )

    def add_model(self, model: str) -> None:
        """The page of one model."""
        drawings: list[Drawing] = []
        speeds = [
            views.speed(
                self.source,
                machine,
                self.model_hrefs,
                model,
                MODELS,
            )
            for machine in self.source.machine_names(MODELS.name)
        ]
        self.add_page(
            self.model_hrefs[model],
            "model.html",
            drawings,
            soon=True,
            model=model,
            speeds=[(view, place(view.drawings, drawings)) for view in speeds if view],
        )

    def _marks(self, machine: str, op: str) -> Marks:
        return regressions.marks(self.moves.of(machine, op), self.source.commits)

    def add_regressions(self) -> None:
        """`regressions.html`, and its feed."""
        hrefs = {**self.hrefs, **self.model_hrefs}
        self.add_page(
            "regressions.html",
            "regressions.html",
            [],
            paired=self.paired,
            views=regressions.views(self.source, self.moves, hrefs, self.links),
            compiled=compiled_steps.views(self.source, self.hrefs, self.links),
            moves=self.moves,
            least=MIN_COMMITS,
        )
        feed = self.environment.get_template("regressions.xml").render(
            feed=regressions.feed_values(self.source.commits),
            entries=regressions.entries(self.moves, self.source.commits, hrefs),
        )
        self.files["regressions.xml"] = feed.encode("utf-8", "replace")

    def add_machines(self) -> None:
        """`machines.html`."""
        self.add_page(
            "machines.html",
            "machines.html",
            [],
            machines=machines.runs(self.source),
            problems=self.source.problems,
        )


def place(drawings: Mapping[str, Drawing], onto: list[Drawing]) -> dict[str, Placed]:
    """Gives each drawing an id on its page and appends it to the page's list."""
    found = {}
    for name, drawn in drawings.items():
        found[name] = Placed(f"figure-{len(onto)}", drawn)
        onto.append(drawn)
    return found


def previewed(drawings: Mapping[str, Drawing], onto: list[Drawing]) -> dict[str, Placed]:
    """The same, each with what is shown until Plotly is there."""
    return {
        name: replace(placed, preview=preview.of_speedups(placed.drawing))
        for name, placed in place(drawings, onto).items()
    }
