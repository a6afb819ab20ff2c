"""The table of one commit: ratios worked out by hand, refusals in words, names that attack."""

import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from dashboards import table
from dashboards.data.source import Source
from dashboards.suites import KERNELS
from dashboards.tabular import printing
from tests.dashboards import synthetic
from tests.dashboards.hostile import ATTACKS
from tests.dashboards.synthetic import row
from tests.dashboards.test_build import write_asv

ROOT = Path(__file__).resolve().parents[2]
MACHINE = "nvidia-h200"
FROZEN = {"softmax": ["a.fp16", "b.fp16"]}
FROZEN |= {name: ["a.fp16"] for name in ("attention", "rounded", "left")}
HEADINGS = table.headings(KERNELS)
COMMIT = "deadbe00" * 5
OTHER = "deadbe11" * 5


def times(
    op: str, case: str, commit: str = COMMIT, **seconds: float | None
) -> list[dict[str, object]]:
    """Rows of one case; None is a failed measurement."""
    return [
        row(
            op=op,
            case=case,
            commit=commit,
            variant=name,
            value=math.nan if value is None else value,
            status="failed" if value is None else "ok",
        )
        for name, value in seconds.items()
    ]


ROWS = [
    *times("attention", "a.fp16", eager=9e-6, compile=6e-6, library=3e-6, kernl=2e-6),
    *times("softmax", "a.fp16", eager=8e-6, compile=4e-6, kernl=1e-6),
    *times("softmax", "b.fp16", eager=1e-6, compile=None, kernl=2e-6),
    *times("rounded", "a.fp16", eager=1e-6, compile=2e-6, kernl=4e-6),
]


def source(rows: list[dict[str, object]]) -> Source:
    store = synthetic.Store(synthetic.frame(rows), synthetic.runs_frame([]))
    return Source.of(store, frozen=FROZEN, opt_in=("rounded",))


def lines_of(rows: list[dict[str, object]], losses: int = 0) -> list[str]:
    return table.report(source(rows), MACHINE, COMMIT, losses)


def cells(lines: list[str], name: str) -> list[str]:
    """The cells of the one row of operators that begins with a name."""
    split = [line.strip("| ").split(" | ") for line in lines if line.startswith(f"| {name} |")]
    (found,) = [each for each in split if len(each) == len(HEADINGS)]
    return found[1:]


def test_ratios_worst_cases_and_failures_of_an_operator() -> None:
    assert cells(lines_of(ROWS), "softmax") == [
        "2",
        "2.00× (0.50×)",  # sqrt(8 × 0.5)
        "4.00× (4.00×)",  # torch.compile failed in b
        "–",
        "1.41× (0.50×)",  # sqrt(4 × 0.5)
        "1 / 0 / 1",
        "b.fp16 (eager)",
        "1 compile",
    ]


def test_a_library_s_call_has_a_column() -> None:
    assert cells(lines_of(ROWS), "attention") == [
        *("1", "4.50× (4.50×)", "3.00× (3.00×)", "1.50× (1.50×)", "1.50× (1.50×)"),
        *("1 / 0 / 0", "a.fp16 (library)", "0"),
    ]


def test_the_row_over_all_leaves_opt_in_operators_out() -> None:
    lines = lines_of(ROWS)
    assert cells(lines, "all 2") == [
        "3",
        "2.62× (0.50×)",  # cbrt(4.5 × 8 × 0.5)
        "3.46× (3.00×)",  # sqrt(3 × 4)
        "1.50× (1.50×)",
        "1.44× (0.50×)",  # cbrt(1.5 × 4 × 0.5)
        "2 / 0 / 1",
        "softmax b.fp16 (eager)",
        "1 compile",
    ]
    assert lines.index(next(x for x in lines if x.startswith("Opt-in"))) < lines.index(
        next(x for x in lines if x.startswith("| rounded |"))
    )
    assert cells(lines, "rounded")[4:7] == ["0.25× (0.25×)", "0 / 0 / 1", "a.fp16 (eager)"]


def test_operators_stand_in_the_order_of_the_frozen_cases_and_the_rest_is_named() -> None:
    lines = lines_of([*ROWS, *times("abs", "a.fp16", eager=1e-6, kernl=1e-6)])
    first = [line.split(" | ")[0].strip("| ") for line in lines if line.startswith("| ")]
    rows = [name for name in first if name not in ("operator", "---")]
    assert rows == ["softmax", "attention", "abs", "all 3", "rounded"]
    assert "Not run: left." in lines


