"""Shares of the roofline on pages and in the table: worked out by hand, and refused in words."""

import math
import re
from pathlib import Path

import pandas as pd
import pytest

from benchmarks import cases
from benchmarks.cases import Cost
from benchmarks.measure.journal import Journal
from dashboards import build, pages, table
from dashboards.data.source import Source
from dashboards.tabular import printing, roofline, roofline_table
from tests.dashboards import synthetic
from tests.dashboards.hostile import ATTACKS
from tests.dashboards.synthetic import row
from tests.dashboards.test_build import write_asv

ROOT = Path(__file__).resolve().parents[2]
MACHINE = "nvidia-h200"
COMMIT = "deadbe00" * 5
FIGURES: dict[str, float] = {
    "copy_bytes_per_s": 3e12,
    "fp16_flops_per_s": 750e12,
    "bf16_flops_per_s": 780e12,
    "fp32_flops_per_s": 50e12,
    "tf32_flops_per_s": 380e12,
}
MOVES = Cost(bytes=60_000_000, flops=1_000, unit="fp16")  # 20 µs, by memory
SMALL = Cost(bytes=3_000_000, flops=1_000, unit="fp16")  # 1 µs, by memory
COMPUTES = Cost(bytes=3_000_000, flops=15_000_000_000, unit="fp16")  # 20 µs; 10 µs in fp8
COSTS = {
    ("softmax", "large.fp16", "1"): MOVES,
    ("softmax", "small.fp16", "1"): SMALL,
    ("linear", "large.fp16", "1"): COMPUTES,
    ("rounded", "large.fp16", "1"): Cost(3_000_000, 15_000_000_000, "fp8"),
}


def times(op: str, case: str, run: str = "r", **seconds: float | None) -> list[dict[str, object]]:
    """Rows of one case; None is a failed measurement."""
    return [
        row(op=op, case=case, commit=COMMIT, variant=name, run=run,
            value=math.nan if value is None else value, status="failed" if value is None else "ok")
        for name, value in seconds.items()
    ]  # fmt: skip


ROWS = [
    *times("softmax", "large.fp16", eager=200e-6, compile=40e-6, kernl=25e-6),
    *times("softmax", "small.fp16", eager=10e-6, compile=None, liger=4e-6, kernl=5e-6),
    *times("linear", "large.fp16", eager=25e-6, compile=50e-6, kernl=40e-6),
    *times("rounded", "large.fp16", eager=40e-6, compile=40e-6, kernl=20e-6),
]


def runs(**changed: object) -> pd.DataFrame:
    """One run as a store has it."""
    known = {"run": "r", "machine": MACHINE, "commit": COMMIT, "gpu": "NVIDIA H200"}
    made = {**known, "started_at": pd.Timestamp("2026-01-01", tz="UTC"), **FIGURES, **changed}
    return pd.DataFrame([made])


def source(
    rows: list[dict[str, object]] = ROWS,
    run: pd.DataFrame | None = None,
    costs: dict[tuple[str, str, str], Cost] = COSTS,
) -> Source:
    store = synthetic.Store(synthetic.frame(rows), runs() if run is None else run)
    frozen: dict[str, list[str]] = {}
    for op, case, _ in costs:
        frozen.setdefault(op, []).append(case)
    return Source.of(store, frozen=frozen, opt_in=("rounded",), costs=costs)


def stored_rows(found: Source) -> pd.DataFrame:
    """All that was measured at the one commit."""
    return found.rows(MACHINE, COMMIT)


def derived(found: Source) -> dict[tuple[str, ...], dict[str, object]]:
    frame = roofline.derived(stored_rows(found), found.runs, found.costs)
    return {(each["op"], each["case"], each["variant"]): each for each in frame.to_dict("records")}


def cells(lines: list[str], name: str) -> list[str]:
    """The cells of the one row that begins with a name."""
    (found,) = [line for line in lines if line.startswith(f"| {name} |")]
    return found.strip("| ").split(" | ")[1:]


