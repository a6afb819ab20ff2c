"""Op and Case: what a kernel declares, and the one point at which it is tested and measured.

From an `Op` derive the contract tests, the FX patterns, the asv cases, the compile-only cases and
the dashboard page. A `Case` is frozen: its name is its dims and its dtype, and nothing else.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from kernl.errors import ArgumentError, KernlError, OptionError, ShapeError
from kernl.launch import Plan
from kernl.shapes import MODELS, ModelShape, Workload, workloads

Dim = int | bool | str
Dims = Mapping[str, Dim]
Outputs = torch.Tensor | tuple[torch.Tensor, ...]

DTYPES: dict[str, torch.dtype] = {
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
    "fp32": torch.float32,
}

_DIM_NAME = re.compile(r"[a-z][a-z_]*")


@dataclass(frozen=True)
class Case:
    """One shape and dtype of one operator.

    A size is an int ≥ 1, a flag is a bool, a choice is a lower-case word.

    Raises:
        ArgumentError: a dim is no int, bool or str.
        ShapeError: a size is below 1.
        OptionError: a name, a choice or the dtype cannot stand in a case's name.
    """

    dims: tuple[tuple[str, Dim], ...]
    dtype: str

    @classmethod
    def of(cls, dtype: str, **dims: Dim) -> "Case":
        """The case with these dims, in the order given."""
        return cls(tuple(dims.items()), dtype)

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise OptionError(
                seen=f"dtype {self.dtype!r}",
                allowed=", ".join(DTYPES),
                action="name one of these element types",
            )
        for key, value in self.dims:
            _check_dim(key, value)

    @property
    def name(self) -> str:
        """`rows4096_cols768_residual.fp16`: sizes with their number, flags that are set, choices.

        A flag that is off and the choice `none` are left out.
        """
        parts = (_part(key, value) for key, value in self.dims)
        return "_".join(part for part in parts if part) + f".{self.dtype}"

    @property
    def torch_dtype(self) -> torch.dtype:
        """The element type as PyTorch names it."""
        return DTYPES[self.dtype]

    @property
    def itemsize(self) -> int:
        """Bytes of one element."""
        return self.torch_dtype.itemsize

    def __getitem__(self, key: str) -> Any:
        """The value of one dim."""
        return dict(self.dims)[key]


def _check_dim(key: str, value: Dim) -> None:
    if not _DIM_NAME.fullmatch(key) or (isinstance(value, str) and not _DIM_NAME.fullmatch(value)):
        raise OptionError(
            seen=f"dim {key!r} = {value!r}",
            allowed="lower-case letters and underscores",
            action="rename it, it becomes part of a file's name",
        )
    if not isinstance(value, int | str):
        raise ArgumentError(
            seen=f"{key} is a {type(value).__name__}",
            allowed="an int, a bool or a str",
            action="convert it",
        )
    if isinstance(value, int) and not isinstance(value, bool) and value < 1:
        raise ShapeError(seen=f"{key} = {value}", allowed="sizes of 1 or more", action="raise it")


def _part(key: str, value: Dim) -> str:
    if isinstance(value, bool):
        return key if value else ""
    if isinstance(value, str):
        return "" if value == "none" else value
    return f"{key}{value}"


@dataclass(frozen=True, eq=False)
class Spelling:
    """One way in which models write an operator, and the call that stands for it.

    Attributes:
        pattern: a plain PyTorch function of tensors and constants.
        replacement: takes the same arguments by name and returns the same tensors; what it does
            not take it refuses by a `KernlError`, whose words the user then reads.
        tensors: an example of the shape of each tensor, by the name of its parameter.
        constants: the parameters that are numbers, each with a value that occurs nowhere else, by
            which it is found among the numbers of the pattern; an int stands for ints alone.
        integers: the tensors among them that hold integers.
    """

    pattern: Callable[..., Outputs]
    replacement: Callable[..., Outputs]
    tensors: Mapping[str, tuple[int, ...]]
    constants: Mapping[str, float] = field(default_factory=dict)
    integers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Op:
    """The one declaration of a kernel.

    Attributes:
        name: snake-case name; the dashboard page and the asv class carry it.
        kernel: the public fast function; takes what `inputs` gives, by keyword.
        reference: what a PyTorch user would write with the same keywords. In float64 it is the
            truth that tests compare with; in the case's dtype it is the eager and the
            torch.compile baseline.
        plan: (capability, inputs by keyword) → output tensors and the Triton launches that fill
            them. It launches nothing itself, so it runs on meta tensors for compile-only metrics.
        check: raises a `KernlError` where the kernel does not take such arguments.
        dims: (model, workload) → dims of the cases that this model runs.
        inputs: (case, device, seed) → keyword arguments, signed and random.
        edges: dims no model has: 1, primes, ragged tails, wider than one block.
        bytes: case → the fewest bytes moved: each input read once, each output written once.
        flops: case → floating-point operations.
        tolerance: dtype name → the largest allowed ‖out - ref‖ / ‖ref‖ against float64.
        spellings: how models write this operator, each with the call that replaces it.
        version: raised when the meaning of the inputs changes; older results then no longer count.
        library: the best single library call for the same thing, with the same keywords, where
            there is one that `reference` is not already; measured beside the others. What it does
            not compute it refuses by NotImplementedError, in words.
        mutates: names of the inputs that the kernel writes into, and the reference too. They count
            as outputs, after those that are returned.
        moves_part_of_its_inputs: the kernel reads only some rows of an input, as a table of
            embeddings or a key-value cache with room to spare; `bytes` then counts those.
        arithmetic: the element type whose peak rate bounds the products, where it is not the
            case's dtype: "fp8".
        opt_in: it rounds more than its dtype does, so nothing but the user chooses it, and its
            speedups are reported apart from those of the others.
        sweep: dims beside the models', too large for the interpreter: one size grows while the
            work stays, so that a cliff shows.
    """

    name: str
    kernel: Callable[..., Outputs]
    reference: Callable[..., Outputs]
    plan: Callable[..., Plan]
    check: Callable[..., None]
    dims: Callable[[ModelShape, Workload], Iterable[Dims]]
    inputs: Callable[[Case, str, int], dict[str, Any]]
    edges: tuple[Dims, ...]
    bytes: Callable[[Case], int]
    flops: Callable[[Case], int]
    tolerance: Mapping[str, float]
    spellings: tuple[Spelling, ...] = ()
    version: int = 1
    library: Callable[..., Outputs] | None = None
    mutates: tuple[str, ...] = ()
    moves_part_of_its_inputs: bool = False
    arithmetic: str | None = None
    opt_in: bool = False
    sweep: tuple[Dims, ...] = ()

    def cases(self) -> tuple[Case, ...]:
        """Every case, each name once: models and sweep in fp16, edges in every dtype."""
        unique = {case.name: case for case in self._all_cases()}
        return tuple(unique.values())

    def _all_cases(self) -> Iterator[Case]:
        for model in MODELS:
            for workload in workloads(model):
                for dims in self.dims(model, workload):
                    yield Case.of("fp16", **dims)
        yield from (Case.of("fp16", **dims) for dims in self.sweep)
        yield from self.edge_cases()

    def edge_cases(self) -> tuple[Case, ...]:
        """The shapes that no model has, in every dtype."""
        return tuple(Case.of(dtype, **dims) for dims in self.edges for dtype in DTYPES)

    def plan_on_meta(self, case: Case, capability: int) -> Plan:
        """The plan of this case for a GPU that need not be there: shapes and strides, no data."""
        return self.plan(capability, **self.inputs_on_meta(case))

    def inputs_on_meta(self, case: Case) -> dict[str, Any]:
        """The case's inputs as tensors that have shapes and strides and no data."""
        with FakeTensorMode():
            inputs = self.inputs(case, "cpu", 0)
        return {
            name: torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="meta")
            if isinstance(value, torch.Tensor)
            else value
            for name, value in inputs.items()
        }

    def unsupported(self, **inputs: Any) -> str | None:
        """Why the kernel does not take these arguments, in words; None where it does."""
        try:
            self.check(**inputs)
        except KernlError as error:
            return str(error)
        return None
