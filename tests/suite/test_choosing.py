"""What kernl times while it prepares a model is timed alone, wherever in kernl that is."""

import ast
import contextlib
import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.measure import choosing
from benchmarks.measure.choosing import TIMED_BY_KERNL, alone_once_kernl_times
from kernl.runtime import runner

KERNL = Path(runner.__file__).parents[1]
PREPARING = ("optimize", "runtime", "rewrite")
CLOCKS = {"elapsed_time", "perf_counter"}


@pytest.fixture
def heard() -> list[str]:
    return []


def asking(heard: list[str]) -> choosing.Alone:
    @contextlib.contextmanager
    def alone(what: str) -> Iterator[None]:
        heard.append(what)
        try:
            yield
        finally:
            heard.append("together")

    return alone


def test_nothing_is_asked_for_where_nothing_is_timed(heard: list[str]) -> None:
    before = runner.device_times
    with alone_once_kernl_times(asking(heard)):
        assert runner.device_times is not before
    assert heard == []
    assert runner.device_times is before


def test_the_device_is_asked_for_once_and_given_back_whatever_happens(
    heard: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def device_times(calls: list[object]) -> list[float]:
        heard.append("time")
        return [1.0 for _ in calls]

    monkeypatch.setattr(runner, "device_times", device_times)

    def prepare() -> None:
        with alone_once_kernl_times(asking(heard)):
            assert runner.device_times([]) == []
            runner.device_times([])
            raise ValueError("a fault")

    with pytest.raises(ValueError, match="a fault"):
        prepare()
    assert heard == ["what kernl times", "time", "time", "together"]
    assert runner.device_times is device_times


@pytest.mark.parametrize("unknown", [("kernl.runtime.runner", "clock"), ("kernl.gone", "times")])
def test_a_kernl_that_times_elsewhere_has_the_device_from_the_start(
    heard: list[str], unknown: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choosing, "TIMED_BY_KERNL", (*TIMED_BY_KERNL, unknown))
    with alone_once_kernl_times(asking(heard)):
        assert heard == ["what kernl times"]
    assert heard == ["what kernl times", "together"]


def names_in(tree: ast.AST) -> set[str]:
    read = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    return read | {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}


def test_every_place_where_kernl_times_is_known() -> None:
    """A new one would otherwise be timed beside other workers, and choose by chance."""
    trees = {
        ".".join(("kernl", *path.relative_to(KERNL).with_suffix("").parts)): ast.parse(
            path.read_text()
        )
        for part in PREPARING
        for path in (KERNL / part).rglob("*.py")
    }
    timing = {
        function.name
        for tree in trees.values()
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef) and names_in(function) & CLOCKS
    }
    assert timing == {name for _, name in TIMED_BY_KERNL}
    users = {(name, one) for name, tree in trees.items() for one in names_in(tree) & timing}
    assert users == set(TIMED_BY_KERNL)
    for module, name in TIMED_BY_KERNL:
        assert callable(getattr(importlib.import_module(module), name))
