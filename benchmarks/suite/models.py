"""Latency of whole models in every implementation; needs an NVIDIA GPU.

`setup_cache` measures all cases of a model in one warm process and writes one small file a point;
each `track_time` then reads one file. Samples are the wall-clock time in seconds of one call that
ends when the device is done; lower is better. `benchmarks.models` has the models, their shapes and
the implementations, `benchmarks.measure.model_calls` says what each of these calls.
"""

from pathlib import Path

from benchmarks.measure.for_asv import measure_op
from benchmarks.measure.timed_points import TimedPoints as _Models  # asv passes over the underscore

SUITE = "models"


# asv keys a cache by the source line of `setup_cache`, so each model writes its own: inherited,
# one model could not be measured without all the others.
class BertBase(_Models):
    """bert-base."""

    op = "bert_base"

    def setup_cache(self) -> str:
        """Measure every case."""
        return measure_op(self.op, Path.cwd(), suite=SUITE)


class RobertaBase(_Models):
    """roberta-base."""

    op = "roberta_base"

    def setup_cache(self) -> str:
        """Measure every case."""
        return measure_op(self.op, Path.cwd(), suite=SUITE)


class Distilbert(_Models):
    """distilbert-base."""

    op = "distilbert"

    def setup_cache(self) -> str:
        """Measure every case."""
        return measure_op(self.op, Path.cwd(), suite=SUITE)


class ModernbertBase(_Models):
    """ModernBERT-base."""

    op = "modernbert_base"

    def setup_cache(self) -> str:
        """Measure every case."""
        return measure_op(self.op, Path.cwd(), suite=SUITE)


class T5BaseEncoder(_Models):
    """t5-base, its encoder."""

    op = "t5_base_encoder"

    def setup_cache(self) -> str:
        """Measure every case."""
        return measure_op(self.op, Path.cwd(), suite=SUITE)


class WhisperBaseEncoder(_Models):
    """whisper-base, its encoder."""

    op = "whisper_base_encoder"

    def setup_cache(self) -> str:
        """Measure every case."""
        return measure_op(self.op, Path.cwd(), suite=SUITE)


class VitBase(_Models):
    """vit-base, pictures of 224 × 224."""

    op = "vit_base"

    def setup_cache(self) -> str:
        """Measure every case."""
        return measure_op(self.op, Path.cwd(), suite=SUITE)


class Gpt2(_Models):
    """gpt2, prefill."""

    op = "gpt2"

    def setup_cache(self) -> str:
        """Measure every case."""
        return measure_op(self.op, Path.cwd(), suite=SUITE)


class TinyLlama(_Models):
    """TinyLlama-1.1B, prefill."""

    op = "tiny_llama"

    def setup_cache(self) -> str:
        """Measure every case."""
        return measure_op(self.op, Path.cwd(), suite=SUITE)


class Qwen2(_Models):
    """Qwen2-0.5B, prefill."""

    op = "qwen2"

    def setup_cache(self) -> str:
        """Measure every case."""
        return measure_op(self.op, Path.cwd(), suite=SUITE)
