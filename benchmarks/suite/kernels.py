"""Device time of every frozen case in every implementation; needs an NVIDIA GPU.

`setup_cache` measures a whole operator in one warm process and writes one small file a point;
each `track_time` then reads one file, in the process of its own that asv gives it. Samples are the
device time of one call in seconds, with L2 cold; lower is better.
"""

from pathlib import Path
from typing import Any

from benchmarks import cases
from benchmarks.measure.for_asv import measure_op
from benchmarks.measure.points import read_point

FROZEN = cases.load()
SWEEP_TIMEOUT_S = 12 * 3600.0


class _Kernels:
    """What the operators' classes share: reading one point. asv passes over the underscore."""

    op: str
    param_names = ("case", "implementation")
    timeout = 120.0
    _point: dict[str, Any]

    def setup(self, unmeasured: str, case: str, implementation: str) -> None:
        """Read the point. asv shows n/a where there is no GPU or this commit lacks the case.

        `unmeasured` is what `setup_cache` returned: why the whole operator was not measured.
        """
        if unmeasured:
            raise NotImplementedError(unmeasured)
        point = read_point(Path.cwd(), case, implementation)
        if point is None:
            raise RuntimeError(f"{case} in {implementation} was never measured")
        if point["status"] == "skipped":
            raise NotImplementedError(point["reason"])
        if point["status"] != "ok":
            raise RuntimeError(point["reason"])
        self._point = point

    def track_time(self, unmeasured: str, case: str, implementation: str) -> dict[str, Any]:
        """The samples of one point; the statistics (median, 99 % interval) are asv's."""
        return {"samples": self._point["samples"], "number": 1}

    # With this type asv takes samples for timings, and sums them up itself.
    track_time.type = "time"  # type: ignore[attr-defined]
    track_time.unit = "seconds"  # type: ignore[attr-defined]


# asv keys a cache by the source line of `setup_cache`, so each operator writes its own: inherited,
# one operator could not be measured without all the others.
class Softmax(_Kernels):
    """kernl.ops.softmax."""

    op = "softmax"
    version = FROZEN.version(op)
    params = (FROZEN.kernel_cases(op), FROZEN.implementations)

    def setup_cache(self) -> str:
        """Measure every case."""
        return measure_op(self.op, Path.cwd())

    setup_cache.timeout = SWEEP_TIMEOUT_S  # type: ignore[attr-defined]


class LayerNorm(_Kernels):
    """kernl.ops.layer_norm."""

    op = "layer_norm"
    version = FROZEN.version(op)
    params = (FROZEN.kernel_cases(op), FROZEN.implementations)

    def setup_cache(self) -> str:
        """Measure every case."""
        return measure_op(self.op, Path.cwd())

    setup_cache.timeout = SWEEP_TIMEOUT_S  # type: ignore[attr-defined]


class Linear(_Kernels):
    """kernl.ops.linear."""

    op = "linear"
    version = FROZEN.version(op)
    params = (FROZEN.kernel_cases(op), FROZEN.implementations)

    def setup_cache(self) -> str:
        """Measure every case."""
        return measure_op(self.op, Path.cwd())

    setup_cache.timeout = SWEEP_TIMEOUT_S  # type: ignore[attr-defined]
