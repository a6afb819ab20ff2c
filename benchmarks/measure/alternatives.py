"""Other projects' kernels for what kernl computes: the only place that names them.

Each is measured beside kernl where its package is installed, and skipped in words where it is not,
or where it does not compute a case. A call takes the operator's inputs by their names. For what its
library does not compute it raises NotImplementedError, as an operator's `library` call does: the
check before timing makes of it a point that is skipped, with these words.

| name | package | |
| --- | --- | --- |
| `liger` | liger-kernel | Triton kernels for training |
| `flaggems` | flag-gems | Triton kernels under PyTorch's own operators |
| `xformers` | xformers | memory-efficient attention |
| `sdpa_flash`, `sdpa_efficient`, `sdpa_cudnn` | torch | a backend of PyTorch's own attention |
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

Call = Callable[..., Any]


@dataclass(frozen=True)
class Alternative:
    """One project's kernels.

    Nothing here imports kernl: the operators may be those of an older commit.

    Attributes:
        name: in the results.
        module: what has to be there.
        calls: by an operator's name, what computes it.
        of_library: a call takes the operator's own `library` call first, which it runs its way.
        chooses: it times what it may run on the device in its first calls, and keeps the fastest.
    """

    name: str
    module: str
    calls: Mapping[str, Call]
    of_library: bool = False
    chooses: bool = False

    def missing(self, op: Any) -> str | None:
        """Why it cannot compute this operator here, in words; None where it can."""
        if op.name not in self.calls:
            return f"{self.name} has nothing for {op.name}"
        reason = unusable(self.module)
        if reason:
            return reason
        if self.of_library and getattr(op, "library", None) is None:
            return "no single library call computes this operator in this commit"
        return None

    def call(self, op: Any) -> Call:
        """What computes this operator; nothing may be missing."""
        call = self.calls[op.name]
        return partial(call, op.library) if self.of_library else call


@functools.cache
def unusable(module: str) -> str:
    """Why a module cannot be imported, in words; empty where it can."""
    if importlib.util.find_spec(module) is None:
        return f"{module} is not installed"
    try:
        importlib.import_module(module)
    except ImportError as error:  # such as what it needs itself and is not there
        return f"{module} cannot be imported: {error}"
    return ""


_NEUTRAL: Mapping[str, Any] = {"scale": 1.0, "offset": 0.0, "causal": False}
"""What an option is where it asks for nothing; others are None then."""


def _only(what: str, **options: Any) -> None:
    """Refuse options that ask for something: this library has none of them."""
    present = [
        name
        for name, value in options.items()
        if value is not None and (name not in _NEUTRAL or value != _NEUTRAL[name])
    ]
    if present:
        raise NotImplementedError(f"{what} has no {', '.join(present)}")


_LIGER_MOST_COLUMNS = 65536


def _short(rows: torch.Tensor) -> torch.Tensor:
    """Liger's kernels hold a row at once."""
    if rows.shape[-1] > _LIGER_MOST_COLUMNS:
        raise NotImplementedError(
            f"liger has no rows of {rows.shape[-1]} columns, {_LIGER_MOST_COLUMNS} at most"
        )
    return rows


def _halves(gate: torch.Tensor, up: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    first, second = gate.chunk(2, dim=-1) if up is None else (gate, up)
    return _short(first), second


def _liger_rms_norm(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    residual: torch.Tensor | None = None,
    eps: float = 1e-6,
    offset: float = 0.0,
) -> Any:
    from liger_kernel.transformers import functional

    _only("liger's rms_norm", bias=bias)
    casting = "gemma" if offset else "llama"
    _short(x)
    if residual is None:
        return functional.liger_rms_norm(x, weight, eps, offset, casting, in_place=False)
    return functional.liger_fused_add_rms_norm(
        x, residual, weight, eps, offset, casting, in_place=False
    )


def _liger_layer_norm(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    eps: float = 1e-5,
    **options: Any,
) -> Any:
    from liger_kernel.transformers import functional

    _only("liger's layer_norm", **options)
    if bias is None:
        raise NotImplementedError("liger's layer_norm needs a bias")
    return functional.liger_layer_norm(_short(x), weight, bias, eps)


def _liger_softmax(x: torch.Tensor, dim: int = -1, **options: Any) -> Any:
    from liger_kernel.transformers import functional

    _only("liger's softmax", **options, dim=None if dim in (-1, x.dim() - 1) else dim)
    return functional.liger_softmax(_short(x))


def _liger_swiglu(gate: torch.Tensor, up: torch.Tensor | None = None) -> Any:
    from liger_kernel.transformers import functional

    return functional.liger_swiglu(*_halves(gate, up))


def _liger_geglu(
    gate: torch.Tensor, up: torch.Tensor | None = None, activation: str = "gelu"
) -> Any:
    from liger_kernel.transformers import functional

    if activation != "gelu_tanh":
        raise NotImplementedError("liger's geglu is that by tanh")
    return functional.liger_geglu(*_halves(gate, up))


def _liger_cross_entropy(
    logits: torch.Tensor,
    targets: torch.Tensor,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
) -> Any:
    from liger_kernel.transformers import functional

    return functional.liger_cross_entropy(
        logits,
        targets,
        ignore_index=ignore_index,
        reduction="none",
        label_smoothing=label_smoothing,
    )


def _gems_rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float = 1e-6, **options: Any) -> Any:
    import flag_gems

    _only("flag_gems' rms_norm", **options)
    return flag_gems.rms_norm(x, list(x.shape[-1:]), weight, eps)


