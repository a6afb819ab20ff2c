"""`python -m benchmarks.gate` over result files that asv wrote, also in a process of its own."""

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from itertools import product
from pathlib import Path

import pytest
from asv.results import Results
from asv.runner import BenchmarkResult
from asv.util import write_json

from benchmarks import known_noise
from benchmarks.gate.command import main
from benchmarks.measure.journal import Journal
from benchmarks.noise import NoiseError
from tests.suite.gate_rows import BASE, FINGERPRINT, HEAD, make_repository

ROOT = Path(__file__).parents[2]
CASES = ["rows1_cols2.fp16", "rows4096_cols768.fp16"]
VARIANTS = {"codegen": ["sm_80", "sm_90"], "kernels": ["eager", "kernl"]}
BENCHMARKS = {
    "codegen.Softmax.track_registers": 32.0,
    "codegen.Softmax.track_spills": 0.0,
    "kernels.Softmax.track_time": 1e-5,
}
Changes = dict[tuple[str, str, str], float | None]


def write(
    results: Path,
    commit: str,
    changes: Changes | None = None,
    *,
    suites: tuple[str, ...] = ("codegen",),
    machine: str = "gpu",
    cases: list[str] = CASES,
    triton: str = FINGERPRINT["triton"],
) -> None:
    """Let asv and a sweep write one commit; changes: (benchmark, case, variant) to a value."""
    write_json(str(results / machine / "machine.json"), {"machine": machine}, 1)
    file = Results({"machine": machine}, {}, commit, 1_900_000_000_000, "3.11", "worktree", {})
    with Journal(results / machine / f"{commit[:8]}-worktree.points.jsonl") as journal:
        run = journal.start_run(commit, machine, {**FINGERPRINT, "triton": triton})
        for name, usual in BENCHMARKS.items():
            suite = name.split(".")[0]
            if suite not in suites:
                continue
            points = list(product(cases, VARIANTS[suite]))
            values = [(changes or {}).get((name, *point), usual) for point in points]
            samples = [_samples(suite, value) for value in values]
            numbers = [1 if taken else None for taken in samples]
            stored = [True if taken else v for taken, v in zip(samples, values, strict=True)]
            params = [[repr(case) for case in cases], [repr(v) for v in VARIANTS[suite]]]
            benchmark = {"name": name, "version": "1", "params": params}
            outcome = BenchmarkResult(stored, samples, numbers, 0, "", None)
            file.add_result(benchmark, outcome, record_samples=False)
            for (case, variant), value, taken in zip(points, values, samples, strict=True):
                failed = value is None
                journal.append_point(
                    run=run,
                    suite=suite,
                    op="softmax",
                    case=case,
                    variant=variant,
                    version=1,
                    status="failed" if failed else "ok",
                    reason="\x1b[31millegal | memory access" if failed else "",
                    values={name.rsplit("track_", 1)[1]: value},
                    samples=taken or (),
                )
    file.save(str(results))


def _samples(suite: str, value: float | None) -> list[float] | None:
    if suite != "kernels" or value is None or math.isnan(value):
        return None
    return [value * (1 + 0.001 * (i % 5 - 2)) for i in range(20)]


def command(cwd: Path, *arguments: str, **variables: str) -> tuple[int, str, str]:
    """Run the command in a process of its own: exit code, output, errors."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gate", *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "100", **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


Gate = Callable[..., tuple[int, str]]


@pytest.fixture
def gate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Gate:
    """Run the command in this process and in `tmp_path`: exit code and output."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))

    def run(*arguments: str) -> tuple[int, str]:
        code = main(["--results", "results", *arguments])
        captured = capsys.readouterr()
        assert captured.err == ""
        return code, captured.out

    return run


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return tmp_path / "results"


