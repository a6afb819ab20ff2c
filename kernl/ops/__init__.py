"""The operators, one kernel a file, and `ALL`: the registry from which everything else derives."""

from kernl.op import Op
from kernl.ops.layer_norm import LAYER_NORM, layer_norm
from kernl.ops.linear import LINEAR, linear
from kernl.ops.softmax import SOFTMAX, softmax

ALL: tuple[Op, ...] = (SOFTMAX, LAYER_NORM, LINEAR)

__all__ = ["ALL", "layer_norm", "linear", "softmax"]
