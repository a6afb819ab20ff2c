"""The contract tests are themselves tested: each fault planted in a copy of a kernel is caught."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

FAULTS = {
    "softmax counts its tail": (
        "softmax",
        'mask=mask, other=float("-inf")).to(tl.float32)\n\n    numerator',
        "mask=mask, other=0.0).to(tl.float32)\n\n    numerator",
    ),
    "softmax of a wide row forgets the rescaling": (
        "softmax",
        "lane_sum * tl.exp(lane_max - shift) +",
        "lane_sum +",
    ),
    "layer_norm counts its tail": (
        "layer_norm",
        "tl.where(col_mask[None, :], x - mean, 0.0)",
        "x - mean",
    ),
    "layer_norm of a wide row does not merge its lanes": (
        "layer_norm",
        "tl.sum(lane_m2 + between, axis=0)",
        "tl.sum(lane_m2, axis=0)",
    ),
    "linear reads the next row where k ends inside a block": (
        "linear",
        "k_mask = k_offs < k - start",
        "k_mask = k_offs < BLOCK_K",
    ),
    "linear leaves its last column unwritten": (
        "linear",
        "out_mask = m_mask[:, None] & n_mask[None, :]",
        "out_mask = m_mask[:, None] & (n_offs < n - 1)[None, :]",
    ),
    "linear forgets its activation": (
        "linear",
        "acc = activate(acc, ACTIVATION)",
        "acc = acc",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_the_contract_catches_a_planted_fault(name: str, tmp_path: Path) -> None:
    op, right, wrong = FAULTS[name]
    shutil.copytree(ROOT / "kernl", tmp_path / "kernl")
    (tmp_path / "tests" / "ops").mkdir(parents=True)
    for file in ("pyproject.toml", "tests/conftest.py", "tests/ops/test_contract.py"):
        shutil.copy(ROOT / file, tmp_path / file)
    source = tmp_path / "kernl" / "ops" / f"{op}.py"
    text = source.read_text()
    assert text.count(right) == 1
    source.write_text(text.replace(right, wrong))

    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider"]
    selection = ["tests/ops/test_contract.py", "-k", f"float64 and {op}-"]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
    done = subprocess.run(
        [*command, *selection],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "test_kernel_against_float64" in done.stdout
    assert "relative_l2" in done.stdout
