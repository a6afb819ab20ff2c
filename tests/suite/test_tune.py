"""`python -m benchmarks.tune`: what it asks, and the table that it writes."""

import csv
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from benchmarks import tune
from benchmarks.measure.candidates import candidates, questions
from kernl.ops.linear import LINEAR
from kernl.ops.linear_config import LIBRARY, LINEAR_TUNABLE, LinearConfig
from kernl.ops.linear_layer_norm import LINEAR_LAYER_NORM
from kernl.ops.softmax import SOFTMAX
from kernl.tables import Row, Value, read

KEY: dict[str, Value] = {
    "bits": 16,
    "aligned": 1,
    "extra_pass": 0,
    "m": 16,
    "n": 768,
    "k": 768,
}
CONFIG = LinearConfig("tile", 16, 32, 128, 1, 4, 4)


def test_each_class_is_asked_once_and_tried_in_every_path() -> None:
    asked = questions(LINEAR, tune.cases_to_tune(LINEAR), 90)
    keys = [tuple(question.key.items()) for question in asked]
    assert len(keys) == len(set(keys))
    assert {question.key["bits"] for question in asked} == {16, 32}
    tried = [candidates(question, 90) for question in asked]
    assert all(len(set(configs)) == len(configs) for configs in tried)
    assert all(LIBRARY in configs for configs in tried)
    paths = {config[0] for configs in tried for config in configs}
    assert paths == {"tile", "split", "gemv", "tma", "wave", "library"}


def test_rows_of_the_operators_inside_another_stay(tmp_path: Path) -> None:
    """What linear_layer_norm is fastest with says nothing of linear alone."""
    cases = tune.cases_to_tune(LINEAR_LAYER_NORM, half_only=True)
    asked = questions(LINEAR_LAYER_NORM, cases, 90)
    tables = {q.tunable.name: tune.Table(q.tunable, tmp_path) for q in asked}
    assert tables.keys() == {"linear", "layer_norm", "linear_layer_norm"}

    def names(skip_known: bool) -> set[str]:
        timed = tune.classes_to_time(LINEAR_LAYER_NORM, asked, tables, 90, skip_known)
        return {question.tunable.name for question in timed}

    assert names(skip_known=False) == tables.keys()
    for question in asked:
        default = question.tunable.default(90, question.key)
        tables[question.tunable.name].put(Row(90, question.key, default), 1e-6)
    assert names(skip_known=False) == {"linear_layer_norm"}
    assert names(skip_known=True) == set()


