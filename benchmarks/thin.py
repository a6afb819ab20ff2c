"""`python -m benchmarks.thin [COMMIT …]`: result files as small as a repository wants them.

asv writes a place for every case and implementation of a benchmark in each of its columns. Where a
run measured four of four hundred cases, its six columns of statistics are nulls but for a few, and
two thirds of the file. They are taken out where less than a tenth of a benchmark's places have a
result: asv shows the result then without its spread, n/a elsewhere, and the journal beside the file
has the samples. All files are written without blanks, and journals are packed with gzip
(`benchmarks.measure.packed`).

`make measure` does so when asv is done. Without COMMIT all files of all machines are gone through.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks import asv_file, sidecar
from benchmarks.asv_file import ResultFileError
from benchmarks.measure.journal import Journal, JournalError
from benchmarks.measure.packed import packed
from benchmarks.measure.sweep import RESULTS

_FEW = 0.1
_STATISTICS = "stats_"


def pack(path: Path) -> int:
    """Pack one journal; returns by how many bytes it shrank. Raises JournalError."""
    before = path.stat().st_size
    for problem in Journal(path).pack():
        print(f"thin: {problem}", file=sys.stderr)
    return before - packed(path).stat().st_size


def thin(path: Path) -> int:
    """Rewrite one of asv's result files; returns by how many bytes it shrank.

    A file that cannot be used is left as it is: ResultFileError says why.
    """
    asv_file.read(path, path.parent.name)
    before = path.stat().st_size
    content = asv_file.load_json(path, asv_file.API_VERSION)
    columns = [str(name) for name in content["result_columns"]]
    content["results"] = {name: _thinned(row, columns) for name, row in content["results"].items()}
    text = json.dumps(content, separators=(",", ":")) + "\n"
    if len(text) < before:
        _replace(path, text)
    return max(0, before - len(text))


def _thinned(row: Any, columns: Sequence[str]) -> Any:
    """A benchmark's row; as it is where it is not to be understood."""
    if not isinstance(row, list) or len(row) > len(columns):
        return row
    result = dict(zip(columns, row, strict=False)).get("result")
    if not isinstance(result, list):  # null where all of it failed
        return row
    measured = sum(map(asv_file.is_number, result))
    if measured >= _FEW * len(result):
        return row
    kept = [
        None if name.startswith(_STATISTICS) else value
        for name, value in zip(columns, row, strict=False)
    ]
    while kept and kept[-1] is None:  # as asv cuts its rows
        kept.pop()
    return kept


def _replace(path: Path, text: str) -> None:
    """Write a file whole, or not at all."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        scratch.write_text(text, encoding="utf-8")
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)


def files(results: Path, ending: str, commits: Sequence[str]) -> Iterator[Path]:
    """Files of these commits, full hashes or their beginnings; of all commits without any."""
    for path in sorted(results.glob(f"*/*-*{ending}")):
        commit = path.name.split("-", 1)[0]
        if not commits or any(one.startswith(commit) or commit.startswith(one) for one in commits):
            yield path


def main(arguments: Sequence[str] | None = None) -> int:
    """Go through the files. Exits with 1 where one could not be used, after all the others."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.thin", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("commits", nargs="*", metavar="COMMIT", help="a hash or its beginning")
    parser.add_argument("--results", type=Path, default=RESULTS, help="asv's result directory")
    options = parser.parse_args(arguments)
    status = shrunk = count = 0
    for ending, work in ((".json", thin), (sidecar.SUFFIX, pack)):
        for path in files(options.results, ending, options.commits):
            try:
                saved = work(path)
            except (ResultFileError, JournalError, OSError) as error:
                shown = f"{path.parent.name}/{path.name}"
                print(f"thin: {shown} stays as it is: {error}", file=sys.stderr)
                status = 1
                continue
            shrunk += saved
            count += saved > 0
    if count:
        files_are = "1 result file is" if count == 1 else f"{count} result files are"
        print(f"thin: {files_are} {shrunk / 1e3:,.0f} kB smaller")
    return status


if __name__ == "__main__":
    sys.exit(main())
