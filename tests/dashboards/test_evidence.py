"""What is kept of a side's samples."""

import math
from dataclasses import replace

import numpy as np
import pytest

from benchmarks import record
from benchmarks.compare import compare_samples
from dashboards.data import evidence
from dashboards.data.evidence import Evidence, of_samples
from tests.dashboards import synthetic
from tests.dashboards.synthetic import row

TIMES = [1.0e-5, 1.1e-5, 0.9e-5, 1.05e-5, 0.98e-5, 1.2e-5]
EAGER = [2.0e-5, 2.2e-5, 1.9e-5, 2.05e-5, 2.0e-5, 2.3e-5]


def is_known(evidence: Evidence) -> tuple[bool, bool]:
    """Whether the samples decide something, and whether eager's can be divided out."""
    return not math.isnan(evidence.mean), not math.isnan(evidence.residual_mean)


def of_rows(*rows: dict[str, object]) -> dict[tuple[str, str], Evidence]:
    """(suite, case) → the evidence of kernl's time in rows of one commit."""
    (one,) = record.of_frame(synthetic.frame(list(rows)))
    places, found = evidence.of_record(one)
    frame = one.frame(places)
    assert set(frame["variant"]) <= {"kernl"}
    names = zip(frame["suite"], frame["case"], strict=True)
    return {
        name: Evidence(int(numbers[0]), *numbers[1:].tolist())
        for name, numbers in zip(names, found, strict=True)
    }


def ours(**fields: object) -> dict[str, object]:
    return row(**{"value": 1e-5, "samples": tuple(TIMES), "run": "a", **fields})


def eager(**fields: object) -> dict[str, object]:
    return ours(**{"variant": "eager", "samples": tuple(EAGER), **fields})


CASE = ("kernels", "rows8_cols8.fp16")


def test_the_numbers_are_those_of_the_logarithms() -> None:
    found = of_samples(TIMES, EAGER)
    logs = np.log(TIMES)
    residuals = logs - np.log(EAGER)
    assert found.count == 6
    assert [found.mean, found.residual_mean] == [logs.mean(), residuals.mean()]
    assert [found.variance, found.residual_variance] == [logs.var(ddof=1), residuals.var(ddof=1)]
    assert found.spread == pytest.approx(1.4826 * np.median(abs(logs - np.median(logs))), rel=1e-15)


def test_two_sides_make_the_effect_and_the_threshold_of_the_gate() -> None:
    slower = [1.3 * time for time in TIMES]
    test = compare_samples(TIMES, slower, EAGER, EAGER)
    base, head = of_samples(TIMES, EAGER), of_samples(slower, EAGER)
    assert test.drift_removed
    assert test.log_effect == head.residual_mean - base.residual_mean
    assert test.threshold == 3 * max(base.residual_spread, head.residual_spread)


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
def test_samples_that_are_no_times_decide_nothing(bad: float) -> None:
    assert is_known(of_samples([*TIMES, bad], [*EAGER, 1.0])) == (False, False)
    assert is_known(of_samples([*TIMES, 1.0], [*EAGER, bad])) == (True, False)


def test_too_few_samples_decide_nothing() -> None:
    assert is_known(of_samples(TIMES[:4])) == (False, False)
    assert is_known(of_samples(TIMES[:5])) == (True, False)
    assert of_samples([]).count == 0


def test_other_samples_than_those_taken_beside_are_no_drift() -> None:
    assert is_known(of_samples(TIMES, EAGER[1:])) == (True, False)


