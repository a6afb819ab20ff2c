"""One small JSON file a point, in the directory that asv gives a suite's `setup_cache`.

asv starts one process a case, and each reads one file of some hundred bytes: a single large cache
would be read again for every case.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.measure.journal import finite


def point_path(directory: Path, case: str, variant: str) -> Path:
    """Path of one point. Case names are `[a-z0-9_.]` alone, so they are safe as file names."""
    return directory / "points" / f"{case}@{variant}.json"


def write_point(directory: Path, case: str, variant: str, record: Mapping[str, Any]) -> None:
    """Write one point's record; NaN and infinities become null."""
    path = point_path(directory, case, variant)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(finite(record), allow_nan=False), encoding="utf-8")


def read_point(directory: Path, case: str, variant: str) -> dict[str, Any] | None:
    """The record of one point, or None where `write_point` was never called for it."""
    try:
        text = point_path(directory, case, variant).read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    record: dict[str, Any] = json.loads(text)
    return record
