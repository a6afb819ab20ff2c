"""Points that are read column by column are those that are read line by line."""

import gzip
import json
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import details, journal_points, reading, sidecar
from benchmarks.asv_file import to_samples
from benchmarks.cases import NOT_SELECTED
from benchmarks.measure import journal, packed
from benchmarks.record import Record

journal_lines = pytest.importorskip(
    "benchmarks.journal_lines", reason="msgspec is not installed: pip install 'kernl[dashboard]'"
)

STORED = Path(__file__).resolve().parents[2] / "benchmarks" / "results"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
RUNS = ("a" * 32, "b" * 32, "c" * 32)

ODD = (
    "null", "true", "false", "0", "-0", "-0.0", "1", "1.0", "-1.5", "1e400", "-1e400", "1e-400",
    "5e-324", "NaN", "Infinity", "-Infinity", str(2**53 + 1), str(2**63), str(2**64), str(-(2**70)),
    str(10**30), str(10**400), '""', '"x"', '"ok"', '"point"', '"run"', '"1"', "[]", "{}", "[1]",
    "[[1.0]]", '{"sm_clock_mhz":1980}', '{"sm_clock_mhz":"x"}', '{"sm_clock_mhz":NaN}',
    '{"sm_clock_mhz":1.0,"sm_clock_mhz":2}', '"\\ud800"', '"\\ud83d\\ude00"', '"\\u00e9"', '"é"',
    '"\\u0000"', '"\x00"', '"a\tb"', '"\\q"', "01", "1.", ".5", "+1", "1e", "tru", "[1,]",
    '{"host":0.5}', '{"host":null}', '{"host":"x"}', '{"replaced":{"a":1},"left":{"b":-1}}',
    '{"replaced":{"a":1}}',
    "[" * 40 + "]" * 40, "[" * 1010 + "]" * 1010, "[" * 5000 + "]" * 5000, f'"{NOT_SELECTED}"',
)  # fmt: skip
"""What a value may be replaced by; not all of it is JSON."""
SAMPLES = (
    "1", "0", "-0", "-0.0", "true", "null", '"1"', "1e400", "1e308", "1e-400", "5e-324", "NaN",
    str(2**53 + 1), str(10**30), str(10**400), "[1.0]", "-1e-6", "0.1E+1", "1.0",
)  # fmt: skip


def point(rng: random.Random) -> dict[str, Any]:
    """A sound point, one of few keys."""
    status = rng.choice(["ok", "ok", "ok", "failed", "skipped"])
    of_model = rng.random() < 0.02
    return {
        "kind": "point",
        "run": rng.choice(RUNS),
        "suite": rng.choice(["kernels", "models"]),
        "op": rng.choice(["softmax", "linear"]),
        "case": rng.choice(["rows1_cols2.fp16", "rows3_cols4.bf16", "rows5_cols6.fp32"]),
        "variant": rng.choice(["eager", "kernl"]),
        "version": rng.choice([1, 1, 1, 2]),
        "status": status,
        "reason": "" if status == "ok" else rng.choice([NOT_SELECTED, "out of memory: 2 × 3 GiB"]),
        "values": {"time": rng.random(), **({"host": rng.random()} if of_model else {})},
        "rewrite": {"replaced": {"softmax": 3}} if of_model else None,
        "samples": [rng.random() * 10 ** rng.randint(-9, 2) for _ in range(rng.choice([0, 3, 9]))],
        "hot_samples": [],
        "error": rng.choice([None, rng.random(), rng.random() - 1]),
        "telemetry": {"sm_clock_mhz": rng.choice([None, 1980, 1755.5]), "throttle": []},
    }


def run(rng: random.Random) -> dict[str, Any]:
    commit = rng.choice([COMMIT, COMMIT, COMMIT[::-1]])
    return {"kind": "run", "id": rng.choice(RUNS), "commit": commit, "fingerprint": {"gpu": "x"}}


def text(record: dict[str, Any]) -> bytes:
    return json.dumps(record, separators=(",", ":")).encode()


