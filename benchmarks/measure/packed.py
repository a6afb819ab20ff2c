"""Journals packed with gzip, `….points.jsonl.gz`: what lies in the repository is a sixth as large.

A journal is written plain, line by line, and packed when its run is over. Where there is a packed
one already, a plain one beside it holds what was written since: who reads takes both, the packed
one first, and who packs packs both. The same records always give the same bytes.
"""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

try:
    from isal import isal_zlib
except ImportError:  # a machine that only measures needs none
    isal_zlib = None  # type: ignore[assignment]

ENDING = ".gz"
MAX_BYTES = 256 * 2**20
"""No journal is larger; a file that unpacks to more is not read further."""
_CHUNK = 1 << 16
_PIECE = 1 << 14  # what it unpacks to stays in a processor's cache
_GZIP = 31  # zlib's window size, and that a header of gzip is expected
_HEADERS = (b"\x1f\x8b\x08\x00", b"\x1f\x8b\x08\x08")
"""How a file begins that `pack` and `gzip` write. Of others isal checks less than zlib does."""
_zlib: Any = zlib if isal_zlib is None else isal_zlib


def packed(path: Path) -> Path:
    """Where a journal lies when it is packed."""
    return path.with_name(path.name + ENDING)


class Doubtful(Exception):
    """What was unpacked may not be all, or not what was packed: `contents` says why."""


def contents(path: Path) -> tuple[bytes, str]:
    """What a journal holds, and why that is not all of it, in words.

    Raises FileNotFoundError where it is neither plain nor packed, and OSError where it cannot be
    read.
    """
    earlier, plain = _files(path)
    found, damage = _unpacked(earlier) if earlier is not None else (b"", "")
    return (found if plain is None else plain if earlier is None else found + b"\n" + plain), damage


def stream(path: Path) -> Iterator[bytes]:
    """The same in pieces, which end anywhere, in a third of the time.

    Raises Doubtful, be it after the last piece, where the file is damaged or may be.
    """
    earlier, plain = _files(path)
    if earlier is not None:
        yield from _pieces(earlier)
    if plain is not None:
        yield b"" if earlier is None else b"\n"
        for start in range(0, len(plain), _CHUNK):
            yield plain[start : start + _CHUNK]


def _files(path: Path) -> tuple[bytes | None, bytes | None]:
    """What lies in the packed and in the plain file of a journal, one of which may be absent."""
    if path.name.endswith(ENDING):
        return path.read_bytes(), None
    try:
        # A packed one that another process puts there meanwhile holds the plain one too.
        plain = path.read_bytes()
    except FileNotFoundError:
        return packed(path).read_bytes(), None
    try:
        return packed(path).read_bytes(), plain
    except FileNotFoundError:
        return None, plain


def _pieces(data: bytes) -> Iterator[bytes]:
    if data[: len(_HEADERS[0])] not in _HEADERS:
        raise Doubtful
    unpacking = _zlib.decompressobj(_GZIP)
    left = MAX_BYTES
    for start in range(0, len(data), _PIECE):
        try:
            piece = unpacking.decompress(data[start : start + _PIECE], left + 1)
        except _zlib.error as error:
            raise Doubtful from error
        left -= len(piece)
        if left < 0 or unpacking.unconsumed_tail or unpacking.unused_data:
            raise Doubtful
        yield piece
        if unpacking.eof:
            if start + _PIECE < len(data):
                raise Doubtful
            return
    raise Doubtful


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
