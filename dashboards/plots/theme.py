"""Colours and the Plotly templates of the site, one for light and one for dark.

Colours are Okabe and Ito's palette, which people with any of the common colour-vision
deficiencies can tell apart; on dark ground blue is lightened. Lines also differ in dash and
marker, so that colour is never the only difference.
"""

from typing import Any

FONT = (
    'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "Noto Sans", Arial, sans-serif'
)

LIGHT = {
    "ink": "#16202b",
    "muted": "#5b6875",
    "grid": "#e3e8ed",
    "line": "#c3ccd5",
    "paper": "#ffffff",
    "blue": "#0072b2",
    "orange": "#d98b00",
    "green": "#009e73",
    "vermillion": "#d55e00",
    "purple": "#b5639a",
    "sky": "#3d9fd8",
    "neutral": "#8a96a3",
    "fast": "#3b9bd4",
    "middle": "#f3f5f7",
    "slow": "#e8833a",
}
DARK = {
    "ink": "#e8edf2",
    "muted": "#9aa7b4",
    "grid": "#26313c",
    "line": "#3a4652",
    "paper": "#151c23",
    "blue": "#56b4e9",
    "orange": "#e69f00",
    "green": "#2fc49a",
    "vermillion": "#f0803c",
    "purple": "#d79bc2",
    "sky": "#8fd0f5",
    "neutral": "#8b98a5",
    "fast": "#1d6fa5",
    "middle": "#2a343e",
    "slow": "#a8521c",
}

ROLES = {
    "kernl": "blue",
    "over eager": "blue",
    "over the best alternative": "orange",
    "eager": "neutral",
    "compile": "orange",
    "kernl_graphs_only": "sky",
    "kernl_rewrite_only": "sky",
    "autocast": "purple",
    "cudagraph": "green",
    "liger": "green",
    "library": "purple",
    "sdpa_cudnn": "vermillion",
    "sdpa_efficient": "sky",
    "sdpa_flash": "green",
    "compile_cudagraph": "vermillion",
    "compile_max_autotune": "vermillion",
    "compile_reduce_overhead": "vermillion",
    "sm_80": "orange",
    "sm_86": "green",
    "sm_90": "blue",
    "sm_100": "purple",
    "moved": "vermillion",
    "reference": "neutral",
}
"""What a trace shows → its colour."""

SPARE = ("green", "purple", "vermillion", "sky")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash")
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x")


def template(colours: dict[str, str]) -> dict[str, Any]:
    """The Plotly template for one set of colours."""
    axis = {
        "gridcolor": colours["grid"],
        "linecolor": colours["line"],
        "tickcolor": colours["line"],
        "zeroline": False,
        "showline": False,
        "automargin": True,
        "ticks": "",
        "ticklabelstandoff": 6,
        "tickfont": {"size": 12, "color": colours["muted"]},
        "title": {"font": {"size": 12, "color": colours["muted"]}, "standoff": 12},
    }
    return {
        "layout": {
            "font": {"family": FONT, "size": 13, "color": colours["ink"]},
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "colorway": [colours[n] for n in ("blue", "orange", "green", "purple", "vermillion")],
            "margin": {"l": 8, "r": 12, "t": 36, "b": 8},
            "xaxis": axis,
            "yaxis": axis,
            "hovermode": "closest",
            "hoverlabel": {
                "bgcolor": colours["paper"],
                "bordercolor": colours["line"],
                "font": {"family": FONT, "size": 13, "color": colours["ink"]},
                "align": "left",
            },
            "legend": {
                "orientation": "h",
                "x": 0,
                "y": 1.02,
                "xanchor": "left",
                "yanchor": "bottom",
                "font": {"size": 12.5, "color": colours["ink"]},
            },
            "annotationdefaults": {
                "font": {"size": 11, "color": colours["muted"]},
            },
            "shapedefaults": {"line": {"color": colours["line"], "width": 1}},
        }
    }


def themes() -> dict[str, Any]:
    """What the pages' script needs of a theme: the template, the colours of roles and of maps."""
    return {
        name: {
            "template": template(colours),
            "roles": {role: colours[colour] for role, colour in ROLES.items()},
            "spare": [colours[colour] for colour in SPARE],
            "dashes": DASHES,
            "symbols": SYMBOLS,
            "cell": colours["ink"],
            "speedup": [
                [0.0, colours["slow"]],
                [0.5, colours["middle"]],
                [1.0, colours["fast"]],
            ],
            "muted": colours["muted"],
        }
        for name, colours in (("light", LIGHT), ("dark", DARK))
    }