def test_a_case_left_to_eager_is_said_and_counts_as_one() -> None:
    fallback = row(
        op="softmax",
        case="b.fp16",
        commit=COMMIT,
        value=math.nan,
        status="skipped",
        reason="too wide",
    )
    rows = [
        *times("softmax", "a.fp16", eager=4e-6, compile=4e-6, kernl=1e-6),
        *times("softmax", "b.fp16", eager=4e-6, compile=1e-6),
        fallback,
    ]
    found = cells(lines_of(rows), "softmax")
    assert found[:3] == ["1, 1 left to eager", "2.00× (1.00×)", "1.00× (0.25×)"]
    assert found[5] == "1 / 0 / 1"


@pytest.mark.parametrize("value", [math.nan, 0.0])
def test_a_kernel_without_a_usable_time_failed(value: float) -> None:
    rows = [*ROWS, *times("left", "a.fp16", eager=1e-6, kernl=value)]
    assert cells(lines_of(rows), "left") == ["0", *["–"] * 4, "0 / 0 / 0", "–", "1 kernl"]


def test_losses_are_listed_worst_first_with_both_times() -> None:
    lines = lines_of(ROWS, losses=1)
    assert "The worst 1 of 2 losses:" in lines
    assert lines[-1] == "| rounded (opt-in) | a.fp16 | 0.25× | 4.00 | eager | 1.00 |"
    assert lines_of(ROWS, losses=9)[-1] == "| softmax | b.fp16 | 0.50× | 2.00 | eager | 1.00 |"
    assert lines_of(ROWS[:4], losses=9)[-1] == "No case is a loss."


def test_only_one_machine_and_commit_are_read() -> None:
    others = times("softmax", "a.fp16", OTHER, eager=1e-6, compile=1e-6, kernl=1.0)
    others += [{**each, "machine": "nvidia-a100"} for each in times("softmax", "a.fp16", kernl=1.0)]
    assert lines_of([*ROWS, *others]) == lines_of(ROWS)


def refusal(
    rows: list[dict[str, object]], revision: str = COMMIT, machine: str | None = MACHINE
) -> str:
    with pytest.raises(printing.TableError) as refused:
        table.report(source(rows), machine, revision)
    return str(refused.value)


def test_an_unknown_machine_is_refused_with_those_known() -> None:
    said = refusal(ROWS, machine="nvidia-h100")
    assert "'nvidia-h100'" in said
    assert f"allowed: {MACHINE}." in said
    assert "no device times yet" in refusal([])
    compiled = row(machine="compile-only", suite="codegen", metric="spills", commit=COMMIT)
    assert "compile-only" in refusal([*ROWS, compiled], machine="compile-only")


def test_a_machine_is_named_only_where_a_commit_was_timed_on_several() -> None:
    other = [
        {**each, "machine": "nvidia-a100"} for each in times("softmax", "a.fp16", OTHER, kernl=1.0)
    ]
    assert table.report(source([*ROWS, *other]), None, COMMIT) == lines_of([*ROWS, *other])
    assert "nvidia-a100" in table.report(source([*ROWS, *other]), None, OTHER)[0]
    both = [*ROWS, *({**each, "commit": COMMIT} for each in other)]
    said = refusal(both, machine=None)
    assert f"has device times on nvidia-a100 and {MACHINE}; " in said
    assert "--machine" in said
    assert "those with device times on nvidia-a100: " in refusal(both, "cafe", machine=None)
    assert "no device times yet" in refusal([], machine=None)


def test_an_unknown_or_ambiguous_commit_is_refused_with_those_known() -> None:
    both = [*ROWS, *times("softmax", "a.fp16", OTHER, eager=1e-6, kernl=1e-6)]
    said = refusal(both, "deadbe")
    assert "begins 2 commits: give more digits" in said
    assert {COMMIT[:8], OTHER[:8]} <= set(said.replace(",", "").split())
    assert "no commit that git or the results know" in refusal(both, "no\nbranch\x1b[31m")
    assert refusal(both, "no\nbranch\x1b[31m").isprintable()
    assert table.report(source(both), MACHINE, "DEADBE0")[0].startswith("Device times: deadbe00")


@pytest.mark.parametrize(
    "there",
    [
        row(commit=OTHER, machine="compile-only", suite="codegen", metric="spills"),
        row(commit=OTHER, status="failed", value=math.nan),
        row(commit=OTHER, status="skipped", value=math.nan),
    ],
    ids=["compiled", "failed", "skipped"],
)
def test_a_commit_without_times_is_refused_and_no_table_is_empty(there: dict[str, object]) -> None:
    said = refusal([*ROWS, there], OTHER)
    assert said.startswith(f"commit {OTHER[:8]} has no device times on {MACHINE}; ")
    assert f": {COMMIT[:8]}. Name one" in said


