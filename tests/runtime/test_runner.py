"""Graphs run as they are, and as CUDA graphs."""

import functools
import gc
import threading
from typing import Any

import pytest
import torch

from kernl.launch import dependent_launches
from kernl.ops import layer_norm, linear, linear_layer_norm, swiglu
from kernl.runtime import graph_node
from kernl.runtime.runner import Arena, CudaGraph, Direct
from tests.canaries import on_every_stream


def test_outputs_that_are_inputs_are_copied() -> None:
    x = torch.ones(3)
    run = Direct(lambda x: [x, x + 1], [True, False])
    same, more = run([x])
    assert same.data_ptr() != x.data_ptr()
    assert torch.equal(same, x)
    assert torch.equal(more, x + 1)


def square(x: torch.Tensor) -> list[torch.Tensor]:
    return [x * x, x.sum(dim=-1)]


@pytest.mark.gpu
def test_a_replay_computes_anew_and_overwrites_nothing() -> None:
    arena = Arena(torch.device("cuda"))
    x = torch.randn(64, 64, device="cuda")
    run = CudaGraph(square, [x], arena)
    first, y = run([x]), torch.randn(64, 64, device="cuda")
    kept = [out.clone() for out in first]
    second = run([y.t()])
    for out, true in zip(second, square(y.t()), strict=True):
        torch.testing.assert_close(out, true)
    assert all(torch.equal(out, copy) for out, copy in zip(first, kept, strict=True))


@pytest.mark.gpu
def test_only_odd_inputs_are_left_to_pytorch() -> None:
    """What is common is copied by the graph, which the counts prove."""
    x = torch.randn(64, 64, device="cuda")
    run = CudaGraph(square, [x], Arena(x.device))
    held = []
    for number in range(1, 4):
        held.append((run([number * x]), square(number * x)))
    assert run.copies_in.left_to_pytorch == run.copies_out.left_to_pytorch == 0
    storage = torch.randn(64 * 64 + 1, device="cuda")
    odd = [x.t(), storage[1:].reshape(64, 64), storage[:64].expand(64, 64)]
    for count, given in enumerate(odd, start=1):
        held.append((run([given]), square(given.contiguous())))
        assert run.copies_in.left_to_pytorch == count
    with torch.inference_mode():
        held.append((run([x]), square(x)))
    assert run.copies_in.left_to_pytorch == len(odd)
    assert run.copies_out.left_to_pytorch == 0
    for outputs, truth in held:
        for out, true in zip(outputs, truth, strict=True):
            assert (out.shape, out.stride(), out.dtype) == (true.shape, true.stride(), true.dtype)
            torch.testing.assert_close(out, true)


@pytest.mark.gpu
def test_the_host_may_be_any_number_of_replays_ahead() -> None:
    x = torch.randn(64, 64, device="cuda")
    run = CudaGraph(square, [x], Arena(x.device))
    numbers = torch.arange(400.0, device="cuda")
    given = list(numbers[:, None, None].expand(-1, 64, 64).clone())
    torch.cuda.synchronize()
    torch.cuda._sleep(100_000_000)  # cycles, tens of milliseconds
    held = [run([y])[0] for y in given]
    assert torch.equal(torch.stack(held)[:, 0, 0], numbers * numbers)
    assert all(bool((out == out[0, 0]).all()) for out in held)


@pytest.mark.gpu
def test_a_graph_may_go_while_its_replays_wait() -> None:
    x = torch.full((64, 64), 3.0, device="cuda")
    run = CudaGraph(square, [x], Arena(x.device))
    torch.cuda._sleep(100_000_000)
    held = [run([x])[0] for _ in range(5)]
    del run
    gc.collect()
    others = [torch.full((1 << n,), 7, device="cuda") for n in range(16)]
    assert all(bool((out == 9).all()) for out in held)
    assert all(bool((other == 7).all()) for other in others)


@pytest.mark.gpu
def test_constants_of_a_graph_live_as_long_as_it() -> None:
    x = torch.randn(64, 64, device="cuda")
    constant = torch.ones(1 << 20, device="cuda")
    place = constant.data_ptr()
    run = CudaGraph(functools.partial(sum_with, constant), [x], Arena(x.device))
    del constant
    gc.collect()
    others = [torch.full((1 << 20,), 7.0, device="cuda") for _ in range(8)]
    (out,) = run([x])
    assert place not in [other.data_ptr() for other in others]
    torch.testing.assert_close(out, x + (1 << 20))


