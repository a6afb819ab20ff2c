"""The journal keeps every point that was written, whatever becomes of the writer."""

import gzip
import json
import math
import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.cases import NOT_SELECTED
from benchmarks.measure.journal import Journal, JournalError, finite, journal_path, latest, read
from benchmarks.measure.packed import packed
from benchmarks.measure.points import read_point, write_point

ROOT = Path(__file__).resolve().parents[2]
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def append(journal: Journal, run: str, case: str, **rest: Any) -> dict[str, Any]:
    fields = {"suite": "kernels", "op": "softmax", "variant": "kernl", "version": 1, "status": "ok"}
    return journal.append_point(run=run, case=case, **{**fields, **rest})


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    path = journal_path(tmp_path, "nvidia-h200", COMMIT, "worktree")
    with Journal(path) as journal:
        run = journal.start_run(COMMIT, "nvidia-h200", {"gpu": "NVIDIA H200", "sm_count": 132})
        point = append(
            journal,
            run,
            "rows8_cols8.fp16",
            values={"time": 3.1e-6},
            samples=[3.0e-6, 3.2e-6],
            error=2.9e-4,
        )
    assert path == tmp_path / "nvidia-h200" / "01234567-worktree.points.jsonl"
    records, problems = read(path)
    assert problems == []
    assert [record["kind"] for record in records] == ["run", "point"]
    assert records[0]["fingerprint"] == {"gpu": "NVIDIA H200", "sm_count": 132}
    assert records[1] == point
    assert records[1]["run"] == records[0]["id"] == run
    assert "dry" not in records[1]


def test_asv_does_not_take_it_for_a_result_file(tmp_path: Path) -> None:
    results = pytest.importorskip("asv.results")
    machine = tmp_path / "m"
    machine.mkdir()
    (machine / "machine.json").write_text('{"machine": "m", "version": 1}')
    with Journal(journal_path(tmp_path, "m", COMMIT, "worktree")) as journal:
        journal.start_run(COMMIT, "m", {})
    assert list(results.iter_results_paths(str(tmp_path))) == []


