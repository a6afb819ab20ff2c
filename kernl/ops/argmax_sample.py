"""The next token of each row of logits, chosen on the device: greedy, or sampled.

    greedy:  token = argmax_j x_j                                    (the first of equal ones)
    sampled: w_j   = exp((x_j - max x) / temperature) where j is kept, else 0
             token = the first j with w_0 + … + w_j > uniform · Σ w

What is kept, in the order of transformers: of all tokens the `top_k` largest, then of these the
smallest set of largest ones with `top_p` of their weight. Both are thresholds t on the logits:

    top-k: the largest t with #{x_j ≥ t} ≥ top_k
    top-p: the largest t with Σ {w_j : x_j ≥ t} ≥ top_p · Σ w        (Σ over what top-k kept)

so equal logits are kept or dropped together, and the largest is always kept.

Nothing is sorted. A float's bits, with those of negative numbers turned round, are an integer that
orders as the float does. Its threshold is found digit by digit, as one looks up a word: one launch
adds up, for each of the 16 next digits, what lies at or above it, and the next launch takes the
largest digit that reaches the target. 16-bit logits take 4 such launches, 32-bit ones 8, over data
that stay in L2. Weights are integers, in units of 2^-40 of the largest: whatever order they are
added in, the sum is the same to the last bit, so the choice depends on no configuration.

Sources: Fan et al., "Hierarchical Neural Story Generation" (top-k), 2018,
https://arxiv.org/abs/1805.04833; Holtzman et al., "The Curious Case of Neural Text Degeneration"
(top-p), 2019, https://arxiv.org/abs/1904.09751.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch

from kernl import checks, launch, tuning
from kernl.errors import OptionError, ShapeError
from kernl.launch import Launch, Plan, next_power_of_2
from kernl.op import Case, Dims, Op
from kernl.ops.argmax_sample_config import ARGMAX_SAMPLE_TUNABLE, Stage, stages
from kernl.ops.argmax_sample_largest import best_kernel, greedy_kernel
from kernl.ops.argmax_sample_search import narrow_kernel, pick_kernel
from kernl.ops.chunks import cut
from kernl.ops.rows import as_rows
from kernl.shapes import ModelShape, Workload

# Larger vocabularies could carry a sum of weights over 2^63.
MOST_COLS = 2**22
_LOG2_E = 1.4426950408889634


def argmax_sample_reference(
    logits: torch.Tensor,
    uniform: torch.Tensor | None = None,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
) -> torch.Tensor:
    """What a PyTorch user would write."""
    greedy = logits.argmax(-1)
    if uniform is None:
        return greedy
    scores = logits.to(torch.promote_types(logits.dtype, torch.float32))
    largest = scores.amax(-1)
    if 0 < top_k < scores.shape[-1]:
        lowest = scores.topk(top_k).values[..., -1:]
        scores = scores.masked_fill(scores < lowest, float("-inf"))
    if top_p < 1:
        descending = scores.sort(-1, descending=True).values
        weight = torch.softmax(descending / temperature, -1)
        kept = ((weight.cumsum(-1) - weight) < top_p).sum(-1, keepdim=True).clamp_min(1)
        scores = scores.masked_fill(scores < descending.gather(-1, kept - 1), float("-inf"))
    cumulative = torch.softmax(scores / temperature, -1).cumsum(-1)
    goal = uniform.to(scores.dtype)[:, None] * cumulative[:, -1:]
    token = (cumulative <= goal).sum(-1).clamp_max(scores.shape[-1] - 1)
    return torch.where(largest.isfinite(), token, greedy)


def argmax_sample_plan(
    capability: int,
    logits: torch.Tensor,
    uniform: torch.Tensor | None = None,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
) -> Plan:
    """The tokens and the launches that choose them: 2 where greedy, else one more a stage."""
    flat = as_rows(logits)
    rows, cols = flat.shape
    token = torch.empty((rows,), dtype=torch.int64, device=logits.device)
    if rows == 0:
        return Plan((token,), ())

    bits = 8 * logits.itemsize
    key = {"bits": bits, "sampled": int(uniform is not None), "rows": rows, "cols": cols}
    config = tuning.choose(ARGMAX_SAMPLE_TUNABLE, capability, logits.device, **key)
    chunks = cut(cols, config.programs, config.block_cols)
    best = token.new_empty((rows, chunks.programs))
    call = _Call(
        args={
            "logits_ptr": flat,
            "best_ptr": best,
            "cols": cols,
            "chunk_cols": chunks.cols,
            "stride_logits_row": flat.stride(0),
            "stride_logits_col": flat.stride(1),
        },
        constants={"KEY_BITS": bits, "BLOCK_COLS": config.block_cols},
        rows=rows,
        chunks=chunks.programs,
        num_warps=config.num_warps,
    )
    largest = Launch(
        best_kernel, (rows, chunks.programs), call.args, call.constants, config.num_warps
    )
    if uniform is None:
        return Plan((token,), (largest, _greedy(call, token)))
    found = stages(bits, config.digit_bits, 0 < top_k < cols, top_p < 1)
    rule = {"scale": _LOG2_E / temperature, "top_k": top_k, "top_p": float(top_p)}
    return Plan((token,), (largest, *_search(call, found, rule, uniform, token)))


class _Call(NamedTuple):
    """What the launches of one call share."""

    args: dict[str, Any]
    constants: dict[str, Any]
    rows: int
    chunks: int
    num_warps: int


def _greedy(call: _Call, token: torch.Tensor) -> Launch:
    args = {name: call.args[name] for name in ("logits_ptr", "best_ptr")}
    constants = {"KEY_BITS": call.constants["KEY_BITS"], "CHUNKS": next_power_of_2(call.chunks)}
    args = {**args, "token_ptr": token, "chunks": call.chunks}
    return Launch(greedy_kernel, (call.rows,), args, constants, num_warps=1)


def _search(
    call: _Call,
    found: tuple[Stage, ...],
    rule: dict[str, Any],
    uniform: torch.Tensor,
    token: torch.Tensor,
) -> Iterator[Launch]:
    """One launch a stage, each reading what the one before left, and the one that picks."""
    digits = max(stage.digits for stage in found)
    # Two of each: a launch reads one and writes the other.
    sums = token.new_empty((2, call.rows, call.chunks, digits))
    state = token.new_empty((2, call.rows, call.chunks, 3))
    shared = {**call.args, **rule, "chunks": call.chunks}
    constants = {**call.constants, "CHUNKS": next_power_of_2(call.chunks)}
    for number, stage in enumerate(found):
        old, new = (number + 1) % 2, number % 2
        before = found[max(number - 1, 0)]
        yield Launch(
            kernel=narrow_kernel,
            grid=(call.rows, call.chunks),
            args={
                **shared,
                "shift": stage.shift,
                "old_shift": before.shift,
                "sums_ptr": sums[old],
                "state_ptr": state[old],
                "new_sums_ptr": sums[new],
                "new_state_ptr": state[new],
            },
            constants={
                **constants,
                **_old(before),
                "FIRST": number == 0,
                "COUNTS": stage.kind == "count",
                "OPENS": stage.opens,
                "DIGITS": stage.digits,
            },
            num_warps=call.num_warps,
        )
    yield Launch(
        kernel=pick_kernel,
        grid=(call.rows,),
        args={
            **shared,
            "old_shift": found[-1].shift,
            "sums_ptr": sums[new],
            "state_ptr": state[new],
            "uniform_ptr": uniform,
            "token_ptr": token,
            "stride_uniform": uniform.stride(0),
        },
        constants={**constants, **_old(found[-1])},
        num_warps=4,
    )


def _old(stage: Stage) -> dict[str, Any]:
    """The stage before, as the kernels' constants name it."""
    return {
        "OLD_COUNTED": stage.kind == "count",
        "OLD_OPENED": stage.opens,
        "OLD_DIGITS": stage.digits,
    }


