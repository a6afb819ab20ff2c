"""What the gate shows: the verdict on a list of findings, as a table, JSON or Markdown.

Names and reasons come from files that anybody may have written, so whatever could be read as
markup, an escape sequence or a new line is shown as plain visible text.
"""

import math
import re
import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, TextIO

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from benchmarks.gate.findings import (
    COMPARED,
    OUTCOMES,
    REGRESSIONS,
    TIMED,
    UNDECIDED,
    Finding,
    Outcome,
)

FORMAT = 1
MAX_GROUPS = 30
MAX_TEXT = 400
MAX_UNSTABLE = 0.05
"""The part of what was compared that may be unstable in a pass: these are listed."""
QUIET: frozenset[Outcome] = frozenset({"pass", "skipped"})
"""Outcomes that are counted, not listed."""
EXITS = {
    0: "PASS (exit 0): no regression that was not acknowledged",
    1: "REGRESSION (exit 1): at least one that was not acknowledged",
    2: "UNDECIDED (exit 2): could not decide, which is not a pass",
}
UNITS = {"shared_memory": " bytes"}
MEANINGS = {
    "registers": "fewer warps may fit beside each other",
    "spills": "a thread keeps in memory what its registers do not hold",
    "shared_memory": "a tile has grown, or there are more of them under way",
    "memory_instructions": "vectors fall apart into elements, or more is read and written",
    "occupancy": "fewer warps fit beside each other",
}
"""What it may mean that a compile-only metric is worse than before."""
_STYLES = {0: "bold green", 1: "bold red", 2: "bold yellow"}
_HASH = re.compile(r"[0-9a-f]{40,64}")
# An underscore inside a word is no markup.
_MARKDOWN = re.compile(r"[\\`*{}\[\]<>#|!~&@$^]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")


@dataclass(frozen=True)
class Report:
    """A finished comparison.

    Attributes:
        base: what is compared against: a full hash.
        head: what is judged: a full hash.
        suites: suites that were asked for.
        machines: machines that have results on both sides.
        findings: one for each measurement, worst first.
        blockers: why nothing, or not everything, could be decided.
        notes: what else the reader must know.
    """

    base: str
    head: str
    suites: tuple[str, ...]
    machines: tuple[str, ...]
    findings: Sequence[Finding]
    blockers: Sequence[str] = ()
    notes: Sequence[str] = ()

    @property
    def counts(self) -> dict[str, int]:
        """Number of findings by outcome, worst first."""
        counts = Counter(finding.outcome for finding in self.findings)
        return {outcome: counts[outcome] for outcome in OUTCOMES if counts[outcome]}

    @property
    def exit_code(self) -> int:
        """0 pass, 1 regression, 2 could not decide. A comparison of nothing is no pass."""
        counts = self.counts
        outcomes = set(counts)
        if outcomes & REGRESSIONS:
            return 1
        compared = sum(counts.get(outcome, 0) for outcome in COMPARED)
        unstable = counts.get("unstable", 0)
        too_many = unstable > MAX_UNSTABLE * (compared + unstable)
        if self.blockers or too_many or outcomes & (UNDECIDED - {"unstable"}) or not compared:
            return 2
        return 0

    @property
    def verdict(self) -> str:
        """The last line: the verdict, the meaning of the exit code and the counts."""
        counts = ", ".join(f"{count} {outcome}" for outcome, count in self.counts.items())
        return f"{EXITS[self.exit_code]}; {counts or 'nothing was compared'}"


@dataclass
class Group:
    """Findings that say the same of several cases. `findings` is never empty."""

    findings: list[Finding] = field(default_factory=list)

    @property
    def first(self) -> Finding:
        """The worst one, which speaks for the others."""
        return self.findings[0]

    @property
    def subject(self) -> str:
        """What was measured; a model is called one, since it is named as operators are."""
        kind = "model " if self.first.key.suite == "models" else ""
        return f"{kind}{self.names('op')} {self.names('case')}"

    @property
    def where(self) -> str:
        """The machine that took the time, or the architectures compiled for."""
        key = self.first.key
        return clean(key.machine) if key.suite in TIMED else self.names("variant")

    def names(self, field_name: str) -> str:
        """One name as it is, but a metric in words, several as "first and 3 more"."""
        names = list(dict.fromkeys(getattr(f.key, field_name) for f in self.findings))
        if field_name == "metric":
            names = [name.replace("_", " ") for name in names]
        return clean(names[0]) + (f" and {len(names) - 1} more" if len(names) > 1 else "")