def test_a_later_point_replaces_an_earlier_one(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j.points.jsonl")
    run = journal.start_run(COMMIT, "m", {})
    append(journal, run, "a.fp16", values={"time": 1.0})
    append(journal, run, "b.fp16", values={"time": 2.0})
    append(journal, run, "a.fp16", values={"time": 3.0})
    append(journal, run, "a.fp16", variant="eager", values={"time": 4.0})
    times = {(p["case"], p["variant"]): p["values"]["time"] for p in journal.points()}
    assert times == {("b.fp16", "kernl"): 2.0, ("a.fp16", "kernl"): 3.0, ("a.fp16", "eager"): 4.0}


def test_what_nobody_asked_for_replaces_no_result(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j.points.jsonl")
    first, second = (journal.start_run(COMMIT, "m", {}) for _ in range(2))
    nobody: dict[str, Any] = {"status": "skipped", "reason": NOT_SELECTED}
    append(journal, first, "a.fp16", values={"time": 1.0})
    append(journal, first, "b.fp16", **nobody)
    append(journal, first, "c.fp16", values={"time": 2.0})
    append(journal, second, "a.fp16", **nobody)
    append(journal, second, "b.fp16", values={"time": 3.0})
    append(journal, second, "c.fp16", version=2, **nobody)
    journal.compact()
    found = {p["case"]: (p["run"], p["status"]) for p in journal.points()}
    assert found == {
        "a.fp16": (first, "ok"),
        "b.fp16": (second, "ok"),
        "c.fp16": (second, "skipped"),  # of other inputs: the old result is of another case
    }


def test_compaction_keeps_the_last_points_and_their_runs(tmp_path: Path) -> None:
    path = tmp_path / "j.points.jsonl"
    with Journal(path) as journal:
        old, new = (journal.start_run(COMMIT, "m", {"gpu": name}) for name in ("old", "new"))
        append(journal, old, "a.fp16")
        append(journal, new, "a.fp16")
        before = journal.points()
        journal.compact()
        assert journal.points() == before
        assert set(journal.runs()) == {new}
        append(journal, new, "b.fp16")
    assert [p["case"] for p in latest(read(path)[0])] == ["a.fp16", "b.fp16"]
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("way", ["compact", "pack"])
def test_a_corrupt_line_that_is_left_out_is_named(tmp_path: Path, way: str) -> None:
    path = tmp_path / "01234567-worktree.points.jsonl"
    with Journal(path) as journal:
        append(journal, journal.start_run(COMMIT, "m", {}), "a.fp16")
    with path.open("a") as file:
        file.write('{"kind": "poi')
    (said,) = getattr(Journal(path), way)()
    assert f"{path.name} line 3: not a JSON object" in said
    assert Journal(path).compact() == []


def test_a_packed_journal_is_as_good(tmp_path: Path) -> None:
    path = tmp_path / "01234567-worktree.points.jsonl"
    journal = Journal(path)
    run = journal.start_run(COMMIT, "m", {})
    append(journal, run, "a.fp16", values={"time": 1.0})
    last = [append(journal, run, f"{name}.fp16", values={"time": 2.0}) for name in "ab"]
    journal.pack()
    assert [one.name for one in tmp_path.iterdir()] == [path.name + ".gz"]
    assert journal.points() == last
    assert read(path) == read(packed(path))
    whole = packed(path).read_bytes()

    with Journal(path) as again:
        assert append(again, run, "c.fp16") == again.points()[-1]
        assert again.points()[:-1] == last
    assert packed(path).read_bytes() == whole, "what is packed stays until it is packed anew"
    assert len(Journal(path).points()) == 3
    path.unlink()
    assert Journal(path).points() == last

    Journal(path).pack()
    assert packed(path).read_bytes() == whole, "the same records are the same bytes"


def test_a_plain_journal_hides_nothing_that_is_packed(tmp_path: Path) -> None:
    """Such as an empty one, or one of a run that was killed, beside a packed one of elsewhere."""
    path = tmp_path / "j.points.jsonl"
    journal = Journal(path)
    run = journal.start_run(COMMIT, "m", {})
    for name in "acd":
        append(journal, run, f"{name}.fp16", values={"time": 1.0})
    journal.pack()
    path.touch()
    assert [point["case"] for point in Journal(path).points()] == ["a.fp16", "c.fp16", "d.fp16"]
    other = Journal(path)
    run = other.start_run(COMMIT, "m", {})
    for name in "ab":
        append(other, run, f"{name}.fp16", values={"time": 2.0})
    other.pack()
    found = {point["case"][0]: point["values"]["time"] for point in Journal(path).points()}
    assert found == {"c": 1.0, "d": 1.0, "a": 2.0, "b": 2.0}


def test_processes_that_write_and_pack_in_turn_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "j.points.jsonl"
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from benchmarks.measure.journal import Journal, JournalError\n"
        "path, who, kept, number = Path(sys.argv[1]), sys.argv[2], [], 0\n"
        "while len(kept) < 20:\n"  # whoever finds the journal held tries again
        "    number += 1\n"
        "    journal = Journal(path)\n"
        "    try:\n"
        "        run = journal.start_run('c' * 40, 'm', {})\n"
        "        case = f'{who}{number}.fp16'\n"
        "        journal.append_point(run=run, suite='kernels', op='softmax', case=case,\n"
        "                             variant='kernl', version=1, status='ok')\n"
        "        kept.append(case)\n"
        "        journal.pack()\n"
        "    except JournalError:\n"
        "        journal.close()\n"
        "print(' '.join(kept))\n"
    )
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(path), who],
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        for who in "ab"
    ]
    kept = {case for writer in writers for case in writer.communicate(timeout=120)[0].split()}
    assert len(kept) == 40
    assert {point["case"] for point in Journal(path).points()} == kept


def test_two_writers_of_a_packed_journal(tmp_path: Path) -> None:
    path = tmp_path / "j.points.jsonl"
    journal = Journal(path)
    append(journal, journal.start_run(COMMIT, "m", {}), "a.fp16")
    journal.pack()
    with Journal(path) as one:
        one.start_run(COMMIT, "m", {})
        with pytest.raises(JournalError, match="written by another process"):
            Journal(path).pack()
    assert sorted(file.name for file in tmp_path.iterdir()) == [path.name, path.name + ".gz"]
    assert len(read(path)[0]) == 3


@pytest.mark.parametrize(
    ("damage", "problem", "kept"),
    [
        (lambda data: data[:-20], "its end is missing", range(1, 400)),
        (
            lambda data: data[: len(data) // 2] + b"rows" * len(data),
            ": it",
            range(1, 400),
        ),
        (lambda data: b"rows" + data, "no gzip file from", [0]),
        (lambda data: b"", "its end is missing", [0]),
        (lambda data: data + b"more", "something follows its end", [400]),
        (lambda data: data + data, "something follows its end", [400]),
        (lambda data: gzip.compress((b" " * 99 + b"\n") * (3 << 20)), "more than 256 MiB", [0]),
    ],
)
def test_a_damaged_packed_journal_is_not_written_over(
    tmp_path: Path, damage: Any, problem: str, kept: Any
) -> None:
    path = tmp_path / "j.points.jsonl"
    journal = Journal(path)
    run = journal.start_run(COMMIT, "m", {})
    chance = random.Random(0)
    for number in range(400):
        append(journal, run, f"rows{number}.fp16", samples=[chance.random() for _ in range(30)])
    journal.pack()
    broken = damage(packed(path).read_bytes())
    packed(path).write_bytes(broken)
    records, problems = read(path)
    assert problem in problems[0]
    assert max(0, len(records) - 1) in kept
    journal.start_run(COMMIT, "m", {})
    with pytest.raises(JournalError, match="Restore it, or move it away"):
        journal.pack()
    assert packed(path).read_bytes() == broken
    assert len(read(path)[0]) == len(records) + 1


def test_numbers_json_does_not_have_become_null(tmp_path: Path) -> None:
    path = tmp_path / "j.points.jsonl"
    with Journal(path) as journal:
        run = journal.start_run(COMMIT, "m", {"copy_bytes_per_s": math.nan})
        append(journal, run, "a.fp16", error=math.nan, samples=[1.0, math.inf])
    text = path.read_text()
    assert "NaN" not in text
    assert "Infinity" not in text
    records, _ = read(path)
    assert records[0]["fingerprint"]["copy_bytes_per_s"] is None
    assert records[1]["error"] is None
    assert records[1]["samples"] == [1.0, None]


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=10,
)


