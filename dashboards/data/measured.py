"""What one commit measured on one machine, as the pages use it, and its file in the cache.

A `Measured` is a `benchmarks.record.Record`, its words printable, and the evidence of kernl's times
(`dashboards.data.evidence`). The samples have seven digits, as they are only looked at; what is
judged by is the evidence, which is kept in full.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import zlib
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.record import KEY, NUMBERS, TEXT, Record
from dashboards import text
from dashboards.data import evidence
from dashboards.data.cache import CacheError

_NAME, _FORMAT = "kernl-measured", 3


@dataclass(frozen=True)
class Measured:
    """What one commit measured on one machine.

    Attributes:
        record: all of it.
        judged: the rows of kernl's times that have evidence.
        evidence: of each of them, the fields of `evidence.Evidence`.
    """

    record: Record
    judged: NDArray[np.intp]
    evidence: NDArray[np.float64]

    @classmethod
    def of(cls, record: Record) -> Measured:
        """Makes the words of a record printable, and finds its evidence."""
        words = {name: [text.clean(one) for one in record.words[name]] for name in TEXT}
        clean = replace(record, words=words)
        found = evidence.of_record(clean)
        with np.errstate(over="ignore"):
            samples = clean.samples.astype(np.float32)
        return cls(replace(clean, samples=samples), *found)

    @cached_property
    def layout(self) -> str:
        """Equal for records that have the same points in the same rows."""
        found = hashlib.blake2b(digest_size=16)
        for name in KEY:
            found.update(json.dumps(list(self.record.words[name])).encode())
            found.update(np.ascontiguousarray(self.record.codes[name], np.int32).tobytes())
        return found.hexdigest()

    def save(self, path: Path) -> None:
        """Writes the file."""
        record = self.record
        about = {
            "machine": record.machine,
            "commit": record.commit,
            "committed_at_ms": record.committed_at_ms,
            "words": {name: list(record.words[name]) for name in TEXT},
            "layout": self.layout,
        }
        columns = {name: _narrow(record.codes[name]) for name in TEXT}
        columns |= {**record.numbers, "status": record.status}
        rows = np.empty(len(record), [(name, column.dtype) for name, column in columns.items()])
        for name, column in columns.items():
            rows[name] = column
        words = np.frombuffer(json.dumps(about).encode(), np.uint8)
        parts = [
            _saved(words, rows, self.judged, self.evidence),
            _saved(record.ends, record.samples),
        ]
        ends = " ".join(f"{len(part)} {zlib.crc32(part)}" for part in parts)
        path.write_bytes(b"".join([f"{_NAME} {_FORMAT} {ends}\n".encode(), *parts]))

    @classmethod
    def load(cls, path: Path, *, samples: bool = True) -> Measured:
        """Reads the file; without `samples` no row has any.

        Raises:
            CacheError: it is none of ours, or not whole.
        """
        try:
            return cls._load(path, samples=samples)
        except (OSError, EOFError, ValueError, KeyError, TypeError, IndexError) as error:
            why = f"{type(error).__name__}: {error}"
            raise CacheError(
                f"{path} cannot be read ({why}); remove {path.parent}, and build again"
            ) from error

    @classmethod
    def _load(cls, path: Path, *, samples: bool) -> Measured:
        with path.open("rb") as file:
            name, version, *ends = file.readline(200).split()
            if (name, version) != (_NAME.encode(), b"%d" % _FORMAT):
                raise ValueError(f"it is no {_NAME} {_FORMAT}")
            sizes, sums = list(map(int, ends[::2])), list(map(int, ends[1::2]))
            if file.tell() + sum(sizes) != path.stat().st_size:
                raise ValueError("it is not as long as it says")
            parts = [file.read(size) for size in (sizes if samples else sizes[:1])]
        if any(zlib.crc32(part) != of for part, of in zip(parts, sums, strict=False)):
            raise ValueError("its sum is not what it says")
        words, rows, judged, found = _arrays(parts[0], 4)
        about = json.loads(words.tobytes())
        ends_of, taken = np.zeros(len(rows) + 1, np.int64), np.empty(0, np.float32)
        if samples:
            ends_of, taken = _arrays(parts[1], 2)
        record = Record(
            machine=about["machine"],
            commit=about["commit"],
            committed_at_ms=about["committed_at_ms"],
            words=about["words"],
            codes={name: rows[name] for name in TEXT},
            numbers={name: rows[name] for name in NUMBERS},
            status=rows["status"],
            samples=taken,
            ends=ends_of,
        )
        loaded = cls(record, judged, found)
        loaded.__dict__["layout"] = about["layout"]
        return loaded


def _saved(*arrays: NDArray[Any]) -> bytes:
    """Arrays one after the other, in NumPy's format."""
    content = io.BytesIO()
    for array in arrays:
        np.save(content, array, allow_pickle=False)
    return content.getvalue()


def _arrays(content: bytes, count: int) -> list[NDArray[Any]]:
    """What `_saved` saved, without a copy."""
    file, found = io.BytesIO(content), []
    for _ in range(count):
        if np.lib.format.read_magic(file) != (1, 0):
            raise ValueError("an array of another version of NumPy's format")
        shape, _, kind = np.lib.format.read_array_header_1_0(file)
        size = math.prod(shape)
        array = np.frombuffer(content, kind, size, file.tell()) if size else np.empty(0, kind)
        found.append(array.reshape(shape))
        file.seek(array.nbytes, io.SEEK_CUR)
    return found


def _narrow(codes: NDArray[np.integer[Any]]) -> NDArray[Any]:
    """Codes in as few bytes as they fit into."""
    return codes.astype(np.min_scalar_type(int(codes.max(initial=0))))
