"""Cross-entropy of each row of logits with its target, as language models take it.

    lse_i  = log Σ_j exp(x_ij)
    loss_i = (1 - s) · (lse_i - x_i,target) + s · (lse_i - mean_j x_ij)       s = label_smoothing

No row of probabilities is written. Every lane of a program keeps a running maximum `m` and the sum
`d` of exponentials relative to it. A new element x costs one exponential, e = exp(-|x - m|): where
x is the larger one, d becomes d·e + 1 and m becomes x, elsewhere d becomes d + e. Lanes, and
programs that share a row, are merged by rescaling to the largest maximum.

Sources: Milakov and Gimelshein, "Online normalizer calculation for softmax", 2018,
https://arxiv.org/abs/1805.02867; Szegedy et al., "Rethinking the Inception Architecture for
Computer Vision", section 7 (label smoothing), 2015, https://arxiv.org/abs/1512.00567.
"""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl

from kernl import checks, launch, tuning
from kernl.launch import Launch, Plan, next_power_of_2
from kernl.op import Case, Dims, Op, Spelling
from kernl.ops.chunks import cut, programs_a_row
from kernl.ops.rows import as_rows
from kernl.shapes import ModelShape, Workload
from kernl.tables import Key, Tunable

MOST_PROGRAMS_A_ROW = 64


def cross_entropy_reference(
    logits: torch.Tensor,
    targets: torch.Tensor,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
) -> torch.Tensor:
    """What a PyTorch user would write."""
    return torch.nn.functional.cross_entropy(
        logits.to(torch.promote_types(logits.dtype, torch.float32)),
        targets.long(),
        ignore_index=ignore_index,
        reduction="none",
        label_smoothing=label_smoothing,
    )


@triton.jit
def _relative_to(lane_max):
    """What exponentials are taken relative to: 0 in place of -inf, as -inf - -inf is NaN."""
    return tl.where(lane_max == float("-inf"), 0.0, lane_max)


@triton.jit
def _at_target(logits_row_ptr, target, cols, stride_col):
    """The logit of the target; NaN where there is no such column."""
    inside = (target >= 0) & (target < cols)
    logit = tl.load(logits_row_ptr + target * stride_col, mask=inside, other=float("nan"))
    return logit.to(tl.float32)


@triton.jit
def _row_loss(at_target, row_max, row_sum, row_total, cols, smoothing, SMOOTHED: tl.constexpr):
    """One row's loss from its maximum, its sum of exponentials and the sum of its logits."""
    # Only a row that was not read, or that is all -inf, has a sum of 0.
    log_sum = tl.log(tl.where(row_sum == 0.0, 1.0, row_sum))
    loss = log_sum + (row_max - at_target)
    if SMOOTHED:
        loss = (1.0 - smoothing) * loss + smoothing * (log_sum + (row_max - row_total / cols))
    return loss


@triton.jit
def _cross_entropy_kernel(
    logits_ptr,
    targets_ptr,
    partial_ptr,
    loss_ptr,
    cols,
    chunk_cols,
    stride_logits_row,
    stride_logits_col,
    stride_targets,
    ignore,
    smoothing,
    SMOOTHED: tl.constexpr,
    WHOLE_ROW: tl.constexpr,
    BLOCK_COLS: tl.constexpr,
):
    """One program walks one chunk of one row; where that is all of it, it writes the loss."""
    row = tl.program_id(0).to(tl.int64)
    chunk = tl.program_id(1)
    logits_row_ptr = logits_ptr + row * stride_logits_row
    target = tl.load(targets_ptr + row * stride_targets).to(tl.int64)
    at_target = _at_target(logits_row_ptr, target, cols, stride_logits_col)
    first = chunk * chunk_cols
    # The logits of an ignored row are not read.
    last = tl.where(target == ignore, first, tl.minimum(first + chunk_cols, cols))

    lane_max = tl.full((BLOCK_COLS,), float("-inf"), tl.float32)
    lane_sum = tl.zeros((BLOCK_COLS,), tl.float32)
    lane_total = tl.zeros((BLOCK_COLS,), tl.float32)
    for start in range(first, last, BLOCK_COLS):
        col_offs = start + tl.arange(0, BLOCK_COLS)
        mask = col_offs < last
        x_ptrs = logits_row_ptr + col_offs * stride_logits_col
        x = tl.load(x_ptrs, mask=mask, other=float("-inf")).to(tl.float32)
        if SMOOTHED:
            lane_total += tl.where(mask, x, 0.0)
        rise = x - lane_max
        # A lane that has seen only -inf has a sum of 0, and stays at 0 for one more; NaN is kept.
        nothing_yet = (lane_max == float("-inf")) & (x == x)
        decay = tl.where(nothing_yet, 0.0, tl.exp(-tl.abs(rise)))
        lane_sum = tl.where(rise > 0.0, lane_sum * decay + 1.0, lane_sum + decay)
        lane_max = tl.maximum(lane_max, x)

    chunk_max = tl.max(lane_max, axis=0)
    chunk_sum = tl.sum(lane_sum * tl.exp(lane_max - _relative_to(chunk_max)), axis=0)
    chunk_total = tl.sum(lane_total, axis=0)
    if WHOLE_ROW:
        loss = _row_loss(at_target, chunk_max, chunk_sum, chunk_total, cols, smoothing, SMOOTHED)
        tl.store(loss_ptr + row, tl.where(target == ignore, 0.0, loss))
    else:
        chunk_ptr = partial_ptr + (row * tl.num_programs(1) + chunk) * 3
        tl.store(chunk_ptr, chunk_max)
        tl.store(chunk_ptr + 1, chunk_sum)
        tl.store(chunk_ptr + 2, chunk_total)


