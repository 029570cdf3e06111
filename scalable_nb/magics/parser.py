"""From a line to a subcommand and the values of its options; variables are filled in first."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from IPython.utils.text import DollarFormatter

from scalable_nb.magics.commands import find_subcommand
from scalable_nb.magics.subcommand import InvalidUsageError, Option, Subcommand, Surface

_MARK = re.compile("\0(\\d+)\0")
_ASSIGNMENT = re.compile(r"(?<!\S)[^\W\d]\w*=(?!=)")
_PLACEHOLDER = re.compile("\1(\\d+)\1")
_MISSPELLED = (NameError, AttributeError, SyntaxError, ValueError)
_SPELLING = " Write {name} where letters follow the name, $$name or {{ for the signs themselves."


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
    wants_help = "--help" in rest or "-h" in rest
    try:
        values, strays = _parser(subcommand, surface).parse_known_intermixed_args(
            ["-h"] if wants_help else rest
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


class _Marking(DollarFormatter):
    """IPython's own expansion, with a mark where each value goes.

    The values are put in after the line has been split: a folder with a space in its
    name stays one word, and no quote or backslash in a value is taken for syntax.
    """

    def __init__(self) -> None:
        self.values: list[Any] = []

    def convert_field(self, value: Any, conversion: Any) -> Any:
        converted = super().convert_field(value, conversion)
        self.values.append(converted)
        return converted

    def format_field(self, value: Any, format_spec: str) -> str:
        return f"\0{len(self.values) - 1}\0"


def split_line(line: str, variables: Mapping[str, Any]) -> list[str]:
    """The words of a line as the shell would split it, expanded.

    Parameters
    ----------
    line : str
        What follows ``%scalable``.
    variables : mapping
        Where names are looked up; nothing but what stands in ``$name`` and
        ``{expression}`` on the line is evaluated, never a value.

    Returns
    -------
    list of str
        A value that is a list or tuple and stands alone gives one word per item.

    Raises
    ------
    InvalidUsageError
        Names the expression that failed, or the quote that is not closed.

    Examples
    --------
    >>> split_line("start --target $where", {"where": "my cluster"})
    ['start', '--target', 'my cluster']
    """
    line = _without_comment(line)
    marking = _Marking()
    try:
        marked = marking.vformat(line.replace("\0", ""), (), variables)
    except Exception as error:  # whatever the user's expression raises
        message = (
            f"cannot fill in the variables of {line.strip()!r}: {type(error).__name__}: {error}."
        )
        raise InvalidUsageError(
            message + (_SPELLING if isinstance(error, _MISSPELLED) else "")
        ) from error
    try:
        words = shlex.split(marked)
    except ValueError as error:
        raise InvalidUsageError(f"cannot split {line.strip()!r} into words: {error}.") from error
    return [text for word in words for text in _filled(word, marking.values)]


def split_cell_line(line: str, variables: Mapping[str, Any]) -> list[str]:
    """The words of a line above a cell, where ``name=expression`` is Python and stays as it is.

    Brackets and quotes of an expression hold it together, as they do in Python, and what is
    in braces is a set or a dict.

    Examples
    --------
    >>> split_cell_line("map --over x=[1, 2] y=list('ab')", {})
    ['map', '--over', 'x=[1, 2]', "y=list('ab')"]
    """
    expressions: list[str] = []
    parts: list[str] = []
    place = 0
    for begin in _ASSIGNMENT.finditer(line):
        if begin.start() >= place:
            end = _end_of_expression(line, begin.end())
            parts.append(f"{line[place : begin.start()]}\1{len(expressions)}\1")
            expressions.append(line[begin.start() : end])
            place = end
    words = split_line("".join(parts) + line[place:], variables)
    return [_PLACEHOLDER.sub(lambda mark: expressions[int(mark[1])], word) for word in words]


def _without_comment(line: str) -> str:
    """The line up to a ``#`` that begins a word, as in the examples of the help."""
    quote = ""
    for place, sign in enumerate(line):
        if quote:
            quote = "" if sign == quote else quote
        elif sign in "'\"":
            quote = sign
        elif sign == "#" and line[:place][-1:].strip() == "":
            return line[:place]
    return line


def _end_of_expression(line: str, place: int) -> int:
    """Where the expression that begins here ends: at a space outside of brackets and quotes."""
    depth, quote = 0, ""
    while place < len(line):
        sign = line[place]
        if quote:
            if sign == "\\":
                place += 1
            elif sign == quote:
                quote = ""
        elif sign in "'\"":
            quote = sign
        elif sign.isspace() and depth <= 0:
            break
        else:
            depth += (sign in "([{") - (sign in ")]}")
        place += 1
    return min(place, len(line))


def _filled(word: str, values: list[Any]) -> list[str]:
    alone = _MARK.fullmatch(word)
    if alone and isinstance(value := values[int(alone[1])], list | tuple):
        return [str(item) for item in value]
    return [_MARK.sub(lambda mark: str(values[int(mark[1])]), word)]
