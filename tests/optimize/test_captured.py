"""Of a call's two graphs, rewritten and as written, the faster one stays, and `explain` says so."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import fx

from kernl import explain, optimize_model
from kernl.optimize import captured as module
from kernl.optimize.captured import captured
from kernl.optimize.kept import Choice, Kept, name_of
from kernl.rewrite import trace
from kernl.runtime.runner import Arena, Capture, CudaGraph
from tests.optimize.calls import forward_of, furthest, twice
from tests.tiny_models import inputs, tiny

ARENA = cast(Arena, "the model's")
X = torch.ones(2, 3)


class Graph:
    """A CUDA graph that is none: what was captured, how, and in which memory."""

    def __init__(
        self,
        function: Callable[..., list[torch.Tensor]],
        example: Sequence[torch.Tensor],
        arena: object,
        capture: Capture | None = None,
        ahead: bool = False,
    ) -> None:
        (self.result,) = function(*example)
        self.arena, self.asked = arena, capture
        self.capture = capture or Capture(early=True, ahead=ahead)

    @property
    def as_written(self) -> bool:
        return bool((self.result == 1).all())


@pytest.fixture
def times(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Milliseconds of either graph, which tests set; how often they were compared."""
    taken = {"rewritten": 1.0, "as written": 2.0, "comparisons": 0.0}

    def device_times(calls: Sequence[Callable[[], object]]) -> list[float]:
        assert len(calls) == 2
        taken["comparisons"] += 1
        return [taken["rewritten"], taken["as written"]]

    monkeypatch.setattr(module, "CudaGraph", Graph)
    monkeypatch.setattr(module, "Arena", lambda device: f"apart on {device}")
    monkeypatch.setattr(module, "device_times", device_times)
    return taken


def graph_of(factor: float) -> fx.GraphModule:
    """`x · factor`: 2 stands for what was rewritten, 1 for what was written."""
    return trace(lambda x: x * factor, [X])


def run(kept: Kept | None = None, as_written: bool = True) -> tuple[Graph, str]:
    other = graph_of(1.0) if as_written else None
    found, remark = captured(
        graph_of(2.0), other, lambda graph: graph, [X], ARENA, weights_ahead=False, kept=kept
    )
    return cast(Graph, found), remark


def test_the_rewritten_graph_stays_where_it_is_not_slower(times: dict[str, float]) -> None:
    for theirs in (2.0, 1.0, 0.99):
        times["as written"] = theirs
        found, remark = run()
        assert (found.as_written, remark, found.arena) == (False, "", ARENA)
    assert times["comparisons"] == 3


def test_the_graph_as_written_stays_where_it_is_faster(times: dict[str, float]) -> None:
    times |= {"rewritten": 1.71, "as written": 0.8}
    found, remark = run()
    assert found.as_written
    assert (found.arena, found.asked) == (ARENA, Capture(early=False, ahead=False))
    assert remark == "0.800 ms by PyTorch's kernels in a CUDA graph, 1.710 ms rewritten"


def test_nothing_is_compared_that_nobody_asked_for(times: dict[str, float]) -> None:
    times["as written"] = 0.1
    assert not run(as_written=False)[0].as_written
    assert times["comparisons"] == 0


def test_what_cannot_be_captured_is_no_alternative(
    times: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    times["as written"] = 0.1

    def no_memory(device: torch.device) -> Arena:
        raise torch.cuda.OutOfMemoryError(f"none left on {device}")

    monkeypatch.setattr(module, "Arena", no_memory)
    found, remark = run()
    assert (found.as_written, remark) == (False, "")


@pytest.mark.parametrize("theirs", [0.1, 2.0])
def test_the_next_process_knows_and_compares_nothing(
    times: dict[str, float], theirs: float, tmp_path: Path
) -> None:
    times["as written"] = theirs
    first, _ = run(Kept(tmp_path, torch.device("cpu")))
    again, remark = run(Kept(tmp_path, torch.device("cpu")))
    assert first.as_written == again.as_written == (theirs < 1)
    assert remark == ("as an earlier process found out" if theirs < 1 else "")
    assert times["comparisons"] == 1


def test_who_does_not_compare_leaves_the_question_open(
    times: dict[str, float], tmp_path: Path
) -> None:
    times["as written"] = 0.1
    kept = Kept(tmp_path, torch.device("cpu"))
    assert not run(kept, as_written=False)[0].as_written
    assert kept.choice(name_of(graph_of(2.0), [X])) == Choice(True, False, None)
    assert run(kept)[0].as_written
    assert not run(kept, as_written=False)[0].as_written
    assert run(Kept(tmp_path, torch.device("cpu")))[0].as_written


def test_explain_says_what_is_not_rewritten(capsys: pytest.CaptureFixture[str]) -> None:
    model: Any = tiny("bert")
    optimize_model(model)
    twice(model, **inputs("bert"))
    forward = forward_of(model)
    assert forward.remarks == []
    (engine,) = forward._engines.values()
    forward._engines.put("another kind", dataclasses.replace(engine, remark="0.8 ms, 1.7 ms"))
    assert forward.remarks == ["0.8 ms, 1.7 ms"]
    explain(model, **inputs("bert"))
    assert "not rewritten, as that is slower for one kind of calls: 0.8 ms, 1.7 ms" in (
        capsys.readouterr().out
    )


@pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need an NVIDIA GPU")
def test_the_model_by_its_graph_as_written(monkeypatch: pytest.MonkeyPatch) -> None:
    model: Any = tiny("bert")
    given = inputs("bert")
    with torch.inference_mode():
        truth = model(**given)
    monkeypatch.setattr(module, "device_times", lambda _: [4.0, 1.0])
    optimize_model(model)
    assert furthest(twice(model, **given), truth) < 1e-5
    (engine,) = forward_of(model)._engines.values()
    assert isinstance(engine.runner, CudaGraph)
    assert engine.remark == "1.000 ms by PyTorch's kernels in a CUDA graph, 4.000 ms rewritten"
    with torch.no_grad():  # the graph as written sees what is changed in place too
        model.embeddings.LayerNorm.weight.mul_(2.0)
        truth = forward_of(model).original(**given)
    assert furthest(twice(model, **given), truth) < 1e-5