@triton.jit
def _cross_entropy_merge_kernel(
    logits_ptr,
    targets_ptr,
    partial_ptr,
    loss_ptr,
    cols,
    chunks,
    stride_logits_row,
    stride_logits_col,
    stride_targets,
    ignore,
    smoothing,
    SMOOTHED: tl.constexpr,
    BLOCK_CHUNKS: tl.constexpr,
):
    """One program merges the (chunks, 3) maxima, sums and totals of one row."""
    row = tl.program_id(0).to(tl.int64)
    target = tl.load(targets_ptr + row * stride_targets).to(tl.int64)
    at_target = _at_target(logits_ptr + row * stride_logits_row, target, cols, stride_logits_col)
    chunk_offs = tl.arange(0, BLOCK_CHUNKS)
    mask = chunk_offs < chunks
    chunk_ptrs = partial_ptr + (row * chunks + chunk_offs) * 3
    chunk_max = tl.load(chunk_ptrs, mask=mask, other=float("-inf"))
    chunk_sum = tl.load(chunk_ptrs + 1, mask=mask, other=0.0)
    chunk_total = tl.load(chunk_ptrs + 2, mask=mask, other=0.0)

    row_max = tl.max(chunk_max, axis=0)
    row_sum = tl.sum(chunk_sum * tl.exp(chunk_max - _relative_to(row_max)), axis=0)
    row_total = tl.sum(chunk_total, axis=0)
    loss = _row_loss(at_target, row_max, row_sum, row_total, cols, smoothing, SMOOTHED)
    tl.store(loss_ptr + row, tl.where(target == ignore, 0.0, loss))


class CrossEntropyConfig(NamedTuple):
    """About `programs` programs share a row; each walks it `block_cols` at a time."""

    programs: int
    block_cols: int
    num_warps: int