def test_hostile_names_stay_text_in_their_cells() -> None:
    attacks = [*ATTACKS, "a | b\\| c", "`x` **y** [z](w) @all ~~s~~", "\x1b[2J\x9b31m"]
    rows = []
    for name in attacks:
        shared = {"op": name, "case": name, "commit": COMMIT}
        rows += [row(**shared, value=2e-6), row(**shared, variant=name, value=1e-6)]
        rows.append(row(**shared, variant=f"{name}2", status="failed", value=math.nan))
    lines = lines_of(rows, losses=len(attacks))
    widths = {"operator": len(HEADINGS), "Operator": 6}
    width = 0
    for line in lines:
        assert line.isprintable()
        assert not set(line) & set("<>`[]*@{}~\\")
        if line.startswith("|"):
            width = widths.get(line.split(" | ")[0].strip("| "), width)
            assert line.count("|") == width + 1, line
    assert len(lines) > 2 * len(attacks) - 4


def stored(rows: list[dict[str, object]], folder: Path) -> list[str]:
    """Arguments that name results of a folder."""
    write_asv(synthetic.Store(synthetic.frame(rows), synthetic.runs_frame([])), folder / "results")
    return ["--results", str(folder / "results")]


def test_the_command_prints_the_table_of_asv_s_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = stored(ROWS[4:], tmp_path)
    (tmp_path / "results" / MACHINE / "broken-worktree.json").write_text("{")
    assert table.main(["deadbe00", "--losses", "5", *where]) == 0
    shown = capsys.readouterr()
    assert cells(shown.out.splitlines(), "softmax")[4] == "1.41× (0.50×)"
    assert "| softmax | b.fp16 | 0.50× | 2.00 | eager | 1.00 |" in shown.out
    assert shown.err.startswith(f"table: skipped {MACHINE}/broken-worktree.json: ")
    assert len(shown.err.splitlines()) == 1


