"""Compile-only metrics of every frozen case on every architecture; runs on any machine.

`setup_cache` compiles an operator's cases on all cores; each `track_*` then reads one number. The
numbers are exact: two runs agree to the digit. Lower is better for all but occupancy.
"""

import os
from pathlib import Path

from benchmarks import cases
from benchmarks.measure.codegen_sweep import sweep
from benchmarks.measure.device import machine_name
from benchmarks.measure.journal import Journal, journal_path
from benchmarks.measure.lifetime import die_with_parent
from benchmarks.measure.points import read_point

FROZEN = cases.load()


def _sweep(op: str) -> None:
    """Compile one operator into asv's cache directory, which is where `setup_cache` runs."""
    die_with_parent()
    commit, machine = os.environ["KERNL_COMMIT"], machine_name()
    results = Path(os.environ["KERNL_RESULTS"])
    path = journal_path(results, machine, commit, os.environ["KERNL_ENV_NAME"])
    with Journal(path) as journal:
        sweep(FROZEN, [op], journal, commit, machine, Path.cwd())


class _Codegen:
    """What the operators' classes share: six numbers of one point."""

    op: str
    version: int
    params: tuple[list[str], tuple[str, ...]]
    param_names = ("case", "architecture")
    timeout = 120.0
    _values: dict[str, float]

    def __init_subclass__(cls) -> None:
        cls.version = FROZEN.version(cls.op)
        cls.params = (FROZEN.codegen_cases(cls.op), FROZEN.architectures)
        cls.setup_cache.timeout = 3600.0  # type: ignore[attr-defined]

    def setup(self, case: str, architecture: str) -> None:
        """Read the point; n/a where this commit lacks the case, failed with the reason."""
        point = read_point(Path.cwd(), case, architecture)
        if point is None:
            raise RuntimeError(f"{case} on {architecture} was never compiled")
        if point["status"] == "skipped":
            raise NotImplementedError(point["reason"])
        if point["status"] != "ok":
            raise RuntimeError(point["reason"])
        self._values = point["values"]

    def track_registers(self, case: str, architecture: str) -> float:
        """Registers of one thread, the most of any launch."""
        return self._values["registers"]

    def track_spills(self, case: str, architecture: str) -> float:
        """Instructions that load or store local memory."""
        return self._values["spills"]

    def track_shared_memory(self, case: str, architecture: str) -> float:
        """Bytes of shared memory of one block, the most of any launch."""
        return self._values["shared_memory"]

    def track_instructions(self, case: str, architecture: str) -> float:
        """Machine instructions without padding."""
        return self._values["instructions"]

    def track_memory_instructions(self, case: str, architecture: str) -> float:
        """Of these, what loads, stores or copies device memory."""
        return self._values["memory_instructions"]

    def track_occupancy(self, case: str, architecture: str) -> float:
        """Resident warps over the most that could be, 0 to 1."""
        return self._values["occupancy"]

    track_registers.unit = "registers"  # type: ignore[attr-defined]
    track_spills.unit = "instructions"  # type: ignore[attr-defined]
    track_shared_memory.unit = "bytes"  # type: ignore[attr-defined]
    track_instructions.unit = "instructions"  # type: ignore[attr-defined]
    track_memory_instructions.unit = "instructions"  # type: ignore[attr-defined]
    track_occupancy.unit = "fraction"  # type: ignore[attr-defined]


# asv keys a cache by the source line of `setup_cache`, so each operator writes its own: inherited,
# one operator could not be measured without all the others.
class Softmax(_Codegen):
    """kernl.ops.softmax."""

    op = "softmax"

    def setup_cache(self) -> None:
        """Compile every case."""
        _sweep(self.op)


class LayerNorm(_Codegen):
    """kernl.ops.layer_norm."""

    op = "layer_norm"

    def setup_cache(self) -> None:
        """Compile every case."""
        _sweep(self.op)


class RmsNorm(_Codegen):
    """kernl.ops.rms_norm."""

    op = "rms_norm"

    def setup_cache(self) -> None:
        """Compile every case."""
        _sweep(self.op)


class Linear(_Codegen):
    """kernl.ops.linear."""

    op = "linear"

    def setup_cache(self) -> None:
        """Compile every case."""
        _sweep(self.op)


