"""Reads the tree's imports without running them, and says which ones point up.

A floor may import itself and the floors below. `rewrite` and `runtime` stand side by side on one
floor and do not know each other.
"""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOTS = ("kernl", "benchmarks", "dashboards", "tests")

# From the ground up. A module stands on the floor of its longest prefix in this table; what lies
# in kernl beside these packages (op, shapes, errors, launch, …) is the ground.
FLOORS = {
    "kernl.ops": 1,
    "kernl.rewrite": 2,
    "kernl.runtime": 2,
    "kernl.optimize": 3,
    "kernl.model_optimization": 3,
    "benchmarks": 5,
    "dashboards": 6,
    "tests": 7,
}
GROUND = 0
PACKAGE = 4  # kernl/__init__.py itself: the public API over all of kernl
SIBLINGS = ("kernl.rewrite", "kernl.runtime")


class Import(NamedTuple):
    """One import statement: the module it stands in, its line, the module it asks for."""

    module: str
    line: int
    target: str


def within(name: str, prefix: str) -> bool:
    """Whether a dotted name is `prefix` or lies below it."""
    return name == prefix or name.startswith(prefix + ".")


def floor_of(name: str) -> int:
    """The floor of a module of this project."""
    if name == "kernl":
        return PACKAGE
    found = [prefix for prefix in FLOORS if within(name, prefix)]
    return FLOORS[max(found, key=len)] if found else GROUND


def module_name(path: Path, root: Path) -> str:
    """`kernl/ops/linear.py` as `kernl.ops.linear`, a package by its folder's name."""
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def modules(root: Path) -> dict[str, Path]:
    """Every module of the project by its dotted name."""
    paths = (path for name in ROOTS for path in sorted((root / name).rglob("*.py")))
    return {module_name(path, root): path for path in paths}


def imports_of(name: str, path: Path, known: set[str]) -> Iterator[Import]:
    """Every import in a file: at module level, in functions, for type checkers, by string.

    `from kernl import ops` asks for kernl.ops where that is a module, and for kernl elsewhere.
    """
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        match node:
            case ast.Import(names=names):
                for alias in names:
                    yield Import(name, node.lineno, alias.name)
            case ast.ImportFrom(module=module, names=names, level=level):
                base = package[: len(package) - level + 1] if level else []
                source = ".".join([*base, *([module] if module else [])])
                for alias in names:
                    full = f"{source}.{alias.name}"
                    yield Import(name, node.lineno, full if full in known else source)
            case ast.Call(
                func=ast.Name(id="import_module" | "__import__")
                | ast.Attribute(attr="import_module"),
                args=[ast.Constant(value=str(target)), *_],
            ):
                yield Import(name, node.lineno, target)


def violations(root: Path) -> list[str]:
    """A sentence for each import that points up, or sideways between the siblings."""
    found = modules(root)
    known = set(found)
    sentences = []
    for name, path in found.items():
        for item in imports_of(name, path, known):
            if item.target.split(".")[0] not in ROOTS:
                continue
            where = f"{path.relative_to(root)}:{item.line}"
            if floor_of(item.target) > floor_of(name):
                sentences.append(f"{where}: {name} imports {item.target}, a floor above it")
            elif any(within(name, one) for one in SIBLINGS) and any(
                within(item.target, one) and not within(name, one) for one in SIBLINGS
            ):
                sentences.append(f"{where}: {name} imports {item.target}, which stands beside it")
    return sentences
