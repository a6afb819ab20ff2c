"""What a profile leaves of the suite, as asv takes it: `python -m benchmarks.measure.selection`.

    python -m benchmarks.measure.selection --bench codegen.Softmax

Prints regular expressions for asv's `--bench`, one a line, which together match the cases that the
profile in KERNL_PROFILE selects, of the benchmarks that REGEX matches, in the implementations that
KERNL_IMPLEMENTATIONS names. asv forks a process for each case and metric that its expressions
match, also where the suite then says that they are left out; in the quick profile that is nine of
ten. `make measure` asks here first.

Where REGEX matches no benchmark's name, as it does where it names a case, it is printed as it is.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Collection, Iterator, Sequence

from benchmarks import cases as frozen_cases
from benchmarks.asv_file import METRICS
from benchmarks.cases import Frozen


def class_name(op: str) -> str:
    """The class of an operator or a model in a suite: `LayerNorm` of `layer_norm`."""
    return "".join(part.capitalize() for part in op.split("_"))


def names_of(suite: str, op: str) -> list[str]:
    """The benchmarks of an operator or a model: `codegen.Softmax.track_spills` and its like."""
    return [f"{suite}.{class_name(op)}.track_{metric}" for metric in METRICS[suite]]


def matching(ops: Sequence[str], regex: str, suite: str) -> list[str]:
    """The operators or models of which asv would pick a benchmark of this suite by `regex`."""
    return [op for op in ops if any(re.search(regex, name) for name in names_of(suite, op))]


def expressions(frozen: Frozen, regex: str) -> list[str]:
    """Expressions for what the profile selects, or `regex` where it matches no benchmark's name."""
    return list(_expressions(frozen, regex)) or [regex]


def _expressions(frozen: Frozen, regex: str) -> Iterator[str]:
    for suite in METRICS:
        for op in matching(frozen.models if suite == "models" else frozen.ops, regex, suite):
            cases, variants = _selected(frozen, suite, op)
            if cases and variants:
                picked = [name for name in names_of(suite, op) if re.search(regex, name)]
                yield f"^{_any(picked)}\\('{_any(cases)}', '{_any(variants)}'\\)$"


def _selected(frozen: Frozen, suite: str, op: str) -> tuple[Collection[str], Collection[str]]:
    if suite == "codegen":
        return frozen.selected_codegen_cases(op), frozen.selected_architectures()
    return frozen.selected_kernel_cases(op), frozen.selected_implementations(op)


def _any(names: Collection[str]) -> str:
    return f"(?:{'|'.join(re.escape(name) for name in sorted(names))})"


def regular_expression(text: str) -> str:
    """For the command line: the text, or an error in words."""
    try:
        re.compile(text)
    except re.error as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no regular expression: {error}") from error
    return text


def whole_number(least: int) -> Callable[[str], int]:
    """For the command line: a whole number of at least so much, or an error in words."""

    def number(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number of at least {least}")
        return int(text)

    return number


def main(arguments: Sequence[str] | None = None) -> None:
    """Print; exits with 2 and a message where REGEX or the environment names what there is not."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.measure.selection", description=__doc__
    )
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "--bench", type=regular_expression, default="", metavar="REGEX", help="as asv takes it"
    )
    options = parser.parse_args(arguments)
    try:
        found = expressions(frozen_cases.load(), options.bench)
    except ValueError as error:
        parser.error(str(error))
    print("\n".join(found))


if __name__ == "__main__":
    main()