@torch.library.custom_op("kernl::argmax_sample", mutates_args=())
def _argmax_sample(
    logits: torch.Tensor,
    uniform: torch.Tensor | None,
    temperature: float,
    top_k: int,
    top_p: float,
) -> torch.Tensor:
    capability = launch.capability(logits.device)
    return argmax_sample_plan(capability, logits, uniform, temperature, top_k, top_p).run()[0]


@_argmax_sample.register_fake
def _argmax_sample_fake(
    logits: torch.Tensor,
    uniform: torch.Tensor | None,
    temperature: float,
    top_k: int,
    top_p: float,
) -> torch.Tensor:
    return torch.empty((logits.shape[0],), dtype=torch.int64, device=logits.device)


def check_argmax_sample(
    logits: torch.Tensor,
    uniform: torch.Tensor | None = None,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
) -> None:
    """Raise a `kernl.errors.KernlError` where `argmax_sample` does not take these arguments."""
    op = "argmax_sample"
    checks.tensors(op, best_kernel, logits=logits)
    checks.at_least(op, "logits", logits, 2)
    checks.matrix(op, "logits", logits, logits.shape[-1], "the vocabulary")
    checks.positive(op, "the last dimension of logits", logits.shape[1])
    if logits.shape[1] > MOST_COLS:
        raise ShapeError(
            seen=f"{op}: logits has {logits.shape[1]} columns",
            allowed=f"{MOST_COLS} at most",
            action="check that the vocabulary is the last dimension",
        )
    if uniform is not None:
        checks.typed(op, "uniform", uniform, logits, (torch.float32,))
        checks.shape(op, "uniform", uniform, (logits.shape[0],), "one number for each row")
    # A smaller one would overflow the logits that it divides.
    checks.number(op, "temperature", temperature, 1e-6)
    checks.count(op, "top_k", top_k)
    checks.fraction(op, "top_p", top_p)
    if uniform is None and (temperature, top_k, top_p) != (1.0, 0, 1.0):
        raise OptionError(
            seen=f"{op}: temperature={temperature}, top_k={top_k}, top_p={top_p} and no uniform",
            allowed="temperature=1.0, top_k=0, top_p=1.0 for a greedy choice",
            action="pass uniform=torch.rand(rows, device=logits.device) to sample",
        )


