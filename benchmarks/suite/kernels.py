"""Device time of every frozen case in every implementation; needs an NVIDIA GPU.

`setup_cache` measures a whole operator in one warm process and writes one small file a point;
each `track_time` then reads one file, in the process of its own that asv gives it. Samples are the
device time of one call in seconds, with L2 cold; lower is better.
"""

from pathlib import Path

from benchmarks.measure.for_asv import measure_op
from benchmarks.measure.timed_points import (
    TimedPoints as _Kernels,
)  # asv passes over the underscore


# asv keys a cache by the source line of `setup_cache`, so each operator writes its own: inherited,
# one operator could not be measured without all the others.
class Softmax(_Kernels):
    """kernl.ops.softmax."""

    op = "softmax"

    def setup_cache(self) -> str:
        """Measure every case."""
        return measure_op(self.op, Path.cwd())


class LayerNorm(_Kernels):
    """kernl.ops.layer_norm."""

    op = "layer_norm"

    def setup_cache(self) -> str:
        """Measure every case."""
        return measure_op(self.op, Path.cwd())


class RmsNorm(_Kernels):
    """kernl.ops.rms_norm."""

    op = "rms_norm"

    def setup_cache(self) -> str:
        """Measure every case."""
        return measure_op(self.op, Path.cwd())


class Linear(_Kernels):
    """kernl.ops.linear."""

    op = "linear"

    def setup_cache(self) -> str:
        """Measure every case."""
        return measure_op(self.op, Path.cwd())


class LinearLayerNorm(_Kernels):
    """kernl.ops.linear_layer_norm."""

    op = "linear_layer_norm"

    def setup_cache(self) -> str:
        """Measure every case."""
        return measure_op(self.op, Path.cwd())


class LinearAddLayerNorm(_Kernels):
    """kernl.ops.linear_add_layer_norm."""

    op = "linear_add_layer_norm"

    def setup_cache(self) -> str:
        """Measure every case."""
        return measure_op(self.op, Path.cwd())


class LinearRmsNorm(_Kernels):
    """kernl.ops.linear_rms_norm."""

    op = "linear_rms_norm"

    def setup_cache(self) -> str:
        """Measure every case."""
        return measure_op(self.op, Path.cwd())


class QuantizedLinear(_Kernels):
    """kernl.ops.quantized_linear."""

    op = "quantized_linear"

    def setup_cache(self) -> str:
        """Measure every case."""
        return measure_op(self.op, Path.cwd())


class Fp8Linear(_Kernels):
    """kernl.ops.fp8_linear."""

    op = "fp8_linear"

    def setup_cache(self) -> str:
        """Measure every case."""
        return measure_op(self.op, Path.cwd())


class StreamKMatmul(_Kernels):
    """kernl.ops.stream_k_matmul."""

    op = "stream_k_matmul"

    def setup_cache(self) -> str:
        """Measure every case."""
        return measure_op(self.op, Path.cwd())


class BatchedMatmul(_Kernels):
    """kernl.ops.batched_matmul."""

    op = "batched_matmul"

    def setup_cache(self) -> str:
        """Measure every case."""
        return measure_op(self.op, Path.cwd())


class Attention(_Kernels):
    """kernl.ops.attention."""

    op = "attention"

    def setup_cache(self) -> str:
        """Measure every case."""
        return measure_op(self.op, Path.cwd())


class AttentionVarlen(_Kernels):
    """kernl.ops.attention_varlen."""

    op = "attention_varlen"

    def setup_cache(self) -> str:
        """Measure every case."""
        return measure_op(self.op, Path.cwd())


class DecodeAttention(_Kernels):
    """kernl.ops.decode_attention."""

    op = "decode_attention"

    def setup_cache(self) -> str:
        """Measure every case."""
        return measure_op(self.op, Path.cwd())


class Swiglu(_Kernels):
    """kernl.ops.swiglu."""

    op = "swiglu"

    def setup_cache(self) -> str:
        """Measure every case."""
        return measure_op(self.op, Path.cwd())


class Geglu(_Kernels):
    """kernl.ops.geglu."""

    op = "geglu"

    def setup_cache(self) -> str:
        """Measure every case."""
        return measure_op(self.op, Path.cwd())


class LinearGlu(_Kernels):
    """kernl.ops.linear_glu."""

    op = "linear_glu"

    def setup_cache(self) -> str:
        """Measure every case."""
        return measure_op(self.op, Path.cwd())


class Rotary(_Kernels):
    """kernl.ops.rotary."""

    op = "rotary"

    def setup_cache(self) -> str:
        """Measure every case."""
        return measure_op(self.op, Path.cwd())


class RotaryCache(_Kernels):
    """kernl.ops.rotary_cache."""

    op = "rotary_cache"

    def setup_cache(self) -> str:
        """Measure every case."""
        return measure_op(self.op, Path.cwd())


class EmbeddingLayerNorm(_Kernels):
    """kernl.ops.embedding_layer_norm."""

    op = "embedding_layer_norm"

    def setup_cache(self) -> str:
        """Measure every case."""
        return measure_op(self.op, Path.cwd())


class ClampOverflow(_Kernels):
    """kernl.ops.clamp_overflow."""

    op = "clamp_overflow"

    def setup_cache(self) -> str:
        """Measure every case."""
        return measure_op(self.op, Path.cwd())


class CrossEntropy(_Kernels):
    """kernl.ops.cross_entropy."""

    op = "cross_entropy"

    def setup_cache(self) -> str:
        """Measure every case."""
        return measure_op(self.op, Path.cwd())


class ArgmaxSample(_Kernels):
    """kernl.ops.argmax_sample."""

    op = "argmax_sample"

    def setup_cache(self) -> str:
        """Measure every case."""
        return measure_op(self.op, Path.cwd())


class Conv1d(_Kernels):
    """kernl.ops.conv1d."""

    op = "conv1d"

    def setup_cache(self) -> str:
        """Measure every case."""
        return measure_op(self.op, Path.cwd())
