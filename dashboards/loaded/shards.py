"""What the pages Compare and Case load: what every commit measured, by commit and by case.

| file | what it holds | made by |
| --- | --- | --- |
| `data/commits.js` | all commits, oldest first, releases, what each machine has | this |
| `data/points-SUITE.js` | operators or models, cases, implementations, metrics | `points` |
| `data/at/MACHINE/SUITE-COMMIT.js` | all that one commit measured there | `commit_files` |
| `data/code.js`, `data/noise/MACHINE.js` | what verdicts need besides | `gate_files` |
| `data/of/MACHINE/SUITE-NAME.js` | its cases, and where they moved | `series_files` |
| `data/of/MACHINE/SUITE-NAME-PART.js` | some of them over all commits | `series_files` |
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.gate.findings import TIMED
from dashboards import text
from dashboards.data.cache import Cache
from dashboards.data.history import environment_changes
from dashboards.data.source import Source
from dashboards.loaded import commit_files, gate_files, series_files
from dashboards.loaded.columns import script
from dashboards.plots.figures import Marks


def files(
    source: Source, hrefs: Mapping[str, str], cache: Cache | None = None
) -> Iterator[tuple[str, bytes | Path]]:
    """All but series, as relative path and content, or the file in the cache that holds it.

    Args:
        source: what the pages are made from.
        hrefs: operator or model → its page.
        cache: where the files of single commits are kept, as they do not change.
    """
    folders = text.slugs(sorted({machine for machine, _ in source.kept}))
    for suite, points in source.points.items():
        yield f"data/points-{suite}.js", points.file(hrefs)
    yield from commit_files.files(source, folders, cache)
    yield from gate_files.files(source, folders, cache)
    yield "data/commits.js", script("commits", _commits(source, folders))


def series(source: Source) -> list[Callable[[], Iterator[tuple[str, bytes]]]]:
    """What makes the files of `data/of` that hold series, in parts."""
    return [partial(series_files.files, source, cube) for cube in source.cubes.values()]


def series_lists(source: Source, marks: Callable[[str, str], Marks]) -> Iterator[tuple[str, bytes]]:
    """The other files of `data/of`.

    `marks` says of a machine and an operator or model what moved.
    """
    for cube in source.cubes.values():
        yield from series_files.lists(source, cube, marks)


def _commits(source: Source, folders: Mapping[str, str]) -> dict[str, Any]:
    """All commits, and which of them each machine has."""
    places = {commit.id: place for place, commit in enumerate(source.commits)}
    machines = []
    for machine, folder in folders.items():
        measured = {
            suite: [places[commit] for commit in cube.measured]
            for (suite, of), cube in source.cubes.items()
            if of == machine and cube.measured
        }
        if measured:
            changes = {suite: _changes(source, machine, some) for suite, some in measured.items()}
            machines.append(
                {
                    "name": text.short(machine, 60),
                    "folder": folder,
                    "measured": measured,
                    "changes": changes,
                }
            )
    return {
        "commits": [
            [c.id, c.authored or c.committed, text.short(c.subject, 72), c.moment]
            for c in source.commits
        ],
        "releases": _releases(source, places),
        "machines": machines,
        "implementations": {
            suite: [text.short(name) for name in points.variants]
            for suite, points in source.points.items()
            if suite in TIMED
        },
    }


def _releases(source: Source, places: Mapping[str, int]) -> list[list[Any]]:
    """The name of each release and the place of its commit.

    That of one that was not measured is half a commit behind the last that it is made upon.
    """
    found: list[list[Any]] = []
    for one in source.branch.releases:
        if one.commit in places:
            found.append([text.short(one.name, 24), places[one.commit]])
            continue
        earlier = [places[name] for name in source.branch.behind(one.commit) if name in places]
        if earlier:
            found.append([text.short(one.name, 24), max(earlier) + 0.5])
    return sorted(found, key=lambda of: float(of[1]))


def _changes(source: Source, machine: str, commits: Sequence[int]) -> list[list[Any]]:
    """Where a machine's libraries or driver changed, in words."""
    place = {commit.id: number for number, commit in enumerate(source.commits)}
    order = tuple(source.commits[number] for number in commits)
    found = environment_changes(source.runs, machine, order)
    return [[place[one.commit], text.short(one.text, 48)] for one in found]
