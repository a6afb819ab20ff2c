"""What rewriting did to a graph, in figures and in words."""

from collections import Counter
from dataclasses import dataclass, field

from torch import fx

from kernl.rewrite.nodes import VIEWS


@dataclass(frozen=True)
class Refusal:
    """A place that looks like a pattern and was left to PyTorch.

    Attributes:
        op: the operator that would stand there.
        place: the node at which the pattern ends.
        reason: why it does not, in words.
    """

    op: str
    place: str
    reason: str


@dataclass
class Report:
    """What was replaced, how often, what was refused and what PyTorch still computes.

    Attributes:
        fused: how often each operator was put in.
        refused: each place that was looked at and left, with the reason.
        packed: how many linear layers became part of another with the same input.
        masks: what masks of attention became, and how often.
        left: PyTorch's operators in the graph by name, those aside that move no data.
    """

    fused: Counter[str] = field(default_factory=Counter)
    refused: list[Refusal] = field(default_factory=list)
    left: Counter[str] = field(default_factory=Counter)
    packed: int = 0
    masks: Counter[str] = field(default_factory=Counter)

    def note_fused(self, op: str, place: str) -> None:
        """An operator stands at this place now; that another spelling did not is forgotten."""
        self.fused[op] += 1
        self.refused = [one for one in self.refused if (one.op, one.place) != (op, place)]

    def note_joined(self, op: str, *parts: str) -> None:
        """An operator stands where one of each of these stood, which no longer count."""
        self.fused[op] += 1
        self.fused.subtract(parts)
        self.fused = +self.fused

    def __str__(self) -> str:
        lines = ["replaced:"]
        lines += [f"  {count:4d} × {name}" for name, count in self.fused.most_common()]
        if not self.fused:
            found = (
                "what was found is refused" if self.refused else "no operator's spelling was found"
            )
            lines.append(f"  nothing: {found} in this model")
        if self.packed:
            lines.append(f"packed: {self.packed} linear layers went into another of the same input")
        if self.masks:
            lines.append("masks of attention:")
            lines += [f"  {count:4d} × {change}" for change, count in self.masks.most_common()]
        if self.refused:
            lines.append("refused:")
            reasons = Counter((one.op, one.reason) for one in self.refused)
            lines += [
                f"  {count:4d} × {op}: {reason}" for (op, reason), count in reasons.most_common()
            ]
        if self.left:
            lines.append("left to PyTorch:")
            lines += [f"  {count:4d} × {name}" for name, count in self.left.most_common()]
        return "\n".join(lines)


def left_to_pytorch(graph: fx.Graph) -> Counter[str]:
    """PyTorch's operators in a graph by name, without those that only look at memory otherwise."""
    found: Counter[str] = Counter()
    for node in graph.nodes:
        if node.op != "call_function":
            continue
        namespace, _, rest = str(node.target).partition(".")
        if namespace == "aten" and node.target not in VIEWS:
            found[rest.partition(".")[0]] += 1
    return found


def graph_report(graph_module: fx.GraphModule) -> str:
    """A table of a graph's operators and how often each is there, kernl's first.

    Args:
        graph_module: as `trace` or `rewrite` return it.
    """
    ours: Counter[str] = Counter()
    for node in graph_module.graph.nodes:
        if node.op == "call_function" and str(node.target).startswith("kernl."):
            ours[str(node.target).removesuffix(".default")] += 1
    left = left_to_pytorch(graph_module.graph)
    lines = [f"{count:5d}  {name}" for name, count in ours.most_common()]
    lines += [f"{count:5d}  aten.{name}" for name, count in left.most_common()]
    return "\n".join(lines) or "    0  an empty graph"
