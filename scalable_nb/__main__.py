"""``python -m scalable_nb`` is the command line."""

from __future__ import annotations

from scalable_nb.cli import main

main(prog_name="scalable")
