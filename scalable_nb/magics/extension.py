"""``%scalable``: the line magic, its loading and its completion."""

from __future__ import annotations

from typing import Any, Final

from IPython.core.completer import (
    CompletionContext,
    SimpleCompletion,
    SimpleMatcherResult,
    context_matcher,
)
from IPython.core.error import UsageError
from IPython.core.magic import (
    Magics,
    line_cell_magic,
    magics_class,
    needs_local_scope,
    no_var_expand,
)

from scalable_nb.magics.commands import NOTEBOOK
from scalable_nb.magics.commands.help import overview, subcommand_help
from scalable_nb.magics.completion import complete_line
from scalable_nb.magics.parser import parse, split_cell_line, split_line
from scalable_nb.magics.subcommand import Context, InvalidUsageError, Subcommand, plain

_SHOWN: Final = (
    "scalable_nb.client.client.ScalableClient",
    "scalable_nb.client.futures.list",  # `FutureList`, by the name under which Dask knows it
    "scalable_nb.session.session.ScalableSession",
    "scalable_nb.session.status.SessionStatus",
)


@magics_class
class ScalableMagics(Magics):
    """The magic, bound to one IPython shell."""

    @needs_local_scope
    @no_var_expand  # split_line expands: values with spaces or quotes stay one word
    @line_cell_magic
    def scalable(
        self, line: str, cell: str | None = None, local_ns: dict[str, Any] | None = None
    ) -> object:
        """Run a subcommand."""
        variables: dict[str, Any] = self.shell.user_ns  # type: ignore[union-attr]
        try:
            split = split_line if cell is None else split_cell_line
            words = split(line, {**variables, **(local_ns or {})})
            subcommand, options = parse(words, NOTEBOOK)
            if options.help:
                return subcommand_help(subcommand, NOTEBOOK)
            _check_cell(subcommand, cell)
            echo = _nothing if options.quiet else _print_plain
            value = subcommand.run(Context(NOTEBOOK, echo, variables, cell), options)
        except InvalidUsageError as error:
            raise UsageError(plain(error)) from error
        except Exception as error:
            if _is_ours(error):
                raise UsageError(plain(error)) from error
            raise
        if options.out:
            variables[options.out] = value
        return None if options.quiet else value

    scalable.__doc__ = overview(NOTEBOOK)

    # First of all matchers: what it offers makes the others superfluous.
    @context_matcher(priority=1000)  # type: ignore[untyped-decorator]
    def complete(self, context: CompletionContext) -> SimpleMatcherResult:
        """Offer subcommands, options and values on a ``%scalable`` line, and nothing else there."""
        offered = complete_line(context.text_until_cursor, NOTEBOOK)
        return SimpleMatcherResult(
            completions=[SimpleCompletion(text=word, type="magic") for word in offered.words],
            matched_fragment=offered.fragment,
            suppress=True,
        )


def load(ipython: Any) -> None:
    """Register the magic, its completion and the views; loading again replaces them."""
    unload(ipython)
    magics = ScalableMagics(shell=ipython)
    ipython.register_magics(magics)
    ipython.Completer.custom_matchers.append(magics.complete)
    install_when_shown(ipython)


def unload(ipython: Any) -> None:
    """Take the magic and its completion away again."""
    magics = ipython.magics_manager.registry.pop(ScalableMagics.__name__, None)
    if magics is None:
        return
    for kind in ("line", "cell"):
        ipython.magics_manager.magics[kind].pop("scalable", None)
    forget(ipython)
    matchers = ipython.Completer.custom_matchers
    matchers[:] = [matcher for matcher in matchers if matcher != magics.complete]


def _check_cell(subcommand: Subcommand, cell: str | None) -> None:
    line = NOTEBOOK.line(subcommand)
    if subcommand.takes_cell and cell is None:
        raise InvalidUsageError(
            f"`{subcommand.name}` runs the cell below it: begin the cell with `{line}`."
        )
    if not subcommand.takes_cell and cell is not None:
        raise InvalidUsageError(
            f"`{subcommand.name}` has no use for a cell: write `{line}`, with one %."
        )


def _is_ours(error: Exception) -> bool:
    from scalable_nb.errors import ScalableError

    return isinstance(error, ScalableError)


def _print_plain(text: str) -> None:
    print(plain(text))  # noqa: T201 - a notebook shows it below the cell


def _nothing(text: str) -> None:
    """Where ``echo`` goes with ``-q``."""


def install_when_shown(ipython: Any) -> None:
    """Have `scalable_nb.widgets.display.install` called just before it is needed."""
    # This formatter is asked before all others, and knows types that are not imported yet.
    formatter = ipython.display_formatter.ipython_display_formatter

    def install_then_show(value: object) -> None:
        from scalable_nb.widgets import display

        forget(ipython)
        display.install()
        if not formatter(value):
            raise NotImplementedError  # IPython's way to say: ask the other formatters

    for name in _SHOWN:
        formatter.for_type_by_name(*name.rsplit(".", 1), install_then_show)


def forget(ipython: Any) -> None:
    """Take back what `install_when_shown` registered."""
    for name in _SHOWN:
        ipython.display_formatter.ipython_display_formatter.pop(name, None)
