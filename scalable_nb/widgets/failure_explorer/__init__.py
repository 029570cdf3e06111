"""The failure explorer: chart, controls, texts, exports."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scalable_nb.widgets.failure_explorer.explorer import FailureExplorer

__all__ = ["FailureExplorer"]


def __getattr__(name: str) -> Any:
    if name != "FailureExplorer":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from scalable_nb.widgets.failure_explorer.explorer import FailureExplorer

    return FailureExplorer
