"""What a user tuned, kept on disk: rows in a folder named after all that could make them stale.

The folder lies in `$KERNL_CACHE_DIR` (`~/.cache/kernl` unless set; set but empty: nothing is kept
or read). After an upgrade of torch, triton or the operators it is another one.
"""

import csv
import hashlib
import os
from functools import cache
from pathlib import Path
from typing import Any

import torch
import triton

from kernl.tables import Row, Tunable, read

_VARIABLE = "KERNL_CACHE_DIR"
OPERATORS = Path(__file__).parent / "ops"
"""The sources that a choice depends on."""


def cache_folder() -> Path | None:
    """Where this GPU's choices lie; None where KERNL_CACHE_DIR is set but empty."""
    root = os.environ.get(_VARIABLE)
    if root == "":
        return None
    home = Path(root) if root else Path.home() / ".cache" / "kernl"
    return home / "tuned" / fingerprint(torch.cuda.get_device_name())


@cache
def fingerprint(gpu: str) -> str:
    """A name for all that could make a choice stale."""
    digest = hashlib.sha256()
    for part in (gpu, torch.__version__, triton.__version__):
        digest.update(part.encode() + b"\0")
    for path in sorted(OPERATORS.glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def kept_rows(tunable: Tunable[Any]) -> tuple[Row, ...]:
    """What was tuned on this GPU with this stack; the newest choice for a class comes first.

    What cannot be read counts as absent: a choice is a convenience, never a condition.
    """
    folder = cache_folder()
    path = folder / f"{tunable.name}.csv" if folder else None
    if path is None or not path.exists():
        return ()
    try:
        return tuple(reversed(read(path, tunable, skip_broken=True)))
    except OSError:
        return ()


def keep(tunable: Tunable[Any], row: Row) -> None:
    """Append one choice; nothing where the cache is switched off."""
    folder = cache_folder()
    if folder is None:
        return
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{tunable.name}.csv"
    new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        if new:
            writer.writerow(("architecture", *tunable.key_names, *tunable.fields))
        values = (row.key[name] for name in tunable.key_names)
        writer.writerow((row.architecture, *values, *row.config))
