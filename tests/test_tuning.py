"""Tables of configurations: which row a call takes, what a user tuned, and what can go wrong."""

import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import triton

from kernl import autotune, tuned_cache, tuning
from kernl.errors import DeviceError
from kernl.ops import ALL
from kernl.ops.linear import LINEAR, linear
from kernl.ops.linear_config import LINEAR_TUNABLE, LinearConfig
from kernl.tables import Key, Row, Tunable, Value

CPU, GPU = torch.device("cpu"), torch.device("cuda")


class Blocks(NamedTuple):
    path: str
    block: int
    even: bool


def _candidates(capability: int, key: Key) -> Iterable[Blocks]:
    yield Blocks("tile", 16, False)


TUNABLE: Tunable[Blocks] = Tunable(
    name="toy",
    exact=("bits",),
    sizes=("m", "n"),
    config=Blocks,
    default=lambda capability, key: Blocks("default", capability, False),
    candidates=_candidates,
    fits=lambda capability, key, config: config.block <= int(key["m"]),
)
TABLE = """architecture,bits,m,n,path,block,even,microseconds
80,16,64,64,ampere,1,True,3.5
90,16,64,64,small,16,True,3.5
90,16,1024,64,tall,32,False,9.1
90,16,1024,4096,large,128,False,80
90,32,64,64,float,8,True,3.5
"""


