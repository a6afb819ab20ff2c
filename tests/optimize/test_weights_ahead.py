"""Weights that a graph asks for before the kernels that read them."""

import os
import subprocess
import sys

import pytest
import torch
from torch import fx

from kernl.optimize.weights_ahead import ask_ahead
from kernl.rewrite import rewrite, trace
from kernl.runtime.ahead import ask, asking
from kernl.runtime.runner import Arena, Capture, CudaGraph
from tests.tiny_models import DEVICE

MIB = 1 << 20
LAYERS = 6


class Chain(torch.nn.Module):
    """Layers of one MiB each behind an embedding of two; one weight twice, one small one."""

    def __init__(self) -> None:
        super().__init__()
        self.table = torch.nn.Embedding(1024, 512)
        self.layers = torch.nn.ModuleList(torch.nn.Linear(512, 512) for _ in range(LAYERS))
        self.small = torch.nn.Linear(512, 8)

    def forward(self, ids: torch.Tensor) -> list[torch.Tensor]:
        x = self.table(ids)
        for layer in (*self.layers, self.layers[0]):
            x = torch.tanh(layer(x))
        return [self.small(x)]


def traced() -> tuple[fx.GraphModule, torch.Tensor]:
    torch.manual_seed(0)
    ids = torch.randint(1024, (1, 4), device=DEVICE)
    graph = trace(Chain().to(DEVICE), [ids])
    rewrite(graph)
    return graph, ids


def asked(graph: fx.GraphModule) -> list[tuple[str, int, int, int]]:
    """Each part: the weight's name, its first byte and end, how many layers have what they read."""
    found, layers = [], 0
    for node in graph.graph.nodes:
        layers += _is_layer(node)
        if node.target is ask:
            parts = zip(node.args[::3], node.args[1::3], node.args[2::3], strict=True)
            read = layers + _is_layer(node.next)
            found += [(str(name.target), first, end, read) for name, first, end in parts]
    return found


def _is_layer(node: fx.Node) -> bool:
    return node.op == "call_function" and "linear" in str(node.target)


@pytest.mark.parametrize("most", [MIB // 2, MIB, 5 * MIB // 2, 100 * MIB])
def test_each_weight_is_asked_for_once_and_no_more_than_fits(most: int) -> None:
    graph, _ = traced()
    total = ask_ahead(graph, most)
    parts = asked(graph)
    assert total == sum(end - first for _, first, end, _ in parts)
    assert "table" not in str(parts)
    assert "small" not in str(parts)
    reached: dict[str, int] = {}
    for name, first, end, read in parts:
        assert first == reached.get(name, 0)
        reached[name] = end
        # On the way or in L2, and not read yet.
        waiting = {one: size for place, (one, size) in enumerate(reached.items()) if place >= read}
        assert sum(waiting.values()) <= most
    if most >= MIB:
        assert list(reached.values()) == [MIB] * LAYERS


def test_a_graph_that_asks_computes_what_it_did() -> None:
    graph, ids = traced()
    (truth,) = graph(ids)
    assert ask_ahead(graph, 5 * MIB // 2) > 0
    assert torch.equal(graph(ids)[0], truth)


def test_a_graph_without_weights_asks_for_nothing() -> None:
    graph = trace(lambda x: [x * 2], [torch.ones(3)])
    assert ask_ahead(graph) == 0
    assert not asked(graph)


def test_outside_of_a_capture_nothing_happens() -> None:
    ask(torch.empty(1, device="meta"), 0, 4)


COMPILE = """
import torch
from benchmarks.measure.codegen import compile_launch
from kernl.launch import Launch
from kernl.runtime.ahead import prefetch_kernel
bytes_ = torch.empty(4096, dtype=torch.uint8, device="meta")
constants = {"LINE": 128, "LINES": 1024}
launch = Launch(prefetch_kernel, (1,), {"ptr": bytes_, "size": 4096}, constants, 4)
for architecture in ("sm_80", "sm_90", "sm_100"):
    metrics = compile_launch(launch, architecture)
    assert metrics.spills == metrics.shared_memory == 0, (architecture, metrics)
"""


def test_the_kernel_compiles() -> None:
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-c", COMPILE],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.gpu
def test_a_graph_that_asks_computes_the_same() -> None:
    graph, ids = traced()
    (truth,) = graph(ids)
    assert ask_ahead(graph, 2 * MIB) > 0
    arena = Arena(ids.device)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        for way in (Capture(early=False, ahead=True), Capture(early=True, ahead=True)):
            run = CudaGraph(graph, [ids], arena, way)
            for _ in range(3):
                (out,) = run([ids])
                assert torch.equal(out, truth)
    assert any("prefetch_kernel" in event.key for event in profile.key_averages())


@pytest.mark.gpu
def test_asking_leaves_no_stream_open() -> None:
    weight = torch.ones(MIB, device="cuda")
    with asking(weight.device):
        ask(weight, 0, weight.nbytes)
    torch.cuda.synchronize()
