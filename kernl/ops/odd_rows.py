"""Rows that start anywhere in memory, walked so that a thread still reads 16 bytes at once.

Rows of an odd width, such as 131071, start at any multiple of an element's size. For a thread to
load a vector of 16 bytes the compiler must know that it lies at a multiple of 16 bytes, and that
it is never half inside of the row. So a row is cut at its first and its last such multiple:

    start of the row                                          end of the row
       │←─ head ─→│←──────────────── inner ────────────────→│←─ tail ─→│
               begin                                  begin + inner

The inner part is walked in blocks as an aligned row is. Head and tail, fewer than VECTOR elements
each, are one small block beside it, the edges. All offsets count from `begin`, so that column 0
has offset -head. Nothing outside of the row is read or written. What belongs to columns, such as a
weight, lies otherwise for each row, and stays read element by element.

VECTOR is the number of elements in 16 bytes; or 1, which makes all of a row its inner part, where
the compiler knows by itself how rows lie, or where they lie in a way that this does not help.
"""

import torch
import triton
import triton.language as tl

from kernl.ops.tile import VECTOR_BYTES

_KNOWN_MULTIPLE = 16
"""Triton compiles a kernel anew for integers that are multiples of this, and knows it then."""


def vector_of_rows(*tensors: torch.Tensor) -> int:
    """VECTOR for a kernel that reads rows of these tensors (rows, cols), all of one dtype.

    One cut serves all of them, and the contiguous outputs too: a row's head has to be as long in
    each, and each has to start at a multiple of 16 bytes.
    """
    cols, vector = tensors[0].shape[1], VECTOR_BYTES // tensors[0].itemsize
    strides = [cols, *(one.stride(0) for one in tensors)]
    known = all(stride % _KNOWN_MULTIPLE == 0 for stride in strides)
    alike = len({stride % vector for stride in strides}) == 1
    aligned = all(one.stride(1) == 1 and one.data_ptr() % VECTOR_BYTES == 0 for one in tensors)
    return vector if aligned and alike and not known and cols >= vector else 1


@triton.jit
def row_begin(row, stride_row, VECTOR: tl.constexpr):
    """Offset of the first multiple of VECTOR in a row; the compiler sees that it is one."""
    return (row * stride_row + (VECTOR - 1)) // VECTOR * VECTOR


@triton.jit
def cut_row(row, stride_row, cols, VECTOR: tl.constexpr):
    """How many columns are the row's head, and how many its inner part, a multiple of VECTOR."""
    head = (row_begin(row, stride_row, VECTOR) - row * stride_row).to(tl.int32)
    return head, (cols - head) // VECTOR * VECTOR


@triton.jit
def row_edges(head, inner, cols, VECTOR: tl.constexpr):
    """Offsets (2 · VECTOR,) of a row's head and tail, and a mask of those that are columns."""
    lanes = tl.arange(0, 2 * VECTOR)
    offs = tl.where(lanes < VECTOR, lanes, lanes + inner) - VECTOR
    return offs, (offs >= -head) & (offs < cols - head)
