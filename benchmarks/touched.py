"""Which operators and models a change of `kernl/` can have changed, by the files of two commits.

An operator depends on the modules of `kernl/ops` that name it, on every module of kernl that these
import, directly or by others, and on the tables in `kernl/tuned` that one of them names. Nothing is
imported or run. A module that says the same but for comments and docstrings has not changed, and
whatever cannot be told counts as changed: a file that is no module, a module that cannot be parsed.
"""

from __future__ import annotations

import ast
import hashlib
import subprocess
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path, PurePosixPath

PACKAGE = "kernl"
_OPS = f"{PACKAGE}/ops/"
_TABLES = f"{PACKAGE}/tuned/"


class Tree:
    """The files of `kernl/` in one commit, by path from the root of the repository."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self.files = dict(files)

    @classmethod
    def of(cls, repository: Path, commit: str) -> Tree:
        """Raises ValueError where git knows no such commit, or it has no `kernl/`."""
        listed = _git(repository, "ls-tree", "-r", "-z", commit, "--", f"{PACKAGE}/")
        blobs: dict[str, bytes] = {}
        for line in filter(None, listed.split(b"\0")):
            words, _, name = line.partition(b"\t")
            blobs[name.decode("utf-8", "surrogateescape")] = words.split()[2]
        if not blobs:
            raise ValueError(f"commit {commit} has no {PACKAGE}/ whose operators could be told")
        contents = _git(repository, "cat-file", "--batch", asked=b"\n".join(blobs.values()) + b"\n")
        files, at = {}, 0
        for path in blobs:
            head, _, _ = contents[at:].partition(b"\n")
            start = at + len(head) + 1
            size = int(head.split()[2])
            files[path], at = contents[start : start + size], start + size + 1
        return cls(files)

    @cached_property
    def modules(self) -> dict[str, _Module]:
        """By path of a module, what of it counts here; the same for equal files of many commits."""
        return {path: _module(text) for path, text in self.files.items() if path.endswith(".py")}

    @cached_property
    def imports(self) -> dict[str, set[str]]:
        """By path of a module, the paths of the modules of kernl that it imports."""
        return {
            path: {file for name in module.imported for file in self._files_of(name)}
            for path, module in self.modules.items()
        }

    def needed_by(self, op: str) -> set[str]:
        """Paths of all files that an operator depends on; empty where the commit has none."""
        waiting = [
            path
            for path, module in self.modules.items()
            if path.startswith(_OPS) and not path.endswith("/__init__.py") and op in module.strings
        ]
        found: set[str] = set()
        while waiting:
            path = waiting.pop()
            if path not in found:
                found.add(path)
                waiting += self.imports[path]
        named = {string for path in found for string in self.modules[path].strings}
        tables = (path for path in self.files if path.startswith(_TABLES))
        return found | {path for path in tables if PurePosixPath(path).stem in named}

    def _files_of(self, name: str) -> Iterable[str]:
        """The file of a dotted name of kernl, which may go on to what the module defines.

        A package's own file counts where the name ends there: it says which operators there are.
        """
        parts = name.split(".")
        if parts[0] == PACKAGE:
            for length in range(len(parts), 0, -1):
                base = "/".join(parts[:length])
                for path in (f"{base}.py", f"{base}/__init__.py"):
                    if path in self.files:
                        yield path
                        return


@dataclass(frozen=True)
class Code:
    """Digests of what operators and models depend on, by their names."""

    ops: Mapping[str, str]
    models: Mapping[str, str]


def code_of(tree: Tree, models: Mapping[str, Collection[str]], ops: Collection[str]) -> Code:
    """What each operator and model depends on, as a digest: where two commits have the same one,
    nothing between them can have changed it. An operator that the commit does not have has none.

    A model also depends on every file that no operator does, such as those of rewriting: where a
    module comes to be needed by an operator, or no longer is, all models' digests change.

    Args:
        tree: the commit's files.
        models: by name, the operators that are put into its graph.
        ops: all operators there are.
    """
    needed = {op: tree.needed_by(op) for op in ops}
    unknown = {
        path for path in tree.files if not path.endswith(".py") and not path.startswith(_TABLES)
    }
    of_ops = {op: _digest(tree, paths | unknown) for op, paths in needed.items() if paths}
    beside = _digest(tree, tree.files.keys() - set().union(*needed.values()))
    of_models = {
        name: hashlib.sha256(
            "".join([beside, *(of_ops.get(op, "") for op in sorted(used))]).encode()
        )
        for name, used in models.items()
    }
    return Code(of_ops, {name: found.hexdigest() for name, found in of_models.items()})


def touched(before: Tree, after: Tree, ops: Collection[str]) -> set[str]:
    """Those of `ops` that the change from one tree to the other can have changed."""
    one, other = (code_of(tree, {}, ops).ops for tree in (before, after))
    return {op for op in ops if one.get(op) != other.get(op)}


def touched_models(
    before: Tree, after: Tree, models: Mapping[str, Collection[str]], ops: Collection[str]
) -> set[str]:
    """Those of `models` that the change can have changed; arguments are those of `code_of`."""
    one, other = (code_of(tree, models, ops).models for tree in (before, after))
    return {name for name in models if one[name] != other[name]}


def _digest(tree: Tree, paths: Collection[str]) -> str:
    found = hashlib.sha256()
    for path in sorted(paths):
        text = tree.files[path]
        says = (_says(text) if path in tree.modules else None) or hashlib.sha256(text).digest()
        found.update(path.encode("utf-8", "surrogateescape") + b"\0" + says)
    return found.hexdigest()


@dataclass(frozen=True)
class _Module:
    """The strings in a module, and the dotted names that it imports; none where it is no Python."""

    strings: frozenset[str] = frozenset()
    imported: frozenset[str] = frozenset()


@lru_cache(maxsize=1 << 14)
def _module(text: bytes) -> _Module:
    tree = _parse(text)
    if tree is None:
        return _Module()
    strings, imported = set[str](), set[str]()
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            strings.add(node.value)
        elif isinstance(node, ast.Import):
            imported.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            imported.update(f"{node.module}.{alias.name}" for alias in node.names)
    return _Module(frozenset(strings), frozenset(imported))


@lru_cache(maxsize=1 << 14)
def _says(text: bytes) -> bytes | None:
    """A digest of what a module says but for comments and docstrings; None for no Python."""
    tree = _parse(text)
    return None if tree is None else hashlib.sha256(ast.dump(tree).encode()).digest()


def _parse(text: bytes) -> ast.Module | None:
    """Without docstrings and other strings that stand by themselves; None for no Python."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError):
        return None
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            body[:] = [statement for statement in body if not _is_text(statement)]
    return tree


def _is_text(statement: ast.AST) -> bool:
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )


def _git(repository: Path, *arguments: str, asked: bytes | None = None) -> bytes:
    done = subprocess.run(
        ["git", "-C", str(repository), *arguments], input=asked, capture_output=True, check=False
    )
    if done.returncode != 0:
        said = done.stderr.decode("utf-8", "replace").strip()
        raise ValueError(f"git {arguments[0]} failed: {said}")
    return done.stdout
