"""The frozen cases are those of `kernl.ops.ALL`, and asv's classes measure each of them."""

import json
import subprocess
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from benchmarks import cases, freeze
from benchmarks.suite import codegen, kernels
from kernl import shapes
from kernl.ops import ALL

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    """What has to be frozen: it takes seconds to tell."""
    return freeze.document()


@pytest.fixture
def told_before(document: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(freeze, "document", lambda: deepcopy(document))


def test_the_frozen_cases_are_not_stale(document: dict[str, Any]) -> None:
    assert cases.PATH.read_text() == freeze.render(document), (
        "stale: run `python -m benchmarks.freeze` and review the change"
    )


@pytest.mark.usefixtures("told_before")
def test_check_names_what_is_stale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    document = freeze.document()
    document["ops"]["softmax"]["kernels"].pop("rows1_cols1.fp16")
    document["ops"]["linear"]["version"] = 0
    cheap = document["ops"]["rms_norm"]["kernels"]["rows16_cols512.fp16"]
    cheap["bytes"] -= 1
    document["ops"]["fp8_linear"]["arithmetic"] = "fp16"
    stale = tmp_path / "cases.json"
    stale.write_text(freeze.render(document))
    monkeypatch.setattr(freeze, "PATH", stale)

    assert freeze.main(["--check"]) == 1
    printed = capsys.readouterr().out
    assert "softmax: kernels case rows1_cols1.fp16 is new" in printed
    assert "linear: version 0 is now 1" in printed
    assert "rms_norm: 1 kernels case(s) have another cost, the first rows16_cols512.fp16" in printed
    assert "fp8_linear: arithmetic is now fp8" in printed
    assert len([line for line in printed.splitlines() if "cost" in line]) == 1
    assert freeze.main([]) == 0
    assert freeze.main(["--check"]) == 0


def test_frozen_lists_what_the_ops_declare() -> None:
    frozen = cases.load()
    assert frozen.ops == tuple(op.name for op in ALL)
    for op in ALL:
        assert frozen.kernel_cases(op.name) == [case.name for case in op.cases()]
        assert set(frozen.codegen_cases(op.name)) <= set(frozen.kernel_cases(op.name))
        first = op.cases()[0]
        assert frozen.dims(op.name, first.name) == dict(first.dims)
        assert frozen.dtype(op.name, first.name) == first.dtype


def test_a_frozen_cost_is_what_the_operator_declares() -> None:
    frozen = cases.load()
    for op in ALL:
        for case in op.cases():
            unit = "fp8" if op.name == "fp8_linear" else case.dtype
            declared = cases.Cost(op.bytes(case), op.flops(case), unit)
            assert frozen.cost(op.name, case.name) == declared
            assert declared.bytes > 0 < declared.flops


def test_what_is_no_frozen_case_of_an_operator_has_no_cost() -> None:
    frozen = cases.load()
    assert frozen.cost("softmax", "rows1_cols2_never.fp16") is None
    assert frozen.cost("never", "rows1_cols1.fp16") is None
    for model in frozen.models:
        assert {frozen.cost(model, case) for case in frozen.kernel_cases(model)} == {None}


def test_enough_cases_go_to_the_gpu() -> None:
    frozen = cases.load()
    counts = {op: len(frozen.kernel_cases(op)) for op in frozen.ops}
    assert all(counts[op] >= 60 for op in ("softmax", "layer_norm", "linear", "attention"))
    assert min(counts.values()) >= 30
    assert sum(counts.values()) >= 1200


@pytest.mark.parametrize("name", ["quick", "full"])
def test_a_profile_selects_from_the_same_names(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERNL_PROFILE", name)
    frozen = cases.load()
    for op in frozen.ops:
        for selected, known in (
            (frozen.selected_kernel_cases(op), frozen.kernel_cases(op)),
            (frozen.selected_codegen_cases(op), frozen.codegen_cases(op)),
        ):
            assert selected
            assert selected <= set(known)
            assert (selected == set(known)) == (name == "full")


def test_an_unknown_profile_says_what_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERNL_PROFILE", "qiuck")
    with pytest.raises(ValueError, match=r"'qiuck'; allowed: full, quick"):
        cases.profile()


def test_opt_in_operators_are_those_that_round_more() -> None:
    frozen = cases.load()
    assert {op for op in frozen.ops if frozen.opt_in(op)} == {"quantized_linear", "fp8_linear"}


@pytest.mark.parametrize("suite", [kernels, codegen], ids=["kernels", "codegen"])
def test_every_operator_has_its_class_in_the_suite(suite: object) -> None:
    for op in ALL:
        name = "".join(part.capitalize() for part in op.name.split("_"))
        asv_class = getattr(suite, name, None)
        assert asv_class is not None, f"write `class {name}` as CONTRIBUTING.md shows"
        assert asv_class.op == op.name
        assert "setup_cache" in vars(asv_class), "asv keys a cache by its source line"


def test_equal_launches_are_compiled_once() -> None:
    softmax = ALL[0]
    signatures = [freeze.signatures(softmax, case) for case in softmax.cases()]
    kept = {case.name for case in freeze.codegen_cases(softmax)}
    assert len(kept) == len(set(signatures)) < len(signatures)


def test_the_readme_counts_the_cases_by_kind(document: dict[str, Any]) -> None:
    table = freeze.counts(document)
    assert "\n".join(table) in (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"sizes of {len(shapes.MODELS)} models" in (ROOT / "README.md").read_text()
    points = [int(line.split("|")[3].replace(",", "")) for line in table[2:]]
    assert points[0] + points[1] >= 5000
    assert points[2] >= 2000


def test_a_foreign_file_says_how_to_write_one(tmp_path: Path) -> None:
    for content in ("", "{", "[]", json.dumps({"format": 99}), json.dumps({"format": 1})):
        path = tmp_path / f"{len(content)}.json"
        path.write_text(content)
        with pytest.raises(ValueError, match=r"benchmarks\.freeze"):
            cases.load(path)


def test_asv_reads_the_suite_without_torch() -> None:
    """Every asv process imports the suite; torch would cost each of them seconds."""
    program = (
        "import sys; import benchmarks.suite.kernels, benchmarks.suite.codegen;"
        "import benchmarks.suite.models;"
        "bad = {'torch', 'transformers', 'triton', 'kernl', 'pandas', 'plotly'} & set(sys.modules);"
        "sys.exit(f'imported {sorted(bad)}' if bad else 0)"
    )
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)
