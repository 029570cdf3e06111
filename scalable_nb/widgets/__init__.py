"""Views of a run in a notebook: live table, failure explorer, session card, progress line.

Nothing heavy is imported before something is shown.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scalable_nb.widgets.display import run_table, show, table

__all__ = ["run_table", "show", "table"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from scalable_nb.widgets import display

    return getattr(display, name)
