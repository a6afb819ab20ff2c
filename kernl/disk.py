"""Files that are a convenience, never a condition: what fails counts as absent."""

import json
import os
import tempfile
from pathlib import Path


def read_json(path: Path) -> dict[str, object]:
    """The object in a file; an empty one where there is none that can be read."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def write_json(path: Path, content: object) -> None:
    """Write it in one step: a reader sees the file as it was, or as it is then."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(content, file)
        Path(name).replace(path)
    except OSError:
        return


def is_writable(folder: Path) -> bool:
    """Whether files can be made in a folder, which is made where there is none."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK | os.X_OK)