class LinearLayerNorm(_Codegen):
    """kernl.ops.linear_layer_norm."""

    op = "linear_layer_norm"

    def setup_cache(self) -> None:
        """Compile every case."""
        _sweep(self.op)


class LinearAddLayerNorm(_Codegen):
    """kernl.ops.linear_add_layer_norm."""

    op = "linear_add_layer_norm"

    def setup_cache(self) -> None:
        """Compile every case."""
        _sweep(self.op)


class LinearRmsNorm(_Codegen):
    """kernl.ops.linear_rms_norm."""

    op = "linear_rms_norm"

    def setup_cache(self) -> None:
        """Compile every case."""
        _sweep(self.op)


class QuantizedLinear(_Codegen):
    """kernl.ops.quantized_linear."""

    op = "quantized_linear"

    def setup_cache(self) -> None:
        """Compile every case."""
        _sweep(self.op)


class Fp8Linear(_Codegen):
    """kernl.ops.fp8_linear."""

    op = "fp8_linear"

    def setup_cache(self) -> None:
        """Compile every case."""
        _sweep(self.op)


class StreamKMatmul(_Codegen):
    """kernl.ops.stream_k_matmul."""

    op = "stream_k_matmul"

    def setup_cache(self) -> None:
        """Compile every case."""
        _sweep(self.op)


class BatchedMatmul(_Codegen):
    """kernl.ops.batched_matmul."""

    op = "batched_matmul"

    def setup_cache(self) -> None:
        """Compile every case."""
        _sweep(self.op)


class Attention(_Codegen):
    """kernl.ops.attention."""

    op = "attention"

    def setup_cache(self) -> None:
        """Compile every case."""
        _sweep(self.op)


class AttentionVarlen(_Codegen):
    """kernl.ops.attention_varlen."""

    op = "attention_varlen"

    def setup_cache(self) -> None:
        """Compile every case."""
        _sweep(self.op)


class DecodeAttention(_Codegen):
    """kernl.ops.decode_attention."""

    op = "decode_attention"

    def setup_cache(self) -> None:
        """Compile every case."""
        _sweep(self.op)


class Swiglu(_Codegen):
    """kernl.ops.swiglu."""

    op = "swiglu"

    def setup_cache(self) -> None:
        """Compile every case."""
        _sweep(self.op)


class Geglu(_Codegen):
    """kernl.ops.geglu."""

    op = "geglu"

    def setup_cache(self) -> None:
        """Compile every case."""
        _sweep(self.op)


class LinearGlu(_Codegen):
    """kernl.ops.linear_glu."""

    op = "linear_glu"

    def setup_cache(self) -> None:
        """Compile every case."""
        _sweep(self.op)


class Rotary(_Codegen):
    """kernl.ops.rotary."""

    op = "rotary"

    def setup_cache(self) -> None:
        """Compile every case."""
        _sweep(self.op)


class RotaryCache(_Codegen):
    """kernl.ops.rotary_cache."""

    op = "rotary_cache"

    def setup_cache(self) -> None:
        """Compile every case."""
        _sweep(self.op)


class EmbeddingLayerNorm(_Codegen):
    """kernl.ops.embedding_layer_norm."""

    op = "embedding_layer_norm"

    def setup_cache(self) -> None:
        """Compile every case."""
        _sweep(self.op)


class ClampOverflow(_Codegen):
    """kernl.ops.clamp_overflow."""

    op = "clamp_overflow"

    def setup_cache(self) -> None:
        """Compile every case."""
        _sweep(self.op)


class CrossEntropy(_Codegen):
    """kernl.ops.cross_entropy."""

    op = "cross_entropy"

    def setup_cache(self) -> None:
        """Compile every case."""
        _sweep(self.op)


class ArgmaxSample(_Codegen):
    """kernl.ops.argmax_sample."""

    op = "argmax_sample"

    def setup_cache(self) -> None:
        """Compile every case."""
        _sweep(self.op)


class Conv1d(_Codegen):
    """kernl.ops.conv1d."""

    op = "conv1d"

    def setup_cache(self) -> None:
        """Compile every case."""
        _sweep(self.op)