def with_value(rng: random.Random, record: dict[str, Any]) -> bytes:
    """A record in which a value is odd, be it that of a key that nobody knows."""
    key = rng.choice([*record, "unknown"])
    return text({**record, key: "@"}).replace(b'"@"', rng.choice(ODD).encode())


def with_sample(rng: random.Random, record: dict[str, Any]) -> bytes:
    samples: list[Any] = list(record.get("samples", [])) or [1e-6]
    samples[rng.randrange(len(samples))] = "@"
    return text({**record, "samples": samples}).replace(b'"@"', rng.choice(SAMPLES).encode())


def without_key(rng: random.Random, record: dict[str, Any]) -> bytes:
    gone = rng.choice(list(record))
    return text({key: value for key, value in record.items() if key != gone})


def with_key_twice(rng: random.Random, record: dict[str, Any]) -> bytes:
    pair = f'"{rng.choice(list(record))}":{rng.choice(ODD)}'.encode()
    whole = text(record)
    return b"{" + pair + b"," + whole[1:] if rng.random() < 0.5 else whole[:-1] + b"," + pair + b"}"


def with_bytes(rng: random.Random, record: dict[str, Any]) -> bytes:
    whole = bytearray(text(record))
    for _ in range(rng.choice([1, 1, 3])):
        whole[rng.randrange(len(whole))] = rng.choice(b'\xff\x00\x80\xc3"\\{}[],:0-.eE tN\r\n')
    return bytes(whole)


def framed(rng: random.Random, record: dict[str, Any]) -> bytes:
    whole = text(record)
    return rng.choice([
        whole + b"\r", b" " + whole + b"\t", b"\xef\xbb\xbf" + whole, whole + whole,
        whole + b" " + whole, whole + b",", b"[" + whole + b"]", whole + b"\x00", whole + b"\x0c",
        whole[: rng.randrange(len(whole))], whole[rng.randrange(len(whole)) :], b"", b" ", b"\r",
        whole.replace(b":", b" : "), whole.replace(b"kind", b"\\u006bind"), b"null", b"{}", b"7",
    ])  # fmt: skip


CHANGES: tuple[Callable[[random.Random, dict[str, Any]], bytes], ...] = (
    with_value, with_value, with_sample, without_key, with_key_twice, with_bytes, framed,
)  # fmt: skip


def content(rng: random.Random, *, changed: float) -> bytes:
    """A journal in which a part of the lines is not as `Journal` writes them."""
    lines = []
    for _ in range(60):
        record = run(rng) if rng.random() < 0.1 else point(rng)
        odd = rng.random() < changed
        lines.append(rng.choice(CHANGES)(rng, record) if odd else text(record))
    return b"\n".join(lines) + rng.choice([b"\n", b""])


def rows(samples: Any, counts: Any) -> list[bytes]:
    return (
        [one.tobytes() for one in np.split(samples, np.cumsum(counts)[:-1])] if len(counts) else []
    )


def outcome(read: Callable[[Path], Any], path: Path) -> Any:
    """What a function makes of a file, or the name of the error that it raises."""
    try:
        return read(path)
    except RecursionError:
        return "RecursionError"


def columns(path: Path) -> dict[str, Any]:
    found = journal_points.read(path)
    return {
        **{name: list(map(repr, found.columns[name])) for name in journal_points.COLUMNS},
        "clock": list(map(repr, found.clock)),
        "details": found.details,
        "samples": rows(found.samples, found.counts),
        "runs": repr(found.runs),
        "problems": found.problems,
    }


