"""Copies of a few tensors, as raw bytes, in one launch that costs the host little.

A call by CUDA graph copies its inputs to where the graph reads them, and its outputs to tensors
that the user may keep. At batch 1 the device does that in no time, so what counts is the host's: a
`torch._foreach_copy_` and a `clone` for each output took it longer than all else beside the replay.
Here one launch copies up to four tensors, and calls Triton's launcher directly: `kernel[grid](…)`
looks the compiled kernel up by its arguments, which takes several times as long as to launch it.

PyTorch copies what are not plain bytes (other strides, an address that is no multiple of 16) and
tensors of more than 4 MiB, beside which the host's time is nothing.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl

from kernl import interpreter
from kernl.launch import cdiv, interpreting

Row = Sequence[torch.Tensor]

Told = tuple[Callable[..., object], list[Any], list[Any]]
"""A launcher, what it is told, and the list in there that ends in the kernel's arguments."""

PAIRS = 4
"""How many tensors one launch copies."""

_BLOCK = 512  # words of 8 bytes
_MOST_BYTES = 4 << 20
_ALIGNMENT = 16  # bytes, of which a thread moves so many at once
_SRC, _DST = 0, 1  # places among the three arguments of a pair
_STREAM = 3  # the place behind the grid among what a launcher is told
_VARYING = [f"{what}{pair}" for pair in range(PAIRS) for what in ("src", "dst", "size")]


