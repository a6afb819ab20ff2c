"""Weights asked for ahead: L2 fetches them while kernels run that leave the memory idle.

In a small batch a model's kernels are short, and each linear layer begins by waiting for weights
that nothing has read since the last call. A graph says long before which they will be. So beside
its kernels runs a second branch of small ones, which only ask: weights come into L2 while norms,
attention and the layers before compute. Numbers do not change, and neither does what is written.

A graph holds calls of `ask`, put there by `kernl.optimize.weights_ahead`. They do nothing but
inside `asking`: where a CUDA graph is captured that may turn out faster so.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
import triton
import triton.language as tl

from kernl.launch import cdiv
from kernl.ops.dependent import prefetch

_LINE = 128  # bytes that L2 fetches at once
_LINES = 1024  # of one program


class _Branch:
    """The stream that asks, and whether it has been asked to."""

    def __init__(self, device: torch.device) -> None:
        self.stream = torch.cuda.Stream(device)
        self.used = False


_branch: ContextVar[_Branch | None] = ContextVar("branch", default=None)


@triton.jit
def prefetch_kernel(ptr, size, LINE: tl.constexpr, LINES: tl.constexpr):
    """Ask for the bytes [0, size) behind ptr to be in L2; each program for LINES lines of them."""
    lines = tl.program_id(0) * LINES + tl.arange(0, LINES)
    offs = tl.minimum(lines.to(tl.int64) * LINE, size - 1)
    prefetch((ptr + offs).to(tl.int64))


@contextmanager
def asking(device: torch.device) -> Iterator[None]:
    """Inside, `ask` asks; the current stream, that of a capture too, waits at the end."""
    branch = _Branch(device)
    token = _branch.set(branch)
    try:
        yield
        if branch.used:
            torch.cuda.current_stream(device).wait_stream(branch.stream)
    finally:
        _branch.reset(token)


def ask(*parts: torch.Tensor | int) -> None:
    """Ask for parts of weights, once all that the current stream was given so far is done.

    Args:
        parts: by threes a contiguous tensor, its first byte and the one behind the last.
    """
    branch = _branch.get()
    if branch is None:
        return
    branch.used = True
    branch.stream.wait_stream(torch.cuda.current_stream(branch.stream.device))
    with torch.cuda.stream(branch.stream):
        for tensor, first, end in zip(parts[::3], parts[1::3], parts[2::3], strict=True):
            assert isinstance(tensor, torch.Tensor)
            assert isinstance(first, int)
            assert isinstance(end, int)
            _ask(tensor, first, end)


def _ask(tensor: torch.Tensor, first: int, end: int) -> None:
    whole = tensor.detach().view(-1).view(torch.uint8)
    grid = (cdiv(end - first, _LINE * _LINES),)
    prefetch_kernel[grid](whole[first:], end - first, LINE=_LINE, LINES=_LINES, num_warps=4)
