"""The verdicts that a browser computes are those of the gate."""

import functools
import itertools
import json
import math
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from benchmarks import compare, record, store
from benchmarks.gate import findings
from benchmarks.gate.stored import MAX_CONTROL_DRIFT, MIN_CONTROL_CASES
from dashboards.data import evidence
from tests.dashboards.chromium import MARKS

pytestmark = MARKS
ROOT = Path(__file__).parents[2]
STATIC = ROOT / "dashboards" / "static"
RESULTS = ROOT / "benchmarks" / "results" / "nvidia-h100-80gb-hbm3"
# JSON has no NaN: it goes in as null, and comes out as a word that float() reads.
CALL = """([name, text]) => JSON.stringify(
  CALLS[name](JSON.parse(text)),
  (key, value) => typeof value === 'number' && !isFinite(value) ? String(value) : value
)"""
CALLS = """
var V = window.KERNL_VERDICTS, O = window.KERNL_OUTCOMES;
var CALLS = {
  families: families => families.map(pairs => {
    const tests = pairs.map(pair => V.test(pair[0], pair[1]));
    return [tests, V.decide(tests)];
  }),
  survival: points => points.map(point => V.survival(point[0], point[1])),
  quantile: points => points.map(point => V.quantile(point[0], point[1])),
  counts: cases => cases.map(one => V.counts(Number(one[0]), Number(one[1]), one[2])),
  general: cases => cases.map(one => V.general(Number(one[0]), one[1])),
  limits: () => [V.limits, O.limits],
  settled: cases => cases.map(one => O.settled(one[0], one[1], one[2])),
  lower: metrics => metrics.map(O.lowerIsBetter),
  drift: O.controlDrift,
  seconds: some => Math.min(...[1, 2, 3].map(() => {
    const pairs = Array(100).fill(some).flat();
    const start = performance.now();
    V.decide(pairs.map(pair => V.test(pair[0], pair[1])));
    return (performance.now() - start) / 1000;
  })),
};
"""
NUMBERS = ("ratio", "low", "high")
Sides = tuple[list[float], list[float], list[float], list[float]]
"""Samples of base and head, then eager's of both."""


class Page:
    """A blank page with the scripts."""

    def __init__(self, page: Any) -> None:
        self._page = page
        self.said: list[str] = []
        page.on("pageerror", lambda error: self.said.append(str(error)))
        for path in (STATIC / "verdicts.js", STATIC / "outcomes.js"):
            page.add_script_tag(path=path)
        page.add_script_tag(content=CALLS)

    def call(self, name: str, argument: Any = None) -> Any:
        found = self._page.evaluate(CALL, [name, json.dumps(sent(argument))])
        assert not self.said
        return json.loads(found)


@pytest.fixture(scope="module")
def page(browser: Any) -> Iterator[Page]:
    opened = browser.new_page()
    yield Page(opened)
    opened.close()


