"""The operands of one matrix product as the kernels of `linear` see them."""

import math
from typing import Any, NamedTuple

import torch

from kernl.ops.epilogue import Epilogue
from kernl.ops.tile import VECTOR_BYTES, rows_aligned


class Product(NamedTuple):
    """x (m, k), weight (n, k), out (m, n) contiguous, and what follows the product."""

    x: torch.Tensor
    weight: torch.Tensor
    out: torch.Tensor
    epilogue: Epilogue

    @property
    def sizes(self) -> tuple[int, int, int]:
        """m, n and k."""
        return self.x.shape[0], self.weight.shape[0], self.x.shape[1]

    @property
    def aligned(self) -> bool:
        """Whether rows, or columns of a transposed operand, start at multiples of 16 bytes."""
        return rows_aligned(self.x, self.weight)

    @property
    def stride_unit(self) -> int:
        """In how many elements the kernels are told the rows' strides.

        Triton sees that a stride is a multiple of 16 elements, and loads whole vectors. Rows of
        1,000 halves start at multiples of 16 bytes too, which it can only see when told so.
        """
        unit = VECTOR_BYTES // self.x.itemsize
        strides = (self.x.stride(0), self.weight.stride(0))
        if all(stride % 16 == 0 for stride in strides):
            return 1
        return unit if all(stride % unit == 0 for stride in strides) else 1

    @property
    def beside(self) -> int:
        """How many rows of a transposed weight a vector may hold: 16, 8, 4, 2 or 1."""
        # A single column lies both ways, and counts as rows.
        transposed = self.weight.stride(0) == 1 and self.weight.stride(1) > 1
        return math.gcd(self.weight.shape[0], 16) if transposed else 1

    @property
    def operands(self) -> dict[str, Any]:
        """The run-time arguments that every kernel of a product takes."""
        return {
            "x_ptr": self.x,
            "weight_ptr": self.weight,
            "stride_x_m": self.x.stride(0) // self.stride_unit,
            "stride_x_k": self.x.stride(1),
            "stride_weight_n": self.weight.stride(0) // self.stride_unit,
            "stride_weight_k": self.weight.stride(1),
        }
