"""A fleet of real Dask workers, each a process of its own, which measure with the fake worker."""

import json
import os
import shutil
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from benchmarks import cases as frozen_cases
from benchmarks.measure import ahead, device, fleet, for_asv
from benchmarks.measure.fleet_members import (
    NoDistributed,
    NoScheduler,
    NoWorkers,
    UnlikeWorkers,
    refusals,
)
from benchmarks.measure.fleet_work import Identity
from benchmarks.measure.fleet_worker import measuring_environment
from benchmarks.measure.journal import Record
from benchmarks.measure.measuring import Lot
from benchmarks.measure.points import read_point
from benchmarks.measure.sweep import Settings, Subject, SweepCase
from benchmarks.worktree import extract_commit
from tests.suite.cluster import Cluster, end, path_with_driver, python_path, wait_until
from tests.suite.fake_worker import COMMIT, FAKE_WORKER, ROOT, Bench, statuses

IMPLEMENTATIONS = ("eager", "compile", "kernl")
FATAL = """
        asked = what + ":" + ",".join(task["implementations"])
        first = log.read_text().split().count(asked) == 1
        if name == "kernl" and (what == "fatal" or (what == "fatal_once" and first)):
            os.kill(os.getppid(), signal.SIGKILL)
            sys.exit()
        if name == "kernl":
"""
"""Ends the Dask worker that started the measuring process, in the middle of a case."""
GATE = """
        while what == "gate" and not log.with_name("go").exists():
            time.sleep(0.05)
        if what.startswith("slow"):
"""
"""A case that ends when the test says so."""
CLIENT = """
import json, pathlib, sys
from tests.suite.test_fleet import run
run(sys.argv[1], pathlib.Path(sys.argv[2]), json.loads(sys.argv[3]))
"""


def subject() -> Subject:
    here = device.fingerprint("kernels")
    return Subject("softmax", 1, COMMIT, device.machine_name(), IMPLEMENTATIONS, here)


def cases(names: Sequence[str]) -> list[SweepCase]:
    return [SweepCase(f"{name}.fp16", {"rows": 1}, "fp16") for name in names]


def fake_command(bench: Bench, mode: str = "") -> list[str]:
    return [sys.executable, "-S", str(bench.script), str(bench.log), mode]


def run(address: str, directory: Path, names: Sequence[str], **more: Any) -> Bench:
    """Measure cases by the fleet into the journal of a bench there."""
    bench = Bench(directory)
    script = FAKE_WORKER.replace('        if name == "kernl":\n', FATAL[1:])
    script = script.replace('"gpu":', '"card": os.environ.get("CUDA_VISIBLE_DEVICES"), "gpu":')
    bench.script.write_text(script.replace('        if what == "slow":\n', GATE[1:]))
    mode = more.pop("mode", "")
    with bench.journal:
        fleet.measure(
            address,
            [Lot(subject(), cases(names))],
            bench.journal,
            settings=Settings(case_timeout_s=60.0, start_timeout_s=20.0),
            command=fake_command(bench, mode),
            **more,
        )
    return bench


def found(bench: Bench) -> dict[str, dict[str, Record]]:
    points: dict[str, dict[str, Record]] = {}
    for point in bench.journal.points():
        points.setdefault(point["case"].split(".")[0], {})[point["variant"]] = point
    return points


def measured(bench: Bench) -> Counter[str]:
    return Counter({name: n for name, n in bench.calls().items() if name != "start"})


@pytest.fixture(scope="module", autouse=True)
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """This process is a machine with cards too, and says its progress to a file."""
    with pytest.MonkeyPatch.context() as patch:
        directory = tmp_path_factory.mktemp("client")
        patch.setenv("PATH", path_with_driver(directory, "H200"))
        patch.setenv("KERNL_PROGRESS", str(directory / "progress"))
        patch.setenv("CUDA_VISIBLE_DEVICES", "3")
        patch.delenv("KERNL_FLEET", raising=False)
        yield


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two workers, each with a nanny that starts it again."""
    cluster = Cluster(tmp_path_factory.mktemp("cluster"))
    try:
        cluster.worker(0)
        cluster.worker(1)
        cluster.wait_for_workers(2)
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture(scope="module")
def lonely(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A scheduler; its workers are those that a test starts."""
    cluster = Cluster(tmp_path_factory.mktemp("lonely"), allowed_failures=3)
    yield cluster
    cluster.stop()


