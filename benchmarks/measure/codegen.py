"""Compile-only metrics: what the compiler makes of a kernel, with no GPU present.

Triton compiles for any NVIDIA architecture on any machine, and the two tools that come with it
read the machine code. So registers, spills, shared memory, instructions, those among them that
touch device memory, and occupancy are exact numbers: two runs agree to the digit, and one extra
register shows in a review.

Sources: CUDA C++ Programming Guide, "Technical Specifications per Compute Capability"; CUDA Binary
Utilities, the resource usage and SASS listings of cuobjdump.
"""

import hashlib
import json
import re
import subprocess
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, make_backend
from triton.runtime.cache import get_cache_manager
from triton.runtime.jit import create_function_from_signature

from kernl.launch import Launch, interpreting
from kernl.op import Case, Op

_CUOBJDUMP = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
_REGISTERS = re.compile(r"\bREG:(\d+)")
# `/*0a10*/   @!P0 LDG.E.128 R4, [R2] ;`: an address, a predicate where there is one, an opcode.
_INSTRUCTION = re.compile(r"^\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)", re.M)
_LOCAL_MEMORY = ("LDL", "STL")
# Loads, stores, copies to shared memory, atomics, and the tensor memory accelerator's; not REDUX.
_DEVICE_MEMORY = re.compile(r"LDG|STG|REDG?\b|ATOMG?\b|UBLKCP|UBLKRED|UTMA(LDG|STG|REDG)")
_COUNTS = "kernl_counts.json"


@dataclass(frozen=True)
class Multiprocessor:
    """What one streaming multiprocessor has to share out among blocks.

    Attributes:
        warps: most warps resident at once.
        blocks: most blocks resident at once.
        shared_memory: bytes, all blocks together.
    """

    warps: int
    blocks: int
    shared_memory: int


MULTIPROCESSORS = {
    "sm_80": Multiprocessor(warps=64, blocks=32, shared_memory=164 * 1024),
    "sm_86": Multiprocessor(warps=48, blocks=16, shared_memory=100 * 1024),
    "sm_89": Multiprocessor(warps=48, blocks=24, shared_memory=100 * 1024),
    "sm_90": Multiprocessor(warps=64, blocks=32, shared_memory=228 * 1024),
    "sm_100": Multiprocessor(warps=64, blocks=32, shared_memory=228 * 1024),
}
_REGISTER_FILE = 65536
_REGISTERS_PER_WARP_STEP = 256
_RESERVED_SHARED_MEMORY = 1024
_SHARED_MEMORY_STEP = 128


@dataclass(frozen=True)
class Metrics:
    """One case compiled for one architecture; several launches are summed or their worst taken.

    Attributes:
        registers: registers of one thread, the most of any launch.
        spills: instructions that load or store local memory, all launches together.
        shared_memory: bytes of shared memory of one block, the most of any launch.
        instructions: machine instructions without padding, all launches together.
        memory_instructions: of these, what loads, stores or copies device memory, of whatever
            width: where vectors fall apart into elements, there are more.
        occupancy: resident warps over the most that could be, 0 to 1, the least of any launch.
    """

    registers: int
    spills: int
    shared_memory: int
    instructions: int
    memory_instructions: int
    occupancy: float


class NotCompiled(Exception):
    """There is nothing to compile, in words."""


def measure(op: Op, case: Case, architecture: str) -> Metrics:
    """Compile every launch of a case for `architecture`, such as `sm_90`.

    Raises NotCompiled where the case runs a library's call there.
    """
    plan = op.plan_on_meta(case, int(architecture.removeprefix("sm_")))
    if not plan.kernels:
        raise NotCompiled(f"on {architecture} this case is a library's call, there is no kernel")
    return combine([compile_launch(launch, architecture) for launch in plan.kernels])


def combine(metrics: list[Metrics]) -> Metrics:
    """The metrics of a case from those of its launches."""
    return Metrics(
        registers=max(one.registers for one in metrics),
        spills=sum(one.spills for one in metrics),
        shared_memory=max(one.shared_memory for one in metrics),
        instructions=sum(one.instructions for one in metrics),
        memory_instructions=sum(one.memory_instructions for one in metrics),
        occupancy=min(one.occupancy for one in metrics),
    )