@pytest.mark.parametrize(
    ("control", "counts"),
    [
        (eager(), True),
        (eager(run="b"), False),
        (eager(status="failed"), False),
        (eager(value=math.nan), False),
        (None, False),
        (eager(case="rows8_cols16.fp16"), False),
        (eager(op="linear"), False),
        (eager(suite="models"), False),
        (eager(metric="other"), False),
        (eager(variant="compile"), False),
    ],
)
def test_eager_counts_where_it_is_good_and_of_the_same_run(
    control: dict[str, object] | None, counts: bool
) -> None:
    for rows in ([ours(), control], [control, ours()]):
        found = of_rows(*(one for one in rows if one is not None))
        assert is_known(found[CASE]) == (True, counts)
        assert repr(found[CASE]) == repr(of_samples(TIMES, EAGER if counts else ()))


def test_there_is_evidence_of_good_times_of_kernl_alone() -> None:
    others = [
        ours(case="a", status="failed", value=math.nan),
        ours(case="b", status="skipped", value=math.nan),
        ours(case="c", suite="codegen", metric="registers", value=40),
        eager(case="d"),
    ]
    model = ours(suite="models", samples=tuple(EAGER))
    found = of_rows(ours(), *others, model)
    assert list(found) == [CASE, ("models", CASE[1])]
    assert of_rows(*others) == {}
    assert math.isnan(found[CASE].residual_mean)
    assert found["models", CASE[1]].mean == of_samples(EAGER).mean


def test_the_evidence_of_many_rows_is_that_of_each() -> None:
    """All of one count are worked out together; the numbers are the same to the last bit."""
    draw = np.random.default_rng(5)
    rows: list[dict[str, object]] = []
    expected: dict[tuple[str, str], Evidence] = {}
    for number in range(400):
        count, other = draw.choice([0, 1, 4, 5, 6, 20, 30, 31], 2)
        other = count if draw.random() < 0.7 else other
        samples, beside = (
            (10 ** draw.uniform(-7, -1) * np.exp(draw.normal(0, 0.02, some))).tolist()
            for some in (count, other)
        )
        for some in (samples, beside):
            if some and draw.random() < 0.05:
                some[draw.integers(len(some))] = draw.choice([0.0, -1.0, math.nan, math.inf])
        case = f"rows{number}.fp16"
        run = draw.choice(["a", "b"])
        rows.append(ours(case=case, samples=tuple(samples), run=run))
        rows.append(eager(case=case, samples=tuple(beside), run=draw.choice(["a", "b"])))
        expected["kernels", case] = of_samples(samples, beside if rows[-1]["run"] == run else ())
    found = of_rows(*(rows[at] for at in draw.permutation(len(rows))))
    assert found.keys() == expected.keys()
    for key, one in expected.items():
        assert repr(found[key]) == repr(one), key
    known = [is_known(one) for one in expected.values()]
    assert all(known.count(kind) > 50 for kind in ((True, True), (True, False), (False, False)))


def test_words_of_any_number_make_no_two_cases_one() -> None:
    """So many runs that a place of each word, all in one number, would not fit into 64 bits."""
    rows = [one for n in range(40) for one in (ours(case=f"a{n}"), eager(case=f"a{n}", run="b"))]
    rows += [eager(case="a3"), eager(case="a5", suite="models")]
    (one,) = record.of_frame(synthetic.frame(rows))
    filling = list(map(str, range(2**16)))
    many = {name: [*words, *filling][: 2**16] for name, words in one.words.items()}
    for words in (one.words, many):
        places, found = evidence.of_record(replace(one, words=words))
        known = np.flatnonzero(~np.isnan(found[:, 4])).tolist()
        assert [one.frame(places)["case"][row] for row in known] == ["a3"]


def test_of_several_times_of_eager_the_last_counts() -> None:
    others = (eager(case=f"a{n}", samples=tuple(TIMES)) for n in range(40))
    rows = [ours(), *others, eager(case="last")]
    (one,) = record.of_frame(synthetic.frame(rows))
    twice = np.full_like(one.codes["case"], one.codes["case"][0])
    found = evidence.of_record(replace(one, codes={**one.codes, "case": twice}))[1]
    assert found[0, 4:].tolist() == list(vars(of_samples(TIMES, EAGER)).values())[4:]
