"""The first layer of BERT and its kin: three embeddings, their sum, and its layer norm.

    summed = word[input_ids] + position[position_ids] + token_type[token_type_ids]
    out    = (summed - mean) / sqrt(var + eps) · weight + bias

One program gathers the rows of one or a few tokens and norms them in registers: each is read once
and nothing but the result is written.

Source: Devlin, Chang, Lee and Toutanova, "BERT: Pre-training of Deep Bidirectional Transformers
for Language Understanding", 2019, https://arxiv.org/abs/1810.04805.
"""

from collections.abc import Iterator
from typing import Any

import torch
import triton
import triton.language as tl

from kernl import checks, launch
from kernl.errors import ShapeError
from kernl.launch import Launch, Plan, cdiv, next_power_of_2
from kernl.op import Case, Dims, Op
from kernl.ops.dependent import wait_for_inputs
from kernl.ops.norm_spellings import embedding_layer_norm_spellings
from kernl.shapes import ModelShape, Workload

MAX_HIDDEN = 16384


def embedding_layer_norm_reference(
    word: torch.Tensor,
    position: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    input_ids: torch.Tensor,
    token_type: torch.Tensor | None = None,
    token_type_ids: torch.Tensor | None = None,
    position_ids: torch.Tensor | None = None,
    position_offset: int = 0,
    eps: float = 1e-12,
) -> torch.Tensor:
    """What a PyTorch user would write."""
    seq = input_ids.shape[1]
    if position_ids is None:
        position_ids = torch.arange(seq, device=input_ids.device)[None] + position_offset
    embedding = torch.nn.functional.embedding
    summed = embedding(input_ids, word) + embedding(position_ids, position)
    if token_type is not None:
        kinds = torch.zeros_like(input_ids) if token_type_ids is None else token_type_ids
        summed = summed + embedding(kinds, token_type)
    return torch.nn.functional.layer_norm(summed, word.shape[1:], weight, bias, eps)


@triton.jit
def _gathered(table_ptr, ids, count, stride_row, stride_col, col_offs, mask):
    """Rows of a table in float32; a row of NaN where the id lies outside of 0 to count - 1."""
    known = (ids >= 0) & (ids < count)
    rows = tl.where(known, ids, 0)[:, None] * stride_row
    values = tl.load(table_ptr + rows + col_offs[None, :] * stride_col, mask=mask, other=0.0)
    return tl.where(known[:, None], values.to(tl.float32), float("nan"))


