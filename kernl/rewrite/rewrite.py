"""Every operator's spellings, in order, over one graph."""

from functools import cache

import torch
from torch import fx

from kernl.op import Spelling
from kernl.ops import ALL
from kernl.rewrite.fold import fold_constants, look_at_tables
from kernl.rewrite.glu import join_glus
from kernl.rewrite.known import parts_of, targets
from kernl.rewrite.masks import place_masks
from kernl.rewrite.pack import lay_out_convolutions, pack_linears
from kernl.rewrite.replace import Kind, apply_spelling, kinds
from kernl.rewrite.report import Report, left_to_pytorch
from kernl.rewrite.scale import fold_scales

_GATED = ("swiglu", "geglu")
"""Before `linear`, which would take the activation away from the product with it."""


def rewrite(graph_module: fx.GraphModule) -> Report:
    """Put kernl's operators into a graph, in place; what was done comes back.

    Spellings of more nodes go first, so that a linear layer with its activation is found before
    the linear layer alone; equals go in the order of `kernl.ops.ALL`, gated activations in front.

    Args:
        graph_module: as `trace` returns it.
    """
    report = Report()
    fold_constants(graph_module)
    for name, place, spelling in _ordered(*_kind(graph_module.graph)):
        there = set(targets(graph_module.graph))
        possible = [
            kind
            for kind in kinds(graph_module.graph)
            if there.issuperset(parts_of(f"{name} {place}", spelling, *kind))
        ]
        if possible:
            apply_spelling(graph_module, name, spelling, report, possible)
    fold_scales(graph_module)
    place_masks(graph_module, report)
    look_at_tables(graph_module)
    lay_out_convolutions(graph_module)
    report.packed = pack_linears(graph_module)
    join_glus(graph_module, report)
    report.left = left_to_pytorch(graph_module.graph)
    return report


def _kind(graph: fx.Graph) -> Kind:
    """The dtype and device in which spellings are sized: half precision, where casts are nodes."""
    found = kinds(graph)
    halves = [kind for kind in found if kind[0] != torch.float32]
    device = found[0][1] if found else torch.device("cpu")
    return halves[0] if halves else (torch.float16, device)


@cache
def _ordered(dtype: torch.dtype, device: torch.device) -> tuple[tuple[str, int, Spelling], ...]:
    """Operators' names and their spellings, each with its place among those of the operator."""
    found = [
        (op.name, place, spelling)
        for op in ALL
        if not op.opt_in
        for place, spelling in enumerate(op.spellings)
    ]

    def rank(one: tuple[str, int, Spelling]) -> tuple[int, bool]:
        name, place, spelling = one
        return -len(parts_of(f"{name} {place}", spelling, dtype, device)), name not in _GATED

    return tuple(sorted(found, key=rank))
