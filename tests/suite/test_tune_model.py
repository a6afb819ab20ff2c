"""`python -m benchmarks.tune_model`: what is tried in a model, what is chosen, what is written."""

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from benchmarks import tune_model
from benchmarks.measure.candidates import Question, questions
from benchmarks.measure.model_calls import Weights
from benchmarks.models import BERT_BASE
from benchmarks.tune_model import Config, Forced, InModel, forcing, own, settle, shortlist
from kernl import tuning
from kernl.ops.linear import LINEAR
from kernl.ops.linear_config import LIBRARY, LINEAR_TUNABLE, LinearConfig
from kernl.ops.linear_layer_norm_config import LINEAR_LAYER_NORM_TUNABLE
from kernl.ops.linear_norm_config import LATE
from kernl.tables import read

TILE = LinearConfig("tile", 64, 64, 64, 1, 4, 4)
OTHER = TILE._replace(block_m=128)
WAVE = LinearConfig("wave", 128, 96, 64, 1, 4, 4)
KEY = {"bits": 16, "aligned": 1, "extra_pass": 0, "m": 1024, "n": 2304, "k": 768}


def test_the_best_of_each_path_and_what_is_near_are_tried() -> None:
    far, slow = TILE._replace(num_warps=8), LinearConfig("split", 64, 64, 64, 2, 4, 4)
    seconds: dict[Config, float] = {
        TILE: 1.2,
        LIBRARY: 1.0,
        WAVE: 1.9,
        OTHER: 1.24,
        far: 1.26,
        slow: 2.1,
    }
    assert shortlist(seconds) == [LIBRARY, TILE, WAVE, OTHER]


def test_where_there_are_no_paths_the_near_ones_are_tried() -> None:
    seconds: dict[Config, float] = {
        (block, 64): float(block) for block in (16, 17, 18, 19, 20, 21, 15)
    }
    assert shortlist(seconds) == [(15, 64), (16, 64), (17, 64), (18, 64)]
    many: dict[Config, float] = {(64, stages): 1.0 + stages / 1000 for stages in range(20)}
    assert len(shortlist(many)) == tune_model.MOST_TRIED


def test_a_start_without_a_library() -> None:
    assert own({LIBRARY: 1.0, TILE: 1.4, WAVE: 1.3}) == WAVE
    assert own({LIBRARY: 1.0}) == LIBRARY
    assert own({(128, 64): 2.0, (64, 64): 1.0}) == (64, 64)


def test_noise_changes_nothing() -> None:
    configs = [LIBRARY, TILE]
    assert settle(configs, {LIBRARY: 1.0, TILE: 0.999}) == LIBRARY
    assert settle(configs, {LIBRARY: 1.0, TILE: 0.99}) == TILE
    assert settle(configs, {LIBRARY: 1.0, TILE: 1.01}) == LIBRARY


def _question(n: int) -> Question:
    case = next(c for c in LINEAR.cases() if c.name.startswith(f"m1024_n{n}_k768"))
    return next(q for q in questions(LINEAR, [case], 90))


class Model:
    """Stands in for a model: its time is a function of what the two classes have."""

    def __init__(self, taken: Callable[[Config, Config], float]) -> None:
        self._taken = taken
        self.ways: list[list[tuple[Config, Config]]] = []

    def times(self, ways: Sequence[Sequence[Forced]]) -> list[float]:
        pairs: list[tuple[Config, Config]] = []
        for way in ways:
            with forcing(way):
                heavy, light = (
                    tuning.choose(LINEAR_TUNABLE, 90, torch.device("cpu"), **_question(n).key)
                    for n in (3072, 768)
                )
            pairs.append((heavy, light))
        self.ways.append(pairs)
        return [self._taken(*pair) for pair in pairs]


def _tuned(model: Model, timed: Callable[[Question], dict[Any, float]]) -> tuple[Any, list[str]]:
    lines: list[str] = []
    classes = [_question(768), _question(3072)]
    asked = {(q.tunable.name, tuple(q.key.items())): 12 for q in classes}
    choices = tune_model.tune_case(cast(InModel, model), classes, asked, timed, lines.append)
    return choices, lines


def test_a_class_is_tried_with_what_was_chosen_before(tmp_path: Path) -> None:
    """The heavier class first; the row is the model's choice with its time by itself."""
    model = Model(lambda *pair: 3.0 - sum(config == WAVE for config in pair))

    def timed(question: Question) -> dict[Any, float]:
        scale = 1e-5 if question.key["n"] == 3072 else 1e-6
        return {LIBRARY: scale, TILE: 1.5 * scale, WAVE: 1.9 * scale}

    choices, lines = _tuned(model, timed)
    starts, heavy, light = model.ways
    assert starts == [(LIBRARY, LIBRARY), (TILE, TILE)]
    assert heavy == [(LIBRARY, LIBRARY), (TILE, LIBRARY), (WAVE, LIBRARY)]
    assert light == [(WAVE, LIBRARY), (WAVE, TILE), (WAVE, WAVE)]
    assert [choice.config for choice in choices] == [WAVE, WAVE]
    assert "3 of 3 tried" in lines[1]
    tune_model.write(choices, 90, tmp_path)
    rows = read(tmp_path / "linear.csv", LINEAR_TUNABLE)
    assert sorted((row.key["n"], LinearConfig(*row.config)) for row in rows) == [
        (768, WAVE),
        (3072, WAVE),
    ]
    assert "19.00" in (tmp_path / "linear.csv").read_text()