def test_every_case_is_measured_once_and_as_by_a_local_sweep(
    cluster: Cluster, tmp_path: Path
) -> None:
    names = [f"case{number}" for number in range(10)] + ["slow", "memory", "segfault"]
    (tmp_path / "local").mkdir()
    local = Bench(tmp_path / "local")
    expected = local.sweep(*names)
    bench = run(cluster.address, tmp_path, names)
    assert measured(bench) == measured(local)
    points = found(bench)
    assert sorted(points) == sorted(expected)
    for name, by_variant in expected.items():
        for variant, point in by_variant.items():
            assert {**points[name][variant], "run": ""} == {**point, "run": ""}
    runs = bench.journal.runs().values()
    assert {r["fingerprint"]["copy_bytes_per_s"] for r in runs} == {4.2e12}
    assert {r["fingerprint"]["suite"] for r in runs} == {"kernels"}
    assert {r["fingerprint"]["card"] for r in runs} == {"0", "1"}
    assert len({r["fingerprint"]["gpu_id"] for r in runs}) == 2


def test_the_limits_of_a_nanny_do_not_reach_what_is_measured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # as Dask's nanny sets it
    monkeypatch.setenv("MKL_NUM_THREADS", "4")
    environment = measuring_environment(None)
    assert "OMP_NUM_THREADS" not in environment
    assert environment["MKL_NUM_THREADS"] == "4"


def test_a_worker_that_is_killed_costs_nothing(cluster: Cluster, tmp_path: Path) -> None:
    bench = run(cluster.address, tmp_path, ["one", "fatal_once", "two", "three"])
    assert [set(statuses(points).values()) for points in found(bench).values()] == [{"ok"}] * 4
    assert measured(bench)["fatal_once:eager,compile,kernl"] == 2


def test_a_case_that_kills_every_worker_is_said_in_words(cluster: Cluster, tmp_path: Path) -> None:
    names = ["one", "fatal", "two", "three", "four", "five"]
    bench = run(cluster.address, tmp_path, names)
    points = found(bench)
    assert sorted(points) == sorted(names)
    for point in points.pop("fatal").values():
        assert point["status"] == "failed"
        assert "2 Dask workers in a row ended while they measured this case" in point["reason"]
    assert all(set(statuses(each).values()) == {"ok"} for each in points.values())


