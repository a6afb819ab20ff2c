"""A drawing as Plotly's own figure, which refuses what Plotly does not know."""

import plotly.graph_objects as go

from dashboards.plots.drawing import Drawing


def as_plotly(drawing: Drawing) -> go.Figure:
    """The drawing's figure, all of its attributes checked."""
    return go.Figure(data=drawing.figure.data, layout=drawing.figure.layout)
