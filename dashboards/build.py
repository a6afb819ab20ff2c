"""`python -m dashboards.build`: result files → a static site that opens from `file://`.

The site is built beside its place and then swapped in, so that a failed build leaves the old
one as it was. The same results give the same bytes.
"""

import argparse
import json
import multiprocessing
import os
import re
import shutil
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from urllib.parse import quote

from benchmarks import cases, known_noise, noise, roofline
from benchmarks.cases import Frozen
from benchmarks.gate import acknowledged
from benchmarks.gate.reviewed import ReviewedError
from benchmarks.noise import Noise
from dashboards import pages, text
from dashboards.data import cache as caching
from dashboards.data import gather
from dashboards.data.cache import Cache, CacheError
from dashboards.data.source import Source
from dashboards.pages import Part
from dashboards.tabular.commit_links import NO_LINKS, CommitLinks

MARK = ".kernl-dashboard"
"""A file that tells a site of ours, which may be replaced, from a folder that may not."""
_LARGE = 2_000_000
"""With so many points, several processes make a site."""
_PROCESSES = 4
"""So many at most: the longest part is a quarter of the work."""
_HEAPS = 256
Files = Iterable[tuple[str, bytes | Path]]
RECORDED_SUFFIX = ".jsonl.gz"
_BROKEN_NOISE = (
    noise.NoiseError, KeyError, TypeError, ValueError, ArithmeticError, zlib.error,
)  # fmt: skip


class BuildError(Exception):
    """A build that cannot start; the message says what was seen and what to do."""


def check_output(output: Path) -> None:
    """Refuses to replace anything but an earlier site or an empty folder.

    Raises:
        BuildError: `output` is a file, or a folder with other content.
    """
    if output.is_symlink() or (output.exists() and not output.is_dir()):
        raise BuildError(
            f"--output {output} is not a folder; name one that is new, empty or an earlier site"
        )
    if output.is_dir() and any(output.iterdir()) and not (output / MARK).is_file():
        raise BuildError(
            f"--output {output} holds files that this command did not write; name a folder that "
            "is new, empty or an earlier site, or remove it yourself"
        )