def test_a_client_that_is_killed_goes_on_where_it_stopped(cluster: Cluster, tmp_path: Path) -> None:
    names = [f"slow{number}" for number in range(8)]
    bench = Bench(tmp_path)
    client = subprocess.Popen(
        [sys.executable, "-c", CLIENT, cluster.address, str(tmp_path), json.dumps(names)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": python_path(ROOT)},
        start_new_session=True,
    )
    try:
        wait_until(lambda: len(bench.journal.points()) >= 6)
    finally:
        end(client)
    here = {"fingerprint": device.fingerprint("kernels")}
    known = bench.reusable(**here)
    assert 2 <= len(known) < len(names)
    bench.log.write_text("")
    rest = [name for name in names if f"{name}.fp16" not in known]
    run(cluster.address, tmp_path, rest)
    assert set(rest) <= {name.split(":")[0] for name in measured(bench)}
    assert set(bench.reusable(**here)) == {f"{name}.fp16" for name in names}


def test_asv_finds_what_a_fleet_measured(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole way from KERNL_FLEET: kernl of a commit there, the points of two ops here."""
    head = subprocess.run(
        ["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    if not head:
        pytest.skip("not a git checkout")
    bench = Bench(tmp_path)
    code = extract_commit(ROOT, head, tmp_path / "commits")
    settings = {"KERNL_COMMIT": head, "KERNL_CODE": str(code), "KERNL_ENV_NAME": "worktree"}
    settings |= {"KERNL_RESULTS": str(tmp_path / "results"), "KERNL_PROFILE": "quick"}
    for name, value in {**settings, "KERNL_FLEET": cluster.address}.items():
        monkeypatch.setenv(name, value)
    by_fake = partial(fleet.measure, command=fake_command(bench))
    monkeypatch.setattr(fleet, "measure", by_fake)
    assert (
        for_asv.measure_commits(
            {for_asv.Checkout.of_asv(): {"kernels": ["softmax", "layer_norm"]}}, tmp_path
        )
        == ""
    )
    calls = bench.calls()
    frozen = frozen_cases.load()
    selected = [frozen.selected_kernel_cases(op) for op in ("softmax", "layer_norm")]
    assert measured(bench).total() == sum(map(len, selected))
    monkeypatch.setenv("KERNL_FLEET", "tcp://127.0.0.1:1")  # nothing has to be asked again
    assert for_asv.measure_op("softmax", tmp_path) == ""
    assert bench.calls() == calls
    point = read_point(tmp_path, min(selected[0]), "kernl")
    assert point is not None
    assert point["status"] == "ok"


def test_workers_of_other_hardware_or_code_are_refused(lonely: Cluster, tmp_path: Path) -> None:
    other = tmp_path / "checkout"
    for package in ("benchmarks", "kernl"):
        shutil.copytree(ROOT / package, other / package, ignore=shutil.ignore_patterns("results"))
    (other / "kernl" / "op.py").open("a").write("# changed\n")
    workers = [lonely.worker(0, gpu="A100"), lonely.worker(1, root=other), lonely.worker(3)]
    try:
        lonely.wait_for_workers(3)
        with pytest.raises(UnlikeWorkers) as refused:
            run(lonely.address, tmp_path, ["one"])
    finally:
        for worker in workers:
            end(worker)
    said = str(refused.value)
    assert "machine is nvidia-a100, not nvidia-h200" in said
    assert "gpu is NVIDIA A100, not NVIDIA H200" in said
    assert "the sources of benchmarks/ and kernl/ differ" in said
    assert len({line.split(": ")[0] for line in said.splitlines() if "tcp://" in line}) == 2
    assert not measured(Bench(tmp_path))


def test_two_workers_of_one_card_are_refused() -> None:
    one = Identity("nvidia-h200", {"gpu": "NVIDIA H200", "gpu_id": "abc"}, "123")
    assert refusals({"tcp://a:1": one}, one) == []
    (said,) = refusals({"tcp://a:1": one, "tcp://a:2": one}, one)
    assert said.startswith("tcp://a:1, tcp://a:2: share one GPU")
    (said,) = refusals({"tcp://a:1": ImportError("no asv")}, one)
    assert said == "tcp://a:1: cannot say who it is: ImportError: no asv"


def test_workers_that_join_later_are_looked_at_too(lonely: Cluster, tmp_path: Path) -> None:
    names = ["gate", *(f"case{number}" for number in range(12))]
    bench = Bench(tmp_path)
    workers = [lonely.worker(0)]
    running = threading.Thread(target=run, args=(lonely.address, tmp_path, names))
    running.start()
    try:
        wait_until(lambda: bench.calls()["gate:eager,compile,kernl"])
        older = tmp_path / "older"  # a checkout that knows nothing of fleets
        shutil.copytree(ROOT / "benchmarks" / "measure", older / "benchmarks" / "measure")
        (older / "benchmarks" / "__init__.py").touch()
        (older / "benchmarks" / "measure" / "fleet_worker.py").unlink()
        late = [lonely.worker(1, gpu="A100"), lonely.worker(0), lonely.worker(2, root=older)]
        workers += late
        wait_until(lambda: None not in [worker.poll() for worker in late])  # all sent away
        workers.append(lonely.worker(1))
        wait_until(lambda: len(found(bench)) == len(names) - 1)
    finally:
        (tmp_path / "go").touch()
        running.join()
        for worker in workers:
            end(worker)
    assert measured(bench) == {f"{name}:eager,compile,kernl": 1 for name in names}
    runs = bench.journal.runs().values()
    assert {r["fingerprint"]["gpu"] for r in runs} == {"NVIDIA H200"}


def test_a_fleet_without_a_worker_that_measures_stops_in_words(
    lonely: Cluster, tmp_path: Path
) -> None:
    worker = lonely.worker(0)
    try:
        with pytest.raises(NoWorkers) as stopped:
            run(lonely.address, tmp_path, ["one", "two"], mode="never", patience_s=5.0)
    finally:
        end(worker)
    said = str(stopped.value)
    assert "has had no worker for 5 s; 0 of 2 cases are measured" in said
    assert "was sent away: the worker did not start, 3 times in a row" in said
    assert "python -m dask worker tcp://127.0.0.1:" in said


def test_a_scheduler_that_goes_ends_the_run_and_not_the_journal(tmp_path: Path) -> None:
    (tmp_path / "cluster").mkdir()
    cluster = Cluster(tmp_path / "cluster")
    bench = Bench(tmp_path)

    def stop_scheduler() -> None:
        wait_until(bench.journal.points)
        cluster.stop_scheduler()

    goes = threading.Thread(target=stop_scheduler)
    try:
        cluster.worker(0)
        cluster.wait_for_workers(1)
        goes.start()
        with pytest.raises(NoScheduler, match="it was there when the run began, and is gone"):
            run(cluster.address, tmp_path, ["one", "gate"], patience_s=1.0)
        goes.join()
    finally:
        (tmp_path / "go").touch()
        cluster.stop()
    assert list(found(bench)) == ["one"]


def test_an_address_where_nothing_answers_is_said(tmp_path: Path) -> None:
    for address in ("tcp://127.0.0.1:1", "nonsense://"):
        with pytest.raises(NoScheduler, match="No Dask scheduler answers at"):
            run(address, tmp_path, ["one"], patience_s=1.0)


def test_without_distributed_it_is_said_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(NoDistributed, match=r"pip install 'kernl\[fleet\]'"):
        run("tcp://127.0.0.1:1", tmp_path, ["one"])
    for name, value in {"COMMIT": COMMIT, "RESULTS": str(tmp_path), "ENV_NAME": "worktree"}.items():
        monkeypatch.setenv(f"KERNL_{name}", value)
    monkeypatch.setenv("KERNL_FLEET", "tcp://127.0.0.1:1")
    assert ahead.main(["--bench", r"kernels\.Softmax"]) == 1
    assert "ahead: KERNL_FLEET names a Dask scheduler" in capsys.readouterr().err
