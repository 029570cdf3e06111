"""What the Tab key offers on a ``%scalable`` line, and in a shell."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from scalable_nb.magics.subcommand import Option, Subcommand, Surface

_OUR_LINE = re.compile(r"(?:^|=)\s*(?P<prompt>%%?)scalable\s+(?P<rest>.*)$")


@dataclass(frozen=True)
class Offer:
    """Words that can stand in place of the fragment before the cursor."""

    fragment: str = ""
    words: tuple[str, ...] = ()


def complete_line(text_until_cursor: str, surface: Surface) -> Offer:
    """What fits at the cursor of a notebook's line; nothing on lines that are not ours.

    Parameters
    ----------
    text_until_cursor : str
        The line up to the cursor, e.g. ``"results = %scalable resubmit --o"``.
    """
    ours = _OUR_LINE.search(text_until_cursor)
    if ours is None:
        return Offer()
    *words, fragment = re.split(r"\s+", ours["rest"])
    if not words:
        is_cell = ours["prompt"] == "%%"
        fitting = (
            name
            for name, subcommand in surface.subcommands.items()
            if subcommand.takes_cell is is_cell
        )
        return _offer(fragment, fitting)
    return complete_words(words, fragment, surface)


def complete_words(words: list[str], fragment: str, surface: Surface) -> Offer:
    """What fits after ``words``: a subcommand, an option of the subcommand, a value of the option.

    Parameters
    ----------
    words : list of str
        The whole words after ``%scalable``.
    fragment : str
        The beginning of the next one, maybe empty; also ``--option=beginning``.
    """
    if not words:
        return _offer(fragment, surface.subcommands)
    subcommand, rest = surface.subcommands.get(words[0]), words[1:]
    if subcommand is None:
        return Offer()
    spelling, equals, beginning = fragment.partition("=")
    if equals:
        named = surface.option(subcommand, spelling)
        return _offer(beginning, _values(named, rest))
    if not fragment.startswith("-") and (awaiting := _awaiting_value(subcommand, rest, surface)):
        return _offer(fragment, _values(awaiting, rest))
    return _offer(fragment, _next_words(subcommand, rest, fragment, surface))


def _values(option: Option | None, words: list[str]) -> Iterable[str]:
    return option.candidates(words) if option and option.candidates else ()


def _awaiting_value(subcommand: Subcommand, words: list[str], surface: Surface) -> Option | None:
    """The option whose value stands at the cursor."""
    for distance, word in enumerate(reversed(words)):
        option = surface.option(subcommand, word)
        if option is not None:
            takes_one = not option.is_flag and (distance == 0 or option.is_repeated)
            return option if takes_one else None
    return None


def _next_words(
    subcommand: Subcommand, words: list[str], fragment: str, surface: Surface
) -> Iterable[str]:
    if not fragment.startswith("-"):
        given = [word for word in words if not word.startswith("-")]
        for place, argument in enumerate(subcommand.arguments):
            if argument.candidates and (argument.is_repeated or place >= len(given)):
                yield from (word for word in argument.candidates(words) if word not in given)
    for option in surface.options(subcommand):
        if option.is_repeated or not any(name in words for name in option.names):
            yield from (name for name in option.names if name.startswith("--"))


def _offer(fragment: str, words: Iterable[str]) -> Offer:
    return Offer(fragment, tuple(word for word in words if word.startswith(fragment)))
