"""What the asv classes of timed suites share; the classes themselves stand in `benchmarks/suite`.

Standard library alone: asv imports it in each of its processes.
"""

from pathlib import Path
from typing import Any

from benchmarks import cases
from benchmarks.measure.points import read_point

FROZEN = cases.load()
SWEEP_TIMEOUT_S = 12 * 3600.0


class TimedPoints:
    """Reads one point of an operator or a model, and hands its samples to asv."""

    op: str
    version: int
    params: tuple[list[str], tuple[str, ...]]
    param_names = ("case", "implementation")
    timeout = 120.0
    _point: dict[str, Any]

    def __init_subclass__(cls) -> None:
        cls.version = FROZEN.version(cls.op)
        cls.params = (FROZEN.kernel_cases(cls.op), FROZEN.implementations(cls.op))
        # asv reads settings off its methods; mypy knows no attributes of functions.
        cls.setup_cache.timeout = SWEEP_TIMEOUT_S  # type: ignore[attr-defined]

    def setup(self, unmeasured: str, case: str, implementation: str) -> None:
        """Read the point. asv shows n/a where there is no GPU or this commit lacks the case.

        `unmeasured` is what `setup_cache` returned: why the whole operator was not measured.
        """
        if unmeasured:
            raise NotImplementedError(unmeasured)  # asv's word for n/a
        point = read_point(Path.cwd(), case, implementation)
        if point is None and not self._asked_for(case, implementation):
            raise NotImplementedError(cases.NOT_SELECTED)
        if point is None:
            raise RuntimeError(f"{case} in {implementation} was never measured")
        if point["status"] == "skipped":
            raise NotImplementedError(point["reason"])
        if point["status"] != "ok":
            raise RuntimeError(point["reason"])
        self._point = point

    def _asked_for(self, case: str, implementation: str) -> bool:
        """Whether this run measures it: the profile selects its case and its implementation."""
        return case in FROZEN.selected_kernel_cases(
            self.op
        ) and implementation in FROZEN.selected_implementations(self.op)

    def track_time(
        self,
        unmeasured: str,  # noqa: ARG002 (asv hands a case's parameters to every method)
        case: str,  # noqa: ARG002
        implementation: str,  # noqa: ARG002
    ) -> dict[str, Any]:
        """The samples of one point; the statistics (median, 99 % interval) are asv's."""
        return {"samples": self._point["samples"], "number": 1}

    # With this type asv takes samples for timings, and sums them up itself.
    track_time.type = "time"  # type: ignore[attr-defined]
    track_time.unit = "seconds"  # type: ignore[attr-defined]
