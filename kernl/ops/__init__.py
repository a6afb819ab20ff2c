"""The operators, one kernel a file, and `ALL`: the registry from which everything else derives."""

from kernl.op import Op
from kernl.ops.argmax_sample import ARGMAX_SAMPLE, argmax_sample
from kernl.ops.attention import attention
from kernl.ops.attention_cases import ATTENTION
from kernl.ops.attention_varlen import ATTENTION_VARLEN, attention_varlen
from kernl.ops.batched_matmul import BATCHED_MATMUL, batched_matmul
from kernl.ops.clamp_overflow import CLAMP_OVERFLOW, clamp_overflow
from kernl.ops.conv1d import CONV1D, conv1d
from kernl.ops.cross_entropy import CROSS_ENTROPY, cross_entropy
from kernl.ops.decode_attention import DECODE_ATTENTION, decode_attention
from kernl.ops.embedding_layer_norm import EMBEDDING_LAYER_NORM, embedding_layer_norm
from kernl.ops.fp8_linear import FP8_LINEAR, fp8_linear, quantize_fp8
from kernl.ops.gated import GEGLU, SWIGLU, geglu, swiglu
from kernl.ops.layer_norm import LAYER_NORM, layer_norm
from kernl.ops.linear import LINEAR, linear
from kernl.ops.linear_add_layer_norm import LINEAR_ADD_LAYER_NORM, linear_add_layer_norm
from kernl.ops.linear_glu import LINEAR_GLU, linear_glu
from kernl.ops.linear_layer_norm import LINEAR_LAYER_NORM, linear_layer_norm
from kernl.ops.linear_rms_norm import LINEAR_RMS_NORM, linear_rms_norm
from kernl.ops.quantize import quantize_weight
from kernl.ops.quantized_linear import QUANTIZED_LINEAR, quantized_linear
from kernl.ops.rms_norm import RMS_NORM, rms_norm
from kernl.ops.rotary import rotary
from kernl.ops.rotary_cache import ROTARY, ROTARY_CACHE, rotary_cache
from kernl.ops.softmax import SOFTMAX, softmax
from kernl.ops.stream_k_matmul import STREAM_K_MATMUL, stream_k_matmul

ALL: tuple[Op, ...] = (
    SOFTMAX,
    LAYER_NORM,
    RMS_NORM,
    LINEAR,
    LINEAR_LAYER_NORM,
    LINEAR_ADD_LAYER_NORM,
    LINEAR_RMS_NORM,
    QUANTIZED_LINEAR,
    FP8_LINEAR,
    STREAM_K_MATMUL,
    BATCHED_MATMUL,
    ATTENTION,
    ATTENTION_VARLEN,
    DECODE_ATTENTION,
    SWIGLU,
    GEGLU,
    LINEAR_GLU,
    ROTARY,
    ROTARY_CACHE,
    EMBEDDING_LAYER_NORM,
    CLAMP_OVERFLOW,
    CONV1D,
    CROSS_ENTROPY,
    ARGMAX_SAMPLE,
)

__all__ = [
    "ALL",
    "argmax_sample",
    "attention",
    "attention_varlen",
    "batched_matmul",
    "clamp_overflow",
    "conv1d",
    "cross_entropy",
    "decode_attention",
    "embedding_layer_norm",
    "fp8_linear",
    "geglu",
    "layer_norm",
    "linear",
    "linear_add_layer_norm",
    "linear_glu",
    "linear_layer_norm",
    "linear_rms_norm",
    "quantize_fp8",
    "quantize_weight",
    "quantized_linear",
    "rms_norm",
    "rotary",
    "rotary_cache",
    "softmax",
    "stream_k_matmul",
    "swiglu",
]