@triton.jit
def _embedding_layer_norm_kernel(
    word_ptr,
    position_ptr,
    token_type_ptr,
    weight_ptr,
    bias_ptr,
    input_ids_ptr,
    position_ids_ptr,
    token_type_ids_ptr,
    out_ptr,
    tokens,
    seq,
    hidden,
    vocabulary,
    positions,
    types,
    position_offset,
    stride_word_row,
    stride_word_col,
    stride_position_row,
    stride_position_col,
    stride_token_type_row,
    stride_token_type_col,
    stride_weight,
    stride_bias,
    stride_input_ids_b,
    stride_input_ids_s,
    stride_position_ids_b,
    stride_position_ids_s,
    stride_token_type_ids_b,
    stride_token_type_ids_s,
    eps,
    HAS_POSITION_IDS: tl.constexpr,
    HAS_TYPES: tl.constexpr,
    HAS_TYPE_IDS: tl.constexpr,
    BLOCK_TOKENS: tl.constexpr,
    BLOCK_HIDDEN: tl.constexpr,
    PDL: tl.constexpr = False,
):
    """(BLOCK_TOKENS, BLOCK_HIDDEN) covers BLOCK_TOKENS whole rows of the output."""
    wait_for_inputs(PDL)
    token_offs = (tl.program_id(0) * BLOCK_TOKENS + tl.arange(0, BLOCK_TOKENS)).to(tl.int64)
    col_offs = tl.arange(0, BLOCK_HIDDEN)
    inside, col_mask = token_offs < tokens, col_offs < hidden
    mask = inside[:, None] & col_mask[None, :]
    batch, place = token_offs // seq, token_offs % seq

    id_offs = batch * stride_input_ids_b + place * stride_input_ids_s
    ids = tl.load(input_ids_ptr + id_offs, mask=inside, other=0).to(tl.int64)
    x = _gathered(word_ptr, ids, vocabulary, stride_word_row, stride_word_col, col_offs, mask)
    ids = place + position_offset
    if HAS_POSITION_IDS:
        id_offs = batch * stride_position_ids_b + place * stride_position_ids_s
        ids = tl.load(position_ids_ptr + id_offs, mask=inside, other=0).to(tl.int64)
    x += _gathered(
        position_ptr, ids, positions, stride_position_row, stride_position_col, col_offs, mask
    )
    if HAS_TYPES:
        ids = tl.zeros((BLOCK_TOKENS,), tl.int64)
        if HAS_TYPE_IDS:
            id_offs = batch * stride_token_type_ids_b + place * stride_token_type_ids_s
            ids = tl.load(token_type_ids_ptr + id_offs, mask=inside, other=0).to(tl.int64)
        x += _gathered(
            token_type_ptr, ids, types, stride_token_type_row, stride_token_type_col, col_offs, mask
        )

    weight = tl.load(weight_ptr + col_offs * stride_weight, mask=col_mask).to(tl.float32)
    bias = tl.load(bias_ptr + col_offs * stride_bias, mask=col_mask).to(tl.float32)
    mean = tl.sum(tl.where(mask, x, 0.0), axis=1)[:, None] / hidden
    deviation = tl.where(mask, x - mean, 0.0)
    variance = tl.sum(deviation * deviation, axis=1)[:, None] / hidden
    out = deviation * (1.0 / tl.sqrt(variance + eps)) * weight[None, :] + bias[None, :]
    out_ptrs = out_ptr + token_offs[:, None] * hidden + col_offs[None, :]
    tl.store(out_ptrs, out.to(out_ptr.dtype.element_ty), mask=mask)


