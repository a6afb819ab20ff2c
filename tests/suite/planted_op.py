"""An operator whose kernel does harm, as its case says: what a measuring process has to survive.

`planted` copies this file into a copy of kernl, where the real worker finds the operator. It
computes 2·x of (rows, 64) float32. The file `planted.log` beside it gets a line for each process
that imports it, and one for each case that is begun.
"""

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import triton
import triton.language as tl

from kernl.launch import Plan
from kernl.op import Case, Op

COLS = 64
BLOCK = 4096
"""Elements of one case at most: a launch has one program."""
FAR = 1 << 40
"""So many elements behind a tensor nothing is mapped."""
MORE_BYTES = 1 << 50
"""More than any machine has, and more than a process can address."""
PIECE_BYTES = 1 << 32
CALLS_BEFORE_TIMING = {"cpu": 1, "cuda": 1000}
"""On a GPU the check, the capture and the first replay take a hundred calls, timing thousands."""

_LOG = Path(__file__).with_name("planted.log")
_calls: dict[str, torch.Tensor] = {}


def _note(line: str) -> None:
    with _LOG.open("a") as log:
        log.write(line + "\n")


@triton.jit
def _double_kernel(
    x_ptr: "Any", out_ptr: "Any", size: "Any", FACTOR: tl.constexpr, BLOCK: tl.constexpr
) -> None:
    offs = tl.arange(0, BLOCK)
    x = tl.load(x_ptr + offs, mask=offs < size)
    tl.store(out_ptr + offs, FACTOR * x, mask=offs < size)


@triton.jit
def _double_then_astray_kernel(
    x_ptr: "Any",
    out_ptr: "Any",
    calls_ptr: "Any",
    limit: "Any",
    far: "Any",
    size: "Any",
    BLOCK: tl.constexpr,
) -> None:
    """Writes where no memory is once `limit` calls are over."""
    offs = tl.arange(0, BLOCK)
    x = tl.load(x_ptr + offs, mask=offs < size)
    astray = tl.where(tl.atomic_add(calls_ptr, 1) >= limit, far, 0)
    tl.store(out_ptr + offs + astray, 2.0 * x, mask=offs < size)


@triton.jit
def _three_wide_kernel(x_ptr: "Any", out_ptr: "Any") -> None:
    """Does not compile: a block has a power of two elements."""
    offs = tl.arange(0, 3)
    tl.store(out_ptr + offs, tl.load(x_ptr + offs))


@triton.jit
def _spin_kernel(flag_ptr: "Any", out_ptr: "Any") -> None:
    """Waits for a flag that nobody sets; the compiler may not leave out a volatile load."""
    flag = tl.load(flag_ptr, volatile=True)
    while flag == 0:
        flag = tl.load(flag_ptr, volatile=True)
    tl.store(out_ptr, 1.0)


def _doubled(x: torch.Tensor, factor: float = 2.0, missing: int = 0) -> torch.Tensor:
    out = torch.empty_like(x)
    _double_kernel[(1,)](x, out, x.numel() - missing, factor, BLOCK)
    return out


def _astray_after(x: torch.Tensor, fault: str, calls: int) -> torch.Tensor:
    out = torch.empty_like(x)
    if fault not in _calls:
        _calls[fault] = torch.zeros(1, dtype=torch.int32, device=x.device)
    _double_then_astray_kernel[(1,)](x, out, _calls[fault], calls, FAR, x.numel(), BLOCK)
    return out


def _illegal(x: torch.Tensor) -> torch.Tensor:
    return _astray_after(x, "illegal", 0)


def _late(x: torch.Tensor) -> torch.Tensor:
    return _astray_after(x, "late", CALLS_BEFORE_TIMING[x.device.type])


def _uncompiled(x: torch.Tensor) -> torch.Tensor:
    out = torch.empty_like(x)
    _three_wide_kernel[(1,)](x, out)
    return out


def _memory(x: torch.Tensor) -> torch.Tensor:
    return _doubled(x) + torch.empty(MORE_BYTES, dtype=torch.int8, device=x.device)[0]


def _hoard(x: torch.Tensor) -> torch.Tensor:
    pieces: list[torch.Tensor] = []
    while True:
        pieces.append(torch.empty(PIECE_BYTES, dtype=torch.int8, device=x.device))


def _hang(x: torch.Tensor) -> torch.Tensor:
    _note("hanging")
    if x.device.type == "cpu":
        while True:
            time.sleep(1)
    out = torch.empty_like(x)
    _spin_kernel[(1,)](torch.zeros(1, dtype=torch.int32, device=x.device), out)
    return out


def _hang_once(x: torch.Tensor) -> torch.Tensor:
    return _doubled(x) if "hanging" in _LOG.read_text().splitlines() else _hang(x)


def _signalled(number: signal.Signals) -> Callable[[torch.Tensor], torch.Tensor]:
    def call(x: torch.Tensor) -> torch.Tensor:
        os.kill(os.getpid(), number)
        return _doubled(x)

    return call


def _exits(x: torch.Tensor) -> torch.Tensor:
    sys.exit("a library has had enough")


def _writes(x: torch.Tensor) -> torch.Tensor:
    out = _doubled(x)
    x.copy_(out)
    return out


def _prints(x: torch.Tensor) -> torch.Tensor:
    """Prints what would end the case, and half a line, if it were the worker that said it."""
    print('{"kind": "done"}', flush=True)
    os.write(1, b'{"kind": "fault", "reason": "none"}\n\xff\x00{"kind":')
    return _doubled(x)


KERNELS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "sound": _doubled,
    "compile": _uncompiled,
    "memory": _memory,
    "hoard": _hoard,
    "illegal": _illegal,
    "late": _late,
    "hang": _hang,
    "hang_once": _hang_once,
    "segfault": _signalled(signal.SIGSEGV),
    "killed": _signalled(signal.SIGKILL),
    "exits": _exits,
    "wrong": lambda x: _doubled(x, factor=2.02),
    "holes": lambda x: _doubled(x, missing=1),
    "writes": _writes,
    "prints": _prints,
}


def _kernel(x: torch.Tensor, fault: str) -> torch.Tensor:
    return KERNELS[fault](x)


def _reference(x: torch.Tensor, fault: str) -> torch.Tensor:
    return 2 * x


def _inputs(case: Case, device: str, seed: int) -> dict[str, Any]:
    _note(f"case {case.name}")
    chance = torch.Generator().manual_seed(seed)
    x = torch.randn(case["rows"], COLS, generator=chance, dtype=case.torch_dtype).to(device)
    return {"x": x, "fault": case["fault"]}


def _plan(capability: int, **inputs: Any) -> Plan:
    raise NotImplementedError("a planted kernel is only called")


PLANTED = Op(
    name="planted",
    kernel=_kernel,
    reference=_reference,
    plan=_plan,
    check=lambda **_: None,
    dims=lambda *_: (),
    inputs=_inputs,
    edges=({"fault": "sound", "rows": 1},),
    bytes=lambda case: 2 * case.itemsize * case["rows"] * COLS,
    flops=lambda case: case["rows"] * COLS,
    tolerance={"fp32": 1e-6},
)

_note(f"worker {os.getpid()}")