@triton.jit(do_not_specialize=_VARYING)
def copy_kernel(
    src0,
    dst0,
    size0,
    src1,
    dst1,
    size1,
    src2,
    dst2,
    size2,
    src3,
    dst3,
    size3,
    BLOCK: tl.constexpr,
):
    """dst[i] = src[i] for the bytes i < size of each of four pairs. Grid: (blocks, pairs).

    Addresses are integers, multiples of 16, so that one binary serves every dtype. Whole vectors
    of 16 bytes are moved as words of 8; the bytes behind them, one by one, by the first program.
    """
    pair = tl.program_id(1)
    src, dst, size = src0, dst0, size0
    if pair == 1:
        src, dst, size = src1, dst1, size1
    if pair == 2:
        src, dst, size = src2, dst2, size2
    if pair == 3:
        src, dst, size = src3, dst3, size3

    words = 2 * (size // 16)
    src_ptr = tl.multiple_of(src.to(tl.pointer_type(tl.int64)), 16)
    dst_ptr = tl.multiple_of(dst.to(tl.pointer_type(tl.int64)), 16)
    offs = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = offs < words
    tl.store(dst_ptr + offs, tl.load(src_ptr + offs, mask=mask), mask=mask)

    if tl.program_id(0) == 0:
        rest_src_ptr = src.to(tl.pointer_type(tl.int8))
        rest_dst_ptr = dst.to(tl.pointer_type(tl.int8))
        rest_offs = 8 * words + tl.arange(0, 16)
        rest_mask = rest_offs < size
        tl.store(
            rest_dst_ptr + rest_offs,
            tl.load(rest_src_ptr + rest_offs, mask=rest_mask),
            mask=rest_mask,
        )


class _Copies:
    """Copies between fixed tensors and those of one call. For one thread at a time.

    Args:
        fixed: on the current device.
        side: what varies, the address to read, `_SRC`, or the one to write, `_DST`.

    Attributes:
        left_to_pytorch: how many tensors PyTorch copied so far.
    """

    def __init__(self, fixed: Row, side: int) -> None:
        self._fixed, self._side = fixed, side
        self._launches, self._others = _launches(fixed, side)
        self.left_to_pytorch = 0

    def _copy(self, tensors: Row, stream: int) -> None:
        """All but what was never ours, one tensor of the call for each fixed one."""
        for launch, told, args, varying in self._launches:
            for index, at, real in varying:
                address = self._address(tensors[index], real)
                if address % _ALIGNMENT:
                    self._leave([index for index, _, _ in varying], tensors)
                    break
                args[at] = address
            else:
                told[_STREAM] = stream
                launch(*told)

    def _address(self, tensor: torch.Tensor, real: bool, /) -> int:
        """Where its bytes are; an odd number for a tensor that PyTorch must copy."""
        raise NotImplementedError

    def _leave(self, indices: Sequence[int], tensors: Row) -> None:
        for index in indices:
            given, fixed = tensors[index], self._fixed[index]
            source, target = (given, fixed) if self._side == _SRC else (fixed, given)
            target.copy_(source)
        self.left_to_pytorch += len(indices)


class Inputs(_Copies):
    """Copies the tensors of a call to fixed places, which are contiguous."""

    def __init__(self, places: Row) -> None:
        super().__init__(places, _SRC)

    def take(self, tensors: Row, stream: int) -> None:
        """Copy.

        Args:
            tensors: one for each place, of its shape, dtype and device.
            stream: handle of the current stream, on which they are copied.
        """
        self._copy(tensors, stream)
        if self._others:
            self._leave(self._others, tensors)

    def _address(self, tensor: torch.Tensor, real: bool, /) -> int:
        if (
            type(tensor) is not torch.Tensor  # its bytes may mean something else
            or not tensor.is_contiguous()
            or (real and tensor.is_neg())  # such as the imaginary part of a conjugate
        ):
            return 1
        return tensor.data_ptr()


class Outputs(_Copies):
    """Copies fixed tensors to new ones, as `clone` does."""

    def __init__(self, sources: Row) -> None:
        # Other objects around the same memory, which stays then whatever is done to a source.
        super().__init__([source.detach() for source in sources], _DST)
        self._makers = [
            source.clone if index in self._others else _maker(source)
            for index, source in enumerate(self._fixed)
        ]

    def give(self, stream: int) -> list[torch.Tensor]:
        """New tensors, one for each source.

        Args:
            stream: handle of the current stream, on which they are copied.
        """
        fresh = [make() for make in self._makers]
        self._copy(fresh, stream)
        self.left_to_pytorch += len(self._others)
        return fresh

    def _address(self, tensor: torch.Tensor, _real: bool, /) -> int:
        return tensor.data_ptr()  # not aligned by an allocator that is not PyTorch's own


def _maker(source: torch.Tensor) -> Callable[[], torch.Tensor]:
    """Makes tensors like this one, with nothing in them, on the current device.

    By what the code that `torch.compile` writes calls, which takes half the time of `empty_like`.
    """
    quick = getattr(torch._C._dynamo.guards, f"_empty_strided_{source.device.type}", None)
    if quick is None:
        return functools.partial(torch.empty_like, source)
    return functools.partial(quick, tuple(source.shape), source.stride(), source.dtype)


class _Launch(NamedTuple):
    """One launch for up to four fixed tensors: `launch(*told)`.

    Attributes:
        launch: the launcher.
        told: what it is told: the grid, the stream, and more that ends in what the kernel is told.
        args: the list, `told` or one in it, that holds the addresses.
        varying: each tensor's index in the row, the place of the other address in `args`, and
            whether it is a floating one.
    """

    launch: Callable[..., object]
    told: list[Any]
    args: list[Any]
    varying: list[tuple[int, int, bool]]


def _launches(fixed: Row, side: int) -> tuple[list[_Launch], list[int]]:
    """Launches that copy from or to fixed tensors, and the indices of those that they do not.

    Args:
        fixed: tensors on the current device.
        side: which address of a pair varies, `_SRC` or `_DST`.
    """
    ours = [index for index, tensor in enumerate(fixed) if _is_plain(tensor)]
    others = [index for index in range(len(fixed)) if index not in ours]
    parts = [ours[start : start + PAIRS] for start in range(0, len(ours), PAIRS)]
    return [_launch(fixed, part, side) for part in parts], others


def _is_plain(tensor: torch.Tensor) -> bool:
    """Whether it is what its bytes are, in a row from an aligned address on, within reach."""
    if tensor.layout is not torch.strided or not 0 < tensor.nbytes <= _MOST_BYTES:
        return False
    if tensor.is_complex() or tensor.is_neg() or tensor.is_quantized:
        return False
    if tensor.stride() != torch.empty_like(tensor).stride() or tensor.data_ptr() % _ALIGNMENT:
        return False
    if interpreting(copy_kernel):
        return tensor.device.type == "cpu"
    return tensor.device.type == "cuda" and _compiled(tensor.device.index) is not None


def _launch(fixed: Row, indices: Sequence[int], side: int) -> _Launch:
    tensors = [fixed[index] for index in indices]
    args, grid = _arguments(tensors), _grid(tensors)
    if interpreting(copy_kernel):
        launch, told, args = _interpreted(grid, args)
    else:
        launch, told, args = _direct(_compiled(tensors[0].device.index), grid, args)
    first = len(args) - 3 * PAIRS - 1
    varying = [
        (index, first + 3 * pair + side, fixed[index].is_floating_point())
        for pair, index in enumerate(indices)
    ]
    return _Launch(launch, told, args, varying)


def _arguments(tensors: Row) -> list[Any]:
    """Of a launch that copies tensors to themselves, and nothing in the pairs that are left."""
    pairs = [(tensor.data_ptr(), tensor.nbytes) for tensor in tensors]
    pairs += [(pairs[0][0], 0)] * (PAIRS - len(pairs))
    return [number for address, size in pairs for number in (address, address, size)] + [_BLOCK]


def _grid(tensors: Row) -> tuple[int, int]:
    return max(cdiv(tensor.nbytes, 8 * _BLOCK) for tensor in tensors), len(tensors)


@functools.cache
def _compiled(index: int) -> Any:
    """The kernel, compiled for this device, the current one; None where it cannot be launched.

    That is tried once: what a launcher takes is no promise of Triton's. PyTorch's copies then cost
    the host less than a launch by `kernel[grid](…)`.
    """
    source = torch.arange(3 * _BLOCK, device=torch.device("cuda", index))
    target = torch.zeros_like(source)
    args, grid = _arguments([source]), _grid([source])
    try:
        kernel = copy_kernel[grid](*args)
        args[_DST] = target.data_ptr()
        launch, told, _ = _direct(kernel, grid, args)
        told[_STREAM] = torch._C._cuda_getCurrentRawStream(index)
        launch(*told)
    except Exception:
        return None
    return kernel if torch.equal(source, target) else None


def _direct(kernel: Any, grid: tuple[int, int], args: list[Any]) -> Told:
    """The launcher in C, past Triton's binder and hooks. Raises where it is another one."""
    launcher = kernel.run  # loads the binary, so it comes first
    if launcher.global_scratch_size or launcher.profile_scratch_size:
        raise ValueError("it wants memory of its own")
    place = [*grid, 1, 0]
    kind = (kernel.function, launcher.launch_cooperative_grid, launcher.launch_pdl)
    # Scratch memory of two kinds; metadata for hooks, a hook before, a hook behind.
    scratch, hooks = (None, None), (None, None, None)
    if hasattr(launcher, "kernel_signature"):  # Triton 3.7: one launcher, told each signature
        signature = (launcher.arg_annotations, launcher.kernel_signature)
        front = [*place, *kind, kernel.packed_metadata, *hooks, *scratch, *signature]
        return launcher.launch, [*front, args], args
    # Triton 3.6: one launcher for each signature
    told = [*place, *kind, *scratch, kernel.packed_metadata, *hooks, *args]
    return launcher.launch, told, told


def _interpreted(grid: tuple[int, int], args: list[Any]) -> Told:
    def launch(x: int, y: int, z: int, _stream: int, *args: int) -> None:
        with interpreter.LOCK:
            copy_kernel[(x, y, z)](*args)

    told = [*grid, 1, 0, *args]
    return launch, told, told
