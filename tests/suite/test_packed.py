"""What is unpacked piece by piece is what is unpacked whole, or it is doubted."""

import gzip
import random
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.measure import packed

isal_zlib = pytest.importorskip(
    "isal.isal_zlib", reason="isal is not installed: pip install 'kernl[dashboard]'"
)


@pytest.fixture(params=[isal_zlib, zlib], ids=["isal", "zlib"], autouse=True)
def _unpacker(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed, "_zlib", request.param)


def lines(rng: random.Random, count: int = 400) -> bytes:
    return b"".join(
        b'{"a":%d,"b":"%s"}\n' % (n, rng.randbytes(8).hex().encode()) for n in range(count)
    )


def streamed(path: Path) -> bytes | None:
    try:
        return b"".join(packed.stream(path))
    except packed.Doubtful:
        return None


def with_header(data: bytes, flags: int, fields: bytes) -> bytes:
    return data[:3] + bytes([flags]) + data[4:10] + fields + data[10:]


def damaged(rng: random.Random, data: bytes) -> Iterator[bytes]:
    """Files of which some are still sound."""
    for _ in range(150):
        some = bytearray(data)
        for _ in range(rng.choice([1, 1, 2, 5])):
            some[rng.randrange(len(some))] = rng.randrange(256)
        yield bytes(some)
    for at in [*range(10), *range(-12, 0)]:
        for bit in range(8):
            some = bytearray(data)
            some[at] ^= 1 << bit
            yield bytes(some)
    yield from (data[: rng.randrange(len(data))] for _ in range(40))
    ends = (b"\0", b"\0" * 600, b"x", data, data[:5], gzip.compress(b"", mtime=0))
    yield from (data + end for end in ends)
    extra, name, comment = struct.pack("<H", 3) + b"abc", b"name\0", b"comment\0"
    for flags, fields in (
        (4, extra), (8, name), (16, comment), (4 | 8 | 16, extra + name + comment),
        (2, b"xx"), (2, struct.pack("<H", zlib.crc32(data[:3] + b"\2" + data[4:10]) & 0xFFFF)),
        (1, b""), (32, b""), (64, b""), (128, b""),
    ):  # fmt: skip
        yield with_header(data, flags, fields)
    yield from (zlib.compress(data), b"", b"\0" * 20, gzip.compress(b"", mtime=0))


@pytest.mark.parametrize("level", [0, 1, 6, 9])
@pytest.mark.parametrize("size", [1, 100, 1 << 14])
def test_what_is_damaged_is_doubted(
    tmp_path: Path, level: int, size: int, monkeypatch: Any
) -> None:
    monkeypatch.setattr(packed, "_PIECE", size)
    rng = random.Random(level)
    path = tmp_path / "j.points.jsonl.gz"
    known = 0
    for data in damaged(rng, gzip.compress(lines(rng, 40 if size == 1 else 400), level, mtime=0)):
        path.write_bytes(data)
        found = streamed(path)
        if found is not None:
            known += 1
            assert packed.contents(path) == (found, "")
    assert known


@pytest.mark.parametrize("count", [0, 1, 20_000])
def test_what_is_sound_is_not_doubted(tmp_path: Path, count: int) -> None:
    path = tmp_path / "j.points.jsonl"
    content = lines(random.Random(0), count)
    path.write_bytes(content)
    assert streamed(path) == content
    packed.pack(path)
    assert streamed(path) == content + b"\n" + content
    assert packed.contents(path) == (content + b"\n" + content, "")
    path.unlink()
    assert streamed(path) == streamed(packed.packed(path)) == content
    with gzip.open(packed.packed(path), "wb") as file:
        file.write(content)
    assert streamed(path) == content


def test_more_than_a_journal_holds_is_doubted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "j.points.jsonl"
    path.write_bytes(b"a" * 100_000)
    packed.pack(path)
    path.unlink()
    monkeypatch.setattr(packed, "MAX_BYTES", 100_000)
    assert streamed(path) == b"a" * 100_000
    monkeypatch.setattr(packed, "MAX_BYTES", 99_999)
    assert streamed(path) is None
    assert packed.contents(path)[1].startswith("it unpacks to more than")


def test_what_is_not_there_is_no_empty_journal(tmp_path: Path) -> None:
    for name in ("j.points.jsonl", "j.points.jsonl.gz"):
        with pytest.raises(FileNotFoundError):
            list(packed.stream(tmp_path / name))
