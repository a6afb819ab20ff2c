"""Write `benchmarks/suite/cases.json` from `kernl.ops.ALL`: names, dims, versions.

    python -m benchmarks.freeze            write it
    python -m benchmarks.freeze --check    exit 1 where it is stale, and say what differs

A frozen name never changes its meaning: when an operator's inputs change, raise its `version`.
"""

import argparse
import json
import sys
from typing import Any

from benchmarks.cases import FORMAT, PATH
from kernl.launch import Launch
from kernl.op import Case, Op
from kernl.ops import ALL

ARCHITECTURES = ("sm_80", "sm_86", "sm_90", "sm_100")
IMPLEMENTATIONS = ("eager", "compile", "kernl")


def signature(launch: Launch) -> tuple[object, ...]:
    """What Triton compiles a kernel for: two launches with equal signatures share one binary.

    Triton specialises integers that are 1 or divisible by 16, and pointers by their element type.
    """
    return (
        launch.kernel.__name__,
        tuple(sorted(launch.constants.items())),
        tuple((name, _specialization(value)) for name, value in sorted(launch.args.items())),
        launch.num_warps,
        launch.num_stages,
    )


def _specialization(value: Any) -> object:
    if isinstance(value, bool | float):
        return type(value).__name__
    if isinstance(value, int):
        return "one" if value == 1 else (value % 16 == 0, value.bit_length() > 31)
    return str(value.dtype)


def codegen_cases(op: Op) -> list[Case]:
    """The first case of each distinct set of launches over all architectures."""
    first: dict[tuple[object, ...], Case] = {}
    for case in op.cases():
        key = tuple(
            signature(launch)
            for architecture in ARCHITECTURES
            for launch in op.plan_on_meta(case, int(architecture.removeprefix("sm_"))).launches
        )
        first.setdefault(key, case)
    return list(first.values())


def document() -> dict[str, Any]:
    """What `cases.json` must hold for the operators as they are now."""
    return {
        "format": FORMAT,
        "architectures": list(ARCHITECTURES),
        "implementations": list(IMPLEMENTATIONS),
        "ops": {
            op.name: {
                "version": op.version,
                "kernels": {
                    case.name: {"dims": dict(case.dims), "dtype": case.dtype} for case in op.cases()
                },
                "codegen": [case.name for case in codegen_cases(op)],
            }
            for op in ALL
        },
    }


def render(content: dict[str, Any]) -> str:
    """JSON with one case a line, so that a review shows which case came or went."""
    head = {key: value for key, value in content.items() if key != "ops"}
    lines = ["{", *(f"  {json.dumps(key)}: {json.dumps(value)}," for key, value in head.items())]
    lines.append('  "ops": {')
    lines.append(",\n".join(_render_op(name, entry) for name, entry in content["ops"].items()))
    lines += ["  }", "}"]
    return "\n".join(lines) + "\n"


def _render_op(name: str, entry: dict[str, Any]) -> str:
    kernels = ",\n".join(
        f"        {json.dumps(case)}: {json.dumps(value)}"
        for case, value in entry["kernels"].items()
    )
    codegen = ",\n".join(f"        {json.dumps(case)}" for case in entry["codegen"])
    return (
        f"    {json.dumps(name)}: {{\n"
        f'      "version": {entry["version"]},\n'
        f'      "kernels": {{\n{kernels}\n      }},\n'
        f'      "codegen": [\n{codegen}\n      ]\n'
        "    }"
    )


def differences(frozen: dict[str, Any], current: dict[str, Any]) -> list[str]:
    """What a reader must know of a stale file, a line each."""
    found = []
    for name in sorted(set(frozen["ops"]) | set(current["ops"])):
        old, new = frozen["ops"].get(name), current["ops"].get(name)
        if old is None or new is None:
            found.append(f"{name}: {'new operator' if old is None else 'operator is gone'}")
            continue
        for kind in ("kernels", "codegen"):
            gone, came = set(old[kind]) - set(new[kind]), set(new[kind]) - set(old[kind])
            found += [f"{name}: {kind} case {case} is gone" for case in sorted(gone)]
            found += [f"{name}: {kind} case {case} is new" for case in sorted(came)]
        if old["version"] != new["version"]:
            found.append(f"{name}: version {old['version']} is now {new['version']}")
    return found or ["order, dims or settings differ"]


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
        print(f"{PATH.name} is up to date")
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
