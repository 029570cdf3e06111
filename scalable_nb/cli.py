"""The command line ``scalable``: the subcommands of the table that need no notebook.

click speaks with the shell (completion, pipes, exit codes: 0 well, 1 an error of ours,
2 wrong use); words are understood by the same parser as those of the magic.
"""

from __future__ import annotations

import click
from click.shell_completion import CompletionItem

from scalable_nb import __version__
from scalable_nb.magics.commands import SHELL
from scalable_nb.magics.commands.help import subcommand_help
from scalable_nb.magics.completion import complete_words
from scalable_nb.magics.parser import parse
from scalable_nb.magics.subcommand import Context, InvalidUsageError, plain


class _UsageError(click.ClickException):
    """Wrong use, without the lines click would put before our own words."""

    exit_code = 2


class _Command(click.Command):
    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Offer what fits after the words so far, of our options and of everything else."""
        offer = complete_words(list(ctx.params["words"] or ()), incomplete, SHELL)
        return [CompletionItem(word) for word in offer.words]


def _complete(ctx: click.Context, param: click.Parameter, beginning: str) -> list[CompletionItem]:
    return ctx.command.shell_complete(ctx, beginning)


@click.command(
    cls=_Command,
    # From the first word on, every word goes to our own parser as it is.
    context_settings={
        "allow_interspersed_args": False,
        "ignore_unknown_options": True,
        "help_option_names": [],
    },
)
@click.version_option(__version__, prog_name="scalable-nb")
@click.argument("words", nargs=-1, type=click.UNPROCESSED, shell_complete=_complete)
def main(words: tuple[str, ...]) -> None:
    """Run a subcommand, e.g. ``scalable report --last --failures``."""
    try:
        subcommand, options = parse(words, SHELL)
        echo = _echo_notice
        value = (
            subcommand_help(subcommand, SHELL)
            if options.help
            else subcommand.run(Context(SHELL, echo), options)
        )
    except InvalidUsageError as error:
        raise _UsageError(plain(error)) from error
    except Exception as error:
        from scalable_nb.errors import ScalableError

        if isinstance(error, ScalableError):
            raise click.ClickException(plain(error)) from error
        raise
    click.echo(_shown(value))


def _echo_notice(text: str) -> None:
    click.echo(plain(text), err=True)


def _shown(value: object) -> str:
    if not isinstance(value, dict):
        return plain(value)
    import orjson

    from scalable_nb.telemetry.sanitize import escape_json

    return escape_json(orjson.dumps(value, option=orjson.OPT_INDENT_2).decode())
