"""Answering a page while a cell runs."""

from __future__ import annotations

from typing import Any


def let_callbacks_run_in_subshells(comm: Any) -> None:
    """Have what a page asks through a widget's comm answered at once, where that is possible."""
    # ipykernel 7.4 sends a page's message to the shell that last published on the comm; with
    # JupyterLab's subshells it would be answered while a cell runs. Checked on 7.4.0; where
    # the method is missing, messages wait for the end of the cell, and the view says so.
    if hasattr(comm, "_reply_subshell_for"):
        comm._reply_subshell_for = lambda data, default: default