def test_where_all_must_change_at_once_the_start_is_without_a_library() -> None:
    """Each class alone loses: a chain begins early only where no library's call is in it."""
    model = Model(lambda *pair: 2.0 + pair.count(TILE) - 3.0 * (LIBRARY not in pair))
    seconds = {LIBRARY: 1e-6, TILE: 1.5e-6}
    choices, lines = _tuned(model, lambda _: dict(seconds))
    assert [choice.config for choice in choices] == [TILE, TILE]
    assert lines[0].startswith("2000000.0 µs of the model with the fastest of each class by itself")


def test_the_library_stays_where_it_gains() -> None:
    model = Model(lambda *pair: 2.0 - pair.count(LIBRARY))
    choices, _ = _tuned(model, lambda _: {LIBRARY: 1e-6, TILE: 1.5e-6})
    assert [choice.config for choice in choices] == [LIBRARY, LIBRARY]


def test_a_class_without_a_right_candidate_is_left_alone() -> None:
    question, lines = _question(768), list[str]()
    asked = {(question.tunable.name, tuple(question.key.items())): 1}
    model = cast(InModel, None)
    assert tune_model.tune_case(model, [question], asked, lambda _: {}, lines.append) == []
    assert lines[0].endswith("no candidate is right")


def test_the_classes_are_those_that_the_model_asks_for() -> None:
    case = next(c for c in BERT_BASE.cases if (c.batch, c.seq, c.ragged) == (8, 128, False))
    wanted = [
        ("linear", tuple(KEY.items())),
        ("linear_layer_norm", (("bits", 16), ("m", 1024), ("n", 768), ("k", 3072))),
    ]
    found = tune_model.classes_of(BERT_BASE, case, dict.fromkeys(wanted, 12), 90)
    assert {(q.tunable.name, q.op.name) for q in found} == {(n, n) for n, _ in wanted}
    inner = {**KEY, "n": 768}
    with tuning.forcing(LINEAR_LAYER_NORM_TUNABLE, LATE):
        found = tune_model.classes_of(BERT_BASE, case, {("linear", tuple(inner.items())): 12}, 90)
    assert [(q.tunable.name, q.op.name) for q in found] == [("linear", "linear_layer_norm")]


def test_a_model_is_asked_what_its_graph_asks_for() -> None:
    """The model itself on a GPU, of twelve layers; on the CPU a tiny one of two."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dry, layers = device == "cpu", 2 if device == "cpu" else 12
    weights = Weights(BERT_BASE, device)
    case = BERT_BASE.case_of({"batch": 1, "seq": 16, "ragged": False}, dry)
    (sample,) = BERT_BASE.samples(case, [0], device, dry=dry)
    asked = InModel(weights, sample).asked()
    counts: Counter[str] = Counter()
    for (name, _), count in asked.items():
        counts[name] += count
    assert counts["attention"] == layers
    assert counts["linear_layer_norm"] == 2 * layers
    assert counts["linear"] >= 2 * layers  # packed queries, keys and values; the MLP's first


def test_one_class_alone_can_be_forced() -> None:
    other = {**KEY, "n": 768}

    def chosen(key: dict[str, Any]) -> LinearConfig:
        return tuning.choose(LINEAR_TUNABLE, 80, torch.device("cpu"), **key)

    before = chosen(KEY), chosen(other)
    with tuning.forcing(LINEAR_TUNABLE, WAVE, KEY):
        assert (chosen(KEY), chosen(other)) == (WAVE, before[1])
        with tuning.forcing(LINEAR_TUNABLE, TILE):
            assert (chosen(KEY), chosen(other)) == (WAVE, TILE)
    assert (chosen(KEY), chosen(other)) == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["vit_base"], "no sizes of vit_base are known; allowed: bert_base,"),
        (["nothing"], "no model 'nothing'"),
        (["bert", "--match", "batch3_*"], "no case of bert matches 'batch3_*'"),
        (["bert", "--match", "batch8_seq128*"], "no NVIDIA GPU on this machine"),
    ],
)
def test_what_cannot_be_tuned_is_refused(
    words: list[str],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("benchmarks.measure.device.gpu", lambda: None)
    with pytest.raises(SystemExit, match="2"):
        tune_model.main(words)
    assert said in capsys.readouterr().err


@pytest.mark.gpu
def test_a_model_is_tuned(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["bert_base", "--match", "batch1_seq16*", "--tables", str(tmp_path)]
    assert tune_model.main(words) == 0
    assert "of the model" in capsys.readouterr().out
    assert (tmp_path / "linear.csv").exists()