def test_what_a_stored_time_amounts_to() -> None:
    found = derived(source())
    assert len(found) == sum(each["status"] == "ok" for each in ROWS)
    ours = found["softmax", "large.fp16", "kernl"]
    assert [ours[name] for name in ("bytes_per_s", "flops_per_s", "share")] == pytest.approx(
        [2.4e12, 4e7, 0.8]
    )
    assert ours["bound"] == "memory"
    assert found["linear", "large.fp16", "eager"]["share"] == pytest.approx(0.8)
    assert found["linear", "large.fp16", "eager"]["bound"] == "compute"
    assert found["rounded", "large.fp16", "kernl"]["share"] == pytest.approx(0.5)


def test_of_another_version_or_an_unknown_case_nothing_is_derived() -> None:
    older = [{**each, "version": "0"} for each in times("softmax", "large.fp16", kernl=25e-6)]
    gone = times("softmax", "gone.fp16", kernl=25e-6) + times("gone", "large.fp16", kernl=25e-6)
    models = [{**each, "suite": "models"} for each in times("softmax", "large.fp16", kernl=25e-6)]
    assert derived(source([*older, *gone, *models])) == {}
    assert derived(source(costs={})) == {}


@pytest.mark.parametrize("seconds", [0.0, -1e-6, math.nan])
def test_of_a_time_that_is_none_nothing_is_derived(seconds: float) -> None:
    assert derived(source(times("softmax", "large.fp16", kernl=seconds))) == {}


@pytest.mark.parametrize(
    "run",
    [
        runs(run="other"),
        runs(machine="nvidia-a100"),
        runs(commit="0" * 40),
        runs().drop(columns=list(FIGURES)),
        *(runs(copy_bytes_per_s=odd, fp16_flops_per_s=odd) for odd in (math.nan, -3e12, "3e12")),
        runs().iloc[:0],
    ],
    ids=["run", "machine", "commit", "none", "nan", "negative", "text", "no runs"],
)
def test_without_ceilings_of_its_own_run_a_time_has_rates_and_no_share(run: pd.DataFrame) -> None:
    found = source(run=run)
    for each in derived(found).values():
        assert float(str(each["bytes_per_s"])) > 0
        assert math.isnan(float(str(each["share"])))
        assert each["bound"] == ""
    with pytest.raises(printing.TableError, match=r"deadbe00 has a share.*Name another commit"):
        roofline_table.report(found, MACHINE, COMMIT)
    page = pages.files(found)["op-softmax.html"].decode()
    told = page.partition("what the same run measured on this GPU: ")[2].partition(".")[0]
    assert told in ("nothing", "products bf16 780, fp32 380 TFLOP/s")
    assert '<td class="number" data-value="2400.0">2,400</td>' in page


def test_the_table_has_means_the_lowest_case_and_what_bounds_the_cases() -> None:
    lines = roofline_table.report(source(), None, COMMIT)
    assert lines[2].endswith(
        "copies 3 TB/s; products fp16 750, bf16 780, fp32 380, fp8 1,500 TFLOP/s."
    )
    assert lines[4] == f"| {' | '.join(roofline_table.HEADINGS)} |"
    assert cells(lines, "softmax") == [
        "2",
        "40 %",  # sqrt(0.8 × 0.2)
        "20 % to 80 %",
        "80 % (1 case)",
        "10 %",  # 0.1 in both
        "50 % (1 case)",  # torch.compile failed in the other
        "35 %",  # sqrt(0.5 × 0.25): compile, then liger
        "2 / 0",
        "small.fp16",
    ]
    assert cells(lines, "linear") == [
        *("1", "50 %", "50 % to 50 %", "50 %", "80 %", "40 %", "80 %", "0 / 1", "large.fp16"),
    ]
    assert cells(lines, "all 2")[:3] == ["3", "43 %", "20 % to 80 %"]  # cbrt(0.8 × 0.2 × 0.5)
    assert cells(lines, "all 2")[-2:] == ["2 / 1", "softmax small.fp16"]
    (apart,) = [place for place, line in enumerate(lines) if line.startswith("Opt-in operators")]
    assert lines[apart:].count(next(x for x in lines if x.startswith("| rounded |"))) == 1
    assert cells(lines[apart:], "rounded")[1:5] == ["50 %", "50 % to 50 %", "50 %", "25 %"]