@pytest.fixture
def tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of tables that holds one for `TUNABLE`; what was read before is forgotten."""
    monkeypatch.setattr(tuning, "TABLES", tmp_path)
    (tmp_path / "toy.csv").write_text(TABLE)
    tuning.forget()
    yield tmp_path
    tuning.forget()


def _choose(capability: int, device: torch.device = CPU, **key: Value) -> Blocks:
    return tuning.choose(TUNABLE, capability, device, **key)


@pytest.mark.parametrize(
    ("m", "n", "path"),
    [(64, 64, "small"), (100, 80, "small"), (900, 100, "tall"), (2000, 9000, "large")],
)
def test_an_unseen_shape_takes_the_nearest_class(tables: Path, m: int, n: int, path: str) -> None:
    assert _choose(90, bits=16, m=m, n=n).path == path


def test_a_shape_far_from_every_class_is_left_to_the_rule(tables: Path) -> None:
    """A few rows that were tuned say nothing about many."""
    assert _choose(90, bits=32, m=1024, n=64).path == "float"
    assert _choose(90, bits=32, m=1025, n=64).path == "default"
    assert _choose(90, bits=16, m=1024, n=2**20).path == "default"


def test_exact_parts_of_a_key_are_never_traded(tables: Path) -> None:
    assert _choose(90, bits=32, m=1024, n=64).path == "float"
    assert _choose(90, bits=8, m=64, n=64).path == "default"


def test_a_row_that_cannot_run_is_passed_over(tables: Path) -> None:
    assert _choose(90, bits=16, m=20, n=60).path == "small"
    assert _choose(90, bits=16, m=10, n=60).path == "default"


def test_a_row_that_does_not_extend_speaks_for_its_own_class_alone(tables: Path) -> None:
    assert _choose(90, bits=16, m=65, n=64).path == "small"
    narrow = replace(TUNABLE, extends=lambda capability, key, config: config.path != "small")
    for m, path in ((64, "small"), (65, "tall")):
        chosen = tuning.choose(narrow, 90, CPU, bits=16, m=m, n=64)
        assert chosen.path == path


@pytest.mark.parametrize(
    ("capability", "path"), [(80, "ampere"), (86, "ampere"), (90, "small"), (100, "default")]
)
def test_a_generation_shares_its_rows(tables: Path, capability: int, path: str) -> None:
    assert _choose(capability, bits=16, m=64, n=64).path == path


def test_fields_have_their_types(tables: Path) -> None:
    assert _choose(90, bits=16, m=64, n=64) == Blocks("small", 16, True)


def test_without_a_table_the_operators_own_rule_decides(tables: Path) -> None:
    (tables / "toy.csv").unlink()
    assert _choose(90, bits=16, m=64, n=64) == Blocks("default", 90, False)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (TABLE.replace(",16,True,3.5", ",wide,True,3.5"), "line 3"),
        (TABLE.replace("path,", "way,"), "path"),
        (TABLE.replace("True", "yes"), "yes"),
    ],
)
def test_a_broken_table_is_named(tables: Path, text: str, says: str) -> None:
    (tables / "toy.csv").write_text(text)
    with pytest.raises(ValueError, match=r"toy\.csv.*allowed.*make tune") as caught:
        _choose(90, bits=16, m=64, n=64)
    assert says in str(caught.value)


def test_forcing_ends_with_its_block(tables: Path) -> None:
    forced = Blocks("forced", 1, False)
    with tuning.forcing(TUNABLE, forced), tuning.asked() as questions:
        assert _choose(90, bits=16, m=64, n=64) == forced
    assert questions == [(TUNABLE, {"bits": 16, "m": 64, "n": 64})]
    assert _choose(90, bits=16, m=64, n=64).path == "small"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of a user's choices, on a GPU that need not be there."""
    monkeypatch.setenv("KERNL_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: "NVIDIA TEST")
    tuned_cache.fingerprint.cache_clear()
    tuning.forget()
    return tmp_path / "cache"


def _keep(m: int, block: int, capability: int = 90) -> None:
    key = {"bits": 16, "m": m, "n": 64}
    tuned_cache.keep(TUNABLE, Row(capability, key, Blocks("mine", block, True)))
    tuning.forget()


def test_what_a_user_tuned_is_kept_and_comes_first(tables: Path, cache: Path) -> None:
    _keep(64, 4)
    assert _choose(90, GPU, bits=16, m=64, n=64) == Blocks("mine", 4, True)
    _keep(64, 8)
    assert _choose(90, GPU, bits=16, m=64, n=64) == Blocks("mine", 8, True)
    # Other classes, other architectures and machines without the GPU are as they were.
    assert _choose(90, GPU, bits=16, m=65, n=64).path == "small"
    assert _choose(80, GPU, bits=16, m=64, n=64).path == "ampere"
    assert _choose(90, CPU, bits=16, m=64, n=64).path == "small"


@pytest.mark.parametrize("what", ["torch", "triton", "gpu", "source"])
def test_an_upgrade_never_serves_a_stale_choice(
    tables: Path, cache: Path, what: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _keep(64, 4)
    if what == "gpu":
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: "NVIDIA OTHER")
    elif what == "torch":
        monkeypatch.setattr(torch, "__version__", "99.0")
    elif what == "triton":
        monkeypatch.setattr(triton, "__version__", "99.0")
    else:
        (tmp_path / "ops").mkdir()
        (tmp_path / "ops" / "linear.py").write_text("# edited")
        monkeypatch.setattr(tuned_cache, "OPERATORS", tmp_path / "ops")
    tuned_cache.fingerprint.cache_clear()
    tuning.forget()
    assert _choose(90, GPU, bits=16, m=64, n=64).path == "small"
    monkeypatch.undo()
    tuned_cache.fingerprint.cache_clear()
    tuning.forget()


def test_the_choice_survives_an_upgrade_and_back(
    tables: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _keep(64, 4)
    with monkeypatch.context() as upgraded:
        upgraded.setattr(torch, "__version__", "99.0")
        tuned_cache.fingerprint.cache_clear()
        _keep(64, 8)
    tuned_cache.fingerprint.cache_clear()
    tuning.forget()
    assert _choose(90, GPU, bits=16, m=64, n=64).block == 4


def test_a_broken_line_of_the_cache_costs_itself_alone(tables: Path, cache: Path) -> None:
    _keep(64, 4)
    (file,) = cache.rglob("toy.csv")
    file.write_bytes(file.read_bytes() + b"90,16,half a \xff line")
    tuning.forget()
    assert _choose(90, GPU, bits=16, m=64, n=64) == Blocks("mine", 4, True)
    file.write_bytes(b"\x00\xff")
    tuning.forget()
    assert _choose(90, GPU, bits=16, m=64, n=64).path == "small"


def test_an_empty_variable_switches_the_cache_off(
    tables: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _keep(64, 4)
    monkeypatch.setenv("KERNL_CACHE_DIR", "")
    _keep(64, 8)
    assert _choose(90, GPU, bits=16, m=64, n=64).path == "small"


def test_autotune_says_that_it_needs_a_gpu() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")
    x, weight = torch.randn(4, 16), torch.randn(8, 16)
    with pytest.raises(DeviceError, match="a CUDA device"):
        autotune.autotune(LINEAR, x=x, weight=weight)


@pytest.mark.gpu
def test_autotune_finds_keeps_and_uses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERNL_CACHE_DIR", str(tmp_path))
    tuning.forget()
    x = torch.randn(48, 1040, device="cuda", dtype=torch.half)
    weight = torch.randn(272, 1040, device="cuda", dtype=torch.half)
    slow = LinearConfig("tile", 16, 16, 16, 1, 1, 1)
    with tuning.forcing(LINEAR_TUNABLE, slow):
        (found,) = autotune.autotune(LINEAR, x=x, weight=weight)
    assert found.tried > 3
    assert found.seconds < found.default_seconds
    with tuning.asked() as questions:
        linear(x, weight)
    key = questions[0][1]
    kept = tuning.choose(LINEAR_TUNABLE, 90, x.device, **key)
    assert dict(zip(LINEAR_TUNABLE.fields, kept, strict=True)) == found.config


def test_importing_and_calling_time_nothing() -> None:
    """A call looks its configuration up; no benchmark of Triton's is even reached."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    interpreted = "0" if torch.cuda.is_available() else "1"
    program = (
        f"import os; os.environ['TRITON_INTERPRET'] = '{interpreted}'\n"
        "import torch, triton\n"
        "def never(*a, **k): raise AssertionError('something was timed')\n"
        "triton.testing.do_bench = triton.testing.do_bench_cudagraph = never\n"
        "from kernl.ops import linear\n"
        f"linear(torch.randn(3, 8, device='{device}'), torch.randn(5, 8, device='{device}'))\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


def _tunables() -> list[Any]:
    found: dict[str, Any] = {}
    for op in ALL:
        for case in op.edge_cases()[:1]:
            with tuning.asked() as questions:
                op.plan_on_meta(case, 90)
            found |= {tunable.name: tunable for tunable, _ in questions}
    return [pytest.param(tunable, id=name) for name, tunable in found.items()]


@pytest.mark.parametrize("tunable", _tunables())
def test_every_committed_row_can_run_where_it_was_measured(tunable: Tunable[Any]) -> None:
    for row in tuning.table(tunable):
        config = tunable.config(*row.config)
        assert tunable.fits(row.architecture, row.key, config)
        assert tuning.choose(tunable, row.architecture, CPU, **row.key) == config


def test_every_table_belongs_to_an_operator() -> None:
    names = {param.id for param in _tunables()}
    assert {path.stem for path in tuning.TABLES.glob("*.csv")} <= names
