"""The gate over stored times, by what lies between two commits: `benchmarks.gate.reached`."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import known_noise, store
from benchmarks.gate import stored
from benchmarks.gate.reached import MANY, codes_of, reached_by
from benchmarks.gate.report import Report
from tests.suite.gate_rows import BASE, HEAD, TODAY, gate, outcomes, row, timing

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
MACHINE = "nvidia-h100-80gb-hbm3"
SAME_OPERATORS = "88fc9a04", "30208d4c"
"""Between these two commits no operator's files changed."""
CASE = "rows1_cols1.fp16"


@pytest.fixture
def only_linear_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored, "reached_by", lambda *_: lambda suite, op: op == "linear")


def both(head: float, op: str = "linear", **fields: Any) -> list[dict[str, Any]]:
    """A case that takes 10 µs on base, and `head` times as long on head."""
    own = {"op": op, "case": CASE, **fields}
    return [timing(BASE, 1e-5, **own), timing(HEAD, head * 1e-5, **own)]


def still(head: Sequence[float]) -> list[dict[str, Any]]:
    """Cases whose files did not change, so many times as slow on head."""
    each = [
        both(factor, "softmax", case=f"rows{at}_cols1.fp16") for at, factor in enumerate(head, 1)
    ]
    return [one for case in each for one in case]


def of_linear(report: Report) -> tuple[str, str]:
    (found,) = [one for one in report.findings if one.key.op == "linear"]
    return found.outcome, found.reason


@pytest.mark.usefixtures("only_linear_changed")
def test_what_no_file_can_have_changed_passes_however_its_time_moved() -> None:
    report = gate(*both(1.5, "softmax"), *both(1.0))
    assert report.exit_code == 0
    assert outcomes(report) == ["pass", "pass"]
    (moved,) = [one for one in report.findings if one.key.op == "softmax"]
    assert "every file that it depends on says the same" in moved.reason
    assert moved.ratio == pytest.approx(1.5)
    assert any("1 case of kernels" in note for note in report.notes)


@pytest.mark.usefixtures("only_linear_changed")
def test_what_fails_is_a_regression_whatever_the_files_say() -> None:
    broken = row(HEAD, "kernels", op="softmax", case=CASE, status="failed", reason="NaN")
    report = gate(timing(BASE, op="softmax", case=CASE), broken, *both(1.0))
    assert report.exit_code == 1
    assert outcomes(report) == ["failed", "pass"]


@pytest.mark.usefixtures("only_linear_changed")
def test_what_changed_has_to_move_further_than_other_implementations() -> None:
    assert of_linear(gate(*both(1.2)))[0] == "regressed"
    assert of_linear(gate(*both(1.2), *both(1.1, variant="compile")))[0] == "regressed"
    report = gate(*both(1.2), *both(1.19, variant="compile"))
    outcome, reason = of_linear(report)
    assert (outcome, report.exit_code) == ("undecided", 2)
    assert "0.8 % more than other implementations of the case" in reason
    assert "--measure" in reason
    # What went the other way explains nothing, and a faster time that is explained is a pass.
    assert of_linear(gate(*both(1.2), *both(0.8, variant="compile")))[0] == "regressed"
    assert of_linear(gate(*both(0.8), *both(0.81, variant="library")))[0] == "pass"
    assert of_linear(gate(*both(0.8), *both(0.9, variant="library")))[0] == "improved"


def test_parts_of_kernl_are_no_witness() -> None:
    def told(witness: str) -> list[str]:
        return outcomes(gate(*both(1.2), *both(1.2, variant=witness)))

    assert told("kernl_graphs_only") == told("kernl_rewrite_only") == ["regressed"]
    assert told("cudagraph") == ["undecided"]


def test_others_are_compared_less_eager_where_eager_was_divided_out() -> None:
    """Eager and compile slowed down by a tenth, kernl by less than compile over eager."""
    ramp = [1 + 0.01 * at for at in range(20)]

    def case(variant: str, head: float) -> list[dict[str, Any]]:
        made = []
        for commit, factor in ((BASE, 1.0), (HEAD, head)):
            samples = tuple(
                1e-5 * factor * one * (1 + 0.0001 * (at % 3 + len(variant)))
                for at, one in enumerate(ramp)
            )
            made.append(timing(commit, 1e-5 * factor, variant=variant, samples=samples))
        return made

    assert outcomes(gate(*case("kernl", 1.21), *case("eager", 1.1))) == ["regressed"]
    witness = case("compile", 1.22)
    report = gate(*case("kernl", 1.21), *case("eager", 1.1), *witness)
    assert report.findings[0].drift_removed
    assert outcomes(report) == ["undecided"]


