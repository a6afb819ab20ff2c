"""How fast a built site is in a headless Chromium: `python -m tests.dashboards.page_loads SITE`.

Each round is a new tab, with nothing cached, of a site that lies on the disk. It opens the
overview, then the page of an operator, each until it can be used: it is loaded, every figure in
view is drawn and the search box takes words. There it chooses other cases until the figure shows
them; the first case of a file has to load it. Then the tab's memory is looked up. What a page
transfers is counted while this machine serves the same site to itself.

Prints the median and the worst of all rounds beside the limits; exits with 1 where a median is over
its limit. Milliseconds are those of the page's own clock, at the first frame that shows it.
"""

import argparse
import functools
import gzip
import http.server
import json
import re
import statistics
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from playwright.sync_api import Error, sync_playwright

from tests.dashboards.chromium import ARGUMENTS, CHROMIUM, QuietHandler

INDEX = "index.html"
MEGABYTE = 1e6
CASES = 5
"""How many series are opened in a round, of files that were not loaded and of those that were."""
MOST_TRIED = 60
"""Cases that are tried in a round: some have no time, and a small site has few files."""
PATIENCE_MS = 60_000


@dataclass(frozen=True)
class Limit:
    """What is measured, in which unit, and how much of it is fine; None where that is open."""

    what: str
    unit: str
    most: float | None


LIMITS = (
    Limit("overview: usable", "ms", 1500),
    Limit("overview: transferred", "MB", 3),
    Limit("overview: transferred, if packed", "MB", None),
    Limit("operator: usable", "ms", 2000),
    Limit("operator: Plotly's figure is there", "ms", None),
    Limit("operator: transferred", "MB", None),
    Limit("operator: transferred, if packed", "MB", None),
    Limit("series: drawn, first of its file", "ms", 200),
    Limit("series: drawn, file is loaded", "ms", 200),
    Limit("tab: memory (PSS)", "MB", 500),
    Limit("tab: memory (RSS)", "MB", None),
    Limit("tab: JavaScript heap", "MB", None),
)

# A figure that another script draws is one too, and so is the drawing that stands in for it. A page
# without a search box is not usable.
USABLE = """() => {
  function drawn() {
    return [...document.querySelectorAll('.plot, .js-plotly-plot')].every(plot => {
      const box = plot.getBoundingClientRect();
      const seen = box.bottom > 0 && box.top < innerHeight && box.width > 0 && box.height > 0;
      return !seen || plot.querySelector('.main-svg, svg.preview');
    });
  }
  function look() {
    const search = document.querySelector('#search input');
    if (document.readyState === 'complete' && search && !search.disabled &&
        search.offsetParent && performance.getEntriesByType('navigation')[0].loadEventEnd &&
        drawn()) {
      window.usableAfter = performance.now();
    } else {
      requestAnimationFrame(look);
    }
  }
  requestAnimationFrame(look);
}"""
TREND = "select[data-series]"
READY = """() => {
  const select = document.querySelector('select[data-series]');
  const plot = document.getElementById(select.dataset.plot);
  return Boolean(plot.data && plot.querySelector('.main-svg'));
}"""
OPEN_CASE = """([value, patience]) => new Promise((done, failed) => {
  const select = document.querySelector('select[data-series]');
  const plot = document.getElementById(select.dataset.plot);
  const before = plot.data;
  const files = () => document.querySelectorAll('script[src]').length +
    performance.getEntriesByType('resource').length;
  const loaded = files();
  const table = document.getElementById(select.dataset.plot + '-table');
  const began = performance.now();
  function look() {
    if (plot.data && plot.data !== before && plot.querySelector('.main-svg')) {
      done([performance.now() - began, files() > loaded]);
    } else if (table && table.tBodies[0] && !table.tBodies[0].rows.length) {
      done([null, files() > loaded]);  // it has no times
    } else if (performance.now() - began > patience) {
      failed(new Error('the figure of ' + value + ' was not drawn'));
    } else {
      requestAnimationFrame(look);
    }
  }
  select.value = value;
  select.dispatchEvent(new Event('change', {bubbles: true}));
  requestAnimationFrame(look);
})"""


