"""Installing the views when the first of our objects is shown, and not before.

Their installation imports the engine, which takes longer than everything else that
``%load_ext scalable_nb`` does.
"""

from __future__ import annotations

from typing import Any, Final

_SHOWN: Final = (
    "scalable_nb.client.client.ScalableClient",
    "scalable_nb.client.futures.list",  # `FutureList`, by the name under which Dask knows it
    "scalable_nb.session.session.ScalableSession",
    "scalable_nb.session.status.SessionStatus",
)


def install_when_shown(ipython: Any) -> None:
    """Have `scalable_nb.widgets.install` called just before it is needed."""
    # This formatter is asked before all others, and knows types that are not imported yet.
    first_asked = ipython.display_formatter.ipython_display_formatter

    def install_then_show(value: object) -> None:
        from scalable_nb import widgets

        forget(ipython)
        widgets.install()
        if not first_asked(value):
            raise NotImplementedError  # IPython's way to say: ask the other formatters

    for name in _SHOWN:
        first_asked.for_type_by_name(*name.rsplit(".", 1), install_then_show)


def forget(ipython: Any) -> None:
    """Take back what `install_when_shown` registered."""
    for name in _SHOWN:
        ipython.display_formatter.ipython_display_formatter.pop(name, None)
