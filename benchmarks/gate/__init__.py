"""`python -m benchmarks.gate BASE HEAD`: may this change be merged?"""
