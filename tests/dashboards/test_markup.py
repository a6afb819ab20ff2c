"""Rows of tables as HTML: what a template would make of them, and nothing that is markup."""

from html.parser import HTMLParser

import pytest
from markupsafe import Markup

from dashboards.tabular import markup
from dashboards.tabular.tables import Cell

HOSTILE = "<b onclick='x'>&\"_</b>"


class Read(HTMLParser):
    """The tags of some HTML with their attributes, and its text."""

    def __init__(self, found: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(found)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        (Cell("1.5", 1.5), '<td class="number" data-value="1.5">1.5</td>'),
        (Cell("–"), '<td class="number" data-value="">–</td>'),
        (Cell("0", 0.0), '<td class="number" data-value="0.0">0</td>'),
        (Cell("2×", 2.0, "better"), '<td class="number better" data-value="2.0">2×</td>'),
        (Cell("open", tone="worse", numeric=False), '<td class="worse">open</td>'),
        (Cell("a", note="b", numeric=False), "<td>a <small>b</small></td>"),
        (
            Cell("rows_8", href="op.html#a&b", numeric=False),
            '<td><a href="op.html#a&amp;b">rows_<wbr>8</a></td>',
        ),
        (Cell("rows_8", numeric=False), "<td>rows_8</td>"),
    ],
)
def test_a_cell_has_what_is_known_of_it(cell: Cell, expected: str) -> None:
    found = markup.body([(Cell("x", numeric=False), cell)])
    assert found == f"<tr><th scope=row>x</th>{expected}</tr>\n"
    assert isinstance(found, Markup)


def test_no_cell_brings_markup_of_its_own() -> None:
    every = Cell(HOSTILE, tone=HOSTILE, note=HOSTILE, href=HOSTILE, numeric=False)
    found = Read(markup.body([(every, every)]))
    assert [tag for tag, _ in found.tags] == ["tr", *["th", "a", "wbr", "small"], *["td", "a"],
                                              "wbr", "small"]  # fmt: skip
    for tag, attributes in found.tags:
        assert set(attributes) <= {"class", "scope", "href"}, tag
    assert {attributes["href"] for tag, attributes in found.tags if tag == "a"} == {HOSTILE}
    assert "".join(found.words).count(HOSTILE) == 4


def test_numbers_beside_a_figure_are_escaped_and_marked() -> None:
    rows = [["a", "1", "2"], [HOSTILE, HOSTILE, ""]]
    found = markup.numbers(rows, marked=True)
    assert found.startswith(
        '<tr><th scope="row">a</th><td class=number>1</td><td class=number>2</td></tr>\n'
    )
    assert [tag for tag, _ in Read(found).tags] == ["tr", "th", "td", "td"] * 2
    assert markup.numbers(rows[:1], marked=False).count("<td>") == 2


def test_of_no_rows_there_is_nothing() -> None:
    assert markup.body([]) == markup.numbers([], marked=True) == ""