@pytest.mark.gpu
@pytest.mark.parametrize("missing", ["cuStreamGetCaptureInfo_v2", "cuFuncGetParamInfo"])
def test_pytorch_copies_where_the_driver_is_too_old(
    missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Driver:
        def __getattr__(self, name: str) -> Any:
            if name == missing:
                raise AttributeError
            return getattr(driver, name)

    driver = graph_node._driver()
    monkeypatch.setattr(graph_node, "_driver", Driver)
    x = torch.randn(64, 64, device="cuda")
    run = CudaGraph(square, [x], Arena(x.device))
    for given in (x, x + 1, x - 1):
        for out, true in zip(run([given]), square(given), strict=True):
            torch.testing.assert_close(out, true)
    assert run.copies_in.left_to_pytorch >= 3
    assert run.copies_out.left_to_pytorch >= 6


@pytest.mark.gpu
def test_arguments_of_a_kernel_are_8_bytes_or_refused() -> None:
    x = torch.randn(64, device="cuda")
    run = CudaGraph(square, [x], Arena(x.device))
    ((group, _),) = run.copies_in._groups
    assert group._captured is not None
    with pytest.raises(OSError, match="8 are wanted"):
        graph_node.KernelNode(run.graph, group._captured, [2])  # its size, of 4 bytes


@pytest.mark.gpu
def test_a_graph_has_a_workspace_of_its_own() -> None:
    """Whoever lets go of all of cuBLAS' workspaces, as graphs of torch.compile do, hurts none."""
    x, weight = (torch.randn(n, 1 << 16, device="cuda").half() for n in (16, 64))
    run = CudaGraph(lambda x: [x @ weight.t()], [x], Arena(x.device))
    (before,) = run([x])
    torch._C._cuda_clearCublasWorkspaces()
    others = on_every_stream(x.device)
    (after,) = run([x])
    assert torch.equal(before, after)
    assert all(bool((other == 7).all()) for other in others)


@pytest.mark.gpu
def test_two_models_capture_on_streams_that_nobody_else_has() -> None:
    device = torch.device("cuda")
    arenas = [Arena(device) for _ in range(3)]
    handles = {arena.captures.stream.cuda_stream for arena in arenas}
    pytorchs = {torch.cuda.Stream(device, priority).cuda_stream for priority in (0, -1) * 64}
    assert len(handles) == 3
    assert not handles & pytorchs


@pytest.mark.gpu
def test_models_that_come_and_go_leave_the_workspaces_of_one() -> None:
    x, weight = (torch.randn(n, 1 << 16, device="cuda").half() for n in (16, 64))
    kept = []
    for _ in range(5):
        CudaGraph(lambda x: [x @ weight.t()], [x], Arena(x.device))([x])
        gc.collect()
        torch.cuda.synchronize()
        kept.append(torch.cuda.memory_allocated())
    assert kept[1:] == kept[:-1]


def sum_with(constant: torch.Tensor, x: torch.Tensor) -> list[torch.Tensor]:
    return [x + constant.sum()]


@pytest.mark.gpu
@pytest.mark.parametrize("m", [16, 128])
def test_kernels_that_begin_early_see_what_the_ones_before_them_wrote(m: int) -> None:
    """A chain in which every kernel reads what the one before it wrote, replayed many times."""
    generator = torch.Generator("cuda").manual_seed(0)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, device="cuda").half()

    weights = [(random(256, 256) / 16, random(256), random(256)) for _ in range(8)]

    def chain(x: torch.Tensor) -> list[torch.Tensor]:
        for weight, bias, scale in weights:
            y = linear(x, weight, bias, "gelu")
            x = linear_layer_norm(y, weight, bias, x, scale, bias)
            x = layer_norm(swiglu(torch.cat([x, y], dim=-1)), scale, bias) + x
        return [x]

    with dependent_launches(torch.device("cuda")):
        run = CudaGraph(chain, [random(m, 256)], Arena(torch.device("cuda")))
    for _ in range(200):
        x = random(m, 256)
        (out,), (truth,) = run([x]), chain(x)
        assert torch.equal(out, truth)


@pytest.mark.gpu
def test_graphs_of_one_arena_do_not_disturb_each_other() -> None:
    arena = Arena(torch.device("cuda"))
    shapes = [(64, 64), (128, 32), (3, 5)]
    xs = [torch.randn(shape, device="cuda") for shape in shapes]
    runs = [CudaGraph(square, [x], arena) for x in xs]
    for _ in range(3):
        outputs = [run([x]) for run, x in zip(runs, xs, strict=True)]
    for out, x in zip(outputs, xs, strict=True):
        for one, true in zip(out, square(x), strict=True):
            torch.testing.assert_close(one, true)


@pytest.mark.gpu
def test_streams_and_threads_take_turns() -> None:
    arena = Arena(torch.device("cuda"))
    x = torch.randn(512, 512, device="cuda")
    run = CudaGraph(square, [x], arena)
    wrong: list[int] = []

    def work(number: int) -> None:
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            for _ in range(50):
                y = torch.full((512, 512), float(number), device="cuda")
                out, _ = run([y])
                if not bool((out == number * number).all()):
                    wrong.append(number)

    torch.cuda.synchronize()
    threads = [threading.Thread(target=work, args=(number,)) for number in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def slowly_more(x: torch.Tensor) -> list[torch.Tensor]:
    torch.cuda._sleep(50_000_000)  # cycles, tens of milliseconds
    return [x + 1]


@pytest.mark.gpu
def test_the_first_change_of_streams_waits_for_the_replay_before() -> None:
    """Else its inputs would be there before the first replay has read its own."""
    fives, sevens = (torch.full((64,), value, device="cuda") for value in (5.0, 7.0))
    run = CudaGraph(slowly_more, [fives], Arena(fives.device))
    first, second = torch.cuda.Stream(), torch.cuda.Stream()
    for _ in range(2):
        torch.cuda.synchronize()
        with torch.cuda.stream(first):
            (six,) = run([fives])
        with torch.cuda.stream(second):
            (eight,) = run([sevens])
        torch.cuda.synchronize()
        assert six.tolist() == [6.0] * 64
        assert eight.tolist() == [8.0] * 64
