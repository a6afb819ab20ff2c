"""Linear layers of one input in one, around the model's own parameters."""

from typing import Any

import torch

from kernl.rewrite import rewrite, trace
from kernl.rewrite.pack import unpack_linears

X = (2, 3, 8)


class Heads(torch.nn.Module):
    """Three projections of one input, one of them without a bias, and one of another input."""

    def __init__(self, biased: tuple[bool, bool, bool] = (True, False, True)) -> None:
        super().__init__()
        sizes = (16, 4, 8)
        self.parts = torch.nn.ModuleList(
            torch.nn.Linear(8, size, bias=bias) for size, bias in zip(sizes, biased, strict=True)
        )
        self.other = torch.nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        return [*(part(x) for part in self.parts), self.other(x.sin())]


def packed(module: torch.nn.Module, x: torch.Tensor) -> tuple[Any, int]:
    graph = trace(module, [x])
    return graph, rewrite(graph).packed


def agree(graph: Any, module: torch.nn.Module, x: torch.Tensor) -> None:
    with torch.no_grad():
        for out, true in zip(graph(x), module(x), strict=True):
            torch.testing.assert_close(out, true)


def linears(graph: Any) -> int:
    return sum("kernl.linear" in str(node.target) for node in graph.graph.nodes)


def test_layers_of_one_input_become_one() -> None:
    for biased in ((True, True, True), (True, False, True), (False, False, False)):
        module, x = Heads(biased).eval(), torch.randn(X)
        graph, count = packed(module, x)
        assert (count, linears(graph)) == (2, 2)
        agree(graph, module, x)


def test_parameters_are_views_and_what_changes_in_them_is_seen() -> None:
    module, x = Heads().eval(), torch.randn(X)
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    graph, _ = packed(module, x)
    for name, parameter in module.named_parameters():
        assert torch.equal(parameter, before[name])
    weights = [module.get_parameter(f"parts.{place}.weight") for place in range(3)]
    assert len({weight.untyped_storage().data_ptr() for weight in weights}) == 1
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(1.5)
    agree(graph, module, x)


def test_a_second_graph_reads_the_same_memory() -> None:
    module, x, wider = Heads().eval(), torch.randn(X), torch.randn(5, 8)
    first, _ = packed(module, x)
    places = [p.data_ptr() for p in module.parameters()]
    second, count = packed(module, wider)
    assert count == 2
    assert places == [p.data_ptr() for p in module.parameters()]
    with torch.no_grad():
        module.get_parameter("parts.0.weight").mul_(2)
    agree(first, module, x)
    agree(second, module, wider)


def test_what_an_earlier_graph_reads_is_not_moved() -> None:
    class Alone(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.heads = Heads().eval()

        def forward(self, x: torch.Tensor) -> Any:
            return self.heads.parts[0](x)

    alone, x = Alone(), torch.randn(X)
    graph, count = packed(alone, x)
    assert count == 0
    later, count = packed(alone.heads, x)
    assert count == 0
    with torch.no_grad():
        alone.get_parameter("heads.parts.0.weight").mul_(2)
        torch.testing.assert_close(graph(x)[0], alone(x))
    agree(later, alone.heads, x)


def test_a_weight_that_two_layers_share_is_not_packed() -> None:
    class Tied(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = torch.nn.Linear(8, 8)
            self.two = torch.nn.Linear(8, 8)
            self.two.weight = self.one.weight

        def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
            return [self.one(x), self.two(x)]

    module, x = Tied().eval(), torch.randn(X)
    graph, count = packed(module, x)
    assert count == 0
    agree(graph, module, x)


def test_unpacking_gives_each_parameter_its_own_memory() -> None:
    module, x = Heads().eval(), torch.randn(X)
    packed(module, x)
    unpack_linears(module)
    storages = [p.untyped_storage() for p in module.parameters()]
    assert len({one.data_ptr() for one in storages}) == len(storages)
    for parameter in module.parameters():
        assert parameter.untyped_storage().nbytes() == parameter.numel() * 4
    graph, count = packed(module, x)
    assert count == 2
    agree(graph, module, x)
