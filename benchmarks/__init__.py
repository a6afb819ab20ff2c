"""Measurement of kernl: the asv suite, its results, their comparison and the merge gate."""
