"""What is said where the driver lacks a call that changes a graph's kernels."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from kernl.runtime import graph_node
from kernl.runtime.graph_node import KernelNode, captured_last

CALLS: dict[str, Any] = {
    "cuGraphKernelNodeGetParams_v2": lambda *_: 0,
    "cuFuncGetParamInfo": lambda *_: 1,  # there is no such parameter
    "cuGraphExecKernelNodeSetParams_v2": lambda *_: 0,
}
GRAPH = cast("Any", SimpleNamespace(raw_cuda_graph_exec=lambda: 1))


@pytest.mark.parametrize("missing", CALLS)
def test_a_driver_without_a_call_is_named(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = {name: call for name, call in CALLS.items() if name != missing}
    monkeypatch.setattr(graph_node, "_driver", lambda: SimpleNamespace(**calls))
    with pytest.raises(OSError, match=f"has no {missing}"):
        KernelNode(GRAPH, 1, [])


def test_a_call_that_fails_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = CALLS | {"cuGraphKernelNodeGetParams_v2": lambda *_: 700}
    monkeypatch.setattr(graph_node, "_driver", lambda: SimpleNamespace(**calls))
    with pytest.raises(OSError, match="cuGraphKernelNodeGetParams_v2 failed: error 700"):
        KernelNode(GRAPH, 1, [])


def test_a_pytorch_that_tells_no_handle_is_named() -> None:
    with pytest.raises(OSError, match="this PyTorch"):
        KernelNode(cast("Any", SimpleNamespace()), 1, [])


def test_a_driver_that_tells_no_node_gives_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph_node, "_driver", SimpleNamespace)
    assert captured_last(0) is None
