"""Which kernels are launched before the one in front of them is done."""

from typing import Any

import pytest
import torch

from kernl import launch
from kernl.launch import Launch, LibraryCall, dependent_launches


class Recorder:
    """Stands in for a jitted kernel, and notes what each launch was told."""

    def __init__(self, *arg_names: str) -> None:
        self.arg_names = arg_names
        self.told: list[dict[str, Any]] = []

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        return lambda **kwargs: self.told.append(kwargs)

    @property
    def early(self) -> list[bool]:
        return [bool(kwargs.get("launch_pdl")) for kwargs in self.told]


def of(kernel: Recorder) -> Launch:
    return Launch(kernel, (1,), {}, {}, num_warps=4)


@pytest.fixture
def hopper(monkeypatch: pytest.MonkeyPatch) -> torch.device:
    monkeypatch.setattr(launch, "capability", lambda device: 90)
    return torch.device("cuda")


def test_a_kernel_begins_early_behind_one_that_lets_it(hopper: torch.device) -> None:
    kernel = Recorder("PDL")
    with dependent_launches(hopper):
        for _ in range(3):
            of(kernel).run()
    assert kernel.early == [False, True, True]
    assert all(kwargs["PDL"] for kwargs in kernel.told)


def test_none_begins_early_behind_a_library_or_a_kernel_that_does_not_wait(
    hopper: torch.device,
) -> None:
    kernel, plain = Recorder("PDL"), Recorder("x_ptr")
    library = LibraryCall(lambda: None, ())
    with dependent_launches(hopper):
        for step in (of(kernel), library, of(kernel), of(plain), of(kernel), of(kernel)):
            step.run()
    assert kernel.early == [False, False, False, True]
    assert plain.told == [{"num_warps": 4, "num_stages": 1}]


@pytest.mark.parametrize(("kind", "capability"), [("cpu", 90), ("cuda", 80), ("cuda", 89)])
def test_before_hopper_nothing_changes(
    monkeypatch: pytest.MonkeyPatch, kind: str, capability: int
) -> None:
    monkeypatch.setattr(launch, "capability", lambda device: capability)
    kernel = Recorder("PDL")
    with dependent_launches(torch.device(kind)):
        of(kernel).run()
        of(kernel).run()
    assert kernel.told == [{"num_warps": 4, "num_stages": 1}] * 2


def test_it_ends_where_the_block_ends(hopper: torch.device) -> None:
    kernel = Recorder("PDL")

    def fail() -> None:
        with dependent_launches(hopper):
            of(kernel).run()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    of(kernel).run()
    assert kernel.told[-1] == {"num_warps": 4, "num_stages": 1}
