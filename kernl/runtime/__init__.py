"""Running rewritten graphs: Python structures to tensors and back, and CUDA graphs."""
