"""Foreign text, slugs, and numbers with units."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dashboards import text

SLUG = set("abcdefghijklmnopqrstuvwxyz0123456789_-.")


def test_plain_names_are_their_own_slugs() -> None:
    assert text.slugs(["softmax", "layer_norm"]) == {
        "softmax": "softmax",
        "layer_norm": "layer_norm",
    }


@given(st.lists(st.text(max_size=200), unique=True, max_size=20))
def test_slugs_are_safe_file_names_and_never_collide(names: list[str]) -> None:
    found = text.slugs(names)
    assert len(set(found.values())) == len(names)
    for slug in found.values():
        assert set(slug) <= SLUG
        assert slug.strip(".")
        assert len(slug) < 100


def test_names_that_differ_in_case_only_get_different_files_on_any_file_system() -> None:
    found = text.slugs(["Softmax", "softmax", "SOFTMAX", "soft max", "soft/max"])
    assert len({slug.lower() for slug in found.values()}) == 5


@given(st.text())
def test_clean_text_is_one_printable_line_that_utf8_can_hold(value: str) -> None:
    found = text.clean(value)
    assert not {"\n", "\r", "\0", "\u2028", "\u2029", "\u202e"} & set(found)
    found.encode()


def test_unpaired_surrogates_and_direction_marks_disappear() -> None:
    assert text.clean("a\ud800b\u202ec\n\td") == "a b c d"


@given(st.text())
def test_script_json_holds_no_markup_and_loses_nothing(value: str) -> None:
    found = text.script_json({"v": value})
    assert not {"<", ">", "&", "\u2028", "\u2029"} & set(found)
    assert json.loads(found) == {"v": value}


def test_script_json_refuses_nan() -> None:
    with pytest.raises(ValueError, match="JSON"):
        text.script_json([math.nan])


def test_figure_text_reads_neither_markup_nor_placeholders() -> None:
    assert text.figure_text("<b>%{y}") == "&lt;b&gt;% {y}"


def test_text_is_cut_with_an_ellipsis() -> None:
    assert len(text.short("x" * 10_000)) == text.LONGEST
    assert text.short("x" * 10_000).endswith("…")


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(3.104e-6, "3.10"), (123.46e-6, "123.5"), (4.5e-3, "4,500"), (math.nan, "–")],
)
def test_microseconds(seconds: float, expected: str) -> None:
    assert text.microseconds(seconds) == expected


def test_missing_numbers_are_a_dash_or_null() -> None:
    assert text.ratio(math.nan) == "–"
    assert text.count(math.nan, "registers") == "–"
    assert text.number(math.inf) is None
    assert text.interval(math.nan, 1.0) == "no interval"
