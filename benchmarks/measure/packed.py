"""Journals packed with gzip, `….points.jsonl.gz`: what lies in the repository is a sixth as large.

A journal is written plain, line by line, and packed when its run is over. Where there is a packed
one already, a plain one beside it holds what was written since: who reads takes both, the packed
one first, and who packs packs both. The same records always give the same bytes.
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
    """What a journal holds, and why that is not all of it, in words.

    Raises FileNotFoundError where it is neither plain nor packed, and OSError where it cannot be
    read.
    """
    if path.name.endswith(ENDING):
        return _unpacked(path.read_bytes())
    try:
        # A packed one that another process puts there meanwhile holds the plain one too.
        plain = path.read_bytes()
    except FileNotFoundError:
        return _unpacked(packed(path).read_bytes())
    try:
        earlier, damage = _unpacked(packed(path).read_bytes())
    except FileNotFoundError:
        return plain, ""
    return earlier + b"\n" + plain, damage


def _unpacked(data: bytes) -> tuple[bytes, str]:
    """What comes before the first damage counts."""
    stream = zlib.decompressobj(_GZIP)
    found = bytearray()
    followed = False
    for start in range(0, len(data), _CHUNK):
        chunk = data[start : start + _CHUNK]
        followed = followed or stream.eof
        try:
            while chunk and not stream.eof:
                found += stream.decompress(chunk, MAX_BYTES + 1 - len(found))
                if len(found) > MAX_BYTES:
                    return bytes(found), f"it unpacks to more than {MAX_BYTES >> 20} MiB"
                chunk = stream.unconsumed_tail
            followed = followed or bool(stream.unused_data)
        except zlib.error as error:
            return bytes(found), f"it is no gzip file from some byte on: {error}"
    if not stream.eof:
        return bytes(found), "its end is missing"
    return bytes(found), "something follows its end" if followed else ""


def pack(path: Path) -> None:
    """Put a packed copy of a plain journal beside it, in one step. The plain one stays."""
    target = packed(path)
    draft = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        with draft.open("wb") as file:
            file.write(gzip.compress(path.read_bytes(), 9, mtime=0))
            file.flush()
            os.fsync(file.fileno())
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)
