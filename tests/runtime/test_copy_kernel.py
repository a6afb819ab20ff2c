"""Copies as raw bytes: exact, into fresh memory, and left to PyTorch where bytes are not enough."""

import math
import types
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch

from kernl.runtime import copy_kernel
from kernl.runtime.copy_kernel import PAIRS, Inputs, Outputs

SIZES = (1, 2, 15, 16, 17, 31, 32, 4095, 4096, 4097, 20_011)
DTYPES = (torch.bool, torch.uint8, torch.float16, torch.bfloat16, torch.float32, torch.int64)
POISON = 0xA5


class Graph:
    """Copies around a graph without kernels, which leaves `left`, or its inputs."""

    def __init__(
        self, places: Sequence[torch.Tensor], left: Sequence[torch.Tensor] | None = None
    ) -> None:
        self.copies_in = Inputs(places)
        self.copies_out = Outputs(places if left is None else left)

    def __call__(self, *tensors: torch.Tensor) -> list[torch.Tensor]:
        fresh = self.copies_out.give()
        self.copies_in.take(tensors)
        self.copies_in.record()
        self.copies_out.record()
        self.copies_out.rest(fresh)
        return fresh

    @property
    def left_to_pytorch(self) -> int:
        return self.copies_in.left_to_pytorch + self.copies_out.left_to_pytorch


def delivered(left: Sequence[torch.Tensor]) -> tuple[list[torch.Tensor], Graph]:
    place = torch.zeros(1, device=left[0].device)
    graph = Graph([place], left)
    return graph(torch.ones_like(place)), graph


def random(shape: tuple[int, ...], dtype: torch.dtype, device: str, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    made = torch.randint(0, 2 if dtype is torch.bool else 100, shape, generator=generator)
    return made.to(dtype).to(device)


def is_same(one: torch.Tensor, other: torch.Tensor) -> bool:
    same = (one.shape, one.stride(), one.dtype) == (other.shape, other.stride(), other.dtype)
    return same and torch.equal(one, other)


@pytest.mark.edge
@pytest.mark.parametrize("size", SIZES)
def test_every_byte_is_copied_and_none_beyond(
    size: int, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = slice(32, 32 + size)
    around, beyond = (
        torch.full((size + 64,), POISON, dtype=torch.uint8, device=device) for _ in range(2)
    )
    monkeypatch.setattr(copy_kernel, "_maker", lambda _: lambda: beyond[inside])
    graph, given = Graph([around[inside]]), random((size,), torch.uint8, device)
    graph(given)
    assert graph.left_to_pytorch == 0
    for memory in (around, beyond):
        assert torch.equal(memory[inside], given)
        assert bool((memory[:32] == POISON).all())
        assert bool((memory[32 + size :] == POISON).all())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (1,), (3,), (1, 17), (2, 3, 257)])
def test_dtypes_and_shapes(dtype: torch.dtype, shape: tuple[int, ...], device: str) -> None:
    given = random(shape, dtype, device)
    graph = Graph([torch.zeros_like(given)])
    (fresh,) = graph(given)
    assert is_same(fresh, given)
    assert fresh.data_ptr() != given.data_ptr()
    assert graph.left_to_pytorch == 0


@pytest.mark.parametrize(
    ("inputs", "outputs"),
    [(0, 1), (1, 0), (PAIRS, PAIRS + 1), (PAIRS + 1, PAIRS), (2 * PAIRS + 3, 1)],
)
def test_any_number_of_tensors(inputs: int, outputs: int, device: str) -> None:
    given = [random((3 * n + 1,), DTYPES[n % 6], device, seed=n) for n in range(inputs)]
    left = [random((5 * n + 1,), DTYPES[n % 6], device, seed=n) for n in range(outputs)]
    places = [torch.zeros_like(x) for x in given]
    graph = Graph(places, left)
    assert all(map(is_same, graph(*given), left))
    assert all(map(is_same, places, given))
    assert graph.left_to_pytorch == 0


def test_what_a_user_holds_is_not_overwritten(device: str) -> None:
    source = random((1, 5, 7), torch.float16, device)
    graph, held = Graph([source], [source, source[0]]), []
    for value in range(4):
        held += graph(torch.full_like(source, value))
    assert [int(x.max()) for x in held] == [int(x.min()) for x in held] == [0, 0, 1, 1, 2, 2, 3, 3]
    addresses = {x.untyped_storage().data_ptr() for x in (*held, source)}
    assert len(addresses) == len(held) + 1


