"""Tables that pages save as Parquet, written by a real browser and read back by Polars."""

import base64
import csv
import io
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dashboards import build
from dashboards.data.source import Source
from tests.dashboards import hostile, synthetic
from tests.dashboards.chromium import MARKS
from tests.dashboards.test_browser import Opened
from tests.dashboards.test_chosen import COMMITS, GPU, chosen, opened, sampled

polars = pytest.importorskip(
    "polars", reason="polars is not installed: pip install 'kernl[browser]'"
)
pytestmark = MARKS
WRITE = """columns => {
  const bytes = window.KERNL_PARQUET(columns);
  const letters = [];
  for (const byte of bytes) { letters.push(String.fromCharCode(byte)); }
  return btoa(letters.join(''));
}"""
PAUSE_MS = 120
"""Chromium drops the eleventh file that a page saves within a second."""
ENDS = ("99 % interval, low", "99 % interval, high")
MEANS = (
    "kernl's mean on base", "kernl's mean on head", "kernl's change, ratio",
    "eager's mean on base", "eager's mean on head", "eager's drift, divided out, ratio",
)  # fmt: skip
WRITER = Path(build.__file__).parent / "static" / "parquet.js"
TEXTS = [
    *("", " ", "µs", "日本語", "👩\u200d🚀 𝒳", "e\u0301", "a\u2028b", "tab\tand\nline"),
    *('"quoted", 1', "=1+1", "'--", "null", "NaN", "PAR1", "\0", "\ufeffx", "é" * 20_000),
    *(attack for attack in hostile.ATTACKS if not attack.startswith("\ud800")),
]  # fmt: skip
"""What a page may hold, and more."""


@pytest.fixture(scope="module")
def store() -> synthetic.Store:
    made = synthetic.store(ops=("softmax", "linear"), count=62, commits=4)
    return sampled(synthetic.with_models(made, commits=3))