def group(findings: Iterable[Finding]) -> list[Group]:
    """Group findings that say the same, in the order of their first ones.

    Where something was compared they differ in the case alone; elsewhere they share the reason.
    What is only counted is left out.
    """
    groups: dict[object, Group] = {}
    for finding in findings:
        if finding.outcome in QUIET:
            continue
        key = finding.key
        sign: tuple[object, ...] = (finding.outcome, key.suite, key.machine, finding.reason)
        if not math.isnan(finding.ratio):
            values = (finding.base, finding.head, finding.low, finding.high)
            sign = (*sign, key.op, key.metric, key.variant, *values)
        elif finding.outcome != "undecided":
            sign = (*sign, key.op)
        groups.setdefault(sign, Group()).findings.append(finding)
    return list(groups.values())


def sentence(of: Group) -> str:
    """One plain sentence for a group of findings."""
    first, key = of.first, of.first.key
    subject = f"{of.subject} on {clean(of.where)}: {of.names('metric')}"
    if math.isnan(first.ratio):
        several = f" ({len(of.findings)} measurements)" if len(of.findings) > 1 else ""
        return f"{subject}{several} {first.outcome}: {clean(first.reason)}"
    interval = ""
    if first.low < first.high:
        interval = f", 99 % interval {percent(first.low)} to {percent(first.high)}"
    values = f"{amount(first.base, key.metric)} → {amount(first.head, key.metric)}"
    values += UNITS.get(key.metric, "")
    meaning = MEANINGS.get(key.metric, "") if first.outcome in REGRESSIONS else ""
    reason = clean(first.reason) + (f": {meaning}" if meaning else "")
    return f"{subject} {values} ({percent(first.ratio)}{interval}), {reason}"


def clean(text: str) -> str:
    """Text on one line without control characters, escapes or direction marks, cut when long."""
    shown = "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in text
    )
    return shown if len(shown) <= MAX_TEXT else shown[: MAX_TEXT - 1] + "…"


def amount(value: float, metric: str) -> str:
    """A value with its unit: seconds as ns, µs, ms or s; counts and fractions as they are."""
    if math.isnan(value):
        return "–"
    if metric == "time" and math.isfinite(value):
        for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
            if abs(value) >= size:
                return f"{value / size:.4g} {unit}"
        return f"{value * 1e9:.4g} ns"
    return str(int(value)) if value.is_integer() else f"{value:.4g}"


def share(part: float) -> str:
    """A part of a whole as whole per cent, 100 only where it is all of it."""
    return f"{math.floor(100 * part + 1e-9)} %"


def percent(ratio: float) -> str:
    """Write head / base as a signed change, or as a factor where it is large."""
    if math.isnan(ratio):
        return "–"
    if math.isinf(ratio):
        return "from 0"
    return f"{100 * (ratio - 1):+.3g} %" if ratio < 10 else f"×{ratio:.3g}"


def show(report: Report, stream: TextIO) -> None:
    """Print the table, a sentence for each group, notes and, last, the verdict."""
    width = min(120, max(80, shutil.get_terminal_size((100, 24)).columns))
    console = Console(
        file=stream,
        width=width,
        force_terminal=stream.isatty(),
        markup=False,
        emoji=False,
        highlight=False,
    )

    def line(text: str, style: str = "") -> None:
        console.print(Text(text, style=style), soft_wrap=True)

    groups = group(report.findings)
    line(_title(report))
    if groups:
        console.print(_table(groups[:MAX_GROUPS]))
        for each in groups[:MAX_GROUPS]:
            line(f"- {sentence(each)}")
        if len(groups) > MAX_GROUPS:
            line(_more(groups))
    for note in report.notes:
        line(f"note: {clean(note)}")
    for blocker in report.blockers:
        line(f"could not decide: {clean(blocker)}")
    line(report.verdict, _STYLES[report.exit_code])


