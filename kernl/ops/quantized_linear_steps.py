"""The steps of `quantized_linear` on each of its paths."""

from typing import Any, NamedTuple

import torch

from kernl.launch import Launch, LibraryCall, cdiv, next_power_of_2
from kernl.ops.epilogue import Epilogue, finish_launch
from kernl.ops.linear import library_steps
from kernl.ops.product import Product
from kernl.ops.quantized_linear_config import QuantizedConfig
from kernl.ops.quantized_linear_kernels import (
    dequantize_kernel,
    quantized_gemv_kernel,
    quantized_tile_kernel,
)


class Quantized(NamedTuple):
    """A weight as the kernels see it: its bits, and how many integers share a scale."""

    weight: torch.Tensor
    scale: torch.Tensor
    bits: int
    group: int

    @property
    def args(self) -> dict[str, Any]:
        """Run-time arguments of every kernel that reads it."""
        return {
            "weight_ptr": self.weight,
            "scale_ptr": self.scale,
            "stride_weight_n": self.weight.stride(0),
            "stride_weight_k": self.weight.stride(1),
            "stride_scale_n": self.scale.stride(0),
            "stride_scale_k": self.scale.stride(1),
        }


def _operands(product: Product, quantized: Quantized) -> dict[str, Any]:
    m, n, k = product.sizes
    return {
        "x_ptr": product.x,
        **quantized.args,
        "m": m,
        "n": n,
        "k": k,
        "stride_x_m": product.x.stride(0),
        "stride_x_k": product.x.stride(1),
    }


def tile_steps(
    product: Product, quantized: Quantized, config: QuantizedConfig
) -> tuple[Launch | LibraryCall, ...]:
    """One launch: a program computes a tile."""
    return (_products(product, quantized, config, product.out, product.epilogue, 1),)


def split_steps(
    product: Product, quantized: Quantized, config: QuantizedConfig
) -> tuple[Launch | LibraryCall, ...]:
    """Two launches: programs share a tile's inner dimension, then their sums are added up."""
    m, n, _ = product.sizes
    steps = _steps(product, quantized, config)
    # As many programs as have work: 5 steps for 4 programs are 2 + 2 + 1.
    splits = cdiv(steps, cdiv(steps, config.split_k))
    partial = product.x.new_empty((splits, m, n), dtype=torch.float32)
    nothing = Epilogue(None, "none", None)
    products = _products(product, quantized, config, partial, nothing, splits)
    return (products, finish_launch(product.out, partial, product.epilogue))


def _block_k(quantized: Quantized, config: QuantizedConfig) -> int:
    """Bytes of one step: 4 bits take a group at once, 8 bits no more than a group."""
    if quantized.bits == 4:
        return quantized.group // 2
    grouped = quantized.scale.shape[1] > 1
    return min(config.block_k, quantized.group) if grouped else config.block_k


def _steps(product: Product, quantized: Quantized, config: QuantizedConfig) -> int:
    return cdiv(product.sizes[2] * quantized.bits // 8, _block_k(quantized, config))


def _products(
    product: Product,
    quantized: Quantized,
    config: QuantizedConfig,
    out: torch.Tensor,
    epilogue: Epilogue,
    splits: int,
) -> Launch:
    m, n, k = product.sizes
    block_k = _block_k(quantized, config)
    in_step = block_k * 8 // quantized.bits
    one_scale = quantized.scale.shape[1] == 1 and quantized.bits == 8
    return Launch(
        kernel=quantized_tile_kernel,
        grid=(cdiv(m, config.block_m) * cdiv(n, config.block_n), splits),
        args={
            **_operands(product, quantized),
            **epilogue.args(product.x),
            "out_ptr": out,
            "steps_per_split": cdiv(_steps(product, quantized, config), splits),
        },
        constants={
            **epilogue.constants,
            "BITS": quantized.bits,
            "STEPS_PER_GROUP": 0 if one_scale else quantized.group // in_step,
            "EVEN_K": k % in_step == 0,
            "BLOCK_M": config.block_m,
            "BLOCK_N": config.block_n,
            "BLOCK_K": block_k,
            "GROUP_M": 8,
        },
        num_warps=config.num_warps,
        num_stages=config.num_stages,
    )


def gemv_steps(
    product: Product, quantized: Quantized, config: QuantizedConfig
) -> tuple[Launch | LibraryCall, ...]:
    """One launch without tensor cores, for a few rows."""
    m, n, _ = product.sizes
    return (
        Launch(
            kernel=quantized_gemv_kernel,
            grid=(cdiv(n, config.block_n),),
            args={
                **_operands(product, quantized),
                **product.epilogue.args(product.x),
                "out_ptr": product.out,
                "group_size": quantized.group,
            },
            constants={
                **product.epilogue.constants,
                "BITS": quantized.bits,
                "BLOCK_M": next_power_of_2(m),
                "BLOCK_N": config.block_n,
                "BLOCK_K": config.block_k,
            },
            num_warps=config.num_warps,
        ),
    )


def dequantized_steps(
    product: Product, quantized: Quantized, config: QuantizedConfig
) -> tuple[Launch | LibraryCall, ...]:
    """The weight as floats, then cuBLAS, then a pass for what that leaves over."""
    _, n, k = product.sizes
    dense = product.x.new_empty((n, k))
    block_k = min(config.block_k, next_power_of_2(quantized.weight.shape[1]))
    dequantize = Launch(
        kernel=dequantize_kernel,
        grid=(n, cdiv(quantized.weight.shape[1], block_k)),
        args={**quantized.args, "out_ptr": dense, "k": k, "group_size": quantized.group},
        constants={"BITS": quantized.bits, "BLOCK_K": block_k},
        num_warps=4,
    )
    return (dequantize, *library_steps(product._replace(weight=dense)))
