"""The folder in which a build leaves what the next one needs not make again.

A file's name is a digest of all that it is made from, the code that makes it among it, so that
nothing in the folder can be out of date. What a build did not use is removed at its end.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Sequence
from functools import cache as once
from pathlib import Path

MARK = ".kernl-dashboard-cache"
"""A file that tells a folder of ours, from which may be removed, from one that is not."""
_INDEX = "index.json"


class CacheError(Exception):
    """A folder that cannot be used as a cache; the message says what was seen and what to do."""


class Cache:
    """A folder of files that a build makes and later ones use again.

    Raises:
        CacheError: the folder is none, or holds what no build of ours put there.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
            raise CacheError(f"--cache {folder} is not a folder; name one that is new or empty")
        if folder.is_dir() and any(folder.iterdir()) and not (folder / MARK).is_file():
            raise CacheError(
                f"--cache {folder} holds files that this command did not write; name a folder that "
                "is new, empty or an earlier cache, or remove it yourself"
            )
        folder.mkdir(parents=True, exist_ok=True)
        (folder / MARK).touch()
        self._used: set[str] = {MARK, _INDEX}
        self._known: dict[str, list[str | int]] = self._index()
        self._seen: dict[str, list[str | int]] = {}

    def _index(self) -> dict[str, list[str | int]]:
        try:
            found = json.loads((self.folder / _INDEX).read_text())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def content(self, path: Path) -> str:
        """The digest of a file's content; of one as large and as old as it was, the one before."""
        known = self.known_content(path)
        return self.learn(path, state_of(path), digest_of(path)) if known is None else known

    def known_content(self, path: Path) -> str | None:
        """The same, None where the file would have to be read for it."""
        known, state = self._known.get(str(path)), state_of(path)
        if not (isinstance(known, list) and known[:-1] == state):
            return None
        return self.learn(path, state, str(known[-1]))

    def learn(self, path: Path, state: Sequence[int], content: str) -> str:
        """Keeps the digest of a file that was in a state before it was read; returns the digest."""
        self._seen[str(path)] = [*state, content]
        return content

    def use(self, name: str) -> Path:
        """The path of a file that this build needs, whether it is there or not."""
        self._used.add(name)
        return self.folder / name

    def prune(self) -> None:
        """Removes what this build did not use."""
        replace(self.folder / _INDEX, lambda path: path.write_text(json.dumps(self._seen)))
        for path in self.folder.iterdir():
            if path.name not in self._used:
                whole = path.is_dir() and not path.is_symlink()
                shutil.rmtree(path) if whole else path.unlink()


def state_of(path: Path) -> list[int]:
    """What changes with a file's content: its size and the times of its changes."""
    about = path.stat()
    return [about.st_size, about.st_mtime_ns, about.st_ctime_ns]


def replace(path: Path, write: Callable[[Path], object]) -> None:
    """Puts what `write` writes into the place of a file in one step."""
    handle, draft = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    os.close(handle)
    try:
        write(Path(draft))
        Path(draft).chmod(0o644)
        Path(draft).replace(path)
    finally:
        Path(draft).unlink(missing_ok=True)


def digest(*parts: str) -> str:
    """A digest of texts in their order."""
    found = hashlib.blake2b(digest_size=16)
    for part in parts:
        found.update(f"{len(part)}:{part}".encode("utf-8", "replace"))
    return found.hexdigest()


def digest_of(path: Path) -> str:
    """A digest of a file's content, by what processors have instructions for."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@once
def code(files: Iterable[Path]) -> str:
    """A digest of the code in some files."""
    return digest(*(digest_of(path) for path in files))
