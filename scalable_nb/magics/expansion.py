"""Splitting a line into words, with ``$name`` and ``{expression}`` filled in."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from typing import Any

from IPython.utils.text import DollarFormatter

from scalable_nb.magics.verb import WrongUse

_MARK = re.compile("\0(\\d+)\0")

_MISSPELLED = (NameError, AttributeError, SyntaxError, ValueError)
_SPELLING = " Write {name} where letters follow the name, $$name or {{ for the signs themselves."


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
    WrongUse
        Names the expression that failed, or the quote that is not closed.

    Examples
    --------
    >>> split_line("start --target $where", {"where": "my cluster"})
    ['start', '--target', 'my cluster']
    """
    marking = _Marking()
    try:
        marked = marking.vformat(line.replace("\0", ""), (), variables)
    except Exception as error:  # whatever the user's expression raises
        told = f"cannot fill in the variables of {line.strip()!r}: {type(error).__name__}: {error}."
        raise WrongUse(told + (_SPELLING if isinstance(error, _MISSPELLED) else "")) from error
    try:
        words = shlex.split(marked)
    except ValueError as error:
        raise WrongUse(f"cannot split {line.strip()!r} into words: {error}.") from error
    return [text for word in words for text in _filled(word, marking.values)]


def _filled(word: str, values: list[Any]) -> list[str]:
    alone = _MARK.fullmatch(word)
    if alone and isinstance(value := values[int(alone[1])], list | tuple):
        return [str(item) for item in value]
    return [_MARK.sub(lambda mark: str(values[int(mark[1])]), word)]