def test_tensors_of_the_call_before_are_not_pointed_at_again(
    monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    graph, x = Graph([torch.zeros(3, device=device)]), torch.ones(3, device=device)
    groups = [graph.copies_in._groups[0][0], graph.copies_out._groups[0][0]]
    told: list[list[int]] = []
    for group in groups:
        monkeypatch.setattr(group, "_node", types.SimpleNamespace(set=told.append))
    first = graph(x)
    second = graph(x)
    assert told == [[first[0].data_ptr()], [x.data_ptr()], [second[0].data_ptr()]]


def numbers(*shape: int) -> torch.Tensor:
    return torch.arange(64.0)[: math.prod(shape)].reshape(shape)


@pytest.mark.parametrize(
    ("make", "by_pytorch"),
    [
        (lambda: numbers(3, 4).t(), 0),
        (lambda: numbers(2, 3, 4).permute(2, 0, 1), 0),
        (lambda: numbers(3, 4)[:, 1:], 1),  # gaps, and an address that is no multiple of 16
        (lambda: numbers(3, 4)[:, ::2], 1),
        (lambda: numbers(7, 3)[:1, :].t()[:, :1], 0),  # one row, whatever the other stride says
        (lambda: numbers(4, 8)[:, 4:], 0),  # rows of 16 bytes with gaps of 16
        (lambda: numbers(4, 8)[:, :4].t(), 0),
        (lambda: numbers(2, 2, 16)[:, :, 4:12].reshape(2, 2, 2, 4).transpose(1, 2), 0),  # heads
        (lambda: numbers(2, 2, 16)[:, :1, 4:12], 0),
        (lambda: numbers(2, 4, 8)[:, 1:3, :4], 1),  # gaps between groups of rows too
        (lambda: numbers(4, 8)[:, :5], 1),
        (lambda: numbers(4, 6)[:, :4], 1),  # the second row starts 24 bytes behind the first
        (lambda: numbers(4, 8)[:, :4].expand(3, 4, 4), 1),
        (lambda: numbers(3)[None].expand(4, 3), 1),
        (lambda: torch.zeros(0, 3), 1),
        (lambda: numbers(9)[1:], 1),
        (lambda: torch.randn(3, dtype=torch.complex64).conj(), 1),
        (lambda: torch._neg_view(numbers(3)), 1),
        (lambda: torch.nn.Parameter(numbers(3), requires_grad=False), 0),
    ],
)
def test_outputs_are_what_clone_gives(
    make: Callable[[], torch.Tensor], by_pytorch: int, device: str
) -> None:
    with torch.device(device):
        source = make()
    (fresh,), graph = delivered([source])
    assert is_same(fresh, source.clone())
    assert type(fresh) is torch.Tensor
    assert fresh.data_ptr() != source.data_ptr() or not source.numel()
    assert graph.left_to_pytorch == by_pytorch


def test_rows_with_gaps_are_copied_by_any_number(device: str) -> None:
    """As a decoder's values are, one a layer, beside keys that lie in a row; all rounds anew."""
    wide = [torch.zeros(1, 9, 40, dtype=torch.float16, device=device) for _ in range(PAIRS + 2)]
    left = [one[:, :, 24:].reshape(1, 9, 2, 8).transpose(1, 2) for one in wide]
    left.append(torch.zeros(7, device=device))
    place = torch.zeros(1, device=device)
    graph, held = Graph([place], left), []
    for turn in range(3):
        for number, one in enumerate(wide):
            one.copy_(random((1, 9, 40), torch.float16, device, seed=10 * turn + number))
        given = [one.clone() for one in wide]
        held.append((graph(place), [one.clone() for one in left]))
        assert all(map(torch.equal, wide, given))  # nothing is written beside
    assert graph.left_to_pytorch == 0
    for fresh, true in held:
        assert all(map(is_same, fresh, true))


def test_before_a_call_says_where_to_rows_with_gaps_stay_as_they_are(device: str) -> None:
    wide = random((9, 40), torch.float16, device)
    given = wide.clone()
    outputs = Outputs([wide[:, 8:24]])
    outputs.record()
    assert torch.equal(wide, given)


def test_rows_are_left_to_pytorch_where_memory_is_not_aligned(
    monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    wide = random((9, 40), torch.float16, device)
    given = wide.clone()
    monkeypatch.setattr(
        copy_kernel,
        "_maker",
        lambda _: lambda: torch.zeros(145, device=device).half()[1:].view(9, 16),
    )
    (fresh,), graph = delivered([wide[:, 8:24]])
    assert torch.equal(fresh, given[:, 8:24])
    assert torch.equal(wide, given)
    assert graph.left_to_pytorch == 1


def odd_ones(device: str) -> list[tuple[str, torch.Tensor]]:
    """Tensors of shape (4, 3) that are not their bytes in a row from an aligned address on."""
    plain = torch.arange(12.0, device=device).reshape(4, 3)
    views = torch.arange(64.0, device=device)
    return [
        ("transposed", plain.t().contiguous().t()),
        ("with gaps", views[:48].reshape(4, 12)[:, ::4]),
        ("broadcast", views[:3].expand(4, 3)),
        ("unaligned", views[1:13].reshape(4, 3)),
        ("negative", torch._neg_view(plain)),
        ("a parameter", torch.nn.Parameter(plain, requires_grad=False)),
    ]


def test_odd_inputs_are_left_to_pytorch(device: str) -> None:
    places = [torch.zeros(4, 3, device=device), torch.zeros(5, device=device)]
    graph, beside = Graph(places), torch.ones(5, device=device)
    for turn, (name, given) in enumerate(odd_ones(device), start=1):
        assert torch.equal(graph(given, beside)[0], given), name
        assert graph.left_to_pytorch == turn, name
    (sevens, _) = graph(torch.full((4, 3), 7.0, device=device), beside)
    assert bool((sevens == 7).all())
    assert graph.left_to_pytorch == turn


@pytest.mark.parametrize(("size", "by_pytorch"), [(4 << 20, 0), ((4 << 20) + 1, 1)])
def test_large_inputs_are_left_to_pytorch(size: int, by_pytorch: int, device: str) -> None:
    given = torch.full((size,), 3, dtype=torch.uint8, device=device)
    graph = Graph([torch.zeros_like(given)], [])
    graph(given)
    assert torch.equal(graph.copies_in._fixed[0], given)
    assert graph.left_to_pytorch == by_pytorch


def test_large_outputs_and_complex_ones_are_left_to_pytorch(device: str) -> None:
    left = [
        torch.ones((4 << 20) + 1, dtype=torch.uint8, device=device),
        torch.ones(4 << 20, dtype=torch.uint8, device=device),
        torch.ones(3, dtype=torch.complex64, device=device),
    ]
    fresh, graph = delivered(left)
    assert all(map(torch.equal, fresh, left))
    assert all(one.data_ptr() != other.data_ptr() for one, other in zip(fresh, left, strict=True))
    assert graph.left_to_pytorch == 2


def test_a_memory_that_is_not_aligned_is_left_to_pytorch(
    monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    def beside(shape: Any, stride: Any, dtype: torch.dtype) -> torch.Tensor:
        return torch.zeros(6, dtype=dtype, device=device)[1:]

    monkeypatch.setattr(torch._C._dynamo.guards, f"_empty_strided_{device}", beside)
    source = torch.arange(5.0, device=device)
    (fresh,), graph = delivered([source])
    assert torch.equal(fresh, source)
    assert graph.left_to_pytorch == 1


def test_tensors_of_inference_mode_stay_such(device: str) -> None:
    x = torch.ones(3, device=device)
    graph = Graph([torch.zeros_like(x)])
    with torch.inference_mode():
        assert graph(x)[0].is_inference()
    assert not graph(x)[0].is_inference()


@pytest.mark.gpu
def test_the_kernel_moves_16_bytes_at_a_time_and_is_compiled_once() -> None:
    caches, device = copy_kernel.copy_kernel.device_caches, torch.cuda.current_device()
    caches.pop(device, None)  # what other tests had compiled: rows with gaps, or to begin early
    for size in SIZES:
        x = random((size,), torch.uint8, "cuda")
        Graph([x, x])(x, x)
    (kernel,) = caches[device][0].values()
    assert "ld.global.v2.b64" in kernel.asm["ptx"]
