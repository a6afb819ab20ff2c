"""The declaration of `attention`: the shapes of models, the edges, what a call costs."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch

from kernl.op import Case, Dims, Op
from kernl.ops.attention import (
    attention,
    attention_plan,
    attention_reference,
    seen_reference,
)
from kernl.ops.attention_check import check_attention
from kernl.ops.attention_spellings import attention_spellings
from kernl.shapes import ModelShape, Workload

BIASES = (
    "none",
    "mask",
    "boolean",
    "keys",
    "padding",
    "alibi",
    "relative",
    "past",
    "softcap",
    "window",
)
"""What a case adds: `keys` masks keys alone; `relative` and `past` are T5's encoder and decoder."""


def attention_library(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    mask: torch.Tensor | None = None,
    causal: bool = False,
    scale: float | None = None,
    key_lengths: torch.Tensor | None = None,
    **options: Any,
) -> torch.Tensor:
    """PyTorch's scaled_dot_product_attention, for what it computes."""
    if any(options.get(name) is not None for name in _NOT_IN_SDPA):
        raise NotImplementedError(f"scaled_dot_product_attention has no {', '.join(_NOT_IN_SDPA)}")
    if mask is not None and mask.dtype == torch.bool and mask.shape[-2] > 1:
        raise NotImplementedError("scaled_dot_product_attention gives NaN for rows masked whole")
    q_len, k_len = q.shape[2], k.shape[2]
    if key_lengths is not None:
        mask = (torch.arange(k_len, device=q.device) < key_lengths[:, None])[:, None, None]
    if causal and (q_len != k_len or mask is not None):
        seen = seen_reference(q_len, k_len, True, None, q.device)
        mask, causal = seen if mask is None else mask & seen, False
    return torch.nn.functional.scaled_dot_product_attention(
        q, k, v, mask, is_causal=causal, scale=scale, enable_gqa=q.shape[1] != k.shape[1]
    )


_NOT_IN_SDPA = ("window", "softcap", "alibi_slopes", "relative_bias")


def _dims(model: ModelShape, workload: Workload) -> Iterator[Dims]:
    sizes: Dims = {
        "batch": workload.batch,
        "heads": model.heads,
        "kvheads": model.kv_heads,
        "queries": workload.seq,
        "keys": workload.seq,
        "dim": model.head_dim,
        "causal": model.causal,
    }
    relative = model.norm == "rms" and not model.gated
    yield {**sizes, "bias": "relative" if relative else "none"}
    if not model.causal and not relative:
        yield {**sizes, "bias": "keys"}
        if workload.batch > 1:
            yield {**sizes, "bias": "padding"}


def _window(case: Case) -> int | None:
    return max(1, int(case["keys"]) // 3) if case["bias"] == "window" else None


def _inputs(case: Case, device: str, seed: int) -> dict[str, Any]:
    generator = torch.Generator(device).manual_seed(seed)
    batch, heads, queries, keys = (case[n] for n in ("batch", "heads", "queries", "keys"))
    dim, bias = case["dim"], case["bias"]

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, device=device)

    def projected(length: int, count: int) -> torch.Tensor:
        # As a projection leaves them: the heads of a token side by side.
        return random(batch, length, count, dim).to(case.torch_dtype).transpose(1, 2)

    inputs: dict[str, Any] = {
        "q": projected(queries, heads),
        "k": projected(keys, case["kvheads"]),
        "v": projected(keys, case["kvheads"]),
        "causal": case["causal"],
        "window": _window(case),
        "softcap": 3.0 if bias == "softcap" else None,
    }
    if bias == "mask":
        inputs["mask"] = random(heads, queries, keys).to(case.torch_dtype)
    elif bias == "boolean":
        inputs["mask"] = random(batch, 1, queries, keys) > 0
    elif bias == "keys":
        inputs["mask"] = _keys_shown(batch, keys, device)
    elif bias == "padding":
        # From a quarter of the keys to all of them, as ragged batches are.
        parts = torch.arange(batch, device=device) * 3 * keys // max(1, 4 * (batch - 1))
        inputs["key_lengths"] = keys - parts
    elif bias == "alibi":
        inputs["alibi_slopes"] = random(heads).to(case.torch_dtype)
    elif bias in ("relative", "past"):
        inputs["relative_bias"] = random(32, heads).to(case.torch_dtype)
        inputs["bidirectional"] = bias == "relative"
    return inputs


