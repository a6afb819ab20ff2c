"""`python -m dashboards.screenshots SITE`: the README's pictures, from a built site.

Needs Playwright and a Chromium on PATH (`pip install 'kernl[browser]'`).
"""

import argparse
import shutil
import sys
from pathlib import Path
from typing import Any

PICTURES = Path(__file__).parent / "screenshots"
SHOWN = {
    "overview": ("index.html", "light", "#speed-1"),
    "compare": ("compare.html", "light", "#compared tbody tr"),
    "case": (
        "case.html#suite=kernels&of=layer_norm&case=rows2048_cols8192_bias.fp16",
        "dark",
        "#trend .main-svg",
    ),
}
"""Picture → page, theme, and what has to be there first."""
_SIZE = {"width": 1200, "height": 900}
_SETTLED_MS = 1500


def take(browser: Any, site: Path, name: str, folder: Path) -> Path:
    """One picture of `SHOWN`."""
    page_name, scheme, awaited = SHOWN[name]
    page = browser.new_page(viewport=_SIZE, color_scheme=scheme)
    page.goto(f"{site.resolve().as_uri()}/{page_name}")
    page.wait_for_selector(awaited, timeout=30_000)
    page.wait_for_timeout(_SETTLED_MS)
    path = folder / f"{name}.png"
    page.screenshot(path=path)
    page.close()
    return path


def main(arguments: list[str] | None = None) -> int:
    """The command. Returns the exit code: 0 taken, 2 not taken."""
    parser = argparse.ArgumentParser(prog="python -m dashboards.screenshots", description=__doc__)
    parser.add_argument("site", type=Path, help="what dashboards.build wrote")
    parser.add_argument("--output", type=Path, default=PICTURES)
    options = parser.parse_args(arguments)
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None or not (options.site / "index.html").is_file():
        missing = "no Chromium is on PATH" if chromium is None else f"{options.site} is no site"
        print(
            f"screenshots: {missing}; install one, and build a site by `make dashboard`",
            file=sys.stderr,
        )
        return 2
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        print("screenshots: no Playwright here: pip install 'kernl[browser]'", file=sys.stderr)
        return 2
    options.output.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as driver:
        arguments_of = ["--headless", "--no-sandbox", "--disable-gpu"]
        browser = driver.chromium.launch(executable_path=chromium, args=arguments_of)
        for name in SHOWN:
            print(f"screenshots: {take(browser, options.site, name, options.output)}")
        browser.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