def write(files: Files, output: Path, parts: Sequence[Part] = (), processes: int = 1) -> None:
    """Writes `files`, relative path and content, beside `output`, then swaps the two.

    A content that is a path is a file's; the site holds another link to it, or a copy. What `parts`
    make is written too, by so many processes: this one and copies of it, each of which makes the
    next part when it is done with one.

    Raises:
        BuildError: `output` holds something else, or a path leads out of it.
        OSError: the disk; the old site is still there then.
    """
    check_output(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{output.name}-new-", dir=output.parent))
    try:
        fresh.chmod(0o755)
        with _waiting(parts) as waiting:

            def work() -> None:
                for part in waiting:
                    _put(part(), fresh, output)

            with _others(work, processes - 1):
                _put(chain(files, [(MARK, b"")]), fresh, output)
                work()
        _swap(fresh, output)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _put(files: Files, fresh: Path, output: Path) -> None:
    """Writes files into a folder, which is to take the place of `output`."""
    home = fresh.resolve()
    for name, content in files:
        path = home / name
        if not path.resolve().is_relative_to(home):
            raise BuildError(f"page {name!r} would lie outside of {output}; nothing was written")
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            _link(content, path)


@contextmanager
def _waiting(parts: Sequence[Part]) -> Iterator[Iterator[Part]]:
    """What is to be made, each part once, whichever copy of this process asks for the next one.

    A pipe holds a byte a heap of parts, so that there is no lock for a process that dies to keep.
    """
    heaps = [parts[number::_HEAPS] for number in range(min(_HEAPS, len(parts)))]
    reading, writing = os.pipe()
    os.write(writing, bytes(range(len(heaps))))
    os.close(writing)
    try:
        yield (
            part for number in iter(lambda: os.read(reading, 1), b"") for part in heaps[number[0]]
        )
    finally:
        os.close(reading)


@contextmanager
def _others(work: Callable[[], None], count: int) -> Iterator[None]:
    """While it is entered, so many copies of this process, with all that it has read, do `work`."""
    processes = [
        multiprocessing.get_context("fork").Process(target=work, daemon=True) for _ in range(count)
    ]
    try:
        for process in processes:
            process.start()
        yield
    except BaseException:
        for process in processes:
            if process.pid is not None:
                process.terminate()
        raise
    finally:
        for process in processes:
            if process.pid is not None:
                process.join()
    if any(process.exitcode for process in processes):
        raise BuildError("a process that makes a part of the site failed; see above")


def _link(file: Path, path: Path) -> None:
    """Another name for a file, which nobody writes to again; a copy where that cannot be."""
    try:
        path.hardlink_to(file)
    except OSError:
        shutil.copyfile(file, path)


def _swap(fresh: Path, output: Path) -> None:
    """Puts `fresh` in the place of `output`, which returns where that fails."""
    if not output.exists():
        fresh.rename(output)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{output.name}-old-", dir=output.parent))
    try:
        output.rename(old / "site")
        try:
            fresh.rename(output)
        except OSError:
            (old / "site").rename(output)
            raise
    finally:
        shutil.rmtree(old, ignore_errors=True)


def build(
    source: Source,
    output: Path,
    raw: str = "",
    cache: Cache | None = None,
    links: CommitLinks = NO_LINKS,
) -> Path:
    """Builds the site of `source` into `output` and returns the path of its index.

    `raw` is where a browser finds the result files; without it the pages do not link to them.
    `cache` keeps what the next build need not make again. `links` are where commits are shown.
    """
    check_output(output)
    site = pages.Site.of(source, raw, links)
    many = source.size >= _LARGE
    processes = min(len(os.sched_getaffinity(0)), _PROCESSES) if many else 1
    write(site.columns(cache), output, site.parts(), processes)
    if cache is not None:
        cache.prune()
    return output / "index.html"


def frozen_cases() -> Frozen | None:
    """What the suites ask for. Without a case list None, and a word on stderr."""
    try:
        return cases.load()
    except (OSError, ValueError) as error:
        print(
            "dashboard: coverage counts measured cases only, no operator is taken for opt-in, and "
            f"no time is held against the roofline: {error}",
            file=sys.stderr,
        )
        return None


def accepted_regressions() -> list[acknowledged.Acknowledged]:
    """What a review accepted. Where that cannot be read none, and a word on stderr."""
    try:
        return acknowledged.load(acknowledged.PATH)
    except ReviewedError as error:
        print(f"dashboard: no regression counts as acknowledged: {error}", file=sys.stderr)
        return []


def recorded_noise(
    directory: Path = known_noise.RECORDED, cache: Cache | None = None
) -> dict[str, tuple[Noise, ...]]:
    """Machine → what was recorded of its noise. A file that cannot be read costs a word on stderr.

    A file's name is the machine's. `cache` keeps what was found in one.
    """
    found = {}
    for path in sorted(directory.glob(f"*{RECORDED_SUFFIX}")):
        machine = path.name.removesuffix(RECORDED_SUFFIX)
        try:
            found[machine] = _noise_in(path, cache)
        except _BROKEN_NOISE as error:
            said = text.short(f"{type(error).__name__}: {error}")
            print(f"dashboard: no noise is shown of {text.short(machine)}: {said}", file=sys.stderr)
    return found


def _noise_in(path: Path, cache: Cache | None) -> tuple[Noise, ...]:
    """What a file tells of a machine's noise; what was found in it before comes from the cache."""
    kept = None
    if cache is not None:
        code = caching.code((Path(noise.__file__),))
        kept = cache.use(f"{caching.digest('noise', code, cache.content(path))}.json")
        if kept.is_file():
            return tuple(Noise(*one) for one in json.loads(kept.read_text()))
    same = noise.same_on_both_sides(noise.read(path))
    found = tuple(noise.noise_of(case, of) for case, of in sorted(same.items()))
    if kept is not None:
        told = json.dumps([[one.case, one.sessions, dict(one.spread)] for one in found])
        caching.replace(kept, lambda draft: draft.write_text(told))
    return found


def read(results: Path, cache: Cache | None = None) -> Source:
    """Reads the result files below `results`, as far as `cache` does not have them.

    Raises:
        BuildError: there is no such folder.
    """
    if not results.is_dir():
        raise BuildError(
            f"--results {results} is not a folder; run `asv run` first, or name the folder that "
            "holds asv's result files"
        )
    found = gather.gather(results, cache, _progress)
    frozen = frozen_cases()
    accepted, noises = accepted_regressions(), recorded_noise(cache=cache)
    if frozen is None:
        return Source.of(found, results, accepted=accepted, noise=noises, cache=cache)
    return Source.of(
        found,
        results,
        frozen={op: frozen.kernel_cases(op) for op in frozen.ops},
        opt_in=filter(frozen.opt_in, frozen.ops),
        frozen_models={model: frozen.kernel_cases(model) for model in frozen.models},
        costs=roofline.costs(frozen),
        accepted=accepted,
        noise=noises,
        cache=cache,
    )


def _progress(done: int, of: int) -> None:
    """Says now and then how many commits were read."""
    if done and done % 25 == 0:
        print(f"dashboard: read {done} of {of} commits", file=sys.stderr, flush=True)


def raw_address(options: argparse.Namespace) -> str:
    """Where a browser finds the result files, with a slash at its end.

    Raises:
        BuildError: `--raw` is no address of a web server and no relative path.
    """
    given: str | None = options.raw
    if given is None:
        given = quote(Path(os.path.relpath(options.results, options.output)).as_posix())
    elif not re.match(r"https?://|[^:]*$", given):
        raise BuildError(f"--raw {given} is no http(s) address and no relative path")
    return given.rstrip("/") + "/"


def commit_links(options: argparse.Namespace) -> CommitLinks:
    """Where a browser finds commits.

    Raises:
        BuildError: `--commits` is no address of a web server.
    """
    if options.commits is None:
        return NO_LINKS
    try:
        return CommitLinks.below(options.commits)
    except ValueError as error:
        raise BuildError(
            f"--commits: {error}; give the part before a commit's hash, such as "
            "https://host/owner/name/commit/"
        ) from error


def main(arguments: list[str] | None = None) -> int:
    """The command. Returns the exit code: 0 built, 2 not built."""
    parser = argparse.ArgumentParser(prog="python -m dashboards.build", description=__doc__)
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--output", type=Path, default=Path("build/dashboard"))
    parser.add_argument(
        "--cache",
        type=Path,
        metavar="DIR",
        help="what the next build need not make again (default: beside the site, DIR-cache)",
    )
    parser.add_argument(
        "--raw",
        metavar="URL",
        help="where a browser finds the results directory, for a site that is served elsewhere "
        "(default: its path from the site)",
    )
    parser.add_argument(
        "--commits",
        metavar="URL",
        help="where a browser finds a commit, without its hash, such as "
        "https://host/owner/name/commit/ (default: commits are no links)",
    )
    options = parser.parse_args(arguments)
    try:
        links = commit_links(options)
        check_output(options.output)
        print(f"dashboard: reading {options.results}", flush=True)
        cache = Cache(options.cache or options.output.with_name(f"{options.output.name}-cache"))
        source = read(options.results, cache)
        for path, reason in source.problems:
            print(f"dashboard: skipped {path}: {reason}", file=sys.stderr)
        print(
            f"dashboard: {source.size:,} rows, {len(source.commits)} commits, "
            f"{len(source.ops())} operators, {len(source.models())} models",
            flush=True,
        )
        index = build(source, options.output, raw_address(options), cache, links)
    except (BuildError, CacheError, OSError) as error:
        print(f"dashboard: not built: {error}", file=sys.stderr)
        return 2
    print(f"dashboard: {index.resolve().as_uri()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
