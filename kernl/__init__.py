"""kernl: Triton kernels, FX rewriting and CUDA graphs for Hugging Face transformers.

    optimize_model(model)          makes its forward faster, in place
    restore_model(model)           undoes that
    explain(model, **inputs)       says what is replaced, refused and left

The operators are in `kernl.ops`, rewriting in `kernl.rewrite`, the errors that a user can meet in
`kernl.errors`.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kernl.optimize import explain, optimize_model, restore_model

__version__ = "0.1.0"

__all__ = ["__version__", "explain", "optimize_model", "restore_model"]


def __getattr__(name: str) -> Any:
    """The three functions bring transformers with them, which takes seconds: when asked for."""
    if name in ("explain", "optimize_model", "restore_model"):
        from kernl import optimize

        return getattr(optimize, name)
    raise AttributeError(f"module 'kernl' has no attribute {name!r}")
