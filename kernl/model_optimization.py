"""Another way to import `optimize_model`, which older programs use."""

from kernl.optimize import optimize_model

__all__ = ["optimize_model"]
