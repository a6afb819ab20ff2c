"""Copies as raw bytes: exact, into fresh memory, and left to PyTorch where bytes are not enough."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from kernl.runtime import copy_kernel
from kernl.runtime.copy_kernel import PAIRS, Inputs, Outputs

SIZES = (1, 2, 15, 16, 17, 31, 32, 4095, 4096, 4097, 20_011)
DTYPES = (torch.bool, torch.uint8, torch.float16, torch.bfloat16, torch.float32, torch.int64)
POISON = 0xA5


def stream(device: str) -> int:
    return torch.cuda.current_stream().cuda_stream if device == "cuda" else 0


def random(shape: tuple[int, ...], dtype: torch.dtype, device: str, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    made = torch.randint(0, 2 if dtype is torch.bool else 100, shape, generator=generator)
    return made.to(dtype).to(device)


def is_same(one: torch.Tensor, other: torch.Tensor) -> bool:
    same = (one.shape, one.stride(), one.dtype) == (other.shape, other.stride(), other.dtype)
    return same and torch.equal(one, other)


@pytest.mark.edge
@pytest.mark.parametrize("size", SIZES)
def test_every_byte_is_copied_and_none_beyond(size: int, device: str) -> None:
    around = torch.full((size + 64,), POISON, dtype=torch.uint8, device=device)
    place, given = around[32 : 32 + size], random((size,), torch.uint8, device)
    copies = Inputs([place])
    copies.take([given], stream(device))
    assert copies.left_to_pytorch == 0
    assert torch.equal(place, given)
    assert bool((around[:32] == POISON).all())
    assert bool((around[32 + size :] == POISON).all())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (1,), (3,), (1, 17), (2, 3, 257)])
def test_dtypes_and_shapes(dtype: torch.dtype, shape: tuple[int, ...], device: str) -> None:
    given = random(shape, dtype, device)
    copies, place = Outputs([given]), torch.zeros_like(given)
    (fresh,) = copies.give(stream(device))
    assert is_same(fresh, given.clone())
    back = Inputs([place])
    back.take([fresh], stream(device))
    assert torch.equal(place, given)
    assert copies.left_to_pytorch == back.left_to_pytorch == 0


@pytest.mark.parametrize("count", [0, 1, PAIRS, PAIRS + 1, 2 * PAIRS + 3])
def test_more_tensors_than_one_launch_takes(count: int, device: str) -> None:
    given = [random((3 * n + 1,), DTYPES[n % 6], device, seed=n) for n in range(count)]
    places = [torch.zeros_like(x) for x in given]
    copies_in, copies_out = Inputs(places), Outputs(places)
    copies_in.take(given, stream(device))
    assert all(map(is_same, places, given))
    assert all(map(is_same, copies_out.give(stream(device)), given))
    assert copies_in.left_to_pytorch == copies_out.left_to_pytorch == 0


def test_what_a_user_holds_is_not_overwritten(device: str) -> None:
    source = random((1, 5, 7), torch.float16, device)
    copies, held = Outputs([source, source[0]]), []
    for value in range(4):
        source.fill_(value)
        held += copies.give(stream(device))
    assert [int(x.max()) for x in held] == [int(x.min()) for x in held] == [0, 0, 1, 1, 2, 2, 3, 3]
    addresses = {x.untyped_storage().data_ptr() for x in (*held, source)}
    assert len(addresses) == len(held) + 1


def numbers(*shape: int) -> torch.Tensor:
    return torch.arange(64.0)[: math.prod(shape)].reshape(shape)


@pytest.mark.parametrize(
    ("make", "by_pytorch"),
    [
        (lambda: numbers(3, 4).t(), 0),
        (lambda: numbers(2, 3, 4).permute(2, 0, 1), 0),
        (lambda: numbers(3, 4)[:, 1:], 1),  # gaps, and an address that is no multiple of 16
        (lambda: numbers(3, 4)[:, ::2], 1),
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
    copies = Outputs([source])
    (fresh,) = copies.give(stream(device))
    assert is_same(fresh, source.clone())
    assert type(fresh) is torch.Tensor
    assert copies.left_to_pytorch == by_pytorch


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
    copies, beside = Inputs(places), torch.ones(5, device=device)
    for turn, (name, given) in enumerate(odd_ones(device), start=1):
        copies.take([given, beside], stream(device))
        assert torch.equal(places[0], given), name
        assert copies.left_to_pytorch == 2 * turn, name
    copies.take([torch.full((4, 3), 7.0, device=device), beside], stream(device))
    assert bool((places[0] == 7).all())
    assert copies.left_to_pytorch == 2 * turn


def test_large_tensors_and_complex_ones_are_left_to_pytorch(device: str) -> None:
    given = [
        torch.ones((4 << 20) + 1, dtype=torch.uint8, device=device),
        torch.ones(4 << 20, dtype=torch.uint8, device=device),
        torch.ones(3, dtype=torch.complex64, device=device),
    ]
    places = [torch.zeros_like(x) for x in given]
    copies_in, copies_out = Inputs(places), Outputs(given)
    copies_in.take(given, stream(device))
    assert all(map(torch.equal, places, given))
    assert all(map(torch.equal, copies_out.give(stream(device)), given))
    assert copies_in.left_to_pytorch == copies_out.left_to_pytorch == 2


def test_a_memory_that_is_not_aligned_is_left_to_pytorch(
    monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    def beside(shape: Any, stride: Any, dtype: torch.dtype) -> torch.Tensor:
        return torch.zeros(6, dtype=dtype, device=device)[1:]

    monkeypatch.setattr(torch._C._dynamo.guards, f"_empty_strided_{device}", beside)
    source = torch.arange(5.0, device=device)
    copies = Outputs([source])
    assert torch.equal(copies.give(stream(device))[0], source)
    assert copies.left_to_pytorch == 1


def test_tensors_of_inference_mode_stay_such(device: str) -> None:
    copies = Outputs([torch.ones(3, device=device)])
    with torch.inference_mode():
        assert copies.give(stream(device))[0].is_inference()
    assert not copies.give(stream(device))[0].is_inference()


@pytest.mark.gpu
def test_the_kernel_moves_16_bytes_at_a_time_and_is_compiled_once() -> None:
    kernel = copy_kernel._compiled(torch.cuda.current_device())
    assert kernel is not None, "the launcher was not called directly"
    assert "ld.global.v2.b64" in kernel.asm["ptx"]
    for size in SIZES:
        x = random((size,), torch.uint8, "cuda")
        Outputs([x, x]).give(stream("cuda"))
    compiled, *_ = copy_kernel.copy_kernel.device_caches[torch.cuda.current_device()]
    assert len(compiled) == 1
