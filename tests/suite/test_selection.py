"""What a profile leaves of the suite: asv's expressions match that, and nothing else."""

import re

import pytest

from benchmarks import cases as frozen_cases
from benchmarks.asv_file import METRICS
from benchmarks.cases import Frozen
from benchmarks.measure import selection
from benchmarks.measure.selection import expressions, names_of


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Frozen:
    monkeypatch.setenv("KERNL_PROFILE", "quick")
    return frozen_cases.load()


def points(frozen: Frozen, suite: str, op: str) -> dict[str, bool]:
    """Every point of an operator as asv names it, and whether the profile selects it."""
    if suite == "codegen":
        cases, variants = frozen.codegen_cases(op), frozen.architectures
        chosen = frozen.selected_codegen_cases(op)
        kept = frozenset(frozen.selected_architectures())
    else:
        cases, variants = frozen.kernel_cases(op), frozen.implementations(op)
        chosen = frozen.selected_kernel_cases(op)
        kept = frozen.selected_implementations(op)
    return {
        f"{name}({case!r}, {variant!r})": case in chosen and variant in kept
        for name in names_of(suite, op)
        for case in cases
        for variant in variants
    }


@pytest.mark.parametrize("suite", METRICS)
def test_what_the_quick_profile_selects_is_matched_and_nothing_else(
    quick: Frozen, suite: str
) -> None:
    found = [re.compile(one) for one in expressions(quick, suite)]
    ops = quick.models if suite == "models" else quick.ops
    every = {name: chosen for op in ops for name, chosen in points(quick, suite, op).items()}
    assert 0 < sum(every.values()) < len(every) / 5
    matched = {name for name in every if any(one.search(name) for one in found)}
    assert matched == {name for name, chosen in every.items() if chosen}


def test_an_expression_takes_the_metrics_and_operators_that_it_names(quick: Frozen) -> None:
    (one,) = expressions(quick, r"codegen\.Softmax\.track_spills")
    case = sorted(quick.selected_codegen_cases("softmax"))[0]
    assert re.search(one, f"codegen.Softmax.track_spills({case!r}, 'sm_90')")
    assert not re.search(one, f"codegen.Softmax.track_registers({case!r}, 'sm_90')")
    assert not re.search(one, f"codegen.Softmax.track_spills({case + '0'!r}, 'sm_90')")
    assert len(expressions(quick, "")) == len(expressions(quick, "codegen|kernels|models"))


def test_what_names_a_case_goes_to_asv_as_it_is(quick: Frozen) -> None:
    assert expressions(quick, r"rows1_.*sm_90") == [r"rows1_.*sm_90"]


def test_the_full_profile_selects_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERNL_PROFILE", "full")
    frozen = frozen_cases.load()
    (one,) = expressions(frozen, r"codegen\.Linear\.track_spills")
    assert all(
        re.search(one, name)
        for name in points(frozen, "codegen", "linear")
        if name.startswith("codegen.Linear.track_spills(")
    )


def test_implementations_that_are_named_are_selected_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERNL_PROFILE", "full")
    monkeypatch.setenv("KERNL_IMPLEMENTATIONS", "kernl, compile_max_autotune")
    frozen = frozen_cases.load()
    assert frozen.selected_implementations("bert_base") == {"kernl", "compile_max_autotune"}
    assert frozen.selected_implementations("softmax") == {"kernl"}
    (one,) = expressions(frozen, r"models\.BertBase\.")
    found = {name for name in points(frozen, "models", "bert_base") if re.search(one, name)}
    assert len(found) == 2 * len(frozen.kernel_cases("bert_base"))
    monkeypatch.setenv("KERNL_PROFILE", "quick")  # a name counts for more than the profile
    assert "compile_max_autotune" in frozen.selected_implementations("bert_base")


def test_an_implementation_that_there_is_not_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KERNL_IMPLEMENTATIONS", "kernl,kernel")
    with pytest.raises(SystemExit) as left:
        selection.main(["--bench", "models"])
    said = capsys.readouterr().err
    assert left.value.code == 2
    assert "'kernel'" in said
    assert "compile_cudagraph" in said


def test_what_is_no_expression_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        selection.main(["--bench", "("])
    assert left.value.code == 2
    assert "'(' is no regular expression" in capsys.readouterr().err


def test_the_command_prints_one_a_line(quick: Frozen, capsys: pytest.CaptureFixture[str]) -> None:
    selection.main(["--bench", r"kernels\.(Softmax|RmsNorm)\."])
    assert capsys.readouterr().out.splitlines() == expressions(
        quick, r"kernels\.(Softmax|RmsNorm)\."
    )
