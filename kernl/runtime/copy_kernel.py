"""Copies into a CUDA graph and out of it, by a first and a last kernel of the graph itself.

A graph reads its inputs at fixed places and leaves its outputs at fixed places, while each call
brings tensors of its own and wants new ones. At batch 1 the device copies those in no time, and
what counts is the host: a launch before the replay and one behind it took it longer than all else
in between. Here both are captured with the graph, and a call only says where its tensors are, to a
`KernelNode`; not even that where they are where the last call's were.

Two other ways lost on the H200 runner. Launches of their own take the host 4 µs each. A kernel that
reads addresses in host memory costs the host nothing and takes 20 µs instead of one, as the first
look at such memory after a while does.

An output that is a part of a wider one, as a decoder's values are of its packed projection, lies in
rows with gaps between them; the kernel copies such rows too. A decoder has one for each layer, and
each that PyTorch copied was a launch behind the replay.

PyTorch copies what are not plain bytes (other strides, an address that is no multiple of 16) and
tensors of more than 4 MiB, beside which the host's time is nothing.
"""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import triton
import triton.language as tl

from kernl import interpreter
from kernl.launch import Launch, cdiv, interpreting
from kernl.ops.dependent import wait_for_inputs
from kernl.runtime.graph_node import KernelNode, captured_last

Row = Sequence[torch.Tensor]

PAIRS = 4
"""How many tensors one launch copies."""

_BLOCK = 512  # words of 8 bytes
_MOST_BYTES = 4 << 20
_ALIGNMENT = 16  # bytes, of which a thread moves so many at once
_SRC, _DST = 0, 1  # places among the three arguments of a pair
_NOWHERE = 0  # instead of an address: PyTorch copies this one
_VARYING = [f"{what}{pair}" for pair in range(PAIRS) for what in ("src", "dst", "size")]
_ROWS = [f"{what}{pair}" for pair in range(PAIRS) for what in ("row", "pitch")]


