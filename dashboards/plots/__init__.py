"""Figures, for Plotly and before it is there."""