def embedding_layer_norm_plan(
    capability: int,
    word: torch.Tensor,
    position: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    input_ids: torch.Tensor,
    token_type: torch.Tensor | None = None,
    token_type_ids: torch.Tensor | None = None,
    position_ids: torch.Tensor | None = None,
    position_offset: int = 0,
    eps: float = 1e-12,
) -> Plan:
    """The output, contiguous, and its one launch."""
    batch, seq = input_ids.shape
    out = _empty_output(word, input_ids)
    if out.numel() == 0:
        return Plan((out,), ())
    hidden = word.shape[1]
    block_hidden = next_power_of_2(hidden)
    block_tokens = max(1, 512 // block_hidden)
    # Absent tensors are stood in for: their pointers are never read.
    types = word if token_type is None else token_type
    places = input_ids if position_ids is None else position_ids.expand(batch, seq)
    kinds = input_ids if token_type_ids is None else token_type_ids
    tables = {"word": word, "position": position, "token_type": types}
    ids = {"input_ids": input_ids, "position_ids": places, "token_type_ids": kinds}
    normed = Launch(
        kernel=_embedding_layer_norm_kernel,
        grid=(cdiv(batch * seq, block_tokens),),
        args={
            **{f"{name}_ptr": tensor for name, tensor in {**tables, **ids}.items()},
            **{
                f"stride_{name}_{axis}": stride
                for name, table in tables.items()
                for axis, stride in zip(("row", "col"), table.stride(), strict=True)
            },
            **{
                f"stride_{name}_{axis}": stride
                for name, tensor in ids.items()
                for axis, stride in zip("bs", tensor.stride(), strict=True)
            },
            "weight_ptr": weight,
            "bias_ptr": bias,
            "out_ptr": out,
            "tokens": batch * seq,
            "seq": seq,
            "hidden": hidden,
            "vocabulary": word.shape[0],
            "positions": position.shape[0],
            "types": types.shape[0],
            "position_offset": position_offset,
            "stride_weight": weight.stride(0),
            "stride_bias": bias.stride(0),
            "eps": float(eps),
        },
        constants={
            "HAS_POSITION_IDS": position_ids is not None,
            "HAS_TYPES": token_type is not None,
            "HAS_TYPE_IDS": token_type_ids is not None,
            "BLOCK_TOKENS": block_tokens,
            "BLOCK_HIDDEN": block_hidden,
        },
        num_warps=min(max(block_tokens * block_hidden // 256, 1), 16),
    )
    return Plan((out,), (normed,))


def _empty_output(word: torch.Tensor, input_ids: torch.Tensor) -> torch.Tensor:
    return torch.empty((*input_ids.shape, word.shape[1]), dtype=word.dtype, device=word.device)


@torch.library.custom_op("kernl::embedding_layer_norm", mutates_args=())
def _embedding_layer_norm(
    word: torch.Tensor,
    position: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    input_ids: torch.Tensor,
    token_type: torch.Tensor | None,
    token_type_ids: torch.Tensor | None,
    position_ids: torch.Tensor | None,
    position_offset: int,
    eps: float,
) -> torch.Tensor:
    tables = (word, position, weight, bias, input_ids)
    ids = (token_type, token_type_ids, position_ids)
    capability = launch.capability(word.device)
    return embedding_layer_norm_plan(capability, *tables, *ids, position_offset, eps).run()[0]


@_embedding_layer_norm.register_fake
def _embedding_layer_norm_fake(
    word: torch.Tensor,
    position: object,
    weight: object,
    bias: object,
    input_ids: torch.Tensor,
    *options: object,
) -> torch.Tensor:
    return _empty_output(word, input_ids)


def check_embedding_layer_norm(
    word: torch.Tensor,
    position: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    input_ids: torch.Tensor,
    token_type: torch.Tensor | None = None,
    token_type_ids: torch.Tensor | None = None,
    position_ids: torch.Tensor | None = None,
    position_offset: int = 0,
    eps: float = 1e-12,
) -> None:
    """Raise a `kernl.errors.KernlError` where the operator does not take these arguments."""
    op = "embedding_layer_norm"
    kernel = _embedding_layer_norm_kernel
    checks.tensors(op, kernel, word=word, position=position, weight=weight, bias=bias)
    checks.tensors(op, kernel, word=word, token_type=token_type)
    checks.ndim(op, "word", word, 2, "(vocabulary, hidden)")
    hidden = word.shape[1]
    for name, table in (("word", word), ("position", position), ("token_type", token_type)):
        if table is not None:
            checks.matrix(op, name, table, hidden, "the width of word")
            checks.positive(op, f"the first dimension of {name}", table.shape[0])
    checks.positive(op, "the last dimension of word", hidden)
    if hidden > MAX_HIDDEN:
        raise ShapeError(
            seen=f"{op}: rows of {hidden}",
            allowed=f"rows of {MAX_HIDDEN} at most",
            action="use torch.nn.functional.embedding and kernl.ops.layer_norm",
        )
    checks.shape(op, "weight", weight, (hidden,), "the width of word")
    checks.shape(op, "bias", bias, (hidden,), "the width of word")
    checks.indices(op, "input_ids", input_ids, word)
    checks.ndim(op, "input_ids", input_ids, 2, "(batch, seq)")
    if token_type_ids is not None:
        checks.indices(op, "token_type_ids", token_type_ids, word)
        shape = tuple(input_ids.shape)
        checks.shape(op, "token_type_ids", token_type_ids, shape, "the shape of input_ids")
    if position_ids is not None:
        checks.indices(op, "position_ids", position_ids, word)
        checks.ndim(op, "position_ids", position_ids, 2, "(batch or 1, seq)")
        shape = tuple(input_ids.shape)
        checks.broadcastable(op, "position_ids", position_ids, shape, "the shape of input_ids")
    checks.index(op, "position_offset", position_offset, 0, 2**31 - 1)
    checks.number(op, "eps", eps)


def embedding_layer_norm(
    word: torch.Tensor,
    position: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    input_ids: torch.Tensor,
    token_type: torch.Tensor | None = None,
    token_type_ids: torch.Tensor | None = None,
    position_ids: torch.Tensor | None = None,
    position_offset: int = 0,
    eps: float = 1e-12,
) -> torch.Tensor:
    """Layer norm of the sum of word, position and type embeddings, computed in float32.

    Args:
        word: (vocabulary, hidden), hidden up to 16384, any strides, fp16, bf16 or fp32.
        position: (positions, hidden).
        weight: (hidden,), of the norm.
        bias: (hidden,), of the norm.
        input_ids: (batch, seq), int32 or int64.
        token_type: (types, hidden) or None.
        token_type_ids: (batch, seq), int32 or int64; None for type 0 everywhere.
        position_ids: (batch or 1, seq), int32 or int64; None for position_offset, then one more
            for each token.
        position_offset: the first position where there are no position_ids, 0 or more: RoBERTa's
            is 2.
        eps: added to the variance, 0 or more.

    Returns:
        (batch, seq, hidden), contiguous, in the dtype of `word`. A token with an id outside of its
        table is a row of NaN: a kernel cannot raise without waiting for the device.

    Raises:
        ArgumentError, DTypeError, DeviceError, ShapeError, OptionError: from `kernl.errors`.
    """
    given = (token_type, token_type_ids, position_ids, position_offset, eps)
    check_embedding_layer_norm(word, position, weight, bias, input_ids, *given)
    options = (token_type, token_type_ids, position_ids, position_offset, float(eps))
    return _embedding_layer_norm(word, position, weight, bias, input_ids, *options)


def _dims(model: ModelShape, workload: Workload) -> Iterator[Dims]:
    if model.norm == "layer" and not model.causal:
        yield {
            "batch": workload.batch,
            "seq": workload.seq,
            "vocabulary": model.vocabulary,
            "hidden": model.hidden,
            "types": True,
        }


def _inputs(case: Case, device: str, seed: int) -> dict[str, Any]:
    generator = torch.Generator(device).manual_seed(seed)
    batch, seq, hidden = case["batch"], case["seq"], case["hidden"]

    def random(*shape: int) -> torch.Tensor:
        values = torch.randn(shape, generator=generator, device=device)
        return values.to(case.torch_dtype)

    def ids(count: int) -> torch.Tensor:
        return torch.randint(count, (batch, seq), generator=generator, device=device)

    return {
        "word": random(case["vocabulary"], hidden),
        "position": random(seq + 3, hidden),
        "weight": random(hidden),
        "bias": random(hidden),
        "input_ids": ids(case["vocabulary"]),
        "token_type": random(2, hidden) if case["types"] else None,
        "token_type_ids": ids(2) if case["types"] else None,
        "position_offset": 2,
    }


def _bytes(case: Case) -> int:
    tokens = case["batch"] * case["seq"]
    # Of few words each is gathered once; the rows that several tokens share come from L2.
    words = min(tokens, case["vocabulary"])
    rows = words + tokens + case["seq"] + 2 + (2 if case["types"] else 0)
    return int(rows * case["hidden"] * case.itemsize + tokens * 8 * (2 if case["types"] else 1))


EMBEDDING_LAYER_NORM = Op(
    name="embedding_layer_norm",
    kernel=embedding_layer_norm,
    reference=embedding_layer_norm_reference,
    plan=embedding_layer_norm_plan,
    check=check_embedding_layer_norm,
    dims=_dims,
    inputs=_inputs,
    edges=tuple(
        {"batch": batch, "seq": seq, "vocabulary": words, "hidden": hidden, "types": types}
        for batch, seq, words, hidden, types in (
            (1, 1, 1, 1, True),
            (3, 7, 11, 33, True),
            (2, 5, 101, 1021, False),
            (1, 3, 5, 4097, True),
            (5, 17, 2, 64, False),
        )
    ),
    bytes=_bytes,
    # Two additions, then as layer_norm: subtract, square, multiply twice and add.
    flops=lambda case: 7 * case["batch"] * case["seq"] * case["hidden"],
    tolerance={"fp32": 2e-6, "fp16": 5e-4, "bf16": 4e-3},
    spellings=embedding_layer_norm_spellings(embedding_layer_norm),
    moves_part_of_its_inputs=True,
)