@triton.jit(do_not_specialize=[*_VARYING, *_ROWS])
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
    row0,
    pitch0,
    row1,
    pitch1,
    row2,
    pitch2,
    row3,
    pitch3,
    BLOCK: tl.constexpr,
    PITCHED: tl.constexpr = False,
    PDL: tl.constexpr = False,
):
    """dst[i] = src[i] for the bytes i < size of each of four pairs. Grid: (blocks, pairs).

    Addresses are integers, multiples of 16, so that one binary serves every dtype. Whole vectors
    of 16 bytes are moved as words of 8; the bytes behind them, one by one, by the first program.
    Where PITCHED, src lies in rows of `row` words, `pitch` words from one to the next, and all are
    whole vectors.
    """
    wait_for_inputs(PDL)
    pair = tl.program_id(1)
    src, dst, size, row, pitch = src0, dst0, size0, row0, pitch0
    if pair == 1:
        src, dst, size, row, pitch = src1, dst1, size1, row1, pitch1
    if pair == 2:
        src, dst, size, row, pitch = src2, dst2, size2, row2, pitch2
    if pair == 3:
        src, dst, size, row, pitch = src3, dst3, size3, row3, pitch3

    words = 2 * (size // 16)
    src_ptr = tl.multiple_of(src.to(tl.pointer_type(tl.int64)), 16)
    dst_ptr = tl.multiple_of(dst.to(tl.pointer_type(tl.int64)), 16)
    offs = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = offs < words
    if PITCHED:
        mask = mask & (src != dst)  # nowhere to copy to yet, and rows would close up over others
        row, pitch = tl.multiple_of(row, 2), tl.multiple_of(pitch, 2)
        src_offs = (offs // row).to(tl.int64) * pitch + offs % row
    else:
        src_offs = offs
    tl.store(dst_ptr + offs, tl.load(src_ptr + src_offs, mask=mask), mask=mask)

    if not PITCHED and tl.program_id(0) == 0:
        rest_src_ptr = src.to(tl.pointer_type(tl.int8))
        rest_dst_ptr = dst.to(tl.pointer_type(tl.int8))
        rest_offs = 8 * words + tl.arange(0, 16)
        rest_mask = rest_offs < size
        tl.store(
            rest_dst_ptr + rest_offs,
            tl.load(rest_src_ptr + rest_offs, mask=rest_mask),
            mask=rest_mask,
        )


class _Layout(NamedTuple):
    """Rows of `row` bytes, `pitch` bytes from one to the next; one row where they are equal."""

    row: int
    pitch: int


class _Group:
    """One kernel of a graph, which copies between fixed tensors and those of one call.

    Args:
        fixed: up to four tensors.
        layouts: how they lie, all in one row or none.
        side: which address of a pair varies, `_SRC` or `_DST`.
    """

    def __init__(self, fixed: Row, layouts: Sequence[_Layout], side: int) -> None:
        left = PAIRS - len(fixed)
        pairs = [(tensor.data_ptr(), tensor.nbytes) for tensor in fixed]
        # A pair that is left copies nothing.
        pairs += [(pairs[0][0], 0)] * left
        numbers = [number for place, size in pairs for number in (place, place, size)]
        self._arguments = dict(zip(_VARYING, numbers, strict=True))
        rows = [cdiv(size, 8) for layout in [*layouts, *[layouts[0]] * left] for size in layout]
        self._arguments.update(zip(_ROWS, rows, strict=True))
        self._pitched = layouts[0].row != layouts[0].pitch
        self._grid = max(cdiv(tensor.nbytes, 8 * _BLOCK) for tensor in fixed), len(fixed)
        self._varying = [3 * pair + side for pair in range(len(fixed))]
        self._captured: int | None = None
        self._node: KernelNode | None = None
        self.places = [place for place, _ in pairs[: len(fixed)]]
        """Where the fixed tensors are; from there to there nothing is changed."""
        self.addresses = self.places

    def record(self) -> None:
        """Launch it on the current stream, to copy where `point` said so far."""
        constants = {"BLOCK": _BLOCK, "PITCHED": self._pitched}
        launch = Launch(copy_kernel, self._grid, self._arguments, constants, num_warps=4)
        with interpreter.LOCK:
            launch.run()
        if not interpreting(copy_kernel) and torch.cuda.is_current_stream_capturing():
            self._captured = captured_last(torch.cuda.current_stream().cuda_stream)

    def bind(self, graph: torch.cuda.CUDAGraph) -> None:
        """From now on it is a kernel of that graph, in whose capture it was recorded last.

        Raises:
            OSError: `graph_node` cannot do that here.
        """
        if self._captured is None:
            raise OSError("the driver did not tell the kernel's node")
        self._node = KernelNode(graph, self._captured, self._varying)

    def point(self, addresses: list[int]) -> None:
        """Where the other tensors of replays to come are."""
        if addresses == self.addresses:
            return
        for place, address in zip(self._varying, addresses, strict=True):
            self._arguments[_VARYING[place]] = address
        if self._node is not None:
            self._node.set(addresses)
        self.addresses = addresses


class _Copies:
    """Copies between fixed tensors and those of one call. For one thread at a time.

    Attributes:
        left_to_pytorch: how many tensors PyTorch copied so far.
    """

    def __init__(self, fixed: Row, side: int) -> None:
        self._fixed = fixed
        found = {index: _layout(tensor) for index, tensor in enumerate(fixed)}
        layouts = {index: layout for index, layout in found.items() if layout is not None}
        self._others = [index for index in found if index not in layouts]
        in_one_row = [index for index, layout in layouts.items() if layout.row == layout.pitch]
        in_rows = [index for index in layouts if index not in in_one_row]
        self._groups: list[tuple[_Group, list[int]]] = []
        for indices in (in_one_row, in_rows):
            for start in range(0, len(indices), PAIRS):
                part = indices[start : start + PAIRS]
                tensors, their = [fixed[index] for index in part], [layouts[i] for i in part]
                self._groups.append((_Group(tensors, their, side), part))
        self.left_to_pytorch = 0

    def record(self) -> None:
        """Launch the kernels on the current stream, which may be captured."""
        for group, _ in self._groups:
            group.record()

    def bind(self, graph: torch.cuda.CUDAGraph) -> None:
        """Copy by this graph, in whose capture `record` was called.

        Where the driver is too old for that, PyTorch copies; the graph's kernels then copy tensors
        to themselves.

        Args:
            graph: captured with `keep_graph` and instantiated.
        """
        try:
            for group, _ in self._groups:
                group.bind(graph)
        except OSError:
            self._others, self._groups = list(range(len(self._fixed))), []


class Inputs(_Copies):
    """Copies the tensors of a call to fixed places, which are contiguous."""

    def __init__(self, places: Row) -> None:
        super().__init__(places, _SRC)

    def take(self, tensors: Row) -> None:
        """Let the next replay read these, one for each place, of its shape, dtype and device."""
        for group, indices in self._groups:
            addresses = [_address(tensors[index]) for index in indices]
            if _NOWHERE in addresses:
                for at, (index, place) in enumerate(zip(indices, group.places, strict=True)):
                    if addresses[at] == _NOWHERE:
                        addresses[at] = place
                        self._copy(index, tensors)
            group.point(addresses)
        for index in self._others:
            self._copy(index, tensors)

    def _copy(self, index: int, tensors: Row) -> None:
        self._fixed[index].copy_(tensors[index])
        self.left_to_pytorch += 1


class Outputs(_Copies):
    """Copies fixed tensors to new ones, as `clone` does."""

    def __init__(self, sources: Row) -> None:
        # Other objects around the same memory, which stays then whatever is done to a source.
        super().__init__([source.detach() for source in sources], _DST)
        self._makers = [
            functools.partial(torch.empty_like, source) if index in self._others else _maker(source)
            for index, source in enumerate(self._fixed)
        ]
        self._missing: list[int] = []

    def give(self) -> list[torch.Tensor]:
        """New tensors, one for each source, which the next replay and `rest` behind it fill."""
        fresh = [make() for make in self._makers]
        self._missing = self._others
        for group, indices in self._groups:
            addresses = [fresh[index].data_ptr() for index in indices]
            for at, address in enumerate(addresses):
                if address % _ALIGNMENT:  # of an allocator that is not PyTorch's own
                    addresses[at] = group.places[at]
                    self._missing = [*self._missing, indices[at]]
            group.point(addresses)
        return fresh

    def rest(self, fresh: Row) -> None:
        """Fill those that the replay did not."""
        for index in self._missing:
            fresh[index].copy_(self._fixed[index])
            self.left_to_pytorch += 1


def _address(tensor: torch.Tensor, /) -> int:
    """Where a call's tensor is; `_NOWHERE` for one that is not its bytes in a row from there on."""
    if (
        type(tensor) is not torch.Tensor  # its bytes may mean something else
        or not tensor.is_contiguous()
        or tensor.is_neg()  # such as the imaginary part of a conjugate
    ):
        return _NOWHERE
    address = tensor.data_ptr()
    return _NOWHERE if address % _ALIGNMENT else address


def _layout(tensor: torch.Tensor) -> _Layout | None:
    """How it lies in memory, in the order of what is copied from it; None where PyTorch copies it.

    That is where it is not what its bytes are, from an aligned address on, within reach.
    """
    if tensor.layout is not torch.strided or not 0 < tensor.nbytes <= _MOST_BYTES:
        return None
    if tensor.is_complex() or tensor.is_neg() or tensor.is_quantized:
        return None
    if tensor.data_ptr() % _ALIGNMENT:
        return None
    copied = torch.empty_like(tensor, device="meta").stride()
    if tensor.stride() == copied:
        return _Layout(tensor.nbytes, tensor.nbytes)
    return _rows(tensor, copied)


def _rows(tensor: torch.Tensor, copied: Sequence[int]) -> _Layout | None:
    """The rows that it lies in, alike and whole vectors; None where it does not.

    `copied` are the strides of its dense copy: they say in which order its dimensions lie.
    """
    dims = zip(copied, tensor.shape, tensor.stride(), strict=True)
    inner_first = sorted((dim for dim in dims if dim[1] > 1), key=lambda dim: dim[0])
    row, pitch, rows = tensor.itemsize, 0, 1
    for _, size, stride in inner_first:
        step = stride * tensor.itemsize
        if not pitch and step == row:
            row *= size
        elif not pitch and step > row:
            pitch, rows = step, size
        elif pitch and step == pitch * rows:
            rows *= size
        else:
            return None
    if not pitch:
        return _Layout(row, row)
    return None if row % _ALIGNMENT or pitch % _ALIGNMENT else _Layout(row, pitch)


def _maker(source: torch.Tensor) -> Callable[[], torch.Tensor]:
    """Makes tensors like this one, with nothing in them, on the current device.

    By what the code that `torch.compile` writes calls, which takes half the time of `empty_like`.
    """
    quick = getattr(torch._C._dynamo.guards, f"_empty_strided_{source.device.type}", None)
    if quick is None:
        return functools.partial(torch.empty_like, source)
    strides = torch.empty_like(source, device="meta").stride()
    return functools.partial(quick, tuple(source.shape), strides, source.dtype)
