"""A button that copies a text, without the kernel."""

from __future__ import annotations

from pathlib import Path

import anywidget
import traitlets


class CopyButton(anywidget.AnyWidget):
    """A button that copies a text, written by Python, to the clipboard of the browser."""

    _esm = Path(__file__).parent / "static" / "clipboard.js"
    label = traitlets.Unicode("Copy as GitHub issue").tag(sync=True)
    text = traitlets.Unicode().tag(sync=True)