def test_a_choice_is_compared_with_the_librarys_call(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where a kernel of its own is chosen, and only there; a loss beyond the noise is told."""
    cases = tune.cases_to_tune(LINEAR, half_only=True, match=["m128_*"])
    times = {64: 1.0, 128: 1.02, 256: 1.5}
    compared = []

    def answer(question: Any, capability: int, lab: Any, configs: Any) -> Any:
        assert [config[0] == "library" for config in configs] == [False, True]
        compared.append(question)
        slower = times[sorted(times)[len(compared) % 3]]
        return SimpleNamespace(before=slower * 1e-5, seconds=1e-5, reasons=())

    monkeypatch.setattr(tune, "answer", answer)
    monkeypatch.setattr("kernl.launch.capability", lambda device: 90)
    monkeypatch.setattr("benchmarks.measure.laboratory.Laboratory", lambda device: None)
    losses = tune.check(LINEAR, cases)
    asked = questions(LINEAR, cases, 90)
    assert 3 <= len(compared) < len(asked)
    assert len(losses) == sum(number % 3 == 2 for number in range(1, len(compared) + 1))
    last = capsys.readouterr().out.splitlines()[-1]
    assert f"{len(asked)} classes, {len(compared)} of them by a kernel of its own" in last
    assert f"{len(losses)} are slower by more than 3%, the worst takes 1.500 times" in last


def test_patterns_pick_cases() -> None:
    one_token = tune.cases_to_tune(LINEAR, half_only=True, match=["m1_*", "m8_*"])
    assert {case["m"] for case in one_token} == {1, 8}
    assert {case.dtype for case in one_token} == {"fp16"}
    assert tune.cases_to_tune(LINEAR, match=["nothing"]) == []


def test_a_table_is_written_whole_sorted_and_read_again(tmp_path: Path) -> None:
    table = tune.Table(LINEAR_TUNABLE, tmp_path)
    table.put(Row(90, {**KEY, "m": 128}, CONFIG), 4.5e-6)
    table.put(Row(90, KEY, CONFIG), 2.5e-6)
    table.put(Row(80, KEY, LIBRARY), 7e-6)
    path = tmp_path / "linear.csv"
    rows = read(path, LINEAR_TUNABLE)
    assert [(row.architecture, row.key["m"]) for row in rows] == [(80, 16), (90, 16), (90, 128)]
    assert rows[1].config == CONFIG
    with path.open() as file:
        assert [line["microseconds"] for line in csv.DictReader(file)] == ["7.00", "2.50", "4.50"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["linear.csv"]


def test_rows_of_other_gpus_and_classes_are_kept(tmp_path: Path) -> None:
    tune.Table(LINEAR_TUNABLE, tmp_path).put(Row(80, KEY, LIBRARY), 7e-6)
    table = tune.Table(LINEAR_TUNABLE, tmp_path)
    assert table.has(80, KEY)
    assert not table.has(90, KEY)
    table.put(Row(90, KEY, CONFIG), 2.5e-6)
    table.put(Row(90, KEY, LIBRARY), 2.4e-6)
    rows = read(tmp_path / "linear.csv", LINEAR_TUNABLE)
    assert [row.config for row in rows] == [LIBRARY, LIBRARY]


def test_classes_without_a_row_are_named_where_there_is_no_gpu(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["softmax", "clamp_overflow", "--untimed", "--half-only", "--match", "rows1*"]
    assert tune.main([*asked, "--tables", str(tmp_path)]) == 0
    *names, count = capsys.readouterr().out.splitlines()
    assert count == f"softmax: {len(names)} of {len(names)} classes have no row for sm_90"
    assert all("bits=16" in name and "(rows1" in name for name in names)
    case = next(c for c in tune.cases_to_tune(SOFTMAX, True, ["rows1*"]) if c.name in names[0])
    (question,) = questions(SOFTMAX, [case], 90)
    row = Row(90, question.key, question.tunable.default(90, question.key))
    tune.Table(question.tunable, tmp_path).put(row, 1e-6)
    assert tune.main([*asked, "--tables", str(tmp_path)]) == 0
    *left, count = capsys.readouterr().out.splitlines()
    assert left == names[1:]
    assert count.startswith(f"softmax: {len(names) - 1} of {len(names)} classes")
    assert tune.main([*asked, "--tables", str(tmp_path), "--architecture", "sm_80"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(names) + 1


def test_an_unknown_operator_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        tune.main(["liner"])
    assert "no operator liner; allowed: softmax" in capsys.readouterr().err


def test_without_a_gpu_it_says_so(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert tune.main(["linear"]) == 2
    assert "no NVIDIA GPU" in capsys.readouterr().err


def test_calls_that_the_suite_does_not_measure_are_tuned_by_their_names(
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["--untimed", "--half-only", "--model", "bert-base-uncased"]
    assert tune.main(["linear", "attention", *words, "--call", "3x77", "--call", "1x16"]) == 0
    printed = capsys.readouterr().out
    assert "linear: bits=16, aligned=1, extra_pass=0, m=231, n=2304, k=768" in printed
    assert "queries=77, keys=77" in printed
    assert "linear: 4 of 8 classes have no row for sm_90" in printed


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--model", "bert-base-uncased"], "--model and --call go together"),
        (["--call", "8x256"], "--model and --call go together"),
        (["--model", "bert", "--call", "8x256"], "no model 'bert'; allowed: bert-base-uncased,"),
        (["--model", "gpt2", "--call", "8"], "'8' is no call; allowed: such as 8x256"),
        (["--model", "gpt2", "--call", "0x7"], "'0x7' is no call; allowed: such as 8x256"),
        (["--model", "gpt2", "--call=-1x7"], "'-1x7' is no call"),
    ],
)
def test_a_call_that_is_none_is_refused(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        tune.main(["linear", "--untimed", *words])
    assert said in capsys.readouterr().err


def test_an_interrupt_is_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: Any) -> int:
        raise KeyboardInterrupt

    monkeypatch.setenv("KERNL_CACHE_DIR", "kept")
    monkeypatch.setattr(tune, "tune", interrupted)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert tune.main(["linear"]) == 130
    assert "what was timed is kept, --continue goes on" in capsys.readouterr().err
