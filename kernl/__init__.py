"""kernl: Triton kernels, FX rewriting and CUDA graphs for Hugging Face transformers.

The operators are in `kernl.ops`; the errors that a user can meet are in `kernl.errors`.
"""

__version__ = "0.1.0"

__all__ = ["__version__"]