@contextmanager
def served(site: Path) -> Iterator[str]:
    """The address at which the site is served, by this machine to itself."""
    handler = functools.partial(QuietHandler, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def largest(site: Path) -> str:
    """The page of the operator with the most cases to choose from."""
    pages = sorted(site.glob("op-*.html"))
    if not pages:
        raise ValueError(f"{site} has no page of an operator: is it a site that was built?")
    sizes = {page: len(re.findall(rb"<option\b", page.read_bytes())) for page in pages}
    return max(pages, key=lambda page: (sizes[page], page.stat().st_size)).name


def usable(tab: Any, address: str) -> float:
    """Opens a page; milliseconds from the start of its navigation until it can be used."""
    tab.goto(address, wait_until="commit")
    tab.wait_for_function("() => window.usableAfter", timeout=PATIENCE_MS)
    return float(tab.evaluate("window.usableAfter"))


def transferred(browser: Any, site: Path, page: str) -> tuple[float, float]:
    """Bytes that a page takes over HTTP, headers too; and what its files are packed with gzip."""
    sizes: dict[str, float] = {}
    addresses: dict[str, str] = {}
    with served(site) as host, new_tab(browser) as tab:
        session = tab.context.new_cdp_session(tab)
        session.send("Network.enable")

        def asked(event: Any) -> None:
            if event["request"]["url"].startswith(host):  # pictures may stand in the page itself
                addresses[event["requestId"]] = event["request"]["url"]

        def ended(event: Any) -> None:
            if event["requestId"] in addresses:
                sizes[event["requestId"]] = event["encodedDataLength"]

        session.on("Network.requestWillBeSent", asked)
        session.on("Network.loadingFinished", ended)
        usable(tab, f"{host}/{page}")
        tab.wait_for_load_state("networkidle")
    files = {unquote(urlsplit(addresses[one]).path).lstrip("/") for one in sizes}
    packed = [len(gzip.compress((site / name).read_bytes(), 6)) for name in files]
    return sum(sizes.values()), sum(packed)


@contextmanager
def new_tab(browser: Any) -> Iterator[Any]:
    """A tab of its own, that has nothing cached and notes when its pages can be used."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.add_init_script(f"({USABLE})()")
    try:
        yield context.new_page()
    finally:
        context.close()


def series(tab: Any) -> tuple[list[float], list[float]]:
    """Milliseconds of opening other cases of the page's trend: those whose file had to be loaded,
    and others."""
    if not tab.locator(TREND).count():
        raise ValueError(f"{tab.url} lets nobody choose a case: name another page with --op")
    tab.locator(TREND).first.scroll_into_view_if_needed()
    tab.wait_for_function(READY, timeout=PATIENCE_MS)
    tab.wait_for_load_state("networkidle")
    names: list[str] = tab.locator(TREND).first.evaluate("s => [...s.options].map(o => o.value)")
    shown = tab.locator(TREND).first.evaluate("select => select.value")
    # Far from each other first: neighbours share a file.
    order = sorted(range(len(names)), key=lambda at: f"{at:032b}"[::-1])
    first: list[float] = []
    again: list[float] = []
    for name in [names[at] for at in order if names[at] != shown][:MOST_TRIED]:
        took, loaded = tab.evaluate(OPEN_CASE, [name, PATIENCE_MS])
        if took is not None:
            (first if loaded else again).append(float(took))
        if len(first) == CASES:
            break
    return first, again[:CASES]


def memory(browser: Any, tab: Any) -> dict[str, float]:
    """Bytes that a tab takes: its JavaScript heap, and its process where that can be found."""
    session = tab.context.new_cdp_session(tab)
    session.send("Performance.enable")
    metrics = {
        one["name"]: one["value"] for one in session.send("Performance.getMetrics")["metrics"]
    }
    found = {"JavaScript heap": float(metrics["JSHeapUsedSize"])}
    processes = browser.new_browser_cdp_session().send("SystemInfo.getProcessInfo")["processInfo"]
    rolled = [rollup(one["id"]) for one in processes if one["type"] == "renderer"]
    # Chromium keeps an empty one in reserve.
    fullest = max(rolled, key=lambda sizes: sizes.get("Pss", 0.0), default={})
    return found | {f"memory ({name.upper()})": size for name, size in fullest.items()}


def rollup(process: int) -> dict[str, float]:
    """Bytes of a process, all of them and its share of them; empty where nobody says."""
    try:
        told = Path(f"/proc/{process}/smaps_rollup").read_text()
    except OSError:
        return {}
    lines = re.findall(r"^(Rss|Pss):\s+(\d+) kB", told, re.M)
    return {name: 1024.0 * int(size) for name, size in lines}


def measure(browser: Any, site: Path, op: str, repeat: int) -> dict[str, list[float]]:
    """What was measured, in the units of the limits."""
    found: dict[str, list[float]] = {limit.what: [] for limit in LIMITS}
    for kind, page in (("overview", INDEX), ("operator", op)):
        sent, packed = transferred(browser, site, page)
        found[f"{kind}: transferred"].append(sent / MEGABYTE)
        found[f"{kind}: transferred, if packed"].append(packed / MEGABYTE)
    for _ in range(repeat):
        with new_tab(browser) as tab:
            found["overview: usable"].append(usable(tab, (site / INDEX).as_uri()))
            found["operator: usable"].append(usable(tab, (site / op).as_uri()))
            tab.wait_for_function(READY, timeout=PATIENCE_MS)
            found["operator: Plotly's figure is there"].append(tab.evaluate("performance.now()"))
            first, again = series(tab)
            found["series: drawn, first of its file"] += first
            found["series: drawn, file is loaded"] += again
            for name, size in memory(browser, tab).items():
                found[f"tab: {name}"].append(size / MEGABYTE)
    return found


def missed(limit: Limit, values: Sequence[float]) -> bool:
    """Whether a limit is not kept; what was not measured misses none."""
    return limit.most is not None and bool(values) and statistics.median(values) > limit.most


def table(found: dict[str, list[float]]) -> str:
    """The medians and the worst, beside the limits."""
    lines = [f"{'':36} {'median':>10} {'worst':>10} {'limit':>8}   values"]
    for limit in LIMITS:
        values = found[limit.what]
        middle, worst = (f"{of(values):.4g}" if values else "–" for of in (statistics.median, max))
        most = "" if limit.most is None else f"{limit.most:g}"
        said = "  missed" if missed(limit, values) else ""
        name = f"{limit.what}, {limit.unit}"
        lines.append(f"{name:36} {middle:>10} {worst:>10} {most:>8} {len(values):8}{said}")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures a site, prints the table; 1 where a limit is missed, 2 where nothing is measured."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("site", type=Path)
    parser.add_argument("--op", metavar="PAGE", help="such as op-linear.html: the most cases")
    parser.add_argument("--repeat", type=int, default=5, help="rounds: 5")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where all values are written")
    options = parser.parse_args(arguments)
    site = options.site.resolve()
    try:
        op = options.op or largest(site)
        for page in (INDEX, op):
            if not (site / page).is_file():
                raise ValueError(f"{site} has no {page}")
        if CHROMIUM is None:
            raise ValueError("no Chromium on PATH: install it")
        with sync_playwright() as driver:
            browser = driver.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
            found = measure(browser, site, op, options.repeat)
            browser.close()
    except (ValueError, Error) as error:
        print(f"page_loads: {error}", file=sys.stderr)
        return 2
    print(f"{site}, operator {op}, {options.repeat} rounds\n{table(found)}")
    if options.json:
        content = {"site": str(site), "op": op, "limits": [asdict(one) for one in LIMITS]}
        options.json.write_text(json.dumps({**content, "found": found}, indent=1) + "\n")
    return int(any(missed(limit, found[limit.what]) for limit in LIMITS))


if __name__ == "__main__":
    sys.exit(main())
