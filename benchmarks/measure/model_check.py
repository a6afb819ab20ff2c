"""The check of a model's implementations: their last hidden state against the float32 model's.

An implementation may be off by half as much again as eager fp16 on the same inputs. Where lengths
are ragged, places of padding do not count: nobody reads them. They must be finite all the same.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from benchmarks.measure.accuracy import relative_l2
from benchmarks.measure.model_calls import Call, Weights
from benchmarks.model import Sample

FACTOR = 1.5
FLOOR = 1e-4
"""Below this, errors of eager fp16 are no yardstick: rounding the output alone costs 3e-4."""


@dataclass(frozen=True)
class Yardstick:
    """What is right, and how far from it an implementation may be.

    Attributes:
        samples: the inputs.
        truths: the float32 model's last hidden state for each of them.
        eager_error: the largest relative L2 of eager fp16 over them.
        seed: of the first sample.
    """

    samples: Sequence[Sample]
    truths: Sequence[torch.Tensor]
    eager_error: float
    seed: int

    @property
    def limit(self) -> float:
        """The largest relative L2 that is allowed."""
        return FACTOR * self.eager_error + FLOOR

    def judge(self, call: Call) -> tuple[float | None, str]:
        """(error, reason): the largest over all samples, and what is wrong, in words."""
        worst = 0.0
        for sample, truth in zip(self.samples, self.truths, strict=True):
            with torch.inference_mode():
                error, reason = _distance(call(sample), truth, sample.valid)
            if error is None:
                return None, reason
            worst = max(worst, error)
        if worst > self.limit:
            return worst, (
                f"relative L2 error {worst:.3g} against the float32 model, allowed is "
                f"{self.limit:.3g}: eager fp16 has {self.eager_error:.3g}"
            )
        return worst, ""


def yardstick(weights: Weights, samples: Sequence[Sample], seed: int) -> Yardstick:
    """Call the float32 model and eager fp16. Raises ValueError where fp16 cannot hold the model."""
    truths, errors = [], []
    with torch.inference_mode(), _whole_float32():
        for sample in samples:
            truths.append(weights.full(**sample.full)[0].float())
            error, reason = _distance(weights.half(**sample.half)[0], truths[-1], sample.valid)
            if error is None:
                raise ValueError(f"eager fp16 is no yardstick: {reason}")
            errors.append(error)
    return Yardstick(samples, truths, max(errors), seed)


def _distance(
    out: torch.Tensor, truth: torch.Tensor, valid: torch.Tensor | None
) -> tuple[float | None, str]:
    if out.shape != truth.shape:
        return None, f"an output of shape {tuple(out.shape)}, the model's is {tuple(truth.shape)}"
    holes = int((~torch.isfinite(out)).sum())
    if holes:
        return None, f"{holes} of {out.numel()} output elements are NaN or infinite"
    if valid is not None:
        out, truth = out[valid], truth[valid]
    error = relative_l2(out, truth)
    return (error, "") if math.isfinite(error) else (None, "the float32 model gives no numbers")


@contextlib.contextmanager
def _whole_float32() -> Iterator[None]:
    """cuDNN's convolutions in float32 and not in tf32, which PyTorch allows by default."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before