@pytest.mark.usefixtures("only_linear_changed")
def test_what_changed_has_to_move_further_than_what_cannot_have() -> None:
    noisy = still([1.1 if at % 20 == 0 else 1.0 for at in range(2 * MANY)])
    report = gate(*both(1.08), *noisy)
    outcome, reason = of_linear(report)
    assert (outcome, report.exit_code) == ("undecided", 2)
    assert "where 10.0 % may be chance" in reason
    assert any("99 % of them moved by at most 10.0 %" in note for note in report.notes)
    assert of_linear(gate(*both(1.15), *noisy))[0] == "regressed"
    calm = still([1.0] * MANY)
    assert of_linear(gate(*both(1.05), *calm))[0] == "regressed"
    # A few of them tell nothing: two runs may differ by 7 %.
    assert of_linear(gate(*both(1.05), *calm[2:]))[0] == "undecided"
    assert of_linear(gate(*both(1.08), *calm[2:]))[0] == "regressed"


@pytest.mark.usefixtures("only_linear_changed")
def test_a_case_that_is_known_to_be_noisy_has_to_move_further(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def known(machine: str) -> known_noise.KnownNoise:
        session = known_noise.Session(0.05, 0.0)
        return known_noise.KnownNoise({("linear", CASE): [session], ("linear", "other"): []})

    monkeypatch.setattr(known_noise, "load", known)
    assert of_linear(gate(*both(1.15)))[0] == "undecided"
    assert of_linear(gate(*both(1.17)))[0] == "regressed"


def test_on_a_machine_that_changed_a_slower_time_is_no_regression() -> None:
    cases = [f"rows{rows}_cols1.fp16" for rows in range(12)]
    rows = [one for case in cases for one in both(1.3, case=case)]
    calm = [one for case in cases for one in both(1.0, case=case, variant="eager", samples=())]
    slow = [one for case in cases for one in both(1.05, case=case, variant="eager", samples=())]
    assert gate(*rows, *calm).exit_code == 1
    report = gate(*rows, *slow)
    assert report.exit_code == 2
    assert set(outcomes(report)) == {"undecided"}
    assert "the machine changed" in report.findings[0].reason


def test_where_git_knows_no_commit_everything_can_have_changed(tmp_path: Path) -> None:
    reached = reached_by(codes_of(tmp_path), BASE, HEAD)
    assert reached("kernels", "softmax")
    assert reached("models", "bert_base")
    assert outcomes(gate(*both(1.2), repository=tmp_path)) == ["regressed"]


def test_two_stored_runs_of_the_same_kernels_are_no_regression(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By their samples alone 54 cases are slower and 36 faster."""
    (tmp_path / MACHINE).mkdir()
    for path in [RESULTS / "benchmarks.json", RESULTS / MACHINE / "machine.json"]:
        shutil.copy(path, tmp_path / path.relative_to(RESULTS))
    for name in SAME_OPERATORS:
        for path in (RESULTS / MACHINE).glob(f"{name}-*"):
            shutil.copy(path, tmp_path / MACHINE)
    found = store.load(tmp_path)
    base, head = (
        next(one for one in set(found.rows["commit"]) if one.startswith(name))
        for name in SAME_OPERATORS
    )
    times = found.rows[(found.rows["variant"] == "kernl") & (found.rows["metric"] == "time")]
    by_case = times.pivot_table(index=["op", "case"], columns="commit", values="value").dropna()
    assert len(by_case) == 1096
    assert (np.log(by_case[head] / by_case[base]).abs() > 0.05).sum() == 83

    def counts() -> dict[str, int]:
        chosen = (found.rows, found.runs, base, head)
        return stored.judge(*chosen, today=TODAY, suite="kernels", repository=tmp_path).counts

    # Git knows nothing there: other implementations and what is known of noise have to tell.
    alone = counts()
    assert alone["regressed"] == 2
    assert alone["undecided"] > 50
    monkeypatch.setattr(stored, "reached_by", lambda *_: lambda suite, op: False)
    told = counts()
    assert told["pass"] == 1096
    assert not {"regressed", "improved", "unstable"} & told.keys()
