"""``help``: all subcommands, or one."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Iterable, Mapping

from scalable_nb.magics.subcommand import (
    Argument,
    Context,
    Example,
    Option,
    Subcommand,
    Surface,
    Text,
)


def make_subcommand(
    subcommands: Mapping[str, Subcommand], find_subcommand: Callable[[str, Surface], Subcommand]
) -> Subcommand:
    """Return ``help`` for a table of subcommands.

    Parameters
    ----------
    subcommands : mapping
        Name -> subcommand; read when help is typed, so that it may contain ``help`` itself.
    find_subcommand : callable
        Returns the subcommand of a name on a surface.
    """

    def run(context: Context, options: Namespace) -> Text:
        if options.subcommand is None:
            return overview(context.surface)
        return subcommand_help(
            find_subcommand(options.subcommand, context.surface), context.surface
        )

    def names(words: list[str]) -> Iterable[str]:
        return subcommands

    return Subcommand(
        name="help",
        summary="list the subcommands, or explain one",
        run=run,
        arguments=(Argument("subcommand", "SUBCOMMAND", "the subcommand to explain", names),),
        examples=(Example("help", "list all subcommands"), Example("help report", "explain one")),
        python="import scalable_nb; help(scalable_nb)",
        on_command_line=True,
    )


def overview(surface: Surface) -> Text:
    """One line per subcommand."""
    rows = [(subcommand.name, subcommand.summary) for subcommand in surface.subcommands.values()]
    shared = " ".join(option.usage for option in surface.shared)
    return Text(
        f"{surface.prompt} SUBCOMMAND [options]\n\n{_columns(rows)}\n\n"
        f"Every subcommand takes {shared}.\n"
        f"`{surface.prompt} SUBCOMMAND --help` explains a subcommand with examples."
    )


def subcommand_help(subcommand: Subcommand, surface: Surface) -> Text:
    """Everything about one subcommand: usage, options, examples, the same in Python."""
    parts = [
        usage(subcommand, surface),
        subcommand.summary[0].upper() + subcommand.summary[1:] + ".",
    ]
    if subcommand.arguments:
        parts.append(_section("arguments", [(a.value, a.summary) for a in subcommand.arguments]))
    options = [(_spellings(option), option.summary) for option in surface.options(subcommand)]
    parts.append(_section("options", options))
    start = surface.line(subcommand).removesuffix(subcommand.name)
    examples = [(start + e.line, f"# {e.effect}") for e in subcommand.examples]
    parts.append(_section("examples", examples))
    parts.append(f"in Python:\n  {subcommand.python}")
    return Text("\n\n".join(parts))


def usage(subcommand: Subcommand, surface: Surface) -> str:
    """The subcommand with its arguments and options on one line."""
    arguments = [argument.usage for argument in subcommand.arguments]
    options = [option.usage for option in subcommand.options]
    return " ".join([surface.line(subcommand), *arguments, *options])


def _spellings(option: Option) -> str:
    short = [name for name in option.names if not name.startswith("--")]
    long = [name for name in option.names if name.startswith("--")]
    return " ".join(word for word in (", ".join([*short, *long]), option.value) if word)


def _section(title: str, rows: Iterable[tuple[str, str]]) -> str:
    return f"{title}:\n{_columns(rows)}"


def _columns(rows: Iterable[tuple[str, str]]) -> str:
    rows = list(rows)
    width = max(len(left) for left, _ in rows)
    return "\n".join(f"  {left:<{width}}  {right}" for left, right in rows)
