"""Rows of tables as HTML: a page has thousands of cells, for each of which a macro takes long.

Every value is escaped here, as a template does it.
"""

import re
from collections.abc import Iterable, Sequence

from markupsafe import Markup, escape

from dashboards import text
from dashboards.tabular.tables import Cell

_special = re.compile("[&<>'\"]").search


def body(rows: Iterable[Sequence[Cell]]) -> Markup:
    """The rows of a table; the first cell of each is its heading."""
    return Markup("".join(f"<tr>{''.join(_cells(row))}</tr>\n" for row in rows))


def numbers(rows: Iterable[Sequence[str]], *, marked: bool) -> Markup:
    """The rows beside a figure, their cells `marked` as numbers; the first of each is a heading."""
    begin = "<td class=number>" if marked else "<td>"
    found = []
    for row in rows:
        first, *others = (_safe(value) for value in row)
        cells = "".join(f"{begin}{value}</td>" for value in others)
        found.append(f'<tr><th scope="row">{first}</th>{cells}</tr>\n')
    return Markup("".join(found))


def _cells(row: Sequence[Cell]) -> Iterable[str]:
    begin, end = "th scope=row", "th"
    for cell in row:
        kind = " ".join(filter(None, ("number" if cell.numeric else "", cell.tone)))
        shown = _safe(cell.text)
        if cell.href:
            broken = _safe(text.short(cell.text)).replace("_", "_<wbr>")
            elsewhere = ' rel="noopener"' if cell.href.startswith(("http://", "https://")) else ""
            shown = f'<a href="{_safe(cell.href)}"{elsewhere}>{broken}</a>'
        yield (
            f"<{begin}"
            + (f' class="{_safe(kind)}"' if kind else "")
            + (f' data-value="{"" if cell.value is None else cell.value}"' if cell.numeric else "")
            + f">{shown}"
            + (f" <small>{_safe(cell.note)}</small>" if cell.note else "")
            + f"</{end}>"
        )
        begin = end = "td"


def _safe(value: str) -> str:
    """A text without markup of its own; most need no change."""
    return str(escape(value)) if _special(value) else value