def test_both_suites_pass(results: Path, tmp_path: Path) -> None:
    for commit in (BASE, HEAD):
        write(results, commit, suites=("codegen", "kernels"))
    code, out, err = command(tmp_path, "aaaa", HEAD, "--results", "results")
    assert (code, err) == (0, "")
    assert out.splitlines()[0] == f"base {BASE[:12]} → head {HEAD[:12]} on gpu"
    assert out.splitlines()[-1].startswith("PASS (exit 0)")
    assert out.splitlines()[-1].endswith("; 10 pass")
    assert "not sampled" in out


def test_an_added_spill_is_a_regression_until_it_is_acknowledged(
    tmp_path: Path, gate: Gate
) -> None:
    root = tmp_path
    base, head = make_repository(root)
    write(root / "results", base)
    spill: Changes = {("codegen.Softmax.track_spills", CASES[1], "sm_80"): 6.0}
    write(root / "results", head, spill)
    arguments = ["v1", "HEAD", "--json", "out.json", "--markdown", "out.md"]
    code, out = gate(*arguments)
    assert code == 1
    assert f"softmax {CASES[1]} on sm_80: spills 0 → 6 (from 0), more than before" in out
    content = json.loads((root / "out.json").read_text(encoding="utf-8"))
    assert (content["exit_code"], content["base"], content["head"]) == (1, base, head)
    assert content["counts"] == {"regressed": 1, "pass": 7}
    assert "REGRESSION" in (root / "out.md").read_text(encoding="utf-8")

    accepted = root / "accepted.toml"
    accepted.write_text(
        f"""[[acknowledged]]
        suite = "codegen"
        op = "softmax"
        case = "rows4096_*"
        metric = "spills"
        variant = "sm_80"
        commit = "{head[:9]}"
        reason = "faster all the same"
        expires = 9999-12-31
        limit = inf
        """,
        encoding="utf-8",
    )
    code, out = gate(*arguments, "--acknowledged", "accepted.toml")
    assert code == 0
    assert "accepted: faster all the same" in out
    accepted.write_text('[[acknowledged]]\nreason = ""\n', encoding="utf-8")
    code, out = gate(*arguments, "--acknowledged", "accepted.toml")
    assert code == 2
    assert "accepted.toml, line 1: 'reason' is ''" in out


def test_a_slower_kernel_is_a_regression(results: Path, gate: Gate) -> None:
    write(results, BASE, suites=("kernels",))
    slower: Changes = {("kernels.Softmax.track_time", CASES[0], "kernl"): 1.16e-5}
    write(results, HEAD, slower, suites=("kernels",))
    code, out = gate(BASE, HEAD, "--suite", "kernels")
    assert code == 1
    assert f"softmax {CASES[0]} on gpu: time 10 µs → 11.6 µs (+16 %" in out


