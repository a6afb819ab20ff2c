"""What one commit measured: as a frame and back, as a file and back, and as a broken file."""

import io
import math
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks import record
from benchmarks.asv_file import STATUSES
from benchmarks.cases import NOT_SELECTED
from benchmarks.record import NUMBERS, TEXT, Record
from dashboards.data import evidence
from dashboards.data.cache import CacheError
from dashboards.data.measured import Measured
from tests.dashboards import hostile, synthetic
from tests.dashboards.synthetic import commit_hash, row

ORDER = ["machine", "commit", "suite", "op", "metric", "case", "variant"]


def random_rows(seed: int = 1, commits: int = 3) -> list[dict[str, object]]:
    """Rows of every status, with and without samples, errors and reasons, in any order."""
    draw = np.random.default_rng(seed)
    rows = []
    for commit in range(commits):
        for machine in ("nvidia-h100", "nvidia-h200"):
            for at in range(40):
                status = STATUSES[draw.choice(3, p=[0.7, 0.15, 0.15])]
                samples = np.exp(draw.normal(-12, 0.5, draw.integers(0, 9))).tolist()
                value = float(draw.lognormal(-12)) if status == "ok" else math.nan
                rows.append(
                    row(
                        machine=machine, commit=commit_hash(commit),
                        committed_at=pd.Timestamp("2026-01-01 10:11:12.345", tz="UTC")
                        + pd.Timedelta(days=commit),
                        op=f"op{at % 4}", case=f"rows{at // 8}.fp16",
                        variant=("kernl", "eager")[at // 4 % 2],
                        value=value, low=value * 0.9, high=value * 1.1, samples=tuple(samples),
                        version=str(draw.integers(3)), status=status,
                        reason=str(draw.choice(["", NOT_SELECTED, "kernl takes no <rows> “ü”"])),
                        error=float(draw.choice([math.nan, 0.0, 1.2345678901234567e-4])),
                        run=str(draw.choice(["", "r1", "r2"])),
                    )
                )  # fmt: skip
    return [rows[at] for at in draw.permutation(len(rows))]


def records(rows: list[dict[str, object]], clock: bool = False) -> list[Record]:
    frame = synthetic.frame(rows)
    if clock:
        frame["clock"] = np.random.default_rng(0).uniform(1e3, 2e3, len(frame))
    return list(record.of_frame(frame))


def joined(found: list[Record]) -> pd.DataFrame:
    return pd.concat([one.frame() for one in found], ignore_index=True)


def assert_same_rows(found: pd.DataFrame, expected: pd.DataFrame) -> None:
    """The same rows in whatever order, to the last bit."""
    assert list(found.columns) == list(expected.columns)
    frames = [one.sort_values(ORDER, ignore_index=True) for one in (found, expected)]
    for name in expected.columns:
        values = [frame[name].tolist() for frame in frames]
        # NaN is no NaN's equal, but its text is.
        assert list(map(repr, values[0])) == list(map(repr, values[1])), name


def assert_same(found: Measured, expected: Measured, *, samples: bool = True) -> None:
    """The same but for the samples, which have seven digits."""
    mine, theirs = found.record, expected.record
    for name in ("machine", "commit", "committed_at_ms"):
        assert getattr(mine, name) == getattr(theirs, name)
    assert {name: list(mine.words[name]) for name in TEXT} == dict(theirs.words)
    for name in TEXT:
        assert np.array_equal(mine.codes[name], theirs.codes[name])
        assert np.issubdtype(mine.codes[name].dtype, np.integer)
    for name in NUMBERS:
        assert np.array_equal(mine.numbers[name], theirs.numbers[name], equal_nan=True)
    assert np.array_equal(mine.status, theirs.status)
    assert np.array_equal(found.judged, expected.judged)
    assert np.array_equal(found.evidence, expected.evidence, equal_nan=True)
    assert found.layout == expected.layout
    if samples:
        assert np.array_equal(mine.ends, theirs.ends)
        assert np.allclose(mine.samples, theirs.samples, rtol=6e-8, atol=0)
    else:
        assert [mine.samples_of(at) for at in range(len(mine))] == [()] * len(mine)


def test_the_frame_of_a_frame_s_records_is_that_frame() -> None:
    rows = random_rows()
    found = records(rows)
    keys = [(one.machine, one.commit) for one in found]
    assert keys == sorted(keys)
    assert len(keys) == 6
    assert sum(map(len, found)) == len(rows)
    assert_same_rows(joined(found), synthetic.frame(rows))


def test_rows_of_a_record_keep_their_order_and_some_can_be_had() -> None:
    rows = [one for one in random_rows(commits=1) if one["machine"] == "nvidia-h200"]
    (one,) = records(rows)
    every = one.frame()
    for name in ("case", "variant", "samples", "status"):
        assert every[name].tolist() == [each[name] for each in rows]
    places = np.array([5, 2, 0], np.intp)
    some = one.frame(places)
    assert list(some["case"]) == list(every["case"].iloc[places])
    assert list(some.index) == [0, 1, 2]
    assert one.frame(places, samples=False)["samples"].tolist() == [()] * 3
    assert [one.samples_of(at) for at in (5, 2, 0)] == some["samples"].tolist()
    assert one.frame(np.empty(0, np.intp)).columns.tolist() == every.columns.tolist()


def test_of_rows_with_the_same_key_the_last_counts() -> None:
    first = row(value=1e-6, samples=(1e-6,), run="r1", reason="first")
    other = row(value=3e-6, variant="eager")
    last = row(value=math.nan, status="failed", run="r2", reason="last", version="2")
    (found,) = records([first, other, last])
    assert_same_rows(found.frame(), synthetic.frame([other, last]))
    distinct = [row(**{name: "x"}) for name in ("suite", "op", "metric", "case", "variant")]
    (found,) = records([row(), *distinct])
    assert len(found) == 6


def test_a_status_that_is_none_of_ours_is_a_failure() -> None:
    rows = [row(case=str(at), status=one) for at, one in enumerate([*STATUSES, "odd", "", "OK"])]
    (found,) = records(rows)
    assert list(found.frame()["status"]) == [*STATUSES, "failed", "failed", "failed"]


def test_where_finds_words_and_no_others() -> None:
    (found,) = records([row(), row(variant="eager"), row(op="linear", case="softmax")])
    assert found.where("op", "softmax").tolist() == [True, True, False]
    assert found.where("case", "softmax").tolist() == [False, False, True]
    assert found.where("variant", "compile").tolist() == [False, False, False]


def test_without_rows_there_is_no_record() -> None:
    assert records([]) == []


@pytest.fixture
def whole() -> list[Measured]:
    return [Measured.of(one) for one in records(random_rows(), clock=True)]


def test_a_file_gives_back_what_was_saved(whole: list[Measured], tmp_path: Path) -> None:
    for one in whole:
        assert not np.isnan(one.record.numbers["clock"]).any()
        one.save(tmp_path / "x.columns")
        assert_same(Measured.load(tmp_path / "x.columns"), one)
        assert_same(Measured.load(tmp_path / "x.columns", samples=False), one, samples=False)


def test_what_is_saved_twice_is_the_same_bytes(whole: list[Measured], tmp_path: Path) -> None:
    whole[0].save(tmp_path / "a")
    whole[0].save(tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    Measured.load(tmp_path / "a").save(tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_many_words_and_odd_numbers_come_back(tmp_path: Path) -> None:
    """More than a byte can count, infinities, and numbers that have no place in 32 bits."""
    rows = [
        row(case=f"rows{at}.fp16", value=value, samples=(1e-6,), error=-0.0, reason=str(at))
        for at, value in enumerate([1e-300, 1e300, math.inf, 5e-324, *(1e-6,) * 70_000])
    ]
    (one,) = records(rows)
    found = Measured.of(one)
    found.save(tmp_path / "x.columns")
    again = Measured.load(tmp_path / "x.columns", samples=False)
    assert_same(again, found, samples=False)
    assert np.signbit(again.record.numbers["error"]).all()


def test_strings_that_attack_come_back_printable(tmp_path: Path) -> None:
    for one in records(hostile.store().rows.to_dict("records")):
        found = Measured.of(one)
        found.save(tmp_path / "x.columns")
        again = Measured.load(tmp_path / "x.columns")
        assert_same(again, found)
        for name in TEXT:
            assert all(word.isprintable() for word in again.record.words[name])


def test_evidence_is_that_of_the_samples_before_they_were_rounded(
    tmp_path: Path,
) -> None:
    judged = 0
    for one in records(random_rows()):
        Measured.of(one).save(tmp_path / "x.columns")
        places, found = evidence.of_record(one)
        again = Measured.load(tmp_path / "x.columns", samples=False)
        assert again.judged.tolist() == places.tolist()
        assert np.array_equal(again.evidence, found, equal_nan=True)
        judged += len(places)
    assert judged > 50


def test_layouts_are_equal_where_the_points_are(whole: list[Measured]) -> None:
    rows = random_rows(commits=1)
    mine = [one for one in rows if one["machine"] == "nvidia-h200"]
    same = [{**one, "value": 1.0, "commit": "f" * 40, "run": "z", "status": "ok"} for one in mine]
    layouts = [Measured.of(one).layout for some in (mine, same) for one in records(some)]
    assert len(set(layouts)) == 1
    others = [mine[::-1], mine[1:], [*mine, row(machine="nvidia-h200", case="new.fp16")]]
    assert len({Measured.of(records(some)[0]).layout for some in (mine, *others)}) == 4


def damaged(content: bytes) -> Iterator[bytes]:
    """The content cut, with bytes changed, with parts left out or swapped."""
    draw = np.random.default_rng(4)
    for end in (0, 1, 3, 4, 30, *draw.integers(len(content), size=60).tolist()):
        yield content[:end]
    for place in (*range(64), *range(len(content) - 64, len(content))):
        yield content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :]
    for place in draw.integers(len(content), size=300).tolist():
        bit = 1 << int(draw.integers(8))
        yield content[:place] + bytes([content[place] ^ bit]) + content[place + 1 :]
    for _ in range(60):
        begin, end = sorted(draw.integers(len(content), size=2).tolist())
        yield content[:begin] + content[end:]
        yield content[:begin] + bytes(end - begin) + content[end:]
    yield content + content


def test_a_damaged_file_is_refused_or_was_whole(whole: list[Measured], tmp_path: Path) -> None:
    path = tmp_path / "x.columns"
    whole[0].save(path)
    content = path.read_bytes()
    refused = 0
    for broken in damaged(content):
        path.write_bytes(broken)
        for samples in (True, False):
            try:
                found = Measured.load(path, samples=samples)
            except CacheError:
                refused += 1
            else:
                assert_same(found, whole[0], samples=samples)
    assert refused > 500


@pytest.mark.parametrize(
    "content",
    [b"", b"not ours", b"{}", b"\x93NUMPY", b"kernl-measured 3", b"kernl-measured 2 1 1 1 1\nx"],
)
def test_a_file_that_is_none_of_ours_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.columns"
    path.write_bytes(content)
    with pytest.raises(CacheError, match=r"x\.columns cannot be read .* build again"):
        Measured.load(path)
    path.unlink()
    with pytest.raises(CacheError, match="No such file"):
        Measured.load(path)
    with pytest.raises(CacheError, match="directory"):
        Measured.load(tmp_path)


def test_an_object_in_a_file_is_never_unpickled(tmp_path: Path) -> None:
    path, content = tmp_path / "x.columns", io.BytesIO()
    np.save(content, np.array([{"format": 1}], dtype=object))
    part = content.getvalue()
    head = f"kernl-measured 3 {len(part)} {zlib.crc32(part)} 0 0\n"
    path.write_bytes(head.encode() + part)
    with pytest.raises(CacheError, match="OBJECT array"):
        Measured.load(path)


def test_a_file_of_another_format_is_refused(whole: list[Measured], tmp_path: Path) -> None:
    path = tmp_path / "x.columns"
    whole[0].save(path)
    path.write_bytes(path.read_bytes().replace(b"kernl-measured 3", b"kernl-measured 99", 1))
    with pytest.raises(CacheError, match="it is no kernl-measured 3"):
        Measured.load(path)
