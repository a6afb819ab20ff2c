"""What `cache_dir` keeps on disk, so that the next process is ready sooner.

    cache_dir/FINGERPRINT/triton/          compiled kernels, as Triton keeps them
                          spellings.json   of which operators each spelling consists
                          choices.json     what was the fastest way to run a graph

The fingerprint changes with all that could make one of these stale: the GPU, torch, triton,
transformers, kernl's sources.
"""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
import transformers
import triton
from torch import fx

from kernl.disk import is_writable, read_json, write_json
from kernl.rewrite import known
from kernl.runtime.runner import Capture
from kernl.tuned_cache import fingerprint

_SOURCES = Path(__file__).parent.parent


class Choice(NamedTuple):
    """What was the fastest way to run a graph.

    Attributes:
        early: as `Capture` says.
        ahead: as `Capture` says.
        as_written: by PyTorch's kernels, not by those that rewriting put in; None where nobody
            compared them.
    """

    early: bool
    ahead: bool
    as_written: bool | None

    @property
    def capture(self) -> Capture:
        """How it was captured."""
        return Capture(self.early, self.ahead)


class Kept:
    """The folder of one GPU and stack. What cannot be read or written counts as absent.

    Args:
        cache_dir: of the user.
        device: of the model.
    """

    def __init__(self, cache_dir: Path, device: torch.device) -> None:
        gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
        self.folder = cache_dir / _fingerprint(gpu)
        known.load(self.folder / "spellings.json")
        self._choices = _read_choices(self.folder / "choices.json")

    @contextmanager
    def compiling(self) -> Iterator[None]:
        """Inside, Triton keeps compiled kernels in the folder, where that can be written to."""
        folder = self.folder / "triton"
        with triton.knobs.cache.scope():
            if is_writable(folder):
                triton.knobs.cache.dir = str(folder)
            yield

    def choice(self, graph: str) -> Choice | None:
        """How this graph is run to be fastest; None where nobody knows."""
        return self._choices.get(graph)

    def note(self, graph: str, choice: Choice) -> None:
        """Keep what was the fastest way to run a graph."""
        if self._choices.get(graph) != choice:
            path = self.folder / "choices.json"
            self._choices = {**_read_choices(path), **self._choices, graph: choice}
            write_json(path, {name: way._asdict() for name, way in self._choices.items()})

    def save_spellings(self) -> None:
        """Keep of which operators each spelling consists."""
        known.save(self.folder / "spellings.json")


def name_of(graph: fx.GraphModule, tensors: Sequence[torch.Tensor]) -> str:
    """A name for a graph on tensors of these shapes: same name, same kernels on same sizes."""
    digest = hashlib.sha256(graph.code.encode())
    for tensor in (*tensors, *graph.parameters(), *graph.buffers()):
        digest.update(f"{tuple(tensor.shape)} {tensor.dtype}\0".encode())
    return digest.hexdigest()[:24]


def _fingerprint(gpu: str) -> str:
    digest = hashlib.sha256(f"{fingerprint(gpu)} {transformers.__version__}".encode())
    for path in sorted(_SOURCES.glob("*/*.py")) + sorted(_SOURCES.glob("tuned/*.csv")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def _read_choices(path: Path) -> dict[str, Choice]:
    return {
        name: Choice(**way)
        for name, way in read_json(path).items()
        if isinstance(way, dict)
        and way.keys() == set(Choice._fields)
        and all(isinstance(way[key], bool) for key in Capture._fields)
        and way["as_written"] in (True, False, None)
    }
