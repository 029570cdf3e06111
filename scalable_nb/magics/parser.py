"""From the words of a line to a verb and the values of its options."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any, NoReturn

from scalable_nb.magics.verb import Option, Surface, Verb, WrongUse
from scalable_nb.magics.verb_registry import find_verb


class _Parser(argparse.ArgumentParser):
    """An argparse parser that raises where the original ends the process."""

    def error(self, message: str) -> NoReturn:
        raise WrongUse(message)


def parse(words: Sequence[str], surface: Surface) -> tuple[Verb, argparse.Namespace]:
    """Read the words after ``%scalable``.

    Returns
    -------
    tuple of Verb and argparse.Namespace
        The namespace has an attribute for each option and argument of the verb, those
        that every verb shares included. No words at all mean the verb ``help``; with
        ``--help`` nothing else of the line is looked at.

    Raises
    ------
    WrongUse
        Names the word that is wrong, what is possible and the closest match.
    """
    first, *rest = words or ["help"]
    verb = find_verb("help" if first in ("--help", "-h") else first, surface)
    asks_help = "--help" in rest or "-h" in rest
    try:
        values, strays = _parser(verb, surface).parse_known_intermixed_args(
            ["-h"] if asks_help else rest
        )
    except argparse.ArgumentError as error:
        raise WrongUse(_badly_valued(error, verb, surface)) from error
    if strays:
        raise WrongUse(_stray(strays[0], verb, surface))
    _convert(vars(values), surface.options(verb))
    return verb, values


def _parser(verb: Verb, surface: Surface) -> _Parser:
    parser = _Parser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for argument in verb.arguments:
        if argument.is_repeated:
            parser.add_argument(argument.attribute, nargs="*", default=[])
        else:
            parser.add_argument(argument.attribute, nargs="?")
    for option in surface.options(verb):
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
            raise WrongUse(f"{option.name} {' '.join(texts)}: {error}.") from error
        values[option.attribute] = made if option.is_repeated else made[0]


def _stray(word: str, verb: Verb, surface: Surface) -> str:
    """What to say of a word that belongs to nothing."""
    line = surface.line(verb)
    if word.startswith("-"):
        from scalable_nb.errors import UnknownNameError

        known = [option.name for option in surface.options(verb)]
        hint = f"`{line} --help` explains them."
        unknown = word.partition("=")[0]
        return str(UnknownNameError(f"option of `{verb.name}`", unknown, known, hint))
    valued = next((option for option in verb.options if not option.is_flag), None)
    meant = f" Did you mean `{line} {valued.name} {word}`?" if valued else ""
    return f"`{line}` has no place for {word!r}.{meant} `{line} --help` explains what it takes."


def _badly_valued(error: argparse.ArgumentError, verb: Verb, surface: Surface) -> str:
    option = surface.option(verb, (error.argument_name or "").split("/")[0])
    if option is None:
        return str(error)
    if option.is_flag:
        return f"{option.name} takes no value."
    line = f"{surface.line(verb)} {option.name} {option.value}"
    return f"{option.name} needs a value: `{line}`."
