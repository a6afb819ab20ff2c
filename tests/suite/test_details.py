"""What a journal tells of a model's call beside its time, from the journal to the table."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from benchmarks import reading
from benchmarks.details import MOST_NAMES, Details, Rewrite, details_of, word_of
from benchmarks.measure.journal import Journal
from tests.suite.asv_results import COMMIT, MACHINE, write_results

REWRITE = {"replaced": {"attention": 12, "linear": 48}, "left": {"embedding": 3}, "refused": {}}


def test_a_word_tells_what_the_record_did() -> None:
    word = word_of({"values": {"time": 1e-3, "host": 2.5e-5}, "rewrite": REWRITE})
    assert details_of(word) == Details(2.5e-5, Rewrite(**REWRITE))
    rewrite = details_of(word).rewrite
    assert rewrite is not None
    assert rewrite.coverage == 60 / 63
    assert math.isnan(Rewrite().coverage)


def test_a_point_of_an_operator_has_no_word() -> None:
    assert word_of({"values": {"time": 1e-6}, "samples": [1e-6]}) == ""
    assert math.isnan(details_of("").host)


@pytest.mark.parametrize("values", [None, [], {"host": "x"}, {"host": 0.0}, {"host": math.inf}])
def test_a_host_time_that_is_none_is_left_out(values: Any) -> None:
    assert word_of({"values": values}) == ""


@pytest.mark.parametrize(
    "rewrite",
    [
        [], "x", {"replaced": []}, {"left": {"a": "1"}}, {"left": {"a": True}},
        {"refused": {"a": 0}}, {"refused": {"a": 10**7}},
        {"replaced": {str(name): 1 for name in range(MOST_NAMES + 1)}},
    ],
)  # fmt: skip
def test_a_rewrite_that_is_not_ours_is_left_out(rewrite: Any) -> None:
    assert word_of({"rewrite": rewrite}) == ""


@pytest.mark.parametrize("word", ["nan", "[]", '"x"', "{", '{"rewrite": 3}', '{"host": []}'])
def test_an_odd_word_tells_nothing(word: str) -> None:
    found = details_of(word)
    assert math.isnan(found.host)
    assert found.rewrite is None


def test_details_come_from_the_journal_into_the_table(tmp_path: Path) -> None:
    name = "models.BertBase.track_time"
    write_results(tmp_path, {name: [3e-4]}, cases=["batch1_seq16.fp16"], variants=["kernl"])
    path = tmp_path / MACHINE / f"{COMMIT[:8]}-worktree.points.jsonl"
    with Journal(path) as journal:
        run = journal.start_run(COMMIT, MACHINE, {"gpu": "NVIDIA H200"})
        journal.append_point(
            run=run, suite="models", op="bert_base", case="batch1_seq16.fp16", variant="kernl",
            version=1, status="ok", values={"time": 3e-4, "host": 2e-5}, rewrite=REWRITE,
        )  # fmt: skip
    assert json.loads(path.read_text().splitlines()[1])["rewrite"] == REWRITE
    found = reading.walk(tmp_path)
    (record,) = reading.read(found.root, found.files[0]).records
    rows = record.frame()
    assert [details_of(word) for word in rows["details"]] == [Details(2e-5, Rewrite(**REWRITE))]
