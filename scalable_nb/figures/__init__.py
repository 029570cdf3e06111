"""Records to plotly figures: pure functions, no widget, no network.

Every figure is aggregated before it is drawn, so that it costs the same for ten rows and for
a million, and a figure on show can be brought up to date by giving its traces new values.

Text from errors is untrusted. plotly draws a subset of HTML and, where MathJax is loaded,
``$…$``; so all such text goes through `label_text`.
"""

from __future__ import annotations

from scalable_nb.figures.error_classes import (
    MAX_CLASSES,
    MAX_POINTS,
    SHORTEST_S,
    error_classes,
    execution_times,
    shown_classes,
)
from scalable_nb.figures.explorer_figure import ExplorerData, explorer_figure
from scalable_nb.figures.failure_context import (
    argument_rates,
    argument_values,
    places,
    retries,
    timeline,
)
from scalable_nb.figures.style import CATEGORY_COLOURS, label_text

__all__ = [
    "CATEGORY_COLOURS",
    "MAX_CLASSES",
    "MAX_POINTS",
    "SHORTEST_S",
    "ExplorerData",
    "argument_rates",
    "argument_values",
    "error_classes",
    "execution_times",
    "explorer_figure",
    "label_text",
    "places",
    "retries",
    "shown_classes",
    "timeline",
]
