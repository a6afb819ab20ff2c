"""Write `benchmarks/suite/cases.json`: names, dims, costs, versions.

They come from `kernl.ops.ALL`, and for models from `benchmarks.models.MODELS`.

    python -m benchmarks.freeze            write it
    python -m benchmarks.freeze --check    exit 1 where it is stale, and say what differs;
                                           else count the cases by kind

A frozen name never changes its meaning: when an operator's inputs change, raise its `version`.
"""

import argparse
import json
import sys
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from triton.tools.tensor_descriptor import TensorDescriptor

from benchmarks import models
from benchmarks.cases import FORMAT, PATH
from benchmarks.measure.alternatives import alternatives_for
from benchmarks.model import DTYPE, Model
from kernl.launch import Launch
from kernl.op import Case, Op
from kernl.ops import ALL

Named = tuple[tuple[str, object], ...]
Signature = tuple[str, Named, Named, int, int]
"""A kernel's name, its constants, the specialisations of its arguments, warps and stages."""

_PARTS = ("ops", "models")
_CASES = ("kernels", "codegen", "quick_kernels", "quick_codegen")

QUICK_KERNEL_CASES = 4
ARCHITECTURES = ("sm_80", "sm_86", "sm_89", "sm_90", "sm_100")
QUICK_ARCHITECTURES = ("sm_86", "sm_90", "sm_100")
"""sm_80 has more shared memory than sm_86, sm_89 its limits, and both nearly its code."""


def signature(launch: Launch) -> Signature:
    """What Triton compiles a kernel for: two launches with equal signatures share one binary.

    Triton specialises integers that are 1 or divisible by 16, and pointers by their element type.
    """
    return (
        launch.kernel.__name__,
        tuple(sorted(launch.constants.items())),
        tuple(
            (name, _specialization(value, name in launch.unspecialized))
            for name, value in sorted(launch.args.items())
        ),
        launch.num_warps,
        launch.num_stages,
    )


def _specialization(value: Any, unspecialized: bool) -> object:
    if isinstance(value, bool | float):
        return type(value).__name__
    if isinstance(value, int) and unspecialized:
        return value.bit_length() > 31
    if isinstance(value, int):
        return "one" if value == 1 else (value % 16 == 0, value.bit_length() > 31)
    if isinstance(value, TensorDescriptor):
        return f"{value.base.dtype} {value.block_shape}"
    return str(value.dtype)


def signatures(op: Op, case: Case) -> tuple[Signature, ...]:
    """What is compiled for a case, over all architectures."""
    inputs = op.inputs_on_meta(case)
    return tuple(
        signature(launch)
        for architecture in ARCHITECTURES
        for launch in op.plan(int(architecture.removeprefix("sm_")), **inputs).kernels
    )


def codegen_cases(op: Op) -> list[Case]:
    """The first case of each distinct set of launches over all architectures.

    A case that is a library's call everywhere has nothing to compile.
    """
    return list(_distinct(op).values())


def _distinct(op: Op) -> dict[tuple[Signature, ...], Case]:
    first: dict[tuple[Signature, ...], Case] = {}
    for case in op.cases():
        if found := signatures(op, case):
            first.setdefault(found, case)
    return first


