"""What a page loads is JSON that is safe in a script, however it was written."""

import base64
import json
import math
from typing import Any

import numpy as np
import pytest

from dashboards import text
from dashboards.loaded.columns import DIGITS_WIDE, Written, five_digits, packed, script
from tests.dashboards.synthetic import row
from tests.dashboards.test_shards import loaded, source_of, written

HOSTILE = "</script>&\u2028é"


def value_of(found: bytes) -> Any:
    return json.loads(found.decode("ascii").removesuffix(");\n").split(",", 1)[1])


@pytest.mark.parametrize(
    "value", [{}, [], None, {HOSTILE: {}}, {"a": [HOSTILE], "b": {"c": 1.5, "d": {}}, "e": []}]
)
def test_a_script_is_the_same_as_if_it_were_written_at_once(value: Any) -> None:
    expected = f"KERNL_DATA({text.script_json(HOSTILE)},{text.script_json(value)});\n"
    assert script(HOSTILE, value) == expected.encode()


def test_what_is_written_already_stands_where_it_belongs() -> None:
    numbers = np.arange(256, dtype=np.uint8)
    found = script("n", {"a": packed(numbers, "u8"), "b": {"c": Written(b"[null]"), "d": 1}})
    value = value_of(found)
    assert value == {"a": value["a"], "b": {"c": [None], "d": 1}}
    # All characters of base64 are there, and none was taken for one to escape.
    assert text.script_json(value).encode() in found
    assert set("+/=") <= set(value["a"]["u8"])


def test_five_digits_are_those_of_python() -> None:
    chance = np.random.default_rng(5)
    values = [*(10 ** chance.uniform(-12, 12, 20_000)).tolist(), 1.0, 10.0, 1e-6, 99_999.4]
    values += [99_999.6, 9.99996e-5, 0.99999499, 1e9, 123456e-9]
    written_ = five_digits(values)
    assert len(written_) == DIGITS_WIDE * len(values)
    found = json.loads(b"[" + written_[:-1] + b"]")
    assert found == [float(f"{value:.5g}") for value in values]


def test_what_is_no_number_above_0_breaks_no_script() -> None:
    found = json.loads(b"[" + five_digits([math.nan, math.inf, 0.0, -1.0, 1e-300])[:-1] + b"]")
    assert all(math.isfinite(value) and value > 0 for value in found)
    assert five_digits([]) == b""


@pytest.mark.parametrize("first", [True, False])
def test_samples_are_those_of_their_own_point(first: bool) -> None:
    """Some have none, the first or the last; of many the first are shown."""
    many = tuple((1 + place) * 1.00001e-6 for place in range(300))
    rows = [
        row(case="a1.fp16", variant="kernl", samples=() if first else many),
        row(case="a1.fp16", variant="eager", samples=(1.25e-3, 2.0)),
        row(case="a2.fp16", variant="kernl", samples=many if first else ()),
    ]
    found = loaded(written(source_of(*rows)), "of/nvidia-h200/kernels-softmax-0")
    assert found["variants"] == ["kernl", "eager"]
    shown = [[one and one["samples"] for one in words] for words in found["last"]]
    of_many = [float(f"{one:.5g}") for one in many[:200]]
    ends = ([], of_many) if first else (of_many, [])
    assert shown == [[ends[0], [1.25e-3, 2.0]], [ends[1], None]]


def test_series_are_those_of_cases_that_do_not_follow_each_other() -> None:
    """Of the second operator a case, an implementation and a commit between others have nothing."""
    dates = [f"2026-01-0{at}" for at in (1, 2, 3)]
    commits = [f"{at:040x}" for at in (1, 2, 3)]
    every = dict(zip(commits, dates, strict=True))
    rows = [
        row(op="linear", case=case, variant=variant, commit=commit, committed_at=date)
        for case in ("a1.fp16", "a2.fp16", "a3.fp16")
        for variant in ("kernl", "compile", "eager")
        for commit, date in every.items()
    ]
    values = {}
    for number, (case, variant, commit) in enumerate(
        (case, variant, commit)
        for case in ("a1.fp16", "a3.fp16")
        for variant in ("kernl", "eager")
        for commit in (commits[0], commits[2])
    ):
        values[case, variant, commit] = (number + 1) * 1e-6
        rows.append(
            row(case=case, variant=variant, commit=commit, committed_at=every[commit],
                value=(number + 1) * 1e-6)
        )  # fmt: skip
    found = loaded(written(source_of(*rows)), "of/nvidia-h200/kernels-softmax-0")
    assert (found["cases"], found["variants"]) == (["a1.fp16", "a3.fp16"], ["kernl", "eager"])
    assert found["commits"] == [0, 2]
    packed_ = np.frombuffer(base64.b64decode(found["value"]["f32"]), "<f4")
    assert packed_ == pytest.approx(list(values.values()), rel=1e-6)
