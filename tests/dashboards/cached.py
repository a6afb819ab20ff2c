"""What the tests of a build's cache share."""

import json
from pathlib import Path
from typing import Any

from dashboards import pages
from dashboards.data import gather
from dashboards.data.cache import Cache
from dashboards.data.gather import Gathered
from dashboards.data.source import Source
from tests.dashboards import scale, synthetic
from tests.dashboards.scale import Scale
from tests.dashboards.test_build import write_asv

SCALE = Scale(cases=6, implementations=2, commits=3, ops=2, samples=8, step_at=1, creep_at=1)
COMMITS = 7
"""Of all machines."""
INDEX = "index.json"


def write_results(found: Path) -> Path:
    """Results of operators, models and compiled code, with journals and without; one is broken."""
    scale.write(found, SCALE)
    write_asv(
        synthetic.with_models(synthetic.store(ops=("softmax",), count=3, commits=2), 1), found
    )
    (found / scale.MACHINE / "deadbeef-worktree.json").write_text("{ half a fi")
    return found


def told(found: Gathered) -> list[Any]:
    """All that was gathered, as text: NaN is no NaN's equal, but its text is."""
    kept = []
    for one in found.kept:
        measured = one.load(samples=False)
        about = (one.machine, one.commit, one.committed_at_ms, one.suites, one.layout)
        rows = measured.record.frame(samples=False).to_dict("records")
        clocks = measured.record.numbers["clock"].tolist()
        kept.append((about, rows, clocks, measured.judged.tolist(), measured.evidence.tolist()))
    runs = (dict(found.runs.dtypes), found.runs.to_dict("records"))
    return [repr(one) for one in (kept, runs, dict(found.machines), found.problems)]


def refuse(*_: object) -> None:
    raise AssertionError("a result file is read")


def site(results: Path, used: Cache | None = None) -> dict[str, bytes]:
    source = Source.of(gather.gather(results, used), cache=used)
    return {
        name: content if isinstance(content, bytes) else content.read_bytes()
        for name, content in pages.stream(source, "", used)
    }


def result_files(results: Path) -> list[Path]:
    names = sorted(results.glob("*/*-worktree.json"))
    return [path for path in names if not path.name.startswith("deadbeef")]


def change_value(path: Path) -> None:
    content = json.loads(path.read_text())
    name, (values, *others) = next(iter(content["results"].items()))
    content["results"][name] = [[2 * value if value else value for value in values], *others]
    path.write_text(json.dumps(content))