def test_recorded_noise_that_cannot_be_read_is_told(
    results: Path, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(machine: str) -> known_noise.KnownNoise:
        raise NoiseError(f"{machine}.jsonl.gz: not packed")

    for commit in (BASE, HEAD):
        write(results, commit, suites=("kernels",))
    monkeypatch.setattr(known_noise, "load", load)
    code, out = gate(BASE, HEAD, "--suite", "kernels")
    assert code == 2
    assert "what is recorded of the noise cannot be read: gpu.jsonl.gz" in out


@pytest.mark.parametrize(("promised", "code"), [(0.9, 0), (1.1, 1)])
def test_a_promised_speed_is_kept_or_red(
    results: Path, tmp_path: Path, gate: Gate, promised: float, code: int
) -> None:
    for commit in (BASE, HEAD):
        write(results, commit, suites=("kernels",))  # kernl takes as long as eager
    floors = tmp_path / "floors.toml"
    floors.write_text(
        f'[[floor]]\nsuite = "kernels"\nop = "softmax"\ncase = "{CASES[1]}"\nover = "eager"\n'
        f'at_least = {promised}\nreason = "fewer launches"\n'
    )
    got, out = gate(BASE, HEAD, "--floors", str(floors))
    assert got == code
    assert ("1 times as fast as eager, promised are 1.1: fewer launches" in out) == (code == 1)
    floors.write_text("[[floor]]\n")
    got, out = gate(BASE, HEAD, "--floors", str(floors))
    assert got == 2
    assert "'suite' is missing, it is needed" in out


def test_where_no_promised_speed_was_measured_one_note_says_so(results: Path, gate: Gate) -> None:
    for commit in (BASE, HEAD):
        write(results, commit)
    code, out = gate(BASE, HEAD)
    assert code == 0
    assert out.count("promised speeds was measured of head") == 1


def test_a_crash_is_told_with_its_reason(results: Path, gate: Gate) -> None:
    write(results, BASE)
    crash: Changes = {("codegen.Softmax.track_registers", CASES[0], "sm_90"): None}
    write(results, HEAD, crash)
    code, out = gate(BASE, HEAD)
    assert code == 1
    assert "failed on head" in out
    assert "\x1b" not in out


def test_what_cannot_be_decided_exits_with_2(results: Path, gate: Gate) -> None:
    write(results, BASE)
    write(results, HEAD, cases=CASES[:1])
    write(results, "c" * 40, machine="other")
    write(results, "d" * 40, triton="9.9.9")
    cases = {
        HEAD: f"softmax {CASES[1]} on sm_80 and 1 more: registers and 1 more (4 measurements)",
        "c" * 40: "different machines",
        "d" * 40: "triton 3.6.0 on base, 9.9.9 on head",
        "e" * 40: "is no commit that git or the results know",
        BASE: "same commit",
    }
    for head, words in cases.items():
        code, out = gate(BASE, head)
        assert code == 2, head
        assert words in out
        assert out.splitlines()[-1].startswith("UNDECIDED (exit 2)")
    assert gate(BASE, HEAD, "--results", "none")[0] == 2
    assert gate(BASE, HEAD, "--suite", "kernels")[0] == 2


def test_a_corrupt_file_is_named(results: Path, tmp_path: Path) -> None:
    for commit in (BASE, HEAD):
        write(results, commit)
    (results / "gpu" / "cccccccc-\x1b[31m.json").write_text("{", encoding="utf-8")
    code, out, err = command(tmp_path, BASE, HEAD, "--results", "results")
    assert (code, err) == (0, "")
    assert "note: gpu/cccccccc-\\x1b[31m.json: " in out
    assert "\x1b" not in out


@pytest.mark.parametrize("option", ["--json", "--markdown"])
def test_a_report_that_cannot_be_written_is_no_pass(results: Path, gate: Gate, option: str) -> None:
    for commit in (BASE, HEAD):
        write(results, commit)
    code, out = gate(BASE, HEAD, option, "none/file")
    assert code == 2
    assert "none/file cannot be written (No such file or directory)" in out


def test_hostile_arguments_are_harmless(results: Path, tmp_path: Path, gate: Gate) -> None:
    for commit in (BASE, HEAD):
        write(results, commit)
    before = sorted(tmp_path.iterdir())
    for revision in ("--output=x", "-h;touch x", "$(touch x)", "\x1b[31m[red]"):
        code, out = gate("--", revision, HEAD)
        assert code == 2
        assert "\x1b" not in out
        assert "is no commit" in out
    assert sorted(tmp_path.iterdir()) == before


def test_output_survives_a_terminal_without_unicode(results: Path, tmp_path: Path) -> None:
    write(results, BASE)
    write(results, HEAD, {("codegen.Softmax.track_registers", CASES[0], "sm_80"): 48.0})
    arguments = (BASE, HEAD, "--results", "results")
    code, out, _ = command(tmp_path, *arguments, PYTHONIOENCODING="ascii")
    assert code == 1
    assert "registers 32 \\u2192 48" in out


def test_the_help_names_the_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    assert "0 pass; 1 regression" in " ".join(capsys.readouterr().out.split())
