"""What the page Compare judges by besides samples: which code each commit's operators depend on,
and how noisy each case is known to be.

| file | what it holds |
| --- | --- |
| `data/code.js` | by suite, a number for each commit and operator or model; 0 where nobody knows |
| `data/noise/MACHINE.js` | of each operator's case the variance of kernl's log-ratio |

Where a number is the same in two commits, nothing between them can have changed what is measured
(`benchmarks.touched.code_of`).
"""

import json
import re
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks import cases, known_noise, noise, sessions, touched
from benchmarks.gate import reached, stored
from benchmarks.gate.findings import TIMED
from dashboards.data import cache as caching
from dashboards.data.cache import Cache, digest, replace
from dashboards.data.points import Points
from dashboards.data.source import Source
from dashboards.loaded.columns import packed, script

_HASH = re.compile(r"[0-9a-f]{40}")
_OF_CODE = tuple(Path(str(one.__file__)) for one in (cases, reached, touched))
_OF_NOISE = tuple(Path(str(one.__file__)) for one in (known_noise, noise, sessions))
_BROKEN = (noise.NoiseError, KeyError, TypeError, ValueError, ArithmeticError)


def files(
    source: Source, folders: Mapping[str, str], cache: Cache | None, repository: Path = stored.ROOT
) -> Iterator[tuple[str, bytes]]:
    """Both kinds of files.

    Args:
        source: what the pages are made from.
        folders: machine → the folder of its files.
        cache: where it is kept what a commit depends on.
        repository: where git knows the commits.
    """
    commits = [commit.id for commit in source.commits]
    known = _codes(_known_to_git(commits, repository), repository, cache)
    code = {
        suite: _numbers([known.get(one, {}).get(suite, {}) for one in commits], points.names)
        for suite, points in source.points.items()
        if suite in TIMED
    }
    yield "data/code.js", script("code", code)
    kernels = source.points.get("kernels")
    for machine in sorted({machine for suite, machine in source.cubes if suite in TIMED}):
        variances = _variances(machine, kernels, cache) if kernels is not None else []
        name = f"noise/{folders[machine]}"
        yield f"data/{name}.js", script(name, {"kernels": packed(variances, "f64")})


def _known_to_git(commits: Sequence[str], repository: Path) -> list[str]:
    """Those whose files git has; none without git."""
    asked = [commit for commit in commits if _HASH.fullmatch(commit)]
    command = ["git", "-C", str(repository), "cat-file", "--batch-check"]
    try:
        text = "".join(f"{commit}\n" for commit in asked)
        said = subprocess.run(command, input=text, capture_output=True, text=True, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    told = zip(asked, said.stdout.splitlines(), strict=False)
    return [commit for commit, line in told if line.split()[1:2] == ["commit"]]


def _codes(
    commits: Iterable[str], repository: Path, cache: Cache | None
) -> dict[str, dict[str, dict[str, str]]]:
    """By commit and suite, the digests of operators or models; of none that cannot be told."""
    try:
        frozen = cases.load()
        codes = reached.codes_of(repository)
    except (OSError, ValueError):
        return {}
    asked = [frozen.ops, {name: frozen.operators(name) for name in frozen.models}]
    made_by = digest("code", caching.code(_OF_CODE), json.dumps(asked))
    found = {}
    for commit in commits:
        kept = cache.use(f"{digest(made_by, commit)}.json") if cache is not None else None
        if kept is not None and kept.is_file():
            found[commit] = json.loads(kept.read_text())
            continue
        try:
            code = codes(commit)
        except (ValueError, OSError):
            continue
        found[commit] = {"kernels": dict(code.ops), "models": dict(code.models)}
        if kept is not None:
            replace(kept, partial(Path.write_text, data=json.dumps(found[commit])))
    return found


def _numbers(of_commits: Iterable[Mapping[str, str]], names: Sequence[str]) -> dict[str, object]:
    """Digests as numbers, commit by commit: the same digest of a name has the same number."""
    seen: dict[str, int] = {}
    numbers = [
        0 if (found := of.get(name)) is None else seen.setdefault(found, len(seen) + 1)
        for of in of_commits
        for name in names
    ]
    return {"names": list(names), "of": packed(np.array(numbers, np.uint32), "u32")}


def _variances(machine: str, points: Points, cache: Cache | None) -> list[float]:
    """Of each case, as the gate knows it; 0 where what is recorded cannot be read."""
    kept = None
    if cache is not None:
        recorded = sorted(known_noise.RECORDED.glob("*.jsonl.gz"))
        content = digest(*(f"{path.name}:{cache.content(path)}" for path in recorded))
        key = digest("noise", caching.code(_OF_NOISE), content, machine, points.digest)
        kept = cache.use(f"{key}.json")
        if kept.is_file():
            found: list[float] = json.loads(kept.read_text())
            return found
    try:
        known = known_noise.load(machine)
    except _BROKEN:
        return [0.0] * len(points.cases)
    variances = [known.of(op, case).raw for op, case in points.cases]
    if kept is not None:
        replace(kept, partial(Path.write_text, data=json.dumps(variances)))
    return variances