def sent(value: Any) -> Any:
    """A value as a page is given it: evidence by its JavaScript names, NaN as null."""
    if isinstance(value, evidence.Evidence):
        return {camel(name): sent(number) for name, number in vars(value).items()}
    if isinstance(value, dict):
        return {name: sent(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [sent(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@functools.cache
def camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(map(str.capitalize, others))


def same(found: Any, expected: float, tolerance: float) -> bool:
    number = float(found)
    if math.isnan(expected):
        return math.isnan(number)
    return math.isclose(number, expected, rel_tol=tolerance)


def random_case(draw: np.random.Generator) -> Sides:
    """Samples of every kind that a result may hold, sensible ones first of all."""
    scale = 10 ** draw.uniform(-7, -1) if draw.random() < 0.95 else draw.choice([1e-300, 1e300])
    spread = 10 ** draw.uniform(-3, -1)
    effect = draw.uniform(-0.1, 0.1)
    sides, drifts = [], []
    same_count = draw.random() < 0.5
    counts = draw.integers(3, 41, 2)
    for side, count in enumerate(counts[[0, 0]] if same_count else counts):
        common = draw.normal(0, spread, count)
        own, other = draw.normal(0, spread * 10 ** draw.uniform(-2, 0.5), (2, count))
        times = scale * np.exp(common + own) * (1 + effect * side)
        eager = 2 * scale * np.exp(common + other)
        if draw.random() < 0.05:
            times[:] = times[0]
        if draw.random() < 0.01:
            times[draw.integers(count)] = draw.choice([0.0, -1.0, math.nan, math.inf])
        if draw.random() < 0.03:
            eager = eager[1:] if draw.random() < 0.5 else np.append(eager[1:], 0.0)
        sides.append(times.tolist())
        drifts.append(eager.tolist())
    if draw.random() < 0.3:
        drifts = [[], []]
    return sides[0], sides[1], drifts[0], drifts[1]


def pair(case: Sides) -> list[evidence.Evidence]:
    return [evidence.of_samples(case[side], case[side + 2]) for side in (0, 1)]


def assert_same_test(found: dict[str, Any], expected: compare.SampleTest) -> None:
    for name, value in vars(expected).items():
        if name.startswith("p_"):
            assert same(found[camel(name)], value, 1e-8) or value < 1e-200
        elif isinstance(value, float):
            # Python squares by pow(), which may differ in the last digit.
            assert same(found[camel(name)], value, 1e-14 if name == "degrees" else 0), name
        else:
            assert found[camel(name)] == value


def assert_same_comparison(found: dict[str, Any], expected: Any) -> None:
    """`expected` is a Comparison or a Finding."""
    for name in NUMBERS:
        assert same(found[name], getattr(expected, name), 1e-9)
    assert found["reason"] == expected.reason


def test_random_families_are_judged_alike(page: Page) -> None:
    draw = np.random.default_rng(7)
    sizes = [*np.exp(math.log(500) * draw.random(1000) ** 16).astype(int), 1, 500]
    families = [[random_case(draw) for _ in range(size)] for size in sizes]
    found = page.call("families", [[pair(case) for case in family] for family in families])
    seen: Counter[str] = Counter()
    for family, (tests, decided) in zip(families, found, strict=True):
        expected = [compare.compare_samples(*case) for case in family]
        comparisons = compare.decide(expected)
        assert [one["verdict"] for one in decided] == [one.verdict for one in comparisons]
        for test, wanted in zip(tests, expected, strict=True):
            assert_same_test(test, wanted)
            seen["problem" if wanted.problem else str(wanted.drift_removed)] += 1
        for one, comparison in zip(decided, comparisons, strict=True):
            assert_same_comparison(one, comparison)
            seen[comparison.verdict] += 1
    kinds = ("pass", "regressed", "improved", "unstable", "problem", "True", "False")
    assert min(seen[kind] for kind in kinds) > 100, seen


def test_samples_without_noise_are_judged_alike(page: Page) -> None:
    ones, more = [1.0] * 6, [1.1] * 6
    cases = [(ones, ones, [], []), (ones, more, [], []), (more, ones, ones, ones)]
    cases += [(ones, [1.0] * 5 + [1.0 + 1e-16], [], []), (ones, [1.0] * 5 + [1.0 + 1e-15], [], [])]
    cases += [([1e-300] * 6, [1e300] * 6, [], [])]
    (found,) = page.call("families", [[pair(case) for case in cases]])
    expected = compare.decide([compare.compare_samples(*case) for case in cases])
    assert [one["verdict"] for one in found[1]] == [one.verdict for one in expected]
    for one, comparison in zip(found[1], expected, strict=True):
        assert_same_comparison(one, comparison)


def test_nothing_is_decided_of_no_case(page: Page) -> None:
    assert page.call("families", [[]]) == [[[], []]]


def test_ten_thousand_cases_are_judged_at_once(page: Page) -> None:
    """They take a fifth of a second; the limit is for a machine that has other work."""
    draw = np.random.default_rng(3)
    some = [pair(random_case(draw)) for _ in range(100)]
    assert page.call("seconds", some) < 10


def test_limits_are_those_of_the_gate(page: Page) -> None:
    names = ("min_samples", "min_effect", "spread_factor", "false_discovery_rate",
             "max_detectable", "power", "confidence")  # fmt: skip
    control = {"maxControlDrift": MAX_CONTROL_DRIFT, "minControlCases": MIN_CONTROL_CASES}
    limits = {camel(name): getattr(compare, name.upper()) for name in names}
    assert page.call("limits") == [limits, control]


def test_students_distribution_is_that_of_scipy(page: Page) -> None:
    sizes = [0.0, *np.geomspace(1e-6, 1e6, 40), 1.7, 1.73, 1.75]
    degrees = [0.7, 1, 2, 3.3, 4, 4.000001, 5.5, 7, 12.25, 19, 31.9, 38, 77.7, 500, 12345.6]
    points = [(sign * t, df) for t in sizes for df in degrees for sign in (1, -1)]
    for (t, df), found in zip(points, page.call("survival", points), strict=True):
        expected = float(stats.t.sf(t, df))
        assert same(found, expected, 1e-10) or expected < 1e-200, (t, df)
    chances = [1e-100, 1e-12, 1e-7, 1e-5, 1e-3, 0.005, 0.01, 0.2, 0.4, 0.5, 0.8, 0.999]
    asked = [(chance, df) for chance in chances for df in degrees]
    for (chance, df), found in zip(asked, page.call("quantile", asked), strict=True):
        assert same(found, float(stats.t.isf(chance, df)), 1e-10), (chance, df)


def test_counts_are_compared_alike(page: Page) -> None:
    values = [0.0, -0.0, 1.0, 2.0, 0.5, 255.0, 1e-320, 1e308, -1.0, -2.5e-5, -1234565.0]
    values += [math.nan, math.inf, -math.inf]
    cases = list(itertools.product(values, values, (True, False)))
    asked = [(number(base), number(head), lower) for base, head, lower in cases]
    for case, found in zip(cases, page.call("counts", asked), strict=True):
        expected = compare.compare_counts(*case)
        assert found["verdict"] == expected.verdict, case
        assert_same_comparison(found, expected)


def number(value: float) -> str:
    """As JavaScript's Number() reads it."""
    return {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}.get(repr(value), repr(value))


def test_numbers_are_written_alike(page: Page) -> None:
    values = [0.0, -0.0, 1.0, 10.0, 100.0, 999.5, 1000.0, 12.25, 12.35, 1234565.0, 1e-5, 1.5e-4]
    values += [1e20, -3e-310, 123456.5, math.inf, -math.inf, math.nan]
    values += np.random.default_rng(1).lognormal(0, 30, 200).tolist()
    cases = [(value, digits) for value in values for digits in (3, 6)]
    found = page.call("general", [(number(value), digits) for value, digits in cases])
    assert found == [f"{value:.{digits}g}" for value, digits in cases]


PRINT = {"gpu": "H100", "driver": "1", "torch": "2", "triton": "3", "ptxas": "4"}


def stored_row(status: str, reason: str, version: str, value: float = 2.0) -> findings.Row:
    key = {"machine": "m", "op": "o", "metric": "time", "case": "c", "variant": "kernl"}
    good = value if status == "ok" else math.nan
    row = {"status": "ok" if status == "nan" else status, "value": good, "run": version}
    return {**key, **row, "reason": reason, "version": version, "samples": [value] * 6}


def asked(row: findings.Row | None, runs: findings.Runs) -> dict[str, Any] | None:
    """A row as a page has it."""
    if row is None:
        return None
    kept = {name: row[name] for name in ("status", "value", "version", "reason")}
    return {**kept, "run": dict(runs.get(row["run"], {}))}


def assert_settled_alike(
    page: Page, suite: str, pairs: Sequence[tuple[Any, Any]], runs: findings.Runs
) -> set[str]:
    """Whether each pair is settled without its numbers as the gate says; returns the outcomes."""
    cases = [(suite, asked(base, runs), asked(head, runs)) for base, head in pairs]
    seen: set[str] = set()
    for (base, head), found in zip(pairs, page.call("settled", cases), strict=True):
        old, new = ([{**row, "suite": suite}] if row else [] for row in (base, head))
        (expected,) = findings.find(old, new, runs)
        if found is None:
            assert not math.isnan(expected.ratio)
        else:
            assert (found["outcome"], found["reason"]) == (expected.outcome, expected.reason)
            assert math.isnan(expected.ratio)
            seen.add(expected.outcome)
    return seen


def test_rows_without_numbers_are_settled_alike(page: Page) -> None:
    reasons = ("", " why ", "left out of this run", "left out of the quick profile")
    rows = [
        stored_row(*kind)
        for kind in itertools.product(("ok", "nan", "failed", "skipped"), reasons, ("1", "2"))
    ]
    sides = [None, *rows]
    pairs = [both for both in itertools.product(sides, sides) if both != (None, None)]
    seen = assert_settled_alike(page, "kernels", pairs, {"1": PRINT, "2": PRINT})
    wanted = {"failed", "failing", "undecided", "version", "fixed", "new", "skipped", "missing"}
    assert seen == wanted


@pytest.mark.parametrize("suite", findings.SAME)
def test_runs_that_differ_are_not_compared(page: Page, suite: str) -> None:
    other = {**PRINT, "transformers": "5"}
    known: list[dict[str, Any]] = [{}, PRINT, other]
    known += [{**other, key: value} for key in other for value in ("", " 9", None, math.nan)]
    runs = {str(index): run for index, run in enumerate(known)}
    rows = [{**stored_row("ok", "", "1"), "run": run} for run in runs]
    pairs = list(itertools.product(rows, rows))
    assert assert_settled_alike(page, suite, pairs, runs) == {"undecided"}


def test_values_that_are_no_times_are_not_compared(page: Page) -> None:
    rows = [stored_row("ok", "", "1", value) for value in (2.0, 0.0, -1.5)]
    pairs = list(itertools.product(rows, rows))
    assert assert_settled_alike(page, "kernels", pairs, {"1": PRINT}) == {"undecided"}


def test_which_metrics_are_better_when_higher(page: Page) -> None:
    metrics = ["registers", "time", *sorted(findings.HIGHER_IS_BETTER)]
    expected = [metric not in findings.HIGHER_IS_BETTER for metric in metrics]
    assert page.call("lower", metrics) == expected


@pytest.fixture(scope="module")
def two_sweeps(tmp_path_factory: pytest.TempPathFactory) -> store.Store:
    """The two commits that most is stored of."""
    folder = tmp_path_factory.mktemp("results") / RESULTS.name
    folder.mkdir()
    files = sorted(RESULTS.glob("*-*.json"), key=lambda path: path.stat().st_size)[-2:]
    for file in files:
        for path in RESULTS.glob(f"{file.stem}.*"):
            shutil.copy(path, folder)
    shutil.copy(RESULTS / "machine.json", folder)
    return store.load(folder.parent)


def test_stored_commits_are_judged_as_the_gate_judges_them(
    page: Page, two_sweeps: store.Store
) -> None:
    frame = two_sweeps.rows
    frame = frame[frame["suite"].isin(findings.TIMED) & frame["variant"].isin(["kernl", "eager"])]
    commits = frame.sort_values("committed_at")["commit"].unique()
    base, head = ([dict(row) for row in frame[frame["commit"] == commit].to_dict("records")]
                  for commit in commits)  # fmt: skip
    runs = {str(run["run"]): dict(run) for run in two_sweeps.runs.to_dict("records")}
    expected = {one.key: one for one in findings.find(base, head, runs)}
    prints = {
        name: {key: run[key] for keys in findings.SAME.values() for key in keys}
        for name, run in runs.items()
    }
    olds, news = by_key(base), by_key(head)
    keys = list(expected)
    rows = [(key.suite, asked(olds.get(key), prints), asked(news.get(key), prints)) for key in keys]
    compared = []
    for key, settled in zip(keys, page.call("settled", rows), strict=True):
        if settled is None:
            compared.append(key)
        else:
            assert settled == {"outcome": expected[key].outcome, "reason": expected[key].reason}
    controls = [key._replace(variant="eager") for key in compared]
    kept = [evidence_of(frame[frame["commit"] == commit]) for commit in commits]
    pairs = [[side[key] for side in kept] for key in compared]
    ((tests, decided),) = page.call("families", [pairs])
    assert len(compared) > 100
    for key, test, one in zip(compared, tests, decided, strict=True):
        assert one["verdict"] == expected[key].outcome
        assert test["driftRemoved"] == expected[key].drift_removed
        assert_same_comparison(one, expected[key])
    judged = [
        {
            "ratio": None if one["ratio"] == "NaN" else one["ratio"],
            "driftRemoved": test["driftRemoved"],
            "eagerBase": good_value(olds.get(key)),
            "eagerHead": good_value(news.get(key)),
        }
        for key, test, one in zip(controls, tests, decided, strict=True)
    ]
    drifts = findings.control_drift(expected.values(), base, head)
    for suite, (ratio, cases) in drifts.items():
        of_suite = [row for key, row in zip(controls, judged, strict=True) if key.suite == suite]
        blocks = cases >= MIN_CONTROL_CASES and abs(ratio - 1) > MAX_CONTROL_DRIFT
        found = page.call("drift", of_suite)
        assert found == {"ratio": pytest.approx(ratio), "cases": cases, "blocks": blocks}


def evidence_of(rows: pd.DataFrame) -> dict[findings.Key, evidence.Evidence]:
    """The evidence of kernl's times at one commit."""
    (one,) = record.of_frame(rows)
    places, found = evidence.of_record(one)
    return {
        key: evidence.Evidence(int(numbers[0]), *numbers[1:].tolist())
        for key, numbers in zip(by_key(one.frame(places).to_dict("records")), found, strict=True)
    }


def by_key(rows: Sequence[findings.Row]) -> dict[findings.Key, findings.Row]:
    return {findings.Key(*(str(row[name]) for name in findings.Key._fields)): row for row in rows}


def good_value(row: findings.Row | None) -> float:
    return row["value"] if row is not None and row["status"] == "ok" else math.nan
