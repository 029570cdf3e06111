"""From the words of a line to a subcommand and the values of its options."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any, NoReturn

from scalable_nb.magics.commands import find_subcommand
from scalable_nb.magics.subcommand import InvalidUsageError, Option, Subcommand, Surface


class _Parser(argparse.ArgumentParser):
    """An argparse parser that raises where the original ends the process."""

    def error(self, message: str) -> NoReturn:
        raise InvalidUsageError(message)


def parse(words: Sequence[str], surface: Surface) -> tuple[Subcommand, argparse.Namespace]:
    """Read the words after ``%scalable``.

    Returns
    -------
    tuple of Subcommand and argparse.Namespace
        The namespace has an attribute for each option and argument of the subcommand, those
        that every subcommand shares included. No words at all mean the subcommand ``help``; with
        ``--help`` nothing else of the line is looked at.

    Raises
    ------
    InvalidUsageError
        Names the word that is wrong, what is possible and the closest match.
    """
    first, *rest = words or ["help"]
    subcommand = find_subcommand("help" if first in ("--help", "-h") else first, surface)
    asks_help = "--help" in rest or "-h" in rest
    try:
        values, strays = _parser(subcommand, surface).parse_known_intermixed_args(
            ["-h"] if asks_help else rest
        )
    except argparse.ArgumentError as error:
        raise InvalidUsageError(_badly_valued(error, subcommand, surface)) from error
    if strays:
        raise InvalidUsageError(_stray(strays[0], subcommand, surface))
    _convert(vars(values), surface.options(subcommand))
    return subcommand, values


def _parser(subcommand: Subcommand, surface: Surface) -> _Parser:
    parser = _Parser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for argument in subcommand.arguments:
        if argument.is_repeated:
            parser.add_argument(argument.attribute, nargs="*", default=[])
        else:
            parser.add_argument(argument.attribute, nargs="?")
    for option in surface.options(subcommand):
        settings: dict[str, Any] = {"dest": option.attribute, "default": option.default}
        if option.is_flag:
            settings.update(action="store_true", default=False)
        elif option.is_repeated:
            settings.update(action="extend", nargs="+")
        parser.add_argument(*option.names, **settings)
    return parser


def _convert(values: dict[str, Any], options: Sequence[Option]) -> None:
    """Turn the texts in ``values`` into what the options say, in place."""
    for option in options:
        given = values[option.attribute]
        if option.is_flag or given is option.default:
            continue
        texts = given if option.is_repeated else [given]
        try:
            made = [option.kind(text) for text in texts]
        except ValueError as error:
            raise InvalidUsageError(f"{option.name} {' '.join(texts)}: {error}.") from error
        values[option.attribute] = made if option.is_repeated else made[0]


def _stray(word: str, subcommand: Subcommand, surface: Surface) -> str:
    """What to say of a word that belongs to nothing."""
    line = surface.line(subcommand)
    if word.startswith("-"):
        from scalable_nb.errors import UnknownNameError

        known = [option.name for option in surface.options(subcommand)]
        hint = f"`{line} --help` explains them."
        unknown = word.partition("=")[0]
        return str(UnknownNameError(f"option of `{subcommand.name}`", unknown, known, hint))
    valued = next((option for option in subcommand.options if not option.is_flag), None)
    meant = f" Did you mean `{line} {valued.name} {word}`?" if valued else ""
    return f"`{line}` has no place for {word!r}.{meant} `{line} --help` explains what it takes."


def _badly_valued(error: argparse.ArgumentError, subcommand: Subcommand, surface: Surface) -> str:
    option = surface.option(subcommand, (error.argument_name or "").split("/")[0])
    if option is None:
        return str(error)
    if option.is_flag:
        return f"{option.name} takes no value."
    line = f"{surface.line(subcommand)} {option.name} {option.value}"
    return f"{option.name} needs a value: `{line}`."
