"""The names that users may rely on: adding one or taking one away is a decision, made here too."""

import inspect
from types import ModuleType

import pytest

import kernl
import kernl.errors
import kernl.ops
import kernl.rewrite

PUBLIC = {
    "kernl": {"__version__", "explain", "optimize_model", "restore_model"},
    "kernl.ops": {
        "ALL",
        "argmax_sample",
        "attention",
        "attention_varlen",
        "batched_matmul",
        "clamp_overflow",
        "conv1d",
        "cross_entropy",
        "decode_attention",
        "embedding_layer_norm",
        "fp8_linear",
        "geglu",
        "layer_norm",
        "linear",
        "linear_add_layer_norm",
        "linear_glu",
        "linear_layer_norm",
        "linear_rms_norm",
        "quantize_fp8",
        "quantize_weight",
        "quantized_linear",
        "rms_norm",
        "rotary",
        "rotary_cache",
        "softmax",
        "stream_k_matmul",
        "swiglu",
    },
    "kernl.errors": {
        "ArgumentError",
        "DTypeError",
        "DeviceError",
        "KernlError",
        "OptionError",
        "ShapeError",
        "UntraceableError",
    },
    "kernl.rewrite": {
        "Refusal",
        "Report",
        "graph_report",
        "replace_pattern",
        "rewrite",
        "trace",
    },
}
MODULES = {
    "kernl": kernl,
    "kernl.ops": kernl.ops,
    "kernl.errors": kernl.errors,
    "kernl.rewrite": kernl.rewrite,
}
NAMES = [(module, name) for module, names in PUBLIC.items() for name in sorted(names)]


@pytest.mark.parametrize("name", PUBLIC)
def test_public_names_are_the_documented_ones(name: str) -> None:
    names: list[str] = MODULES[name].__all__
    assert set(names) == PUBLIC[name]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("name", MODULES)
def test_public_modules_say_what_they_are(name: str) -> None:
    assert has_text(MODULES[name])


@pytest.mark.parametrize(("module", "name"), NAMES)
def test_public_names_exist_and_are_documented(module: str, name: str) -> None:
    value = getattr(MODULES[module], name)
    if callable(value):
        assert has_text(value)


@pytest.mark.parametrize("op", kernl.ops.ALL, ids=lambda op: op.name)
def test_every_operator_is_public_and_annotated(op: "kernl.op.Op") -> None:
    assert getattr(kernl.ops, op.name) is op.kernel
    signature = inspect.signature(op.kernel)
    assert signature.return_annotation is not inspect.Signature.empty
    for parameter in signature.parameters.values():
        assert parameter.annotation is not inspect.Parameter.empty, parameter


@pytest.mark.parametrize("name", sorted(PUBLIC["kernl.errors"]))
def test_every_error_is_in_the_tree(name: str) -> None:
    error = getattr(kernl.errors, name)
    assert issubclass(error, kernl.errors.KernlError)
    assert name in (kernl.errors.__doc__ or "")


def has_text(value: ModuleType | object) -> bool:
    """Whether a docstring of its own says more than a word."""
    text = getattr(value, "__doc__", None)
    return isinstance(text, str) and len(text.split()) > 3
