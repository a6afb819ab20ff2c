"""What `cache_dir` keeps, and that nothing in it can do harm."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import triton

from kernl import optimize_model
from kernl.optimize import kept
from kernl.optimize.kept import Choice, Kept, name_of
from kernl.rewrite import known, trace
from kernl.runtime.runner import Capture
from tests.optimize.calls import BY_GRAPH, forward_of, furthest, twice
from tests.tiny_models import inputs, tiny

CPU = torch.device("cpu")

SECOND_PROCESS = """
import sys, torch
from kernl import optimize_model
from kernl.rewrite import match
from tests.tiny_models import inputs, tiny
model = tiny("bert")
optimize_model(model, cache_dir=sys.argv[1])
with torch.inference_mode():
    for _ in range(2):
        model(**inputs("bert"))
assert model.forward.calls["by graph"] == 1
print(match._pattern_graph.cache_info().misses)
"""


def run(code: str, folder: Path) -> int:
    """How many patterns a process of its own traced."""
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    return int(done.stdout)


@pytest.mark.skipif(torch.cuda.is_available(), reason="the interpreter's device is the CPU")
def test_the_next_process_traces_few_patterns(tmp_path: Path) -> None:
    first, second = run(SECOND_PROCESS, tmp_path), run(SECOND_PROCESS, tmp_path)
    assert 0 < second < first / 3


def test_compiled_kernels_lie_in_the_folder_and_triton_is_as_it_was(tmp_path: Path) -> None:
    before = triton.knobs.cache.dir
    store = Kept(tmp_path, CPU)
    with store.compiling():
        assert Path(triton.knobs.cache.dir) == store.folder / "triton"
    assert triton.knobs.cache.dir == before
    assert store.folder.parent == tmp_path


def test_choices_are_kept_and_joined(tmp_path: Path) -> None:
    one, other = Kept(tmp_path, CPU), Kept(tmp_path, CPU)
    early, ahead = Choice(True, False, None), Choice(False, True, as_written=True)
    one.note("a", early)
    other.note("b", ahead)
    again = Kept(tmp_path, CPU)
    assert [again.choice(name) for name in "abc"] == [early, ahead, None]
    assert ahead.capture == Capture(early=False, ahead=True)
    assert not list(again.folder.glob("*.tmp"))


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[1]",
        '{"a": 3, "b": [1]}',
        '{"a": true}',
        '{"a": {"early": 1}}',
        '{"a": {"early": true, "ahead": true, "as_written": "no"}}',
        "null",
        "\0\xff",
    ],
)
def test_what_cannot_be_read_counts_as_absent(
    tmp_path: Path, content: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(known, "_parts", {})
    folder = Kept(tmp_path, CPU).folder
    folder.mkdir(parents=True)
    for name in ("choices.json", "spellings.json"):
        (folder / name).write_text(content, encoding="latin-1")
    assert Kept(tmp_path, CPU).choice("a") is None
    assert known._parts == {}
    Kept(tmp_path, CPU).note("a", Choice(early=True, ahead=False, as_written=False))
    written = json.loads((folder / "choices.json").read_text())
    assert written == {"a": {"early": True, "ahead": False, "as_written": False}}


def test_a_folder_that_cannot_be_written_to_costs_nothing(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    model: Any = tiny("bert")
    optimize_model(model, cache_dir=blocked)
    with torch.inference_mode():
        truth = forward_of(model).original(**inputs("bert"))
    assert furthest(twice(model, **inputs("bert")), truth) < 1e-5
    assert forward_of(model).calls[BY_GRAPH] == 1
    assert blocked.read_text() == "in the way"


def test_triton_keeps_its_own_folder_where_ours_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    before = triton.knobs.cache.dir
    with Kept(tmp_path / "file", CPU).compiling():
        assert triton.knobs.cache.dir == before


def test_another_stack_has_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = Kept(tmp_path, CPU).folder
    monkeypatch.setattr(kept, "transformers", SimpleNamespace(__version__="0"))
    assert Kept(tmp_path, CPU).folder != before


def test_graphs_of_other_sizes_have_other_names() -> None:
    def double(x: torch.Tensor) -> torch.Tensor:
        return x * 2

    small, large = torch.ones(3, device="cpu"), torch.ones(4, device="cpu")
    names = {name_of(trace(double, [x]), [x]) for x in (small, large, small)}
    assert len(names) == 2
