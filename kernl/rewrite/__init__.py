"""Rewriting graphs: what a model computes, with kernl's operators in the place of PyTorch's.

trace            a module or function as a graph in normal form
rewrite          every operator's spellings replaced, the largest first
replace_pattern  one pattern of one's own replaced
graph_report     what is in a graph
"""

from kernl.rewrite.replace import replace_pattern
from kernl.rewrite.report import Refusal, Report, graph_report
from kernl.rewrite.rewrite import rewrite
from kernl.rewrite.trace import trace

__all__ = ["Refusal", "Report", "graph_report", "replace_pattern", "rewrite", "trace"]