@pytest.mark.parametrize("asked", [["cafe"], ["deadbe00", "--machine", "none"]])
def test_the_command_refuses_with_exit_code_2_and_prints_no_table(
    asked: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert table.main([*asked, *stored(ROWS, tmp_path)]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("table: ")
    assert table.main(["deadbe00", "--results", str(tmp_path / "absent")]) == 2
    assert "is not a folder" in capsys.readouterr().err


def test_a_reader_that_stops_early_sees_no_traceback(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "dashboards.table", "deadbe00", *stored(ROWS, tmp_path)]
    closed, out = os.pipe()
    os.close(closed)
    done = subprocess.run(
        command, cwd=ROOT, stdout=out, stderr=subprocess.PIPE, text=True, check=False, timeout=120
    )
    os.close(out)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_readme_shows_what_the_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (commit,) = set(re.findall(r"dashboards\.table (\w+) --without-edges`", readme))
    assert table.main([commit, "--without-edges"]) == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert len(rows) > 24
    assert [line for line in rows if line not in readme.splitlines()] == []
    assert set(re.findall(r"make table HEAD=(\w+)", readme)) == {commit}
    assert table.main([commit]) == 0
    (every,) = re.findall(r"^\| all 22 \| .*", capsys.readouterr().out, re.MULTILINE)
    cases, eager, _, _, best, verdicts, worst = every.strip("| ").split(" | ")[1:8]
    wins, _, losses = verdicts.split(" / ")
    assert (
        f"{int(cases):,} cases: {eager.split()[0]} over eager, {best.split()[0]} over the best of "
        f"them, {int(wins):,} wins and {losses} losses, the worst {best.split()[1].strip('()')}"
    ) in readme
    assert "rows1_cols1" in worst


def test_edges_are_left_out_when_asked() -> None:
    """They are the cases that are timed in float32 too."""
    pairs = [
        ("softmax", "rows8_cols8.fp16"),
        ("softmax", "rows1_cols1.fp16"),
        ("softmax", "rows1_cols1.bf16"),
        ("softmax", "rows1_cols1.fp32"),
        ("layer_norm", "rows1_cols1.fp16"),
        ("bert_base", "batch1_seq16.fp16"),
    ]
    suites = {"bert_base": "models"}
    made = [
        row(op=op, case=case, suite=suites.get(op, "kernels"), commit=COMMIT) for op, case in pairs
    ]
    assert without_edges(source(made), COMMIT) == [pairs[0], pairs[4], pairs[5]]


def without_edges(found: Source, commit: str) -> list[tuple[str, str]]:
    """The (operator or model, case) that are left of a commit."""
    kept = printing.without_edges(found.rows(MACHINE, commit), found)
    return list(kept[["op", "case"]].itertuples(index=False, name=None))


def test_a_commit_s_edges_are_known_from_other_commits_too() -> None:
    """It may have measured them in half precision alone."""
    found = source(
        [
            *times("softmax", "rows1_cols1.fp16", kernl=1e-6),
            *times("softmax", "rows8_cols8.fp16", kernl=1e-6),
            *times("softmax", "rows1_cols1.fp32", OTHER, kernl=1e-6),
        ]
    )
    assert without_edges(found, COMMIT) == [("softmax", "rows8_cols8.fp16")]
    assert without_edges(found, OTHER) == []


def test_a_table_without_edges_has_the_means_of_the_others() -> None:
    edges = [
        *times("softmax", "rows1_cols1.fp16", eager=1e-6, compile=1e-6, kernl=8e-6),
        *times("softmax", "rows1_cols1.fp32", eager=1e-6, compile=1e-6, kernl=8e-6),
    ]
    every = [*ROWS, *edges]
    assert cells(table.report(source(every), MACHINE, COMMIT), "softmax")[0] == "4"
    shown = table.report(source(every), MACHINE, COMMIT, edges=False)
    assert cells(shown, "softmax") == cells(lines_of(ROWS), "softmax")
    assert cells(shown, "all 2") == cells(lines_of(ROWS), "all 2")


CASE = re.compile(r"^\| (\w+)\.fp16 \| ([\d.]+) \| ([\d.]+×) \| ([\d.]+×) \|", re.MULTILINE)
"""A case's name, kernl's milliseconds, over eager, over the best alternative."""


def _measured_models(
    readme: str, capsys: pytest.CaptureFixture[str]
) -> dict[str, list[tuple[str, ...]]]:
    """What the command of the README prints of each model: groups of `CASE`."""
    (commit,) = set(re.findall(r"dashboards\.table --suite models (\w+)", readme))
    assert table.main(["--suite", "models", commit]) == 0
    sections = re.split(r"^(\w+)\. Milliseconds", capsys.readouterr().out, flags=re.MULTILINE)[1:]
    pairs = zip(sections[::2], sections[1::2], strict=True)
    return {name: CASE.findall(text) for name, text in pairs}


def test_the_readme_shows_the_grid_that_was_measured(capsys: pytest.CaptureFixture[str]) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    cells = {
        case: f"{ms} ({over})"
        for case, ms, _, over in _measured_models(readme, capsys)["bert_base"]
        if not case.endswith("ragged")
    }
    (heading,) = re.findall(r"^\| batch \|(.*)\|$", readme, re.MULTILINE)
    lengths = re.findall(r"length (\d+)", heading)
    shown = {
        f"batch{batch}_seq{length}": cell
        for batch, line in re.findall(r"^\| (\d+) \| (.*×\)) \|$", readme, re.MULTILINE)
        for length, cell in zip(lengths, line.split(" | "), strict=True)
    }
    assert len(shown) == 21
    assert shown == cells


def test_the_readme_shows_the_other_models_that_were_measured(
    capsys: pytest.CaptureFixture[str],
) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    measured = _measured_models(readme, capsys)
    others = [name for name in measured if name not in ("bert_base", "roberta_base")]
    (text,) = re.findall(r"^\| model \| case \|.*\n\|[- |:]+\n((?:\|.*\n)+)", readme, re.MULTILINE)
    shown = [tuple(line.strip("|\n ").split(" | ")[2:]) for line in text.splitlines()]
    expected = [
        tuple("; ".join(values) for values in list(zip(*measured[name], strict=True))[1:])
        for name in others
    ]
    assert shown == expected


@pytest.mark.parametrize("losses", ["0", "-1", "two", "²"])
def test_a_count_of_losses_that_is_none_is_refused(losses: str) -> None:
    with pytest.raises(SystemExit) as stopped:
        table.main(["HEAD", "--losses", losses])
    assert stopped.value.code == 2


def test_no_rows_at_all_are_refused() -> None:
    with pytest.raises(printing.TableError, match="no device times"):
        table.report(Source.of(synthetic.empty()), MACHINE, COMMIT)
