"""Where a browser finds a commit, and what lies between two, on the host of the repository."""

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from dashboards import text
from dashboards.data.history import Commit
from dashboards.tabular.tables import Cell, word

_HASH = re.compile(r"[0-9a-f]{7,64}")
_COMMIT, _COMPARE = "/commit/", "/compare/"


@dataclass(frozen=True)
class CommitLinks:
    """Addresses of commits: `base` and a hash behind it; without a base there are none."""

    base: str = ""

    @classmethod
    def below(cls, address: str) -> "CommitLinks":
        """Those below an address, such as `https://host/owner/name/commit/`.

        Raises:
            ValueError: it is no address of a web server; the message says why.
        """
        if not re.fullmatch(r"[!-~]+", address) or re.search(r"[\"'<>\\`{}#]", address):
            raise ValueError(f"{address!r} holds what no address holds")
        parts = urlsplit(address)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{address!r} is no http(s) address")
        if "@" in parts.netloc:
            raise ValueError("the address names a user, which every reader would see")
        return cls(address if address.endswith(("/", "=")) else f"{address}/")

    def of(self, commit: str) -> str:
        """A commit's address; empty where there is none."""
        return f"{self.base}{commit}" if self.base and _HASH.fullmatch(commit) else ""

    @property
    def compares(self) -> bool:
        """Whether the host shows two commits beside each other, as far as the address tells."""
        return self.base.endswith(_COMMIT)

    def between(self, earlier: str, later: str) -> str:
        """The address of what lies between two commits; empty where there is none."""
        if not (self.compares and self.of(earlier) and self.of(later)):
            return ""
        return f"{self.base.removesuffix(_COMMIT)}{_COMPARE}{earlier}...{later}"


NO_LINKS = CommitLinks()


def commit_cell(commit: Commit, links: CommitLinks, longest: int = 40) -> Cell:
    """A commit's hash, with the beginning of its subject."""
    return word(commit.short, note=text.short(commit.subject, longest), href=links.of(commit.id))


def between_cell(earlier: str, later: str, links: CommitLinks) -> Cell:
    """A link to what lies between two commits."""
    return word(f"{earlier[:8]}…{later[:8]}", href=links.between(earlier, later))
