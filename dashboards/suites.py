"""The two suites that take times, and what pages and tables call what they hold."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Suite:
    """A suite of times.

    Attributes:
        name: the suite of asv.
        unit: in which its times are shown: µs or ms.
        subject: what one of its benchmarks measures.
        time: what its seconds are.
        opponents: implementations with a column of their own beside eager's in a table of means.
        names: what those are called there.
    """

    name: str
    unit: str
    subject: str
    time: str
    opponents: tuple[str, ...]
    names: tuple[str, ...]

    @property
    def times(self) -> str:
        """Its seconds, in the plural."""
        return f"{self.time}s"


KERNELS = Suite(
    name="kernels",
    unit="µs",
    subject="operator",
    time="device time",
    opponents=("compile", "library"),
    names=("torch.compile", "the library's call"),
)
MODELS = Suite(
    name="models",
    unit="ms",
    subject="model",
    time="wall-clock time",
    opponents=("compile", "compile_reduce_overhead", "compile_max_autotune"),
    names=("torch.compile", "its reduce-overhead", "its max-autotune"),
)
SUITES = {suite.name: suite for suite in (KERNELS, MODELS)}