def _default(capability: int, key: Key) -> CrossEntropyConfig:
    """Blocks of 4096, one program a row unless that leaves the GPU idle."""
    rows, cols = int(key["rows"]), int(key["cols"])
    block_cols = min(4096, max(32, next_power_of_2(cols)))
    programs = programs_a_row(rows, cols, block_cols, MOST_PROGRAMS_A_ROW)
    return CrossEntropyConfig(programs, block_cols, max(1, block_cols // 512))


def _candidates(capability: int, key: Key) -> Iterable[CrossEntropyConfig]:
    for block_cols, num_warps in ((1024, 4), (2048, 4), (4096, 8), (8192, 16)):
        for programs in (1, 4, 16, 32, 64):
            yield CrossEntropyConfig(programs, block_cols, num_warps)


def _fits(capability: int, key: Key, config: CrossEntropyConfig) -> bool:
    return config.programs <= MOST_PROGRAMS_A_ROW


CROSS_ENTROPY_TUNABLE: Tunable[CrossEntropyConfig] = Tunable(
    name="cross_entropy",
    exact=("bits",),
    sizes=("rows", "cols"),
    config=CrossEntropyConfig,
    default=_default,
    candidates=_candidates,
    fits=_fits,
)


def cross_entropy_plan(
    capability: int,
    logits: torch.Tensor,
    targets: torch.Tensor,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
) -> Plan:
    """The losses in float32, and one launch, or two where several programs share a row."""
    flat = as_rows(logits)
    rows, cols = flat.shape
    loss = torch.empty((rows,), dtype=torch.float32, device=logits.device)
    if rows == 0:
        return Plan((loss,), ())

    bits = 8 * logits.itemsize
    config = tuning.choose(
        CROSS_ENTROPY_TUNABLE, capability, logits.device, bits=bits, rows=rows, cols=cols
    )
    chunks = cut(cols, config.programs, config.block_cols)
    shared = chunks.programs > 1
    args = {
        "logits_ptr": flat,
        "targets_ptr": targets,
        # Without a merge nothing is left for it; the losses stand in.
        "partial_ptr": loss.new_empty((rows, chunks.programs, 3)) if shared else loss,
        "loss_ptr": loss,
        "cols": cols,
        "stride_logits_row": flat.stride(0),
        "stride_logits_col": flat.stride(1),
        "stride_targets": targets.stride(0),
        "ignore": ignore_index,
        "smoothing": float(label_smoothing),
    }
    smoothed = {"SMOOTHED": label_smoothing > 0}
    walk = Launch(
        kernel=_cross_entropy_kernel,
        grid=(rows, chunks.programs),
        args={**args, "chunk_cols": chunks.cols},
        constants={**smoothed, "WHOLE_ROW": not shared, "BLOCK_COLS": config.block_cols},
        num_warps=config.num_warps,
    )
    merge = Launch(
        kernel=_cross_entropy_merge_kernel,
        grid=(rows,),
        args={**args, "chunks": chunks.programs},
        constants={**smoothed, "BLOCK_CHUNKS": next_power_of_2(chunks.programs)},
        num_warps=1,
    )
    return Plan((loss,), (walk, merge) if shared else (walk,))


@torch.library.custom_op("kernl::cross_entropy", mutates_args=())
def _cross_entropy(
    logits: torch.Tensor, targets: torch.Tensor, ignore_index: int, label_smoothing: float
) -> torch.Tensor:
    capability = launch.capability(logits.device)
    return cross_entropy_plan(capability, logits, targets, ignore_index, label_smoothing).run()[0]


@_cross_entropy.register_fake
def _cross_entropy_fake(
    logits: torch.Tensor, targets: torch.Tensor, ignore_index: int, label_smoothing: float
) -> torch.Tensor:
    return torch.empty((logits.shape[0],), dtype=torch.float32, device=logits.device)


def check_cross_entropy(
    logits: torch.Tensor,
    targets: torch.Tensor,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
) -> None:
    """Raise a `kernl.errors.KernlError` where `cross_entropy` does not take these arguments."""
    op = "cross_entropy"
    checks.tensors(op, _cross_entropy_kernel, logits=logits)
    checks.indices(op, "targets", targets, logits)
    checks.at_least(op, "logits", logits, 2)
    checks.matrix(op, "logits", logits, logits.shape[-1], "the vocabulary")
    checks.positive(op, "the last dimension of logits", logits.shape[1])
    checks.shape(op, "targets", targets, (logits.shape[0],), "the rows of logits")
    checks.index(op, "ignore_index", ignore_index, -(2**63), 2**63 - 1)
    checks.fraction(op, "label_smoothing", label_smoothing)


def cross_entropy(
    logits: torch.Tensor,
    targets: torch.Tensor,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
) -> torch.Tensor:
    """The cross-entropy of each row, as `torch.nn.functional.cross_entropy` with no reduction.

    Forward only. Sums are taken in float32.

    Args:
        logits: (rows, vocabulary), any strides, fp16, bf16 or fp32. No rows give an empty result.
        targets: (rows,) int32 or int64, any stride, each in [0, vocabulary) or `ignore_index`.
            They are read on the device alone, so one that is neither cannot raise: it gives NaN.
        ignore_index: rows with this target get a loss of 0, and their logits are not read.
        label_smoothing: 0 to 1, the share of the loss that is spread over the vocabulary.

    Returns:
        (rows,) float32 losses. As in PyTorch, a row of only -inf, or with a NaN or +inf, gives NaN.

    Raises:
        ArgumentError, DTypeError, DeviceError, ShapeError, OptionError: from `kernl.errors`.
    """
    check_cross_entropy(logits, targets, ignore_index, label_smoothing)
    return _cross_entropy(logits, targets, ignore_index, float(label_smoothing))


def _dims(model: ModelShape, workload: Workload) -> Iterator[Dims]:
    for rows in (workload.batch, workload.tokens):
        if rows <= 512:
            yield {"rows": rows, "cols": model.vocabulary, "smoothed": False}


def _inputs(case: Case, device: str, seed: int) -> dict[str, Any]:
    generator = torch.Generator(device).manual_seed(seed)
    rows, cols = case["rows"], case["cols"]
    logits = 4 * torch.randn(rows, cols, generator=generator, device=device)
    targets = torch.randint(cols, (rows,), generator=generator, device=device)
    # One row in five is padding.
    targets[3::5] = -100
    return {
        "logits": logits.to(case.torch_dtype),
        "targets": targets,
        "ignore_index": -100,
        "label_smoothing": 0.1 if case["smoothed"] else 0.0,
    }


def _spelled_functional(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.cross_entropy(logits.float(), targets, reduction="none")


CROSS_ENTROPY = Op(
    name="cross_entropy",
    kernel=cross_entropy,
    reference=cross_entropy_reference,
    plan=cross_entropy_plan,
    check=check_cross_entropy,
    dims=_dims,
    inputs=_inputs,
    edges=tuple(
        {"rows": rows, "cols": cols, "smoothed": smoothed}
        for rows, cols, smoothed in (
            (1, 1, False),
            (3, 7, True),
            (5, 1021, True),
            (2, 4096, False),
            (3, 4097, False),
            (2, 20011, True),
            (257, 33, False),
            (300, 130, True),
        )
    ),
    bytes=lambda case: case["rows"] * (case["cols"] * case.itemsize + 8 + 4),
    # A difference, an exponential, a scale, a sum and a comparison for each element.
    flops=lambda case: 5 * case["rows"] * case["cols"],
    tolerance={"fp32": 1e-6, "fp16": 1e-6, "bf16": 1e-6},
    spellings=(
        Spelling(
            _spelled_functional,
            cross_entropy,
            {"logits": (3, 8), "targets": (3,)},
            {},
            ("targets",),
        ),
    ),
)
