"""What is computed once, and what must not be."""

import pytest
import torch
from torch import fx

from kernl.rewrite import trace
from kernl.rewrite.fold import fold_constants, look_at_tables
from tests.tiny_models import DEVICE


class Model(torch.nn.Module):
    statistics: torch.Tensor
    positions: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(8))
        self.register_buffer("statistics", torch.randn(8))
        self.register_buffer("positions", torch.arange(8), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        table = (self.positions.float() * 0.5).sin()
        return x * table + (self.weight * 2) * (self.statistics * 3)


X = torch.randn(4, 8, device=DEVICE)


def targets(graph: fx.GraphModule) -> list[str]:
    return [str(n.target).split(".")[1] for n in graph.graph.nodes if n.op == "call_function"]


def test_only_what_no_checkpoint_holds_is_folded() -> None:
    model = Model().eval()
    graph = trace(model, [X])
    assert fold_constants(graph) == 1
    assert targets(graph) == ["mul", "mul", "mul", "mul", "add"]
    with torch.no_grad():
        model.weight.mul_(3)
        model.statistics.mul_(5)
        torch.testing.assert_close(graph(X)[0], model(X))


def test_random_numbers_are_not_folded() -> None:
    graph = trace(lambda x: x + torch.rand(8), [X])
    fold_constants(graph)
    assert "rand" in targets(graph)
    assert not torch.equal(graph(X)[0], graph(X)[0])


def test_a_mask_of_ones_costs_nothing() -> None:
    def masked(x: torch.Tensor) -> torch.Tensor:
        everything = torch.arange(8) >= 0
        return x & everything[None, :]

    mask = torch.rand(4, 8) > 0.5
    graph = trace(masked, [mask])
    fold_constants(graph)
    assert targets(graph) == []
    torch.testing.assert_close(graph(mask)[0], mask)


def test_a_mask_that_hides_something_stays() -> None:
    mask = torch.rand(4, 8) > 0.5
    graph = trace(lambda x: x & (torch.arange(8) < 5), [mask])
    fold_constants(graph)
    assert targets(graph) == ["bitwise_and"]
    torch.testing.assert_close(graph(mask)[0], mask & (torch.arange(8) < 5))


def test_a_gather_in_order_is_a_view() -> None:
    def gathered(x: torch.Tensor) -> torch.Tensor:
        return x[torch.arange(4)[:, None, None, None], torch.arange(8)[None, None, None, :]]

    graph = trace(gathered, [X])
    fold_constants(graph)
    assert targets(graph) == ["reshape"]
    torch.testing.assert_close(graph(X)[0], gathered(X))


def test_a_gather_in_another_order_stays() -> None:
    for rows, cols in (
        (torch.arange(4).flip(0)[:, None], torch.arange(8)[None, :]),
        (torch.arange(4)[None, :], torch.arange(8)[:, None]),
        (torch.arange(3)[:, None], torch.arange(8)[None, :]),
    ):

        def gathered(
            x: torch.Tensor, rows: torch.Tensor = rows, cols: torch.Tensor = cols
        ) -> torch.Tensor:
            return x[rows, cols]

        graph = trace(gathered, [X])
        fold_constants(graph)
        assert targets(graph) == ["index"]
        torch.testing.assert_close(graph(X)[0], gathered(X))


@pytest.mark.parametrize(("other", "left"), [(3, ["expand"]), (4, ["gather"])])
def test_a_gather_of_what_is_alike_reads_nothing(other: int, left: list[str]) -> None:
    def gathered(index: torch.Tensor) -> torch.Tensor:
        table = torch.tensor([[3, 3, other, 3]])
        return torch.gather(table.expand(2, -1), 1, index)

    index = torch.tensor([[0, 2, 1], [3, 2, 0]])
    graph = trace(gathered, [index])
    fold_constants(graph)
    assert targets(graph)[-1:] == left
    assert torch.equal(graph(index)[0], gathered(index))


def test_weights_that_a_function_holds_are_no_constants() -> None:
    layer = torch.nn.Linear(8, 8)
    graph = trace(lambda x: x * (layer.weight * 2).sum(), [X])
    assert fold_constants(graph) == 0
    with torch.no_grad():
        layer.weight.mul_(3)
        torch.testing.assert_close(graph(X)[0], X * (layer.weight * 2).sum())


class Table(torch.nn.Module):
    """Rows of a table that a model learns, by a constant."""

    def __init__(self, rows: torch.Tensor, by_index: bool) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(6, 8))
        self.register_buffer("rows", rows, persistent=False)
        self.by_index = by_index

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = self.get_buffer("rows")
        if self.by_index:
            return x + self.weight[rows]
        return x + torch.nn.functional.embedding(rows, self.weight)


@pytest.mark.parametrize("by_index", [False, True])
@pytest.mark.parametrize(
    ("rows", "found"),
    [
        (torch.arange(6), ["add"]),
        (torch.arange(4), ["slice", "add"]),
        (torch.arange(2, 6)[None], ["slice", "reshape", "add"]),
    ],
)
def test_rows_in_order_are_looked_at_where_they_lie(
    rows: torch.Tensor, found: list[str], by_index: bool
) -> None:
    model, x = Table(rows.to(DEVICE), by_index).eval(), torch.randn(*rows.shape, 8)
    graph = trace(model, [x])
    fold_constants(graph)
    look_at_tables(graph)
    assert targets(graph) == found
    with torch.no_grad():
        model.weight.mul_(3)
        torch.testing.assert_close(graph(x)[0], model(x))


@pytest.mark.parametrize("by_index", [False, True])
@pytest.mark.parametrize("rows", [[0, 0], [1, 0], [0, 2], [[0, 1], [0, 1]]])
def test_rows_in_another_order_are_looked_up(rows: list[object], by_index: bool) -> None:
    places = torch.tensor(rows, device=DEVICE)
    model, x = Table(places, by_index).eval(), torch.randn(*places.shape, 8)
    graph = trace(model, [x])
    fold_constants(graph)
    look_at_tables(graph)
    assert targets(graph) == ["index" if by_index else "embedding", "add"]
    with torch.no_grad():
        torch.testing.assert_close(graph(x)[0], model(x))


def test_rows_that_an_input_names_are_looked_up() -> None:
    table = torch.nn.Embedding(6, 8)
    graph = trace(table, [torch.arange(6)])
    fold_constants(graph)
    look_at_tables(graph)
    assert targets(graph) == ["embedding"]
