"""The first layer of BERT and its kin: three embeddings, their sum, and its layer norm.

    summed = word[input_ids] + position[position_ids] + token_type[token_type_ids]
    out    = (summed - mean) / sqrt(var + eps) · weight + bias

One program gathers the rows of one or a few tokens and norms them in registers: each is read once
and nothing but the result is written. Where positions count the tokens that are no padding, as
RoBERTa's do, it counts them by itself.

Source: Devlin, Chang, Lee and Toutanova, "BERT: Pre-training of Deep Bidirectional Transformers
for Language Understanding", 2019, https://arxiv.org/abs/1810.04805.
"""

from collections.abc import Iterator
from typing import Any

import torch

from kernl import checks, launch
from kernl.errors import OptionError, ShapeError
from kernl.launch import Launch, Plan, cdiv, next_power_of_2
from kernl.op import Case, Dims, Op
from kernl.ops.embedding_layer_norm_kernels import embedding_layer_norm_kernel
from kernl.ops.norm_spellings import embedding_layer_norm_spellings
from kernl.shapes import ModelShape, Workload

MAX_HIDDEN = 16384
_MOST_COUNTED = 512
"""As many ids of a sequence are looked at together."""


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
    padding_idx: int | None = None,
) -> torch.Tensor:
    """What a PyTorch user would write."""
    seq = input_ids.shape[1]
    if padding_idx is not None:
        kept = (input_ids != padding_idx).long()
        position_ids = kept.cumsum(1) * kept + padding_idx
    elif position_ids is None:
        position_ids = torch.arange(seq, device=input_ids.device)[None] + position_offset
    embedding = torch.nn.functional.embedding
    summed = embedding(input_ids, word) + embedding(position_ids, position)
    if token_type is not None:
        kinds = torch.zeros_like(input_ids) if token_type_ids is None else token_type_ids
        summed = summed + embedding(kinds, token_type)
    return torch.nn.functional.layer_norm(summed, word.shape[1:], weight, bias, eps)


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
    padding_idx: int | None = None,
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
        kernel=embedding_layer_norm_kernel,
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
            "position_offset": position_offset if padding_idx is None else padding_idx,
            "stride_weight": weight.stride(0),
            "stride_bias": bias.stride(0),
            "eps": float(eps),
        },
        constants={
            "HAS_POSITION_IDS": position_ids is not None,
            "HAS_TYPES": token_type is not None,
            "HAS_TYPE_IDS": token_type_ids is not None,
            "BLOCK_SEQ": 0 if padding_idx is None else min(next_power_of_2(seq), _MOST_COUNTED),
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
    padding_idx: int | None,
) -> torch.Tensor:
    tables = (word, position, weight, bias, input_ids)
    ids = (token_type, token_type_ids, position_ids)
    numbers = (position_offset, eps, padding_idx)
    plan = embedding_layer_norm_plan(launch.capability(word.device), *tables, *ids, *numbers)
    return plan.run()[0]


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
    padding_idx: int | None = None,
) -> None:
    """Raise a `kernl.errors.KernlError` where the operator does not take these arguments."""
    op = "embedding_layer_norm"
    kernel = embedding_layer_norm_kernel
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
    if padding_idx is not None:
        checks.index(op, "padding_idx", padding_idx, 0, 2**31 - 1)
        if position_ids is not None or position_offset:
            raise OptionError(
                seen=f"{op}: padding_idx with position_ids or a position_offset",
                allowed="one of the three: padding_idx counts positions by itself",
                action="leave out the others",
            )


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
    padding_idx: int | None = None,
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
        padding_idx: the id of padding, 0 or more, or None. With it a token's position is
            padding_idx plus the number of tokens up to itself that are no padding, and that of
            padding is padding_idx, as in RoBERTa.

    Returns:
        (batch, seq, hidden), contiguous, in the dtype of `word`. A token with an id outside of its
        table is a row of NaN: a kernel cannot raise without waiting for the device.

    Raises:
        ArgumentError, DTypeError, DeviceError, ShapeError, OptionError: from `kernl.errors`.
    """
    given = (token_type, token_type_ids, position_ids, position_offset, eps, padding_idx)
    check_embedding_layer_norm(word, position, weight, bias, input_ids, *given)
    options = (token_type, token_type_ids, position_ids, position_offset, float(eps), padding_idx)
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