def argmax_sample(
    logits: torch.Tensor,
    uniform: torch.Tensor | None = None,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
) -> torch.Tensor:
    """The next token of each row: the most likely one, or one drawn with a given random number.

    The same arguments give the same tokens, on every GPU configuration and in every batch.

    Args:
        logits: (rows, vocabulary), any strides, fp16, bf16 or fp32, at most 2^22 columns. No rows
            give an empty result.
        uniform: (rows,) float32 in [0, 1), any stride, as `torch.rand` draws them; what lies
            outside counts as the nearest that is inside, NaN as 0. None: the choice is greedy.
        temperature: 1e-6 or more; logits are divided by it.
        top_k: only the `top_k` largest logits are kept, and those that equal the last of them; 0,
            or a number not below the vocabulary, keeps all.
        top_p: 0 to 1; of those only the smallest set of largest ones with this share of the
            probability is kept, at least one, and those that equal the last of them. transformers
            orders equal logits by chance here and may drop some; nothing else differs.

    Returns:
        (rows,) int64 columns. Greedy: the first of the largest; NaN counts as the largest, as in
        `torch.argmax`. A row whose largest logit is not finite is chosen greedily in any case.
        Tokens with less than 2^-40 of the most likely one's probability are never drawn.

    Raises:
        ArgumentError, DTypeError, DeviceError, ShapeError, OptionError: from `kernl.errors`.
    """
    check_argmax_sample(logits, uniform, temperature, top_k, top_p)
    return _argmax_sample(logits, uniform, float(temperature), top_k, float(top_p))


_MODES: dict[str, dict[str, Any]] = {
    "greedy": {},
    "temperature": {"temperature": 0.7},
    "topk": {"temperature": 0.7, "top_k": 50},
    "topp": {"temperature": 0.7, "top_p": 0.9},
}


def _dims(model: ModelShape, workload: Workload) -> Iterator[Dims]:
    if model.causal:
        for mode in _MODES:
            yield {"rows": workload.batch, "cols": model.vocabulary, "mode": mode}


def _inputs(case: Case, device: str, seed: int) -> dict[str, Any]:
    generator = torch.Generator(device).manual_seed(seed)
    rows, cols = case["rows"], case["cols"]

    def random() -> torch.Tensor:
        return torch.rand(rows, cols, generator=generator, device=device)

    # As a language model gives them: about a hundred likely tokens, the others far below.
    likely = random() < 100 / cols
    logits = torch.randn(rows, cols, generator=generator, device=device)
    logits = 2 * logits + torch.where(likely, 10.0, -20.0)
    uniform = torch.rand(rows, generator=generator, device=device)
    options = _MODES[case["mode"]]
    sampled = uniform if options else None
    return {"logits": logits.to(case.torch_dtype), "uniform": sampled, **options}


ARGMAX_SAMPLE = Op(
    name="argmax_sample",
    kernel=argmax_sample,
    reference=argmax_sample_reference,
    plan=argmax_sample_plan,
    check=check_argmax_sample,
    dims=_dims,
    inputs=_inputs,
    edges=tuple(
        {"rows": rows, "cols": cols, "mode": mode}
        for rows, cols in ((1, 1), (3, 7), (5, 1021), (2, 4099))
        for mode in _MODES
    ),
    bytes=lambda case: (
        case["rows"] * (case["cols"] * case.itemsize + 8 + (4 if case["mode"] != "greedy" else 0))
    ),
    # A comparison; a difference, a scale, an exponential and a sum where tokens are weighed.
    flops=lambda case: (1 if case["mode"] == "greedy" else 5) * case["rows"] * case["cols"],
    # Tokens are compared for equality.
    tolerance={"fp32": 0.0, "fp16": 0.0, "bf16": 0.0},
)
