"""Other projects' kernels: called with the right arguments, refused and left out in words.

Their packages are stood in for by PyTorch's functions, with the signatures that they have.
"""

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch.nn import functional

from benchmarks import cases
from benchmarks.measure.alternatives import ALTERNATIVES, Alternative, alternatives_for
from benchmarks.measure.implementations import IMPLEMENTATIONS
from kernl.op import Case, Op
from kernl.ops import ALL

OPS = {op.name: op for op in ALL}
PAIRS = [(one, op) for one in ALTERNATIVES for op in one.calls]


def rms_norm(
    x: Any, weight: Any, eps: float, offset: float = 0.0, casting: str = "llama", in_place: Any = 1
) -> Any:
    assert casting == ("gemma" if offset else "llama")
    assert not in_place
    return functional.rms_norm(x, x.shape[-1:], weight + offset, eps)


def add_rms_norm(x: Any, residual: Any, weight: Any, eps: float, *options: Any, **more: Any) -> Any:
    return rms_norm(x + residual, weight, eps, *options, **more), x + residual


def cross_entropy(x: Any, targets: Any, *, reduction: str = "mean", **options: Any) -> Any:
    assert reduction == "none"
    return functional.cross_entropy(x.float(), targets.long(), reduction="none", **options)


def attention(q: Any, k: Any, v: Any, attn_bias: Any = None, scale: float | None = None) -> Any:
    heads_first = [x.transpose(1, 2) for x in (q, k, v)]
    queries, keys = q.shape[1], k.shape[1]
    seen = torch.ones(queries, keys, dtype=torch.bool).tril(keys - queries) if attn_bias else None
    first, second, third = heads_first
    out = functional.scaled_dot_product_attention(first, second, third, seen, scale=scale)
    return out.transpose(1, 2)


LIGER = {
    "liger_rms_norm": rms_norm,
    "liger_fused_add_rms_norm": add_rms_norm,
    "liger_layer_norm": lambda x, w, b, eps: functional.layer_norm(x, x.shape[-1:], w, b, eps),
    "liger_softmax": lambda x: x.softmax(-1),
    "liger_swiglu": lambda a, b: functional.silu(a) * b,
    "liger_geglu": lambda a, b: functional.gelu(a, approximate="tanh") * b,
    "liger_cross_entropy": cross_entropy,
}
GEMS = {
    "rms_norm": lambda x, shape, w, eps: functional.rms_norm(x, shape, w, eps),
    "layer_norm": lambda *given: (functional.layer_norm(*given), None, None),
    "softmax": lambda x, dim: x.softmax(dim),
}
XFORMERS = {
    "memory_efficient_attention": attention,
    "LowerTriangularFromBottomRightMask": lambda: True,
}


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_ins = {
        "liger_kernel": {},
        "liger_kernel.transformers": {},
        "liger_kernel.transformers.functional": LIGER,
        "flag_gems": GEMS,
        "xformers": {},
        "xformers.ops": XFORMERS,
    }
    modules = {name: ModuleType(name) for name in stand_ins}
    for name, members in stand_ins.items():
        vars(modules[name]).update(members)
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(modules[parent], child, modules[name])
        monkeypatch.setitem(sys.modules, name, modules[name])


def small(op: Op) -> list[Case]:
    """Cases of float32 that a CPU computes at once."""
    edges = [case for case in op.edge_cases() if case.dtype == "fp32"]
    return edges or [case for case in op.cases() if case.dtype == "fp32"][:8]


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(("one", "name"), PAIRS, ids=[f"{one.name} {op}" for one, op in PAIRS])
def test_a_call_computes_what_the_operator_does_or_refuses_in_words(
    one: Alternative, name: str
) -> None:
    op, computed, refusals = OPS[name], 0, list[str]()
    for case in small(op):
        inputs = op.inputs(case, "cpu", 0)
        try:
            outputs = one.call(op)(**inputs)
        except NotImplementedError as refusal:
            refusals.append(str(refusal))
            continue
        truth = op.reference(**inputs)
        for out, true in zip(tuples(outputs), tuples(truth), strict=True):
            assert out.shape == true.shape
            assert torch.allclose(out.double(), true.double(), rtol=1e-4, atol=1e-5), case.name
        computed += 1
    assert all(len(words) > 20 for words in refusals)
    # cuDNN and the efficient backend have no kernels on the CPU.
    assert computed > 0 or one.name in ("sdpa_cudnn", "sdpa_efficient")


def tuples(outputs: Any) -> tuple[torch.Tensor, ...]:
    return outputs if isinstance(outputs, tuple) else (outputs,)


@pytest.mark.parametrize("one", [one for one in ALTERNATIVES if one.module != "torch"])
def test_what_is_not_installed_is_skipped_in_words(one: Alternative) -> None:
    op = OPS[next(iter(one.calls))]
    implementation = IMPLEMENTATIONS[one.name]
    absent = Alternative(one.name, "kernl_knows_no_such_module", one.calls)
    assert absent.missing(op) == "kernl_knows_no_such_module is not installed"
    assert implementation.unavailable(op, "cuda", {}) == one.missing(op)
    assert implementation.unavailable(op, "cpu", {}) == (
        f"{one.name} is measured on CUDA alone; a dry run leaves it out"
    )
    assert implementation.unavailable(OPS["rotary"], "cuda", {}) == (
        f"{one.name} has nothing for rotary"
    )


def test_what_cannot_be_imported_is_skipped_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "kernl_half_installed.py").write_text("import kernl_knows_no_such_module\n")
    monkeypatch.syspath_prepend(tmp_path)
    broken = Alternative("broken", "kernl_half_installed", {"softmax": lambda: None})
    assert broken.missing(OPS["softmax"]) == (
        "kernl_half_installed cannot be imported: No module named 'kernl_knows_no_such_module'"
    )


def test_liger_refuses_rows_that_it_does_not_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("liger_kernel.transformers")
    module.functional = SimpleNamespace(liger_softmax=None)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "liger_kernel", ModuleType("liger_kernel"))
    monkeypatch.setitem(sys.modules, "liger_kernel.transformers", module)
    (liger,) = (one for one in ALTERNATIVES if one.name == "liger")
    with pytest.raises(NotImplementedError, match="no rows of 128256 columns, 65536 at most"):
        liger.call(OPS["softmax"])(torch.zeros(1, 128256))


def test_a_fault_of_a_backend_is_no_refusal() -> None:
    def broken(**_: Any) -> Any:
        raise RuntimeError("an illegal memory access was encountered")

    (one,) = (one for one in ALTERNATIVES if one.name == "sdpa_flash")
    op = SimpleNamespace(name="attention", library=broken)
    with pytest.raises(RuntimeError, match="illegal memory access"):
        one.call(op)(q=torch.ones(1, 1, 2, 8))
    assert one.missing(SimpleNamespace(name="attention")) == (
        "no single library call computes this operator in this commit"
    )


def test_the_frozen_cases_name_them_beside_the_others() -> None:
    frozen = cases.load()
    for op in ALL:
        others = tuple(one.name for one in alternatives_for(op.name))
        library = ("library",) if op.library else ()
        assert frozen.implementations(op.name) == ("eager", "compile", *library, *others, "kernl")
    names = [one.name for one in ALTERNATIVES]
    assert len(set(names)) == len(names)
    assert {op for one in ALTERNATIVES for op in one.calls} <= set(OPS)
