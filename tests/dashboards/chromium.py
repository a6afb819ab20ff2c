"""The browser that pages are opened in, where the machine has one, and a quiet host of pages."""

import http.server
import shutil
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")
ARGUMENTS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
MARKS = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on PATH: install it to run these"),
]


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    """Serves the site without a log."""

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base's name
        pass
