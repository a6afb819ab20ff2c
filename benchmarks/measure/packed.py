"""Journals packed with gzip, `….points.jsonl.gz`: what lies in the repository is a sixth as large.

A journal is written plain, line by line, and packed when its run is over. Whoever reads takes
either; where both lie there the plain one counts, to which somebody has written since. The same
records always give the same bytes.
"""

from __future__ import annotations

import gzip
import os
import zlib
from pathlib import Path

ENDING = ".gz"
MAX_BYTES = 256 * 2**20
"""No journal is larger; a file that unpacks to more is not read further."""
_CHUNK = 1 << 16
_GZIP = 31  # zlib's window size, and that a header of gzip is expected


def packed(path: Path) -> Path:
    """Where a journal lies when it is packed."""
    return path.with_name(path.name + ENDING)


def contents(path: Path) -> tuple[bytes, str]:
    """What a journal holds, and why that is not all of it, in words; plain or packed.

    Raises FileNotFoundError where there is neither, and OSError where it cannot be read.
    """
    if not path.name.endswith(ENDING):
        try:
            return path.read_bytes(), ""
        except FileNotFoundError:
            path = packed(path)
    return _unpacked(path.read_bytes())


def _unpacked(data: bytes) -> tuple[bytes, str]:
    """What comes before the first damage counts."""
    stream = zlib.decompressobj(_GZIP)
    found = bytearray()
    for start in range(0, len(data), _CHUNK):
        chunk = data[start : start + _CHUNK]
        try:
            while chunk and not stream.eof:
                found += stream.decompress(chunk, MAX_BYTES + 1 - len(found))
                if len(found) > MAX_BYTES:
                    return bytes(found), f"it unpacks to more than {MAX_BYTES >> 20} MiB"
                chunk = stream.unconsumed_tail
        except zlib.error as error:
            return bytes(found), f"it is no gzip file from some byte on: {error}"
    return bytes(found), "" if stream.eof else "its end is missing"


def pack(path: Path) -> None:
    """Put a packed copy beside a journal, in one step. The plain one stays."""
    _write(packed(path), gzip.compress(path.read_bytes(), 9, mtime=0), replace=True)


def unpack(path: Path) -> str:
    """Put a plain copy beside a packed journal, unless there is one, or nothing to unpack.

    The packed one stays. Returns why it cannot be unpacked, in words, or an empty string.
    """
    if path.exists() or not packed(path).exists():
        return ""
    data, problem = contents(packed(path))
    if not problem:
        _write(path, data, replace=False)
    return problem


def _write(path: Path, data: bytes, *, replace: bool) -> None:
    """A whole file, or none; without `replace` one that is there already stays."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with draft.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if replace:
            draft.replace(path)
        else:
            path.hardlink_to(draft)
    except FileExistsError:
        pass
    finally:
        draft.unlink(missing_ok=True)
