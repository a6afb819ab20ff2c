"""A function or module as a graph of ATen operators in normal form.

`torch.export` runs it once on fake tensors, without Dynamo and without data. The graph holds for
the shapes of those tensors: sizes in it are numbers. Parameters and buffers become attributes, the
very objects of the module, so that weights changed in place are seen.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import fx
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode

from kernl.errors import KernlError, UntraceableError
from kernl.rewrite.normal import normalize

_LIFTED = (torch.ops.aten.lift_fresh.default, torch.ops.aten.lift_fresh_copy.default)

Tensors = torch.Tensor | Sequence[torch.Tensor]


class Spec(NamedTuple):
    """What a graph depends on of a tensor: everything but its data."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device

    @classmethod
    def of(cls, tensor: torch.Tensor) -> "Spec":
        """That of a tensor, fake or real."""
        return cls(tuple(tensor.shape), tuple(tensor.stride()), tensor.dtype, tensor.device)

    def fake(self) -> torch.Tensor:
        """A tensor without data; call it inside one FakeTensorMode."""
        return torch.empty_strided(self.shape, self.stride, dtype=self.dtype, device=self.device)


class _Positional(torch.nn.Module):
    """Calls a function or a module with tensors in a row; a list of tensors comes back."""

    def __init__(self, function: Callable[..., Tensors]) -> None:
        super().__init__()
        # A module set as an attribute gives its parameters their names.
        self.function = function

    def forward(self, *tensors: torch.Tensor) -> list[torch.Tensor]:
        with _AlwaysClamp():
            outputs = self.function(*tensors)
        return [outputs] if isinstance(outputs, torch.Tensor) else list(outputs)


class _NeverFinite:
    """What `torch.isfinite` gives a branch that is being traced."""

    def all(self) -> bool:
        return False


class _AlwaysClamp(TorchFunctionMode):
    """BART and others clamp half-precision activations where one of them is not finite: a branch
    on data. Clamping all of them is the same for finite ones, but for the last 1.5 % of the range.
    """

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if function is torch.isfinite:
            return _NeverFinite()
        return function(*args, **(kwargs or {}))


def trace(function: Callable[..., Tensors], tensors: Sequence[torch.Tensor]) -> fx.GraphModule:
    """The graph of `function(*tensors)` in normal form (`kernl.rewrite.normal`).

    Args:
        function: a module in eval mode or a function of tensors; it returns a tensor or several.
        tensors: real or fake; only shapes, strides, dtypes and devices count.

    Returns:
        A graph with one placeholder a tensor, in order, whose output is a tuple. Every node has
        a fake tensor in `meta["val"]`.

    Raises:
        UntraceableError: control flow depends on data, or the function does what a graph cannot.
    """
    root = _Positional(function)
    try:
        with torch.inference_mode(False), torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.export.export(root, tuple(tensors), strict=False)
            if any(_mutates(node) for node in program.graph.nodes):
                program = program.run_decompositions({})
    except KernlError:  # what an operator refuses is told as it is
        raise
    except Exception as error:
        reason = str(error).strip().splitlines()
        raise UntraceableError(
            seen=f"{type(error).__name__}: {reason[0] if reason else 'no message'}",
            allowed="a forward whose steps depend on shapes and options alone, not on data",
            action="move what depends on data out of it, or leave this call to PyTorch",
        ) from error
    if program.graph_signature.buffers_to_mutate or program.graph_signature.user_inputs_to_mutate:
        raise UntraceableError(
            seen="a forward that writes into its buffers or its inputs",
            allowed="a forward that only returns tensors",
            action="leave this call to PyTorch",
        )
    graph_module = _with_attributes(root, program)
    normalize(graph_module)
    return graph_module


def trace_specs(
    function: Callable[..., Tensors], specs: Mapping[str, Spec], constants: Mapping[str, Any]
) -> fx.GraphModule:
    """The graph of a function of named tensors of these specs, and of constants."""

    def call(*tensors: torch.Tensor) -> Tensors:
        return function(**dict(zip(specs, tensors, strict=True)), **constants)

    with FakeTensorMode(allow_non_fake_inputs=True):
        fakes = [spec.fake() for spec in specs.values()]
    return trace(call, fakes)


def _mutates(node: fx.Node) -> bool:
    """Whether a node writes into a tensor; forgetting gradients is no writing."""
    if not isinstance(node.target, torch._ops.OpOverload):
        return False
    return node.target._schema.is_mutable and node.target is not torch.ops.aten.detach_.default


def _with_attributes(root: _Positional, program: torch.export.ExportedProgram) -> fx.GraphModule:
    """The program's graph with the parameters, buffers and constants that export lifted out."""
    signature = program.graph_signature
    lifted = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    constants = signature.inputs_to_lifted_tensor_constants
    graph = program.graph_module.graph
    for node in list(graph.nodes):
        if node.op != "placeholder" or node.name in signature.user_inputs:
            continue
        constant = node.name in constants
        if constant:
            name = f"constant_{node.name}"
            root.register_buffer(name, program.constants[constants[node.name]], persistent=False)
            # A tensor written in the function, and not one that it only holds: that may change.
            constant = all(user.target in _LIFTED for user in node.users)
        else:
            name = lifted[node.name]
        with graph.inserting_before(node):
            attribute = graph.create_node("get_attr", name)
        attribute.meta.update(node.meta)
        attribute.meta["constant"] = constant or name in signature.non_persistent_buffers
        node.replace_all_uses_with(attribute)
        graph.erase_node(node)
    return fx.GraphModule(root, graph, class_name="Traced")