def to_json(report: Report) -> dict[str, Any]:
    """Everything, in values that JSON has: what is not a finite number is null."""
    return {
        "format": FORMAT,
        "base": report.base,
        "head": report.head,
        "suites": list(report.suites),
        "machines": list(report.machines),
        "exit_code": report.exit_code,
        "verdict": report.verdict,
        "counts": report.counts,
        "blockers": list(report.blockers),
        "notes": list(report.notes),
        "findings": [_finding_json(finding) for finding in report.findings],
    }


def to_markdown(report: Report) -> str:
    """The report for a pull request."""
    groups = group(report.findings)
    lines = [f"### {escape(report.verdict)}", ""]
    lines += [escape(_title(report))]
    if groups:
        lines += ["", "| | Measurement | On | Metric | Base | Head | Change |"]
        lines += ["|---|---|---|---|---:|---:|---:|"]
        for each in groups[:MAX_GROUPS]:
            lines.append("| " + " | ".join(escape(cell) for cell in _cells(each)) + " |")
        lines.append("")
        lines += [_item(sentence(each)) for each in groups[:MAX_GROUPS]]
        if len(groups) > MAX_GROUPS:
            lines += ["", escape(_more(groups))]
    said = [*report.notes, *(f"Could not decide: {blocker}" for blocker in report.blockers)]
    lines += ["", *(_item(clean(text)) for text in said)] if said else []
    return "\n".join(lines) + "\n"


def escape(text: str) -> str:
    """Text that Markdown shows as it is: what could be markup is written as character numbers."""
    escaped = _MARKDOWN.sub(lambda found: f"&#{ord(found[0])};", text)
    # Hosts look for mentions in the text as shown: a joiner of no width keeps them apart.
    escaped = escaped.replace("&#64;", "&#64;&#8288;").replace("://", ":&#8288;//")
    return escaped.replace("www.", "www&#46;")


def _item(text: str) -> str:
    """A list item. Its first character, unless a letter, could begin a list or a block of code."""
    escaped = escape(text)
    if escaped and not escaped[0].isalpha() and not escaped.startswith("&#"):
        escaped = f"&#{ord(escaped[0])};{escaped[1:]}"
    return f"- {escaped}"


def _title(report: Report) -> str:
    base, head = (
        name[:12] if _HASH.fullmatch(name) else clean(name) for name in (report.base, report.head)
    )
    machines = ", ".join(clean(name) for name in report.machines) or "no machine"
    return f"base {base} → head {head} on {machines}"


def _more(groups: Sequence[Group]) -> str:
    hidden = sum(len(each.findings) for each in groups[MAX_GROUPS:])
    return f"… and {hidden} more, see --json"


def _cells(of: Group) -> tuple[str, ...]:
    first, key = of.first, of.first.key
    return (
        first.outcome,
        of.subject,
        of.where,
        of.names("metric"),
        amount(first.base, key.metric),
        amount(first.head, key.metric),
        percent(first.ratio),
    )


def _table(groups: Sequence[Group]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("")
    table.add_column("measurement", overflow="fold")
    table.add_column("base → head", justify="right")
    table.add_column("change", justify="right")
    for each in groups:
        outcome, names, where, metric, base, head, change = _cells(each)
        what = Text(f"{names}\n{metric} on {where}")
        table.add_row(Text(outcome), what, Text(f"{base} → {head}"), Text(change))
    return table


def _finding_json(finding: Finding) -> dict[str, Any]:
    values = {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in asdict(finding).items()
        if name != "key"
    }
    worse = finding.worse if math.isfinite(finding.worse) else None
    return {**finding.key._asdict(), **values, "worse": worse}
