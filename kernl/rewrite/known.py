"""Of which operators each spelling consists: one that lacks one in a graph cannot stand there.

Finding out takes a trace of each spelling, seconds for all of them. Once known it is kept in
memory, and `load` and `save` keep it on disk for the next process.
"""

from pathlib import Path

import torch
from torch import fx

from kernl.disk import read_json, write_json
from kernl.op import Spelling
from kernl.rewrite.match import example_graph

_parts: dict[str, tuple[str, ...]] = {}


def parts_of(
    name: str, spelling: Spelling, dtype: torch.dtype, device: torch.device
) -> tuple[str, ...]:
    """The operators of a spelling in this dtype, in order; `name` tells it from all others."""
    key = f"{name} {dtype} {device.type}"
    if key not in _parts:
        _parts[key] = targets(example_graph(spelling, dtype, device))
    return _parts[key]


def targets(graph: fx.Graph) -> tuple[str, ...]:
    """The operators of a graph, in order."""
    return tuple(str(node.target) for node in graph.nodes if node.op == "call_function")


def load(path: Path) -> None:
    """Take what was kept, over what is not known yet."""
    for key, parts in read_json(path).items():
        if isinstance(parts, list) and all(isinstance(part, str) for part in parts):
            _parts.setdefault(key, tuple(parts))


def save(path: Path) -> None:
    """Keep what is known."""
    write_json(path, {key: list(parts) for key, parts in _parts.items()})
