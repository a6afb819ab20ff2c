"""What the tests of `optimize_model` share: calls, and how far their answers are apart."""

from typing import Any

import torch

from kernl.optimize.forward import OptimizedForward
from tests.tiny_models import tensors_of

BY_GRAPH = "by graph"


def distance(out: torch.Tensor, truth: torch.Tensor) -> float:
    return float((out.double() - truth.double()).norm() / truth.double().norm().clamp_min(1e-30))


def evaluated(model: torch.nn.Module) -> torch.nn.Module:
    return torch.nn.Module.eval(model)


def furthest(out: Any, truth: Any) -> float:
    assert type(out) is type(truth)
    here, there = tensors_of(out), tensors_of(truth)
    assert [(x.shape, x.dtype) for x in here] == [(x.shape, x.dtype) for x in there]
    return max(map(distance, here, there))


def forward_of(model: torch.nn.Module) -> OptimizedForward:
    forward = model.__dict__["forward"]
    assert isinstance(forward, OptimizedForward)
    return forward


def twice(model: Any, **given: Any) -> Any:
    """The second call of a kind runs by the graph."""
    with torch.inference_mode():
        model(**given)
        return model(**given)
