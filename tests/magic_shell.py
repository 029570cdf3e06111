"""A real IPython shell inside the test's process, and what a cell shows in it."""

from __future__ import annotations

from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config


def make_shell() -> InteractiveShell:
    """A shell of its own, without history; `shell.user_ns` is empty of our names."""
    quiet = Config({"HistoryManager": {"enabled": False}})
    return InteractiveShell(config=quiet)


def usage_error(shell: InteractiveShell, cell: str) -> str:
    """Run a cell that must end in a `UsageError`, and give its text."""
    result = shell.run_cell(cell)
    error = result.error_before_exec or result.error_in_exec
    assert type(error) is UsageError, repr(error)
    return str(error)