@given(VALUES)
def test_finite_values_always_make_strict_json(value: Any) -> None:
    json.dumps(finite(value), allow_nan=False)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b'{"kind":"point","run":"r","suite":"kernels","op":"so', "not a JSON object"),
        (b"\xff\xfe\x00garbage", "not a JSON object"),
        (b"[1, 2]", "not a JSON object"),
        (b'{"kind":"note"}', "kind is 'note'"),
        (b'{"kind":"point","run":"r"}', "without suite, op, case, variant, status"),
        (b'{"kind":"run","id":7}', "without id"),
    ],
)
def test_a_broken_line_costs_itself_alone(tmp_path: Path, line: bytes, problem: str) -> None:
    path = tmp_path / "j.points.jsonl"
    with Journal(path) as journal:
        run = journal.start_run(COMMIT, "m", {})
        append(journal, run, "a.fp16")
    with path.open("ab") as file:
        file.write(line)  # no newline: as a killed writer leaves it
    with Journal(path) as journal:
        append(journal, run, "b.fp16")
    records, problems = read(path)
    assert [record.get("case") for record in records] == [None, "a.fp16", "b.fp16"]
    assert len(problems) == 1
    assert problem in problems[0]
    assert "line 3" in problems[0]


def test_a_missing_file_is_an_empty_journal(tmp_path: Path) -> None:
    assert read(tmp_path / "none.jsonl") == ([], [])
    assert Journal(tmp_path / "none.jsonl").points() == []
    assert list(tmp_path.iterdir()) == []


def test_a_second_writer_gets_an_error_and_a_reader_does_not(tmp_path: Path) -> None:
    path = tmp_path / "j.points.jsonl"
    second = Journal(path)
    with Journal(path) as first:
        run = first.start_run(COMMIT, "m", {})
        with pytest.raises(JournalError, match="being written by another process"):
            append(second, run, "a.fp16")
        first.compact()
        with pytest.raises(JournalError, match="being written by another process"):
            append(second, run, "a.fp16")
        assert second.points() == []
    append(second, run, "a.fp16")
    assert len(second.points()) == 1


@pytest.mark.parametrize(
    ("fields", "message"),
    [({"status": "fine"}, "allowed are ok, failed, skipped"), ({"status": "failed"}, "say why")],
)
def test_a_point_that_says_too_little_is_refused(
    tmp_path: Path, fields: dict[str, Any], message: str
) -> None:
    with Journal(tmp_path / "j.points.jsonl") as journal:
        run = journal.start_run(COMMIT, "m", {})
        with pytest.raises(JournalError, match=message):
            append(journal, run, "a.fp16", **fields)


def test_every_point_is_on_disk_before_the_writer_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "j.points.jsonl"
    script = (
        "import os, signal, sys\n"
        "from benchmarks.measure.journal import Journal\n"
        "journal = Journal(sys.argv[1])\n"
        "run = journal.start_run('0' * 40, 'm', {})\n"
        "for n in range(3):\n"
        "    journal.append_point(run=run, suite='kernels', op='softmax', case=f'c{n}.fp16',\n"
        "                         variant='kernl', version=1, status='ok')\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", script, str(path)], env=environment, check=False)
    assert done.returncode == -signal.SIGKILL
    assert [p["case"] for p in Journal(path).points()] == ["c0.fp16", "c1.fp16", "c2.fp16"]
    with Journal(path) as journal:  # the lock died with its holder
        append(journal, "r", "c3.fp16")


def test_points_are_one_file_each(tmp_path: Path) -> None:
    write_point(tmp_path, "rows8_cols8.fp16", "kernl", {"status": "ok", "error": math.nan})
    write_point(tmp_path, "rows8_cols8.fp16", "eager", {"status": "failed", "reason": "no"})
    assert read_point(tmp_path, "rows8_cols8.fp16", "kernl") == {"status": "ok", "error": None}
    assert read_point(tmp_path, "rows8_cols8.fp16", "eager") == {"status": "failed", "reason": "no"}
    assert read_point(tmp_path, "rows8_cols8.fp16", "compile") is None
    assert len(list((tmp_path / "points").iterdir())) == 2
