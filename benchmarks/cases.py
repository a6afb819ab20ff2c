"""The frozen cases: what the suite measures, read from `benchmarks/suite/cases.json`.

asv passes a case by its position, so names must not come from the package under test: they are
written by `python -m benchmarks.freeze`, reviewed, and committed. Only the standard library is
imported here, because asv reads the suite in every one of its processes.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

PATH = Path(__file__).parent / "suite" / "cases.json"
FORMAT = 8

PROFILES = ("full", "quick")
NOT_SELECTED = "left out of this run"
"""Why a point has no result where a run was asked for less than everything."""
_NOT_SELECTED = frozenset({NOT_SELECTED, "left out of the quick profile"})  # older results say that


@dataclass(frozen=True)
class Cost:
    """What one call of a case costs at least, whoever computes it.

    Attributes:
        bytes: the fewest bytes moved: each input read once, each output written once.
        flops: floating-point operations.
        unit: the element type whose peak rate bounds them: fp16, bf16, fp32 or fp8.
    """

    bytes: int
    flops: int
    unit: str


@dataclass(frozen=True)
class Frozen:
    """The content of `cases.json`.

    Attributes:
        ops: names of the operators, in the order of `kernl.ops.ALL`.
        architectures: compile-only targets, such as `sm_90`.
        quick_architectures: those that the quick profile compiles for.
        models: names of the models, in the order of `benchmarks.models.MODELS`. What is asked below
            for an operator can be asked for a model, all but what is compiled.
    """

    ops: tuple[str, ...]
    architectures: tuple[str, ...]
    quick_architectures: tuple[str, ...]
    models: tuple[str, ...]
    _entries: Mapping[str, Any]

    def kernel_cases(self, op: str) -> list[str]:
        """Names of the cases that are timed on a GPU."""
        return list(self._entries[op]["kernels"])

    def codegen_cases(self, op: str) -> list[str]:
        """Names of the cases that are compiled: one for each distinct set of launches."""
        return list(self._entries[op]["codegen"])

    def selected_architectures(self) -> tuple[str, ...]:
        """Those of `architectures` that this process's profile compiles for."""
        return self.quick_architectures if profile() == "quick" else self.architectures

    def selected_codegen_cases(self, op: str) -> set[str]:
        """Those of `codegen_cases` that this process's profile compiles."""
        return self._selected(op, "codegen")

    def selected_kernel_cases(self, op: str) -> set[str]:
        """Those of `kernel_cases` that this process's profile times."""
        return self._selected(op, "kernels")

    def _selected(self, op: str, kind: str) -> set[str]:
        entry = self._entries[op]
        return set(entry[f"quick_{kind}"] if profile() == "quick" else entry[kind])

    def operators(self, model: str) -> tuple[str, ...]:
        """The operators that rewriting puts into a model's graph."""
        return tuple(self._entries[model]["operators"])

    def implementations(self, op: str) -> tuple[str, ...]:
        """What is timed beside each other, such as `eager`."""
        return tuple(self._entries[op]["implementations"])

    def selected_implementations(self, op: str) -> frozenset[str]:
        """Those of `implementations` that this process measures.

        They are those that the environment variable KERNL_IMPLEMENTATIONS names, with commas
        between them; where it names none, all but those that are measured only where they are
        named, and in the quick profile but some more. Raises ValueError for a name that there is
        not.
        """
        entry = self._entries[op]
        every = frozenset(entry["implementations"])
        if named := self._named_implementations():
            return every & named
        left_out = frozenset(entry.get("left_out", ()))
        if profile() == "quick":
            left_out |= frozenset(entry.get("quick_left_out", ()))
        return every - left_out

    def _named_implementations(self) -> frozenset[str]:
        asked = os.environ.get("KERNL_IMPLEMENTATIONS", "").split(",")
        named = frozenset(name.strip() for name in asked) - {""}
        known = {name for entry in self._entries.values() for name in entry["implementations"]}
        if unknown := sorted(named - known):
            raise ValueError(
                f"KERNL_IMPLEMENTATIONS names {', '.join(map(repr, unknown))}; allowed: names of "
                f"{', '.join(sorted(known))}, with commas between them."
            )
        return named

    def opt_in(self, op: str) -> bool:
        """Whether the operator rounds more than its dtype does: it is reported apart."""
        return bool(self._entries[op]["opt_in"])

    def version(self, op: str) -> int:
        """The version of the operator's cases; results of another version are not compared."""
        return int(self._entries[op]["version"])

    def dims(self, op: str, case: str) -> dict[str, int | bool | str]:
        """The dims of one case by name."""
        return dict(self._entries[op]["kernels"][case]["dims"])

    def dtype(self, op: str, case: str) -> str:
        """The element type of one case: fp16, bf16 or fp32."""
        return str(self._entries[op]["kernels"][case]["dtype"])

    def cost(self, op: str, case: str) -> Cost | None:
        """What one case costs; None for a model, and for an operator or a case not frozen."""
        entry = self._entries.get(op, {})
        found = entry.get("kernels", {}).get(case, {})
        if "flops" not in found:
            return None
        return Cost(found["bytes"], found["flops"], entry.get("arithmetic", found["dtype"]))


def was_left_out(reason: object) -> bool:
    """Whether that is why a point has no result: nobody asked for it."""
    return reason in _NOT_SELECTED


def profile() -> str:
    """What the environment variable KERNL_PROFILE asks for: `full`, or `quick`, a part of it.

    Raises:
        ValueError: it asks for something else.
    """
    asked = os.environ.get("KERNL_PROFILE") or "full"
    if asked not in PROFILES:
        raise ValueError(f"KERNL_PROFILE is {asked!r}; allowed: {', '.join(PROFILES)}.")
    return asked


@cache
def load(path: Path = PATH) -> Frozen:
    """Read the frozen cases.

    Raises:
        ValueError: the file is of another format, or absent; says how to write it.
    """
    try:
        document = json.loads(path.read_text())
        if document["format"] != FORMAT:
            raise ValueError(f"format {document['format']}")
        return Frozen(
            ops=tuple(document["ops"]),
            architectures=tuple(document["architectures"]),
            quick_architectures=tuple(document["quick_architectures"]),
            models=tuple(document["models"]),
            _entries={**document["ops"], **document["models"]},
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} is not a list of frozen cases ({error!r}); allowed: format {FORMAT}; "
            "write it with `python -m benchmarks.freeze`."
        ) from error