def test_operators_stand_in_the_order_of_the_frozen_cases() -> None:
    lines = roofline_table.report(source(ROWS[::-1]), None, COMMIT)
    first = [line.split(" | ")[0].strip("| ") for line in lines if line.startswith("| ")]
    names = [name for name in first if name not in ("operator", "---")]
    assert names == ["softmax", "linear", "all 2", "rounded"]


def test_what_is_above_the_roofline_or_has_no_share_is_said() -> None:
    fast = times("softmax", "large.fp16", eager=19e-6, kernl=19.2e-6)
    older = [{**each, "version": "0"} for each in times("linear", "large.fp16", kernl=1e-6)]
    lines = roofline_table.report(source([*fast, *older]), None, COMMIT)
    assert cells(lines, "softmax")[1:5] == [
        "104 %, above the roofline",
        "104 % to 104 %, above the roofline",
        "104 %, above the roofline",
        "105 %, above the roofline",
    ]
    assert "2 of 2 times are above the roofline, the highest softmax large.fp16 eager: 105 %." in (
        lines
    )
    assert lines[-1].startswith("1 of 3 device times have no share: ")
    page = pages.files(source(fast))["op-softmax.html"].decode()
    assert 'data-value="104.167">104 <small>above the roofline</small></td>' in page
    assert not any("above" in line for line in roofline_table.report(source(), None, COMMIT))


def test_ceilings_of_several_runs_are_said_as_a_range() -> None:
    both = pd.concat([runs(), runs(run="s", copy_bytes_per_s=3.1e12)], ignore_index=True)
    rows = times("softmax", "large.fp16", kernl=25e-6)
    assert "copies 3 TB/s;" in roofline.ceilings(stored_rows(source(rows, both)), both)
    rows += times("softmax", "large.fp16", run="s", eager=25e-6)
    found = source(rows, both)
    said = roofline.ceilings(stored_rows(found), found.runs)
    assert said.startswith("copies 3 to 3.1 TB/s; products")


def test_the_page_of_an_operator_has_the_columns() -> None:
    page = pages.files(source())["op-softmax.html"].decode()
    table = page.partition('id="cases-1"')[2]
    head = re.findall(r"<th scope=\"col\"[^>]*>([^<]*)", table)
    named = [name for name in head if name.startswith(("kernl, ", "of the", "bound"))]
    assert named == [
        *("kernl, µs (99 % interval)", "kernl, GB/s", "kernl, TFLOP/s", "of the roofline, %"),
        "bound by",
    ]
    (large,) = re.findall(r"<tr><th scope=row><a[^>]*>large.fp16</a>.*?</tr>", page, re.DOTALL)
    assert (
        '<td class="number" data-value="2400.0">2,400</td>'
        '<td class="number" data-value="4e-05">&lt;0.001</td>'
        '<td class="number" data-value="80.0">80</td><td>memory</td>'
    ) in large
    assert "measured on this GPU: copies 3 TB/s; products fp16 750" in page


def test_a_case_without_a_time_of_kernl_s_has_dashes() -> None:
    rows = [*ROWS[:3], *times("softmax", "small.fp16", eager=10e-6, kernl=None)]
    page = pages.files(source(rows))["op-softmax.html"].decode()
    (small,) = re.findall(r"<tr><th scope=row><a[^>]*>small.fp16</a>.*?</tr>", page, re.DOTALL)
    assert '<td class="number" data-value="">–</td>' * 3 + "<td>–</td>" in small


def test_without_costs_a_page_has_no_such_columns() -> None:
    page = pages.files(source(costs={}))["op-softmax.html"].decode()
    assert "roofline" not in page
    assert "GB/s" not in page


