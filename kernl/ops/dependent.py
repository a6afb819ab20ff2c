"""Programmatic dependent launch: a kernel's programs start while the kernel before them ends.

In a chain of small kernels each waits for the one before it to end and to be cleared away, and
only then starts its programs and reads its first weights. Hopper can start them earlier. Up to
`wait_for_inputs` a kernel may do what depends on nothing that the kernel before it writes, such as
asking for weights; from there on all that came before is done and seen. So a kernel

- writes nothing and reads no activation before it has waited, and waits in every program, also
  where there is nothing to do: what follows relies on its own predecessor alone;
- only asks for weights to be brought into L2 before it waits. L2 is where all kernels meet, so it
  does not matter that the one before may be writing them. Of programs that read the same weights
  one asks: L2 answers the same line to one after another, and a thousand of them make a norm of
  2 µs one of 8 (H100).

PDL is False unless `kernl.launch.dependent_launches` is on, and then nothing is compiled in.

Source: CUDA C++ Programming Guide, "Programmatic Dependent Launch and Synchronization".
"""

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

_LINE_BITS = tl.constexpr(8 * 128)


@triton.jit
def wait_for_inputs(PDL: tl.constexpr):
    """Wait until the kernel before this one is done; let the one after it start its programs."""
    if PDL:
        gdc_wait()
        gdc_launch_dependents()


@triton.jit
def prefetch(addresses):
    """Ask for the lines of 128 bytes at these addresses (int64) to be in L2."""
    tl.inline_asm_elementwise(
        "prefetch.global.L2 [$1]; mov.u32 $0, 0;",
        "=r,l",
        [addresses],
        dtype=tl.int32,
        is_pure=False,
        pack=1,
    )


@triton.jit
def prefetch_rows(row_ptrs, first, last, PDL: tl.constexpr, LINES: tl.constexpr = 16):
    """Ask for elements [first, last) of some rows to be in L2. row_ptrs (rows,): their starts.

    The first LINES of 128 bytes of each row: what follows them is asked for in time by itself.
    """
    if PDL:
        STEP: tl.constexpr = _LINE_BITS // row_ptrs.dtype.element_ty.primitive_bitwidth
        columns = tl.minimum(first + tl.arange(0, LINES).to(tl.int64) * STEP, last - 1)
        prefetch((row_ptrs[:, None] + columns[None, :]).to(tl.int64))
