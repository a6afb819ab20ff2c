"""The gate over latencies of whole models, which it judges together with those of operators."""

from typing import Any

import pandas as pd
import pytest

from benchmarks.gate.findings import GATED
from benchmarks.gate.report import Report, group, sentence, to_markdown
from benchmarks.models import IMPLEMENTATIONS
from tests.suite.gate_rows import BASE, GPU_MACHINE, HEAD, gate, outcomes, row, runs_frame
from tests.suite.gate_rows import timing as kernel

CASE = "batch1_seq128.fp16"
PARTS = tuple(name for name in IMPLEMENTATIONS if name.startswith("kernl_"))


def model(commit: str, seconds: float = 2e-3, **fields: Any) -> dict[str, Any]:
    """A row of the suite of models with 20 quiet samples."""
    samples = tuple(seconds * (1 + 0.001 * (i % 5)) for i in range(20))
    own = {"op": "bert_base", "case": CASE, "value": seconds, "samples": samples}
    return row(commit, "models", **{**own, **fields})


def judged(*rows: dict[str, Any], transformers: str = "5.23.0", **options: Any) -> Report:
    """The gate's report; `transformers` is the version on head."""
    kernels = runs_frame()
    models = kernels[kernels["run"].str.endswith("-kernels")].assign(transformers="5.23.0")
    models["run"] = models["run"].str.replace("-kernels", "-models")
    models.loc[models["commit"] == HEAD, "transformers"] = transformers
    return gate(*rows, runs=pd.concat([kernels, models]), **options)


def text(said: Any) -> str:
    return "\n".join(said)


def test_a_model_that_is_10_percent_slower_is_a_regression_and_is_called_a_model() -> None:
    report = judged(model(BASE), model(HEAD, 2.2e-3))
    assert report.exit_code == 1
    assert outcomes(report) == ["regressed"]
    (words,) = [sentence(each) for each in group(report.findings)]
    assert words.startswith(
        f"model bert_base {CASE} on {GPU_MACHINE}: time 2 ms → 2.2 ms (+10 %, 99 % interval +9."
    )
    assert f"model bert_base {CASE}" in to_markdown(report)
    assert "separate processes" in text(report.notes)


def test_an_unchanged_model_passes() -> None:
    report = judged(model(BASE), model(HEAD))
    assert report.exit_code == 0
    assert outcomes(report) == ["pass"]
    assert outcomes(judged(model(BASE), model(HEAD, 1.8e-3))) == ["improved"]


def test_a_model_that_breaks_is_a_regression() -> None:
    broken = row(HEAD, "models", op="bert_base", case=CASE, status="failed", reason="off by 3e-1")
    report = judged(model(BASE), broken)
    assert outcomes(report) == ["failed"]
    assert report.exit_code == 1


def test_only_kernl_itself_is_judged_and_no_part_of_it() -> None:
    assert len(PARTS) == 2
    assert GATED in IMPLEMENTATIONS
    others = [name for name in IMPLEMENTATIONS if name != GATED]
    slower = [model(BASE, variant=name, samples=()) for name in others]
    slower += [model(HEAD, 4e-3, variant=name, samples=()) for name in others]
    report = judged(model(BASE), model(HEAD), *slower)
    assert report.exit_code == 0
    assert outcomes(report) == ["pass"]
    # Parts alone are not a comparison.
    parts = [model(commit, variant=name) for name in PARTS for commit in (BASE, HEAD)]
    assert judged(*parts).exit_code == 2


def test_a_suite_can_be_chosen() -> None:
    rows = [kernel(BASE), kernel(HEAD), model(BASE), model(HEAD, 2.2e-3)]
    assert judged(*rows).exit_code == 1
    assert judged(*rows, suite="models").exit_code == 1
    report = judged(*rows, suite="kernels")
    assert report.exit_code == 0
    assert outcomes(report) == ["pass"]


def test_models_are_judged_in_one_family_with_operators() -> None:
    """A change that is found alone is not found among many that are looked at."""
    noisy = (*(2e-3,) * 4, 2.06e-3)
    slow = tuple(1.035 * seconds for seconds in noisy)
    doubtful = [model(BASE, samples=noisy), model(HEAD, 2.07e-3, samples=slow)]
    (alone,) = judged(*doubtful).findings
    assert alone.reason.startswith("slower by more than the noise of its samples")
    many = [f"rows{rows}_cols1.fp16" for rows in range(400)]
    quiet = [kernel(commit, case=case) for case in many for commit in (BASE, HEAD)]
    among = judged(*doubtful, *quiet)
    found = {f.key.suite: f.outcome for f in among.findings}
    assert found["kernels"] == "pass"
    assert found["models"] == "unstable"


@pytest.mark.parametrize("version", ["5.24.0", ""])
def test_another_transformers_is_another_model(version: str) -> None:
    report = judged(model(BASE), model(HEAD), transformers=version)
    assert outcomes(report) == ["undecided"]
    assert "transformers" in report.findings[0].reason
    assert report.exit_code == 2
    # Operators do not call transformers.
    assert judged(kernel(BASE), kernel(HEAD), transformers=version).exit_code == 0


def test_models_on_one_side_only_are_said_and_decide_nothing() -> None:
    rows = [kernel(BASE), kernel(HEAD), model(BASE)]
    report = judged(*rows)
    assert report.exit_code == 0
    assert f"models: {GPU_MACHINE} has results for base only" in text(report.notes)
    assert judged(*rows, suite="models").exit_code == 2


def test_a_host_that_slowed_down_is_seen_behind_operators_that_did_not_move() -> None:
    cases = [f"batch{batch}_seq128.fp16" for batch in range(1, 13)]
    rows = [model(commit, case=case) for case in cases for commit in (BASE, HEAD)]
    many = [f"rows{number}_cols1.fp16" for number in range(30)]
    eager: dict[str, Any] = {"variant": "eager", "samples": ()}
    rows += [kernel(commit, case=case) for case in many for commit in (BASE, HEAD)]
    rows += [kernel(commit, case=case, **eager) for case in many for commit in (BASE, HEAD)]
    rows += [model(BASE, 4e-3, case=case, **eager) for case in cases]
    assert judged(*rows, *[model(HEAD, 4e-3, case=case, **eager) for case in cases]).exit_code == 0
    report = judged(*rows, *[model(HEAD, 4.2e-3, case=case, **eager) for case in cases])
    assert report.exit_code == 2
    assert "eager of models" in text(report.blockers)
    assert "moved by +5.0 % (median of 12 cases)" in text(report.blockers)


def test_suites_without_results_are_one_note() -> None:
    codegen = [row(commit, "codegen") for commit in (BASE, HEAD)]
    assert "kernels, models: no results on either side" in gate(*codegen).notes