def test_hostile_names_stay_text_in_their_cells() -> None:
    rows, costs = [], {}
    for name in (*ATTACKS, "a | b\\| c", "`x` **y** [z](w) @all ~~s~~", "\x1b[2J\x9b31m"):
        rows += [{**each, "version": name} for each in times(name, name, eager=1e-6, kernl=5e-6)]
    frame = stored_rows(source(rows))
    for op, case, version in zip(*(frame[n] for n in ("op", "case", "version")), strict=True):
        costs[op, case, version] = SMALL
    lines = roofline_table.report(source(rows, costs=costs), None, COMMIT)
    assert sum(line.startswith("| ") for line in lines) > len(ATTACKS)
    for line in lines:
        assert line.isprintable()
        assert not set(line) & set("<>`[]*@{}~\\")
        if line.startswith("|"):
            assert line.count("|") == len(roofline_table.HEADINGS) + 1, line


def stored(folder: Path) -> list[str]:
    """Arguments that name results of two frozen cases of softmax, as asv and the journal have them.

    Both cases take 20 µs by kernl and 40 µs by eager.
    """
    names = cases.load().kernel_cases("softmax")[:2]
    made = [each for name in names for each in times("softmax", name, eager=4e-5, kernl=2e-5)]
    write_asv(synthetic.Store(synthetic.frame(made), synthetic.runs_frame([])), folder / "results")
    with Journal(folder / "results" / MACHINE / f"{COMMIT[:8]}-worktree.points.jsonl") as journal:
        run = journal.start_run(COMMIT, MACHINE, {"gpu": "NVIDIA H200", **FIGURES})
        for each in made:
            journal.append_point(
                run=run, suite="kernels", op="softmax", case=str(each["case"]),
                variant=str(each["variant"]), version=1, status="ok",
                values={"time": float(str(each["value"]))},
            )  # fmt: skip
    return ["--results", str(folder / "results")]


def test_the_command_prints_the_table_of_stored_results(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = stored(tmp_path)
    assert table.main([COMMIT[:8], "--roofline", *where]) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    frozen = cases.load()
    names = frozen.kernel_cases("softmax")[:2]
    costs = [cost for name in names if (cost := frozen.cost("softmax", name))]
    shares = [cost.bytes / 3e12 / 2e-5 for cost in costs]
    found = cells(shown.out.splitlines(), "softmax")
    assert found[:2] == ["2", f"{100 * math.sqrt(shares[0] * shares[1]):.1f} %"]
    assert found[-2:] == ["2 / 0", names[shares.index(min(shares))]]
    assert build.main([*where, "--output", str(tmp_path / "site")]) == 0
    page = (tmp_path / "site" / "op-softmax.html").read_text()
    assert f">{costs[0].bytes / 2e-5 / 1e9:.3g}</td>" in page


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (["--suite", "models"], "--roofline of models: nobody counts what they move and compute"),
        (["--losses", "3"], "not allowed with argument"),
    ],
)
def test_the_command_refuses_what_has_no_roofline(
    asked: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        table.main(["HEAD", "--roofline", *asked])
    assert stopped.value.code == 2
    assert words in capsys.readouterr().err


def test_the_command_refuses_a_commit_without_shares(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = stored(tmp_path)
    (journal,) = (tmp_path / "results" / MACHINE).glob("*.points.jsonl")
    journal.unlink()
    assert table.main([COMMIT[:8], "--roofline", *where]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("table: no time of kernl at commit deadbe00 has a share")


def test_the_readme_shows_what_the_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (commit,) = set(re.findall(r"dashboards\.table (\w+) --without-edges --roofline", readme))
    assert table.main([commit, "--without-edges", "--roofline"]) == 0
    printed = capsys.readouterr().out.splitlines()
    heading = next(line for line in printed if line.startswith("| operator |"))
    _, _, shown = readme.partition(f"{heading}\n")
    rows = shown.split("\n\n")[0].splitlines()
    assert len(rows) > 4
    assert [line for line in rows if line not in printed] == []
