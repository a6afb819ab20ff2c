"""Result files, commit messages and names are foreign: nothing in them becomes markup or a path."""

from html.parser import HTMLParser
from pathlib import Path

import pytest

from dashboards import build, pages
from dashboards.data.history import Commit
from dashboards.data.source import Source
from tests.dashboards import hostile

TAGS = {
    "html", "head", "meta", "title", "script", "link", "body", "a", "header", "div", "svg", "rect",
    "span", "nav", "ul", "li", "button", "circle", "path", "main", "h1", "h2", "h3", "p", "section",
    "code", "time", "br", "dl", "dt", "dd", "strong", "small", "b", "label", "input", "select",
    "option", "figure", "figcaption", "details", "summary", "table", "caption", "thead", "tbody",
    "tr", "th", "td", "footer", "noscript", "wbr", "form", "fieldset", "legend", "pre", "line",
    "polyline", "text",
}  # fmt: skip


class Markup(HTMLParser):
    """Collects what a browser would take for elements and attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.links: list[str] = []
        self.handlers: list[str] = []
        self.scripts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            if name.startswith("on") or name in {"style", "srcdoc", "formaction"}:
                self.handlers.append(f"{tag} {name}")
            if name in {"href", "src"}:
                self.links.append(value or "")
            if tag == "script" and name == "src":
                self.scripts.append(value or "")


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    return pages.files(Source.of(hostile.store(), opt_in=hostile.ATTACKS[::2]))


def parsed(page: bytes) -> Markup:
    found = Markup()
    found.feed(page.decode())
    return found


def test_no_attack_becomes_an_element_a_handler_or_a_link(files: dict[str, bytes]) -> None:
    html = {name: parsed(page) for name, page in files.items() if name.endswith(".html")}
    assert len(html) > len(hostile.ATTACKS)
    for name, page in html.items():
        assert page.tags <= TAGS, name
        assert not page.handlers, name
        assert all(script in files for script in page.scripts), name
        for link in page.links:
            target = link.partition("#")[0]
            assert target in {"", "data:,", *files}, (name, link)


def test_the_attacks_are_shown_as_text(files: dict[str, bytes]) -> None:
    machines = files["machines.html"].decode()
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in machines
    assert "{{ 7 * 7 }}" in machines
    assert "<script>alert" not in machines


def test_data_shards_hold_no_markup(files: dict[str, bytes]) -> None:
    shards = [content.decode() for name, content in files.items() if name.startswith("data/")]
    assert shards
    for shard in shards:
        assert not {"<", "&", "\u2028", "\u2029"} & set(shard)
    joined = "".join(shards)
    assert "\\u0026lt;script\\u0026gt;" in joined  # escaped for Plotly, then for the script
    assert "%{y}\\u0026lt;a" not in joined


def test_pages_lie_flat_in_the_site(files: dict[str, bytes], tmp_path: Path) -> None:
    site = tmp_path / "deep" / "site"
    build.write(files.items(), site)
    for name in files:
        parts = name.split("/")
        assert len(parts) == 1 or parts[0] in {"assets", "data"}
        assert len(parts) <= (2 if len(parts) > 1 and parts[1] not in {"at", "noise", "of"} else 4)
        assert (site / name).resolve().is_relative_to(site.resolve())
        assert len(parts[-1]) < 120
    assert [path.name for path in tmp_path.iterdir()] == ["deep"]
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["site"]
    assert len({name.lower() for name in files}) == len(files)


def test_long_names_are_cut(files: dict[str, bytes]) -> None:
    for name, page in files.items():
        if name.endswith(".html"):
            assert "x" * 500 not in page.decode(), name


def test_commit_subjects_are_escaped_and_cut() -> None:
    commit = Commit("a" * 40, "2026-01-01", "<img src=x onerror=alert(1)> " + "y" * 5000)
    environment = pages.Site(Source.of(hostile.store()), {}, {}).environment
    macro = "{% import 'commits.html' as m %}{{ m.commit(c) }}"
    shown = environment.from_string(macro).render(c=commit)
    assert "&lt;img src=x onerror=alert(1)&gt;" in shown
    assert len(shown) < 500