def compile_launch(launch: Launch, architecture: str) -> Metrics:
    """Compile one launch as its call on such a GPU would, and read the machine code."""
    if interpreting(launch.kernel):
        raise RuntimeError(
            "kernl was imported with TRITON_INTERPRET set, so there is nothing to compile; "
            "unset it and start again."
        )
    target = GPUTarget("cuda", int(architecture.removeprefix("sm_")), 32)
    compiled = triton.compile(
        _source(launch, target),
        target=target,
        options={"num_warps": launch.num_warps, "num_stages": launch.num_stages},
    )
    counts = _counts_kept(compiled.asm["cubin"])
    shared_memory = int(compiled.metadata.shared)
    return Metrics(
        registers=counts["registers"],
        spills=counts["spills"],
        shared_memory=shared_memory,
        instructions=counts["instructions"],
        memory_instructions=counts["memory_instructions"],
        occupancy=occupancy(architecture, launch.num_warps, counts["registers"], shared_memory),
    )


def _source(launch: Launch, target: GPUTarget) -> Any:
    """The kernel with the types and specialisations that a launch with these arguments gives it."""
    kernel = launch.kernel
    backend = make_backend(target)
    options = {"num_warps": launch.num_warps, "num_stages": launch.num_stages, "debug": False}
    bind = create_function_from_signature(kernel.signature, kernel.params, backend)
    bound, specialization, rest = bind(**launch.args, **launch.constants, **options)
    _, signature, constants, attributes = kernel._pack_args(
        backend, options, bound, specialization, rest
    )
    return ASTSource(kernel, signature, constants, attributes)


def _counts_kept(cubin: bytes) -> dict[str, int]:
    """`_counts`, once for each machine code: the tool takes as long to start as the compiler works.

    They lie in Triton's cache, where a commit finds what its parent left.
    """
    patterns = [one.pattern for one in (_REGISTERS, _INSTRUCTION, _DEVICE_MEMORY)]
    rules = f"{triton.__version__} {patterns} {_LOCAL_MEMORY}"
    kept = get_cache_manager(hashlib.sha256(rules.encode() + cubin).hexdigest())
    try:
        return dict(json.loads(Path(kept.get_file(_COUNTS) or "").read_text(encoding="utf-8")))
    except (OSError, ValueError):  # not there, or a broken file
        found = _counts(cubin)
        kept.put(json.dumps(found), _COUNTS, binary=False)
        return found


def _counts(cubin: bytes) -> dict[str, int]:
    """Registers of a thread, and instructions by what they do, as cuobjdump lists them."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        listing = _cuobjdump("-res-usage", "-sass", file.name)
    opcodes = [opcode for opcode in _INSTRUCTION.findall(listing) if opcode != "NOP"]
    return {
        "registers": int(_REGISTERS.findall(listing)[-1]),
        "spills": sum(opcode.startswith(_LOCAL_MEMORY) for opcode in opcodes),
        "instructions": len(opcodes),
        "memory_instructions": sum(_DEVICE_MEMORY.match(opcode) is not None for opcode in opcodes),
    }


def _cuobjdump(*arguments: str) -> str:
    command = [str(_CUOBJDUMP), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def occupancy(architecture: str, num_warps: int, registers: int, shared_memory: int) -> float:
    """Resident warps over the most that could be resident, by warps, registers and shared memory.

    Registers are handed out in steps of 256 a warp, shared memory in steps of 128 bytes with
    1 KiB kept by the system for each block.
    """
    limits = MULTIPROCESSORS[architecture]
    per_warp = _round_up(max(registers, 1) * 32, _REGISTERS_PER_WARP_STEP)
    per_block = _round_up(shared_memory + _RESERVED_SHARED_MEMORY, _SHARED_MEMORY_STEP)
    blocks = min(
        limits.blocks,
        limits.warps // num_warps,
        _REGISTER_FILE // per_warp // num_warps,
        limits.shared_memory // per_block,
    )
    return blocks * num_warps / limits.warps


def _round_up(value: int, step: int) -> int:
    return -(-value // step) * step


def as_values(metrics: Metrics) -> dict[str, float]:
    """Metrics by name, as the journal keeps them."""
    return asdict(metrics)
