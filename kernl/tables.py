"""Tables of configurations: what may be chosen, the rows, and how a file of them is read."""

import csv
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

Value = int | str
Key = Mapping[str, Value]
"""One class: the sizes and options that a configuration is chosen by."""
Config = TypeVar("Config", bound=tuple[Any, ...])


def _always(_capability: int, _key: Key, _config: Any) -> bool:
    return True


@dataclass(frozen=True)
class Tunable(Generic[Config]):
    """What one operator lets the tuner choose.

    Attributes:
        name: the table is `kernl/tuned/NAME.csv`.
        exact: parts of the key that a row must share, such as the bits of an element.
        sizes: parts of the key that are compared by their ratio; a row is as far away as the sum
            of |log2(ratio)| over them.
        config: a NamedTuple of int, bool and str fields: the columns that are chosen.
        default: (capability, key) → the configuration where no table speaks.
        candidates: (capability, key) → what the tuner tries.
        fits: (capability, key, config) → whether it can run there: shared memory, registers.
        extends: (capability, key, config) → whether what was the fastest for other sizes may be
            taken for these; asked of the rows of other classes alone.
    """

    name: str
    exact: tuple[str, ...]
    sizes: tuple[str, ...]
    config: Callable[..., Config]
    default: Callable[[int, Key], Config]
    candidates: Callable[[int, Key], Iterable[Config]]
    fits: Callable[[int, Key, Config], bool]
    extends: Callable[[int, Key, Config], bool] = _always

    @property
    def key_names(self) -> tuple[str, ...]:
        """The key's parts, in the order of the table's columns."""
        return self.exact + self.sizes

    @property
    def fields(self) -> Mapping[str, type]:
        """The configuration's fields and their types."""
        return dict(self.config.__annotations__)


class Row(NamedTuple):
    """One line of a table."""

    architecture: int
    key: Key
    config: tuple[Any, ...]


def read(path: Path, tunable: Tunable[Any], skip_broken: bool = False) -> tuple[Row, ...]:
    """The rows of one table. Columns beyond architecture, key and configuration are remarks.

    Raises:
        ValueError: a column is missing or a value is of another type; names the file and line.
            With `skip_broken` such a line costs itself alone.
    """
    rows = []
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        reader = csv.DictReader(file)
        for line in reader:
            try:
                rows.append(_row(path, reader.line_num, line, tunable))
            except ValueError:
                if not skip_broken:
                    raise
    return tuple(rows)


def _row(path: Path, number: int, line: Mapping[str, str], tunable: Tunable[Any]) -> Row:
    try:
        key = {name: _number_or_word(line[name]) for name in tunable.key_names}
        config = tuple(_as(kind, line[name]) for name, kind in tunable.fields.items())
        return Row(int(line["architecture"]), key, config)
    except (AttributeError, KeyError, ValueError, TypeError) as error:
        columns = ("architecture", *tunable.key_names, *tunable.fields)
        raise ValueError(
            f"{path}, line {number}: {error!r}; allowed: the columns {', '.join(columns)}; "
            "write the table anew with `make tune`."
        ) from error


def _number_or_word(text: str) -> Value:
    return int(text) if text.lstrip("-").isdigit() else text


def _as(kind: type, text: str) -> Any:
    if kind is bool:
        return {"True": True, "False": False}[text]
    return kind(text)