@pytest.fixture(scope="module")
def site(store: synthetic.Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("parquet") / "site"
    build.build(Source.of(store), folder)
    return folder


@pytest.fixture(scope="module")
def blank(browser: Any) -> Iterator[Any]:
    """An empty page with the writer alone."""
    page = browser.new_page()
    page.add_script_tag(path=WRITER)
    yield page
    page.close()


def saved(page: Any, button: Any, name: str) -> bytes:
    """What a button saves. It is pressed by a key, as figures that are drawn late move it."""
    page.wait_for_timeout(PAUSE_MS)
    with page.expect_download() as caught:
        button.press("Enter")
    assert caught.value.suggested_filename == name
    return Path(caught.value.path()).read_bytes()


def read(content: bytes) -> Any:
    return polars.read_parquet(io.BytesIO(content))


def read_csv(content: bytes) -> list[list[str]]:
    return list(csv.reader(io.StringIO(content.decode("utf-8-sig"), newline="")))


def written(page: Any, *columns: tuple[str, str, list[Any]]) -> Any:
    """A table of (name, kind, values), through the browser and back."""
    told = [{"name": name, "kind": kind, "values": values} for name, kind, values in columns]
    return read(base64.b64decode(page.evaluate(WRITE, told)))


def both(page: Any, table: str, name: str) -> tuple[Any, list[list[str]]]:
    """What a table's two buttons save."""
    button = page.locator(f"button[data-csv='{table}']")
    other = button.locator("xpath=following-sibling::button[1]")
    assert other.text_content() == "Download Parquet"
    return (
        read(saved(page, other, f"{name}.parquet")),
        read_csv(saved(page, button, f"{name}.csv")),
    )


@pytest.mark.parametrize("words", ["", "bf16", "nothing of that name"])
def test_a_table_of_cases_is_that_of_the_csv(browser: Any, site: Path, words: str) -> None:
    here = Opened(browser, (site / "op-softmax.html").as_uri())
    page = here.page
    page.locator("#cases-1 thead th", has_text="over eager").locator("button").click()
    page.locator("input[data-filter=cases-1]").fill(words)
    frame, (headings, *rows) = both(page, "cases-1", "kernl-op-softmax-cases-1")
    assert frame.columns == headings
    assert len(frame) == len(rows) == {"": 62, "bf16": 21}.get(words, 0)
    numeric = [kind == polars.Float64 for kind in frame.dtypes]
    assert numeric == page.evaluate(
        "[...document.querySelectorAll('#cases-1 thead th')].map(h => h.className === 'number')"
    )
    assert set(frame.dtypes) == {polars.Float64, polars.String}
    for found, told in zip(frame.rows(), rows, strict=True):
        for value, text, number in zip(found, told, numeric, strict=True):
            assert value == ((float(text) if text else None) if number else text)
    if not words:
        nulls = sum(frame.null_count().row(0))
        assert 0 < nulls < 62  # cases that kernl has no time of
    assert here.said == []
    here.close()


@pytest.mark.parametrize("name", ["op-linear", "model-bert_base", "losses"])
def test_each_table_with_one_button_has_the_other(browser: Any, site: Path, name: str) -> None:
    here = Opened(browser, (site / f"{name}.html").as_uri())
    page = here.page
    if name != "losses":
        page.locator("#times-1").scroll_into_view_if_needed()
        page.wait_for_selector("#times-1-table tbody tr", state="attached")
    page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    tables = page.locator("button[data-csv]").evaluate_all("all => all.map(b => b.dataset.csv)")
    assert tables
    for table in tables:
        frame, (headings, *rows) = both(page, table, f"kernl-{name}-{table}")
        assert frame.columns == headings
        assert len(frame) == len(rows) > 0
    assert here.said == []
    here.close()


def test_a_name_is_as_it_is_even_where_it_looks_like_a_formula(
    browser: Any, tmp_path: Path
) -> None:
    rows = [
        synthetic.row(op="softmax", case=f"=1+µ{number}", variant=variant, value=1e-6)
        for number in range(6)
        for variant in ("eager", "kernl")
    ]
    held = synthetic.Store(synthetic.frame(rows), synthetic.runs_frame([]))
    build.build(Source.of(held), tmp_path / "site")
    page = Opened(browser, (tmp_path / "site" / "op-softmax.html").as_uri()).page
    frame, (_, *lines) = both(page, "cases-1", "kernl-op-softmax-cases-1")
    assert frame["Case"].to_list() == [f"=1+µ{number}" for number in range(6)]
    assert [line[0] for line in lines] == [f"'=1+µ{number}" for number in range(6)]


TOLD = ("operator or model", "case", "architecture and metric", "unit", "verdict", "why")
"""What both files of the page Compare hold as text."""


def compared(page: Any) -> tuple[Any, list[dict[str, str]]]:
    """What the two buttons of the page Compare save."""
    other = page.locator("#csv + button")
    frame = read(saved(page, other, "kernl-compare.parquet"))
    lines = read_csv(saved(page, page.locator("#csv"), "kernl-compare.csv"))
    return frame, [dict(zip(lines[0], line, strict=True)) for line in lines[1:]]


def change_of(ratio: float | None) -> str:
    """A ratio as the page tells it."""
    if ratio is None:
        return "–"
    if math.isinf(ratio):
        return "from 0"
    change = 100 * (ratio - 1)
    return f"{'+' if change > 0 else '−' if change < 0 else ''}{abs(change):.1f} %"


@pytest.mark.parametrize("show", ["kernels", "models", "codegen"])
def test_compare_saves_numbers_in_full(
    browser: Any, site: Path, store: synthetic.Store, show: str
) -> None:
    machine = "compile-only" if show == "codegen" else GPU
    scale = {"kernels": 1e6, "models": 1e3, "codegen": 1.0}[show]
    place = chosen(1, 3, show=show).replace(GPU, machine)
    here = opened(browser, site, "compare.html", place)
    frame, lines = compared(here.page)
    assert len(frame) == len(lines) > 10
    mine = store.rows[(store.rows["suite"] == show) & (store.rows["machine"] == machine)]
    held = {
        (row.commit, row.op, row.case, f"{row.variant} {row.metric}"): row.value
        for row in mine.itertuples()
        if row.status == "ok"
    }
    for row, line in zip(frame.to_dicts(), lines, strict=True):
        texts = {name: line[name].removeprefix("'") for name in TOLD}
        assert {name: row[name] for name in TOLD} == texts
        what = row["architecture and metric"] or "kernl time"
        for side, commit in (("base", COMMITS[1]), ("head", COMMITS[3])):
            value = held.get((commit, row["operator or model"], row["case"], what))
            assert row[side] == (None if value is None else value * scale)
            assert (line[side] == "–") == (row[side] is None)
        assert change_of(row["head over base"]) == line["change"].removeprefix("'")
        ends = row["99 % interval, low"], row["99 % interval, high"]
        told = " to ".join(change_of(end) for end in ends) if None not in ends else ""
        assert told == line["99 % interval"].removeprefix("'")  # that it is no formula
        own, drift = row["kernl's change, ratio"], row["eager's drift, divided out, ratio"]
        assert (drift is None) == (line["eager's drift, divided out"] == "")
        if drift is not None:
            assert own / drift == pytest.approx(row["head over base"], rel=1e-12)
            moved = row["kernl's mean on head"] / row["kernl's mean on base"]
            assert own == pytest.approx(moved, rel=1e-12)
            assert line["kernl's change"].removeprefix("'") == change_of(own)
            assert line["eager's drift, divided out"].removeprefix("'") == change_of(drift)
    floats = [name for name, kind in frame.schema.items() if kind == polars.Float64]
    assert floats == ["base", "head", "head over base", *ENDS, *MEANS]
    assert frame["head over base"].null_count() < len(frame)
    assert here.said == []
    here.close()


def test_compare_saves_all_that_the_filter_leaves(browser: Any, site: Path) -> None:
    page = opened(browser, site, "compare.html", chosen(2, 3, words="linear fp16")).page
    frame, lines = compared(page)
    assert len(frame) == len(lines) == 21
    assert set(frame["operator or model"]) == {"linear"}
    page.locator("#words").fill("nothing of that name")
    frame, lines = compared(page)
    assert (len(frame), len(lines), len(frame.columns)) == (0, 0, 17)


@pytest.mark.parametrize(
    "columns",
    [[], [("a", "number", [])], [("a", "number", []), ("é", "text", [])]],
)
def test_a_table_without_rows_keeps_its_columns(
    blank: Any, columns: list[tuple[str, str, list[Any]]]
) -> None:
    frame = written(blank, *columns)
    assert frame.shape == (0, len(columns))
    assert frame.columns == [name for name, *_ in columns]
    kinds = {"number": polars.Float64, "text": polars.String}
    assert frame.dtypes == [kinds[kind] for _, kind, _ in columns]


@pytest.mark.parametrize(
    "there", ["0", "1", "01", "10", "010", "101", "0" * 9, "1" * 8 + "0", "0" * 64 + "1" * 300]
)
def test_what_is_missing_is_missing_where_it_was(blank: Any, there: str) -> None:
    numbers = [place + 0.5 if mark == "1" else None for place, mark in enumerate(there)]
    texts = [f"{place}" if mark == "1" else None for place, mark in enumerate(there)]
    frame = written(
        blank, ("n", "number", numbers), ("t", "text", texts), ("all", "text", [""] * len(there))
    )
    assert frame["n"].to_list() == numbers
    assert frame["t"].to_list() == texts
    assert frame["all"].to_list() == [""] * len(there)


def test_texts_are_unchanged(blank: Any) -> None:
    assert written(blank, ("t", "text", TEXTS))["t"].to_list() == TEXTS


def test_numbers_are_unchanged(blank: Any) -> None:
    most = 1.7976931348623157e308
    numbers = [0.0, -0.0, 0.1, 1e-6 / 3, 5e-324, most, -(2.0**53) - 2, math.inf, -math.inf]
    found = written(blank, ("n", "number", [*numbers, math.nan]))["n"].to_list()
    assert [value.hex() for value in found[:-1]] == [value.hex() for value in numbers]
    assert math.isnan(found[-1])


def test_ten_thousand_rows(blank: Any) -> None:
    count = 10_000
    numbers = [None if place % 7 == 3 else place / 7 for place in range(count)]
    texts = [None if place % 2 else f"case {place} µ" for place in range(count)]
    columns = [(f"n{at}", "number", numbers) for at in range(20)]
    frame = written(blank, *columns, ("t", "text", texts))
    assert frame.shape == (count, 21)
    assert all(frame[name].to_list() == numbers for name, *_ in columns)
    assert frame["t"].to_list() == texts


def test_names_of_columns_differ(blank: Any) -> None:
    names = ["time", "time", "time 2", "time", "", "", "__proto__", "a.b", "é", "\ud800", "\ud801"]
    columns = [(name, "number", [float(place)]) for place, name in enumerate(names)]
    frame = written(blank, *columns)
    assert frame.row(0) == tuple(range(len(names)))
    assert frame.columns[:9] == [
        "time", "time 3", "time 2", "time 4", "", " 2", "__proto__", "a.b", "é",
    ]  # fmt: skip
    assert len(set(frame.columns)) == len(names)
