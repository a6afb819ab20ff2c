"""A reviewed file: TOML that holds one list of tables, each an entry that a review let in."""

import re
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


class ReviewedError(Exception):
    """The file cannot be used. Each of `problems` says where, what was seen, what is allowed."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


@dataclass(frozen=True)
class Entry:
    """One table.

    Attributes:
        line: of the file, where it begins (1 is the first; 0 unknown).
        where: the place in the file, in words.
        table: its keys and values.
    """

    line: int
    where: str
    table: dict[str, Any]


def read(
    path: Path, name: str, keys: Sequence[str], wrong: Callable[[Entry], list[str]]
) -> list[Entry]:
    """The tables `[[name]]` of a file.

    Args:
        path: the file.
        name: of the list.
        keys: that a table may have; for the words of an error.
        wrong: what is wrong with an entry, in words; called once for each, in order.

    Raises:
        ReviewedError: the file is missing, unreadable, no TOML, or holds a wrong entry.
    """
    allowed = f"Allowed: [[{name}]] tables with the keys {', '.join(keys)}"
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        words = f"{path} cannot be read ({error}): give a UTF-8 TOML file with --{path.stem}"
        raise ReviewedError([words]) from error
    try:
        document = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise ReviewedError([f"{path} is not TOML: {error}. {allowed}"]) from error
    problems = [
        f"{path}: unknown key {key!r} at the top. {allowed}" for key in document if key != name
    ]
    tables = document.get(name, [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise ReviewedError([*problems, f"{path}: {name!r} is not a list of tables. {allowed}"])
    entries = _entries(text, name, tables)
    problems += [f"{path}, {one.where}: {words}" for one in entries for words in wrong(one)]
    if problems:
        raise ReviewedError(problems)
    return entries


def unknown(table: dict[str, Any], name: str, keys: Sequence[str]) -> list[str]:
    """What is to be said of the keys of a table that it may not have."""
    allowed = f"Allowed: [[{name}]] tables with the keys {', '.join(keys)}"
    return [f"unknown key {key!r}. {allowed}" for key in table if key not in keys]


def _entries(text: str, name: str, tables: Sequence[dict[str, Any]]) -> list[Entry]:
    header = re.compile(rf"^\s*\[\[\s*{re.escape(name)}\s*\]\]")
    lines = [n for n, line in enumerate(text.split("\n"), start=1) if header.match(line)]
    # Tables can be written without headers of their own; then only their order is known.
    known = len(lines) == len(tables)
    return [
        Entry(lines[index], f"line {lines[index]}", table)
        if known
        else Entry(0, f"entry {index + 1}", table)
        for index, table in enumerate(tables)
    ]