def of_records(path: Path) -> dict[str, Any]:
    """The same from the records."""
    records, problems = journal.read(path)
    points = [record for record in records if record["kind"] == "point"]
    of = [record.get("telemetry") for record in points]
    clock = [one.get("sm_clock_mhz") if isinstance(one, dict) else None for one in of]
    return {
        **{n: [repr(record.get(n)) for record in points] for n in journal_points.COLUMNS},
        "clock": list(map(repr, clock)),
        "details": {n: word for n, r in enumerate(points) if (word := details.word_of(r))},
        "samples": [np.array(to_samples(r.get("samples")), float).tobytes() for r in points],
        "runs": repr([record for record in records if record["kind"] == "run"]),
        "problems": problems,
    }


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each batch was decoded at once."""
    seen: list[bool] = []
    decoded = journal_lines.decoded

    def spy(lines: Any) -> Any:
        found = decoded(lines)
        seen.append(found is not None)
        return found

    monkeypatch.setattr(journal_lines, "decoded", spy)
    return seen


@pytest.mark.parametrize("seed", range(40))
def test_odd_lines_are_read_as_one_by_one(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ran: list[bool]
) -> None:
    rng = random.Random(seed)
    path = tmp_path / f"{COMMIT[:8]}-worktree.points.jsonl"
    for changed in (0.0, 0.1, 0.5, 1.0):
        path.write_bytes(content(rng, changed=changed))
        for size in (1 << 16, rng.randint(300, 3000), rng.randint(1, 40)):
            monkeypatch.setattr(packed, "_CHUNK", size)
            assert outcome(columns, path) == outcome(of_records, path)
    assert set(ran) == {True, False}


def told(path: Path, keys: list[tuple[str, str, str, str]]) -> list[Any]:
    found = sidecar.read(path)
    every = []
    for suite, op, case, variant in keys:
        one = found.told(suite, op, [case, "no such case"], [variant, variant])
        assert one.rows.tolist() in ([], [0])
        every.append(
            [
                *(list(map(repr, getattr(one, name).tolist())) for name in
                  ("run", "ok", "reason", "error", "clock")),
                rows(one.samples, one.counts),
            ]
        )  # fmt: skip
    return [every, found.runs, found.notes]


def of_latest(path: Path, keys: list[tuple[str, str, str, str]]) -> list[Any]:
    """What `told` says of the records that `journal.latest` leaves; not the notes."""
    records, _ = journal.read(path)
    runs = {r["id"] for r in records if r["kind"] == "run" and r.get("commit") == COMMIT}
    foreign = {r["id"] for r in records if r["kind"] == "run" and r.get("commit") != COMMIT}
    own = [
        r for r in records
        if r["kind"] == "point" and r["run"] not in foreign and r["status"] in journal.STATUSES
    ]  # fmt: skip
    known = {journal.point_key(record): record for record in journal.latest(own)}
    every: list[Any] = []
    for key in keys:
        record = known.get(key)
        if record is None:
            every.append([[], [], [], [], [], []])
            continue
        of = record.get("telemetry")
        numbers = record.get("error"), of.get("sm_clock_mhz") if isinstance(of, dict) else None
        every.append(
            [
                [repr(record["run"] if record["run"] in runs else "")],
                [repr(record["status"] == "ok")],
                [repr(sidecar.clean(record.get("reason")))],
                *([repr(number(one))] for one in numbers),
                [np.array(to_samples(record.get("samples")), float).tobytes()],
            ]
        )
    return every


def number(value: Any) -> float:
    good = type(value) in (int, float) and 0 <= value < 1e308
    return float(value) if good else math.nan


@pytest.mark.parametrize("seed", range(40))
def test_of_a_point_that_was_written_twice_the_last_counts(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = random.Random(seed)
    path = tmp_path / f"{COMMIT[:8]}-worktree.points.jsonl"
    lines = content(rng, changed=rng.choice([0.0, 0.2])).split(b"\n")
    path.write_bytes(b"\n".join(line for line in lines if b"[[[" not in line))
    keys = sorted({journal.point_key(point(rng)) for _ in range(300)})
    monkeypatch.setattr(packed, "_CHUNK", 800)
    found = told(path, keys)
    assert found[0] == of_latest(path, keys)
    monkeypatch.setattr(journal_lines, "decoded", lambda lines: None)
    assert told(path, keys) == found


def decimals(rng: random.Random) -> list[str]:
    """Numbers that are hard to read, and such as are measured."""
    found = [
        f"{rng.randrange(10**digits)}.{rng.randrange(10**digits)}e{rng.randint(-345, 280)}"
        for digits in (1, 4, 9, 17, 25) for _ in range(4000)
    ]  # fmt: skip
    found += [repr(rng.random() * 10 ** rng.randint(-12, 3)) for _ in range(20000)]
    found += [str(rng.randrange(2**bits)) for bits in range(1, 90) for _ in range(20)]
    for _ in range(2000):  # halfway between two doubles
        mantissa = rng.randrange(2**52, 2**53)
        found.append(str((2 * mantissa + 1) * 2 ** rng.randint(0, 60)))
    return [*found, "2.2250738585072011e-308", "2.4703282292062327e-324", "9007199254740993"]


def test_numbers_have_every_bit(tmp_path: Path, ran: list[bool]) -> None:
    rng = random.Random(0)
    path = tmp_path / "j.points.jsonl"
    base = text({**point(rng), "samples": "@", "error": "#"})
    lines = []
    for word in decimals(rng):
        line = base.replace(b'"@"', f"[1e-6,{word}]".encode())
        lines.append(line.replace(b'"#"', (word if "." in word else f"{word}.0").encode()))
    path.write_bytes(b"\n".join(lines))
    assert columns(path) == of_records(path)
    assert all(ran[:-1])


def test_where_true_is_a_number_of_seconds_it_is_none(tmp_path: Path) -> None:
    path = tmp_path / "j.points.jsonl"
    base = point(random.Random(0))
    path.write_bytes(
        text({**base, "samples": [True, 1.0]}) + b"\n" + text({**base, "samples": [1]})
    )
    assert journal_points.read(path).counts.tolist() == [0, 1]


def test_kinds_and_reasons_of_any_type_cost_their_line_alone(tmp_path: Path) -> None:
    path = tmp_path / "j.points.jsonl"
    base = point(random.Random(0))
    odd = [{**base, "reason": []}, {**base, "kind": []}, {**base, "reason": {}}, base]
    path.write_bytes(b"\n".join(map(text, odd)))
    assert columns(path) == of_records(path)
    problem = "kind is [], allowed are 'run' and 'point'"
    assert journal_points.read(path).problems == [
        f"{path.name} line 2: {problem}; the line is left out"
    ]
    assert journal.latest(journal.read(path)[0]) == [base]


def test_points_are_in_the_order_in_which_they_were_last_written() -> None:
    base = point(random.Random(0))
    first, second = {**base, "case": "a.fp16"}, {**base, "case": "b.fp16"}
    assert journal.latest([first, second, first]) == [second, first]


def same(one: Record, other: Record) -> bool:
    """Whether two records are equal to the last bit."""
    arrays: list[Any] = [(one.codes[name], other.codes[name]) for name in one.codes]
    arrays += [(one.numbers[name], other.numbers[name]) for name in one.numbers]
    arrays += [(getattr(one, n), getattr(other, n)) for n in ("status", "samples", "ends")]
    about = [(r.machine, r.commit, r.committed_at_ms, r.words) for r in (one, other)]
    return about[0] == about[1] and all(
        (a.dtype, a.tobytes()) == (b.dtype, b.tobytes()) for a, b in arrays
    )


def test_the_stored_results_are_the_same(monkeypatch: pytest.MonkeyPatch, ran: list[bool]) -> None:
    walk = reading.walk(STORED)
    assert walk.files
    found = [reading.read(walk.root, files) for files in walk.files]
    assert any(ran)
    monkeypatch.setattr(journal_points, "journal_lines", None)
    for files, fast in zip(walk.files, found, strict=True):
        for path in files.journals:
            if path.name.endswith(packed.ENDING):
                assert b"".join(packed.stream(path)) == gzip.decompress(path.read_bytes())
        plain = reading.read(walk.root, files)
        assert (plain.runs, plain.problems) == (fast.runs, fast.problems)
        assert len(plain.records) == len(fast.records)
        assert all(map(same, plain.records, fast.records))