def _keys_shown(batch: int, keys: int, device: str) -> torch.Tensor:
    """(batch, 1, 1, keys), by turns: all but the last keys, all but the first, with holes."""
    place = torch.arange(keys, device=device)
    kinds = (place < keys - keys // 3, place >= keys // 3, place % 7 != 3)
    return torch.stack([kinds[number % len(kinds)] for number in range(batch)])[:, None, None]


def _lengths(case: Case) -> list[int]:
    """How many keys each sequence shows; a mask's holes are read all the same."""
    batch, keys = case["batch"], case["keys"]
    if case["bias"] == "keys":
        return [keys if number % 3 == 2 else keys - keys // 3 for number in range(batch)]
    if case["bias"] != "padding":
        return [keys] * batch
    return [keys - place * 3 * keys // max(1, 4 * (batch - 1)) for place in range(batch)]


def _bytes(case: Case) -> int:
    tokens = case["heads"] * case["queries"] * case["batch"]
    read = 2 * case["kvheads"] * sum(_lengths(case))
    extra = {
        "mask": case["heads"] * case["queries"] * case["keys"] * case.itemsize,
        "boolean": case["batch"] * case["queries"] * case["keys"],
        "keys": case["batch"] * case["keys"],
        "padding": 8 * case["batch"],
        "alibi": case["heads"] * case.itemsize,
        "relative": 32 * case["heads"] * case.itemsize,
        "past": 32 * case["heads"] * case.itemsize,
    }
    moved = (2 * tokens + read) * case["dim"] * case.itemsize
    return int(moved + extra.get(case["bias"], 0))


def _flops(case: Case) -> int:
    """Two products over the pairs that are seen by causality, window and lengths."""
    pairs = sum(_pairs(case, length) for length in _lengths(case))
    return 4 * int(case["heads"]) * pairs * int(case["dim"])


def _pairs(case: Case, length: int) -> int:
    queries, keys, window = case["queries"], case["keys"], _window(case)
    offset = keys - queries
    total = 0
    if window is None and not case["causal"]:
        return int(queries) * length
    for query in range(queries):
        place = query + offset
        last = min(length, place + 1) if case["causal"] else length
        first = 0
        if window is not None:
            first, last = max(0, place - window + 1), min(last, place + window)
        total += max(0, last - first)
    return max(total, 1)


_case = partial(
    zip, ("batch", "heads", "kvheads", "queries", "keys", "dim", "causal", "bias"), strict=True
)

ATTENTION = Op(
    name="attention",
    kernel=attention,
    reference=attention_reference,
    plan=attention_plan,
    check=check_attention,
    dims=_dims,
    inputs=_inputs,
    edges=tuple(
        dict(_case(sizes))
        for sizes in (
            (1, 1, 1, 1, 1, 32, False, "none"),
            (2, 3, 1, 17, 37, 40, False, "none"),
            (1, 4, 2, 37, 131, 64, True, "none"),
            (1, 2, 2, 129, 67, 80, True, "none"),
            (2, 2, 1, 5, 65, 96, False, "mask"),
            (2, 3, 3, 33, 35, 64, True, "boolean"),
            (4, 2, 1, 33, 67, 64, False, "keys"),
            (4, 1, 1, 21, 1100, 32, False, "keys"),
            (4, 2, 2, 40, 300, 64, True, "keys"),
            (3, 2, 2, 31, 70, 100, False, "padding"),
            (1, 4, 4, 19, 83, 64, True, "alibi"),
            (1, 2, 2, 70, 70, 64, False, "relative"),
            (1, 2, 2, 23, 71, 32, True, "past"),
            (1, 2, 1, 20, 45, 256, True, "softcap"),
            (1, 2, 2, 97, 131, 64, True, "window"),
            (1, 2, 2, 67, 67, 128, False, "window"),
        )
    ),
    bytes=_bytes,
    flops=_flops,
    tolerance={"fp32": 3e-6, "fp16": 1e-3, "bf16": 6e-3},
    spellings=attention_spellings(attention),
    library=attention_library,
    # Keys and values behind the end of a sequence are not read.
    moves_part_of_its_inputs=True,
)