def _gems_layer_norm(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    eps: float = 1e-5,
    **options: Any,
) -> Any:
    import flag_gems

    _only("flag_gems' layer_norm", **options)
    return flag_gems.layer_norm(x, list(x.shape[-1:]), weight, bias, eps)[0]


def _gems_softmax(x: torch.Tensor, dim: int = -1, **options: Any) -> Any:
    import flag_gems

    _only("flag_gems' softmax", **options)
    return flag_gems.softmax(x, dim)


_NOT_IN_XFORMERS = ("key_lengths", "window", "softcap", "alibi_slopes", "relative_bias")


def _xformers_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    mask: torch.Tensor | None = None,
    causal: bool = False,
    scale: float | None = None,
    **options: Any,
) -> Any:
    from xformers.ops import LowerTriangularFromBottomRightMask, memory_efficient_attention

    options = {name: options.get(name) for name in _NOT_IN_XFORMERS}
    _only("xformers' attention, as it is called here,", mask=mask, **options)
    if q.shape[1] != k.shape[1]:
        raise NotImplementedError("grouped heads need copies of keys and values in xformers")
    bias = LowerTriangularFromBottomRightMask() if causal else None
    heads_last = (x.transpose(1, 2) for x in (q, k, v))
    return memory_efficient_attention(*heads_last, attn_bias=bias, scale=scale).transpose(1, 2)


_NO_KERNEL = ("No available kernel", "No viable backend")
"""What PyTorch says on a GPU and on the CPU where a backend does not take the arguments."""


def _sdpa(backend: SDPBackend, library: Call, **inputs: Any) -> Any:
    try:
        with sdpa_kernel(backend):
            return library(**inputs)
    except RuntimeError as error:
        if not any(words in str(error) for words in _NO_KERNEL):
            raise
        raise NotImplementedError(
            f"{backend.name} of scaled_dot_product_attention does not compute this case"
        ) from error


ALTERNATIVES = (
    Alternative(
        "liger",
        "liger_kernel",
        {
            "rms_norm": _liger_rms_norm,
            "layer_norm": _liger_layer_norm,
            "softmax": _liger_softmax,
            "swiglu": _liger_swiglu,
            "geglu": _liger_geglu,
            "cross_entropy": _liger_cross_entropy,
        },
    ),
    Alternative(
        "flaggems",
        "flag_gems",
        {
            "rms_norm": _gems_rms_norm,
            "layer_norm": _gems_layer_norm,
            "softmax": _gems_softmax,
        },
        chooses=True,
    ),
    Alternative("xformers", "xformers", {"attention": _xformers_attention}),
    *(
        Alternative(name, "torch", {"attention": partial(_sdpa, backend)}, of_library=True)
        for name, backend in (
            ("sdpa_flash", SDPBackend.FLASH_ATTENTION),
            ("sdpa_efficient", SDPBackend.EFFICIENT_ATTENTION),
            ("sdpa_cudnn", SDPBackend.CUDNN_ATTENTION),
        )
    ),
)
"""In the order of columns."""


def alternatives_for(op: str) -> tuple[Alternative, ...]:
    """Those that compute something of an operator."""
    return tuple(one for one in ALTERNATIVES if op in one.calls)
