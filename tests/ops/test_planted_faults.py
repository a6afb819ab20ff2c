"""The contract tests are themselves tested: each fault planted in a copy of a kernel is caught."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# A name begins with the operator; then the file, what stands in it, what is planted, and the first
# of the operator's cases that tells.
FAULTS = {
    "softmax counts its tail": (
        "softmax_scores",
        'mask=inside, other=float("-inf")',
        "mask=inside, other=0.0",
        "rows3_cols7.fp16",
    ),
    "softmax of a wide row forgets the rescaling": (
        "softmax",
        "lane_sum * tl.exp(lane_max - shift) +",
        "lane_sum +",
        "rows129_cols32769.fp16",
    ),
    "softmax lets a query see one key too many": (
        "softmax_scores",
        "last = query + cols - queries",
        "last = query + cols - queries + 1",
        "rows192_cols16_causal.fp16",
    ),
    "softmax merges only the first blocks of a row": (
        "softmax_split",
        "tl.load(partial_ptrs + 1, mask=block_offs < blocks, other=0.0)",
        "tl.load(partial_ptrs + 1, mask=block_offs < blocks // 2, other=0.0)",
        "rows1_cols51865.fp16",
    ),
    "rms_norm forgets the rest of a wide row": (
        "rms_norm",
        "lane_squares += x * x",
        "lane_squares = x * x",
        "rows2_cols16385_residual.fp16",
    ),
    "layer_norm counts its tail": (
        "layer_norm",
        "tl.where(col_mask[None, :], x - mean, 0.0)",
        "x - mean",
        "rows16_cols768_bias.fp16",
    ),
    "layer_norm of a wide row does not merge its lanes": (
        "layer_norm",
        "tl.sum(lane_m2 + between, axis=0)",
        "tl.sum(lane_m2, axis=0)",
        "rows2_cols16385_bias_residual.fp16",
    ),
    "linear reads the next row where k ends inside a block": (
        "linear",
        "k_mask = k_offs < (k_last - k_first) % BLOCK_K",
        "k_mask = k_offs < BLOCK_K",
        "m17_n31_k127_bias_gelu_tanh.fp16",
    ),
    "linear leaves its last column unwritten": (
        "epilogue",
        "out_mask = (m_offs < m)[:, None] & n_mask[None, :]",
        "out_mask = (m_offs < m)[:, None] & (n_offs < n - 1)[None, :]",
        "m16_n768_k768_bias_residual.fp16",
    ),
    "linear of one row counts what lies behind k": (
        "linear_gemv",
        "mask = columns < k",
        "mask = columns < k + 1",
        "m3_n129_k65_bias_gelu_residual.fp16",
    ),
    "linear adds up all parts but the last": (
        "epilogue",
        "tl.static_range(SPLIT_K)",
        "tl.static_range(SPLIT_K - 1)",
        "m16_n384_k1536_bias_residual.fp16",
    ),
    "linear forgets its activation": (
        "epilogue",
        "acc = activate(acc, ACTIVATION)",
        "acc = acc",
        "m16_n1536_k384_bias_gelu.fp16",
    ),
    "linear_glu reads the next row where k ends inside a block": (
        "linear_glu",
        "k_mask = k_offs < k % BLOCK_K // K_UNIT * K_UNIT",
        "k_mask = k_offs < BLOCK_K",
        "m16_n96_k1000_gelu.fp16",
    ),
    "linear_glu multiplies with the bias of gate": (
        "linear_glu_tma",
        "bias_ptrs += tl.cast(n, tl.int64) * stride_bias",
        "bias_ptrs += 0",
        "m9_n40_k200_bias_gelu_tanh.fp16",
    ),
    "linear_rms_norm adds up all parts but the last": (
        "linear_layer_norm_finish",
        "tl.static_range(SPLIT_K)",
        "tl.static_range(SPLIT_K - 1)",
        "m16_n512_k512.fp16",
    ),
    "linear_add_layer_norm counts its tail": (
        "linear_layer_norm_finish",
        "tl.where(n_mask[None, :], summed - mean, 0.0)",
        "summed - mean",
        "m5_n33_k512.fp16",
    ),
    "attention counts a key behind the last one": (
        "attention_scores",
        "seen = n_offs < last_key",
        "seen = n_offs < last_key + 1",
        "batch1_heads12_kvheads12_queries16_keys16_dim64.fp16",
    ),
    "attention lets a query see one key too many": (
        "attention_scores",
        "(n_offs[None, :] <= place)",
        "(n_offs[None, :] <= place + 1)",
        "batch1_heads12_kvheads12_queries16_keys16_dim64_causal.fp16",
    ),
    "attention_varlen reads into the next sequence": (
        "attention_kernel",
        "k_len = q_len\n",
        "k_len = q_len + 1\n",
        "batch1_seq1_heads1_kvheads1_dim32.fp16",
    ),
    "decode_attention forgets its last split": (
        "decode_attention_kernels",
        "split_mask, dim_mask = split < splits,",
        "split_mask, dim_mask = split < splits - 1,",
        "batch1_heads12_kv_heads12_q_len1_keys128_head_dim64_static.fp16",
    ),
    "batched_matmul counts what lies behind k": (
        "batched_matmul",
        "k_mask = k_offs < k % BLOCK_K",
        "k_mask = k_offs < BLOCK_K",
        "batch3_m5_n7_k17_transposed.fp16",
    ),
    "stream_k_matmul takes a piece from the wrong slot": (
        "stream_k_matmul_kernels",
        "slot = (step <= begin).to(tl.int32)",
        "slot = (step < begin).to(tl.int32)",
        "m1_n700_k2048.fp16",
    ),
    "quantized_linear multiplies the wrong half of a group": (
        "quantized_linear_kernels",
        "x_place = place if BITS == 8 else place + group * bytes_a_group",
        "x_place = place",
        "m2_n31_k192_int4_group32_silu.fp16",
    ),
    "rotary turns the wrong way": (
        "rotary",
        "tl.where(first[None, :], -other, other)",
        "tl.where(first[None, :], other, -other)",
        "batch1_seq1_heads32_kvheads8_dim64_rotary64_half.fp16",
    ),
    "clamp_overflow reads the notes of all blocks but the last": (
        "clamp_overflow",
        "mask=note_offs < blocks",
        "mask=note_offs < blocks - 1",
        "rows16_cols512_overflow.fp16",
    ),
    "conv1d sees one position behind the last": (
        "conv1d",
        "tl.maximum(length - first, 0)",
        "tl.maximum(length + 1 - first, 0)",
        "batch3_in_channels3_length1_out_channels17_kernel_size3_stride1_padding1_bias_relu.fp16",
    ),
    "conv1d takes the channels of one tap for taps of one channel": (
        "conv1d",
        "tap, channel = k // CHANNELS, k % CHANNELS",
        "channel, tap = k // TAPS, k % TAPS",
        "batch1_in_channels17_length65_out_channels33_kernel_size2_stride1_time_major_bias_gelu_residual.fp16",
    ),
    "cross_entropy merges the first chunk alone": (
        "cross_entropy",
        "mask = chunk_offs < chunks",
        "mask = chunk_offs < 1",
        "rows1_cols30522.fp16",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_the_contract_catches_a_planted_fault(name: str, tmp_path: Path) -> None:
    file, right, wrong, case = FAULTS[name]
    op = name.split()[0]
    shutil.copytree(ROOT / "kernl", tmp_path / "kernl")
    (tmp_path / "tests" / "ops").mkdir(parents=True)
    for needed in ("pyproject.toml", "tests/conftest.py", "tests/ops/test_contract.py"):
        shutil.copy(ROOT / needed, tmp_path / needed)
    source = tmp_path / "kernl" / "ops" / f"{file}.py"
    text = source.read_text()
    assert text.count(right) == 1
    source.write_text(text.replace(right, wrong))

    command = [
        sys.executable,
        "-m",
        "pytest",
        "-x",
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
    ]
    selection = [f"tests/ops/test_contract.py::test_kernel_against_float64[{op}-{case}]"]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
    environment["KERNL_CONTRACT_OP"] = op
    done = subprocess.run(
        [*command, *selection],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "test_kernel_against_float64" in done.stdout
    assert "relative_l2" in done.stdout, done.stdout + done.stderr