def quick_kernel_cases(op: Op) -> list[Case]:
    """A few of the models' cases, from the smallest to the largest, timed in seconds."""
    edges = set(op.edge_cases())
    cases = sorted((case for case in op.cases() if case not in edges), key=op.bytes)
    count = min(QUICK_KERNEL_CASES, len(cases))
    return [cases[(2 * place + 1) * len(cases) // (2 * count)] for place in range(count)]


def quick_codegen_cases(compiled: Mapping[tuple[Signature, ...], Case]) -> list[Case]:
    """The part of the compile-only cases that a machine without a GPU compiles in minutes.

    Together they have each kernel in each of its element types, with each value of its flags and
    choices, each number of warps and each depth of the pipeline; every next one adds the most.
    """
    offered = {
        case: {feature for launch in launches for feature in _features(launch)}
        for launches, case in compiled.items()
    }
    wanted = set().union(*offered.values())
    kept = set()
    while wanted:
        best = max(offered, key=lambda case: len(offered[case] & wanted))
        kept.add(best)
        wanted -= offered[best]
    return [case for case in offered if case in kept]


def _features(launch: Signature) -> set[object]:
    name, constants, args, num_warps, num_stages = launch
    choices = [one for one in constants if isinstance(one[1], bool | str)]
    dtypes = [arg for arg in args if isinstance(arg[1], str) and arg[1].startswith("torch.")]
    parts = [*choices, *dtypes, ("warps", num_warps), ("stages", num_stages)]
    return {(name, part) for part in parts}


def implementations(op: Op) -> list[str]:
    """What is timed beside each other: a library's call where the operator names one, and others'
    kernels for it.
    """
    others = [one.name for one in alternatives_for(op.name)]
    return ["eager", "compile", *(["library"] if op.library else []), *others, "kernl"]


def document() -> dict[str, Any]:
    """What `cases.json` must hold for the operators as they are now."""
    return {
        "format": FORMAT,
        "architectures": list(ARCHITECTURES),
        "quick_architectures": list(QUICK_ARCHITECTURES),
        "ops": {op.name: _entry(op) for op in ALL},
        "models": {model.name: _model_entry(model) for model in models.MODELS},
    }


def _entry(op: Op) -> dict[str, Any]:
    compiled = _distinct(op)
    # Those that first time what they may run take seconds a case in which nobody else can work.
    left_out = [one.name for one in alternatives_for(op.name) if one.chooses]
    return {
        "version": op.version,
        "opt_in": op.opt_in,
        "implementations": implementations(op),
        **({"left_out": left_out} if left_out else {}),
        **({"arithmetic": op.arithmetic} if op.arithmetic else {}),
        "kernels": {case.name: _case(op, case) for case in op.cases()},
        "codegen": [case.name for case in compiled.values()],
        "quick_kernels": [case.name for case in quick_kernel_cases(op)],
        "quick_codegen": [case.name for case in quick_codegen_cases(compiled)],
    }


def _case(op: Op, case: Case) -> dict[str, Any]:
    return {
        "dims": dict(case.dims),
        "dtype": case.dtype,
        "bytes": op.bytes(case),
        "flops": op.flops(case),
    }


def _model_entry(model: Model) -> dict[str, Any]:
    return {
        "version": model.version,
        "operators": list(model.operators),
        "implementations": list(models.IMPLEMENTATIONS),
        "left_out": list(models.LEFT_OUT),
        "quick_left_out": list(models.QUICK_LEFT_OUT),
        "kernels": {case.name: {"dims": case.dims, "dtype": DTYPE} for case in model.cases},
        "quick_kernels": [case.name for case in model.quick],
    }


def render(content: dict[str, Any]) -> str:
    """JSON with one case a line, so that a review shows which case came or went."""
    head = {key: value for key, value in content.items() if key not in _PARTS}
    lines = ["{", *(f"  {json.dumps(key)}: {json.dumps(value)}," for key, value in head.items())]
    parts = [
        f"  {json.dumps(part)}: {{\n"
        + ",\n".join(_render_entry(name, entry) for name, entry in content[part].items())
        + "\n  }"
        for part in _PARTS
    ]
    return "\n".join([*lines, ",\n".join(parts), "}"]) + "\n"


def _render_entry(name: str, entry: dict[str, Any]) -> str:
    lines = []
    for key, value in entry.items():
        if key not in _CASES or not value:
            lines.append(f"      {json.dumps(key)}: {json.dumps(value)}")
        elif isinstance(value, dict):
            cases = (f"        {json.dumps(case)}: {json.dumps(of)}" for case, of in value.items())
            lines.append(f"      {json.dumps(key)}: {{\n" + ",\n".join(cases) + "\n      }")
        else:
            cases = (f"        {json.dumps(case)}" for case in value)
            lines.append(f"      {json.dumps(key)}: [\n" + ",\n".join(cases) + "\n      ]")
    return f"    {json.dumps(name)}: {{\n" + ",\n".join(lines) + "\n    }"


def differences(frozen: dict[str, Any], current: dict[str, Any]) -> list[str]:
    """What a reader must know of a stale file, a line each."""
    found = []
    entries, currents = (
        {name: entry for part in _PARTS for name, entry in content.get(part, {}).items()}
        for content in (frozen, current)
    )
    for name in sorted(set(entries) | set(currents)):
        old, new = entries.get(name), currents.get(name)
        if old is None or new is None:
            found.append(f"{name}: {'is new' if old is None else 'is gone'}")
            continue
        for kind in _CASES:
            before, now = set(old.get(kind, ())), set(new.get(kind, ()))
            gone, came = before - now, now - before
            found += [f"{name}: {kind} case {case} is gone" for case in sorted(gone)]
            found += [f"{name}: {kind} case {case} is new" for case in sorted(came)]
        if old.get("implementations") != new["implementations"]:
            found.append(f"{name}: timed in {', '.join(new['implementations'])}")
        found += _costs_that_differ(name, old.get("kernels", {}), new["kernels"])
        for setting in ("opt_in", "left_out", "quick_left_out", "arithmetic", "operators"):
            if old.get(setting) != new.get(setting):
                found.append(f"{name}: {setting} is now {new.get(setting)}")
        if old["version"] != new["version"]:
            found.append(f"{name}: version {old['version']} is now {new['version']}")
    return found or ["order, dims or settings differ"]


def _costs_that_differ(
    name: str, before: Mapping[str, Any], now: Mapping[str, Any]
) -> Iterator[str]:
    """At most one line: how many cases have other bytes or operations, and the first of them."""
    figures = ("bytes", "flops")
    other = [
        case
        for case in now
        if case in before and any(before[case].get(key) != now[case].get(key) for key in figures)
    ]
    if other:
        yield f"{name}: {len(other)} kernels case(s) have another cost, the first {other[0]}"


def counts(content: dict[str, Any]) -> list[str]:
    """How many cases and points there are of each kind, as a table in Markdown."""
    ops, known_models = content["ops"].values(), content["models"].values()
    compiled = sum(len(entry["codegen"]) for entry in ops)
    architectures = len(content["architectures"])
    quick = len(content["quick_architectures"]) * sum(len(one["quick_codegen"]) for one in ops)
    rows = [
        ("operators, device time", *_timed(ops)),
        ("models, wall clock", *_timed(known_models)),
        ("compiled code, six metrics each", compiled, architectures * compiled, quick),
    ]
    heading = ["| kind | cases | points | of these quick |", "| --- | ---: | ---: | ---: |"]
    return heading + [f"| {kind} | {a:,} | {b:,} | {c:,} |" for kind, a, b, c in rows]


def _timed(entries: Collection[dict[str, Any]]) -> tuple[int, int, int]:
    """Cases, points, and points of the quick profile."""
    cases, points, quick = 0, 0, 0
    for entry in entries:
        ways = len(entry["implementations"]) - len(entry.get("left_out", ()))
        cases += len(entry["kernels"])
        points += len(entry["kernels"]) * ways
        quick += len(entry["quick_kernels"]) * (ways - len(entry.get("quick_left_out", ())))
    return cases, points, quick


def main(argv: list[str] | None = None) -> int:
    """Write the file, or check it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.freeze", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--check", action="store_true", help="write nothing, exit 1 where stale")
    arguments = parser.parse_args(argv)

    current = document()
    text = render(current)
    before = PATH.read_text() if PATH.exists() else ""
    if before == text:
        print(f"{PATH.name} is up to date\n")
        print("\n".join(counts(current)))
        return 0
    if before:
        for line in differences(json.loads(before), current):
            print(line)
    if arguments.check:
        print(f"{PATH.name} is stale: run `python -m benchmarks.freeze` and review the change")
        return 1
    PATH.write_text(text)
    print(f"wrote {PATH}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
