"""The suite's cases as functions that pytest runs, with pytest-benchmark's tables.

    pytest -k benchmark --benchmark-group-by fullfunc,param:implementation,param:shape
    pytest -k "benchmark_linear and kernl" --benchmark-json linear.json

A shape is measured once, in all implementations that were chosen, side by side, by what measures
it for asv: checked, then device time with L2 cold for an operator, wall clock for a model. The
samples are then handed to pytest-benchmark, whose clock goes on by each of them.
"""
