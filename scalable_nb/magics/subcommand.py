"""What a subcommand is: the entry of the table from which everything else is made."""

from __future__ import annotations

import keyword
from argparse import Namespace
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any, Self

#: Gives the words that may follow, e.g. the targets of the manifest. Called with the
#: words of the line so far, so that ``--manifest other.yaml --target <TAB>`` is right.
Candidates = Callable[[list[str]], Iterable[str]]


def plain(text: object) -> str:
    """Return the whole text of a value without what would act on a terminal."""
    from scalable_nb.telemetry.sanitize import plain_text

    whole = str(text)
    return plain_text(whole, 6 * len(whole) + 1)


class InvalidUsageError(Exception):
    """A line that cannot be understood; the message is for the person who typed it."""


class Text(str):
    """Text that a notebook shows as it is: without quotes, with its line ends.

    It may quote files: what would act on a terminal is shown escaped.
    """

    __slots__ = ()

    def __new__(cls, text: str) -> Self:
        """Return the text with escape sequences and invisible characters made plain."""
        return super().__new__(cls, plain(text))

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(str(self))


@dataclass(frozen=True, slots=True)
class Option:
    """An option of a subcommand.

    Parameters
    ----------
    names : tuple of str
        Spellings; the first one names the value (``--run-id`` becomes ``run_id``).
    summary : str
        One line for the help.
    value : str
        What stands for the value in the help, e.g. ``"NAME"``; empty for a flag.
    kind : callable
        Makes the value from its text; raises ValueError saying what was expected.
    is_repeated : bool
        Whether several values may be given; the value is then a list.
    default : object
        The value when the option is not given; flags are False.
    candidates : callable, optional
        Gives the values to offer at the Tab key.
    """

    names: tuple[str, ...]
    summary: str
    value: str = ""
    kind: Callable[[str], object] = str
    is_repeated: bool = False
    default: object = None
    candidates: Candidates | None = None

    @property
    def name(self) -> str:
        """The spelling shown first."""
        return self.names[0]

    @property
    def attribute(self) -> str:
        """Its name in the namespace that a subcommand gets."""
        return self.name.lstrip("-").replace("-", "_")

    @property
    def is_flag(self) -> bool:
        """Whether it stands alone, without a value."""
        return not self.value

    @property
    def usage(self) -> str:
        """As in ``[--target NAME]``."""
        words = [self.name, self.value + " ..." if self.is_repeated else self.value]
        return "[" + " ".join(word for word in words if word) + "]"


@dataclass(frozen=True, slots=True)
class Argument:
    """A word that may follow the subcommand without an option's name; several where repeated."""

    attribute: str
    value: str
    summary: str
    candidates: Candidates | None = None
    is_repeated: bool = False

    @property
    def usage(self) -> str:
        """As in ``[BATCH ...]``."""
        return f"[{self.value} ...]" if self.is_repeated else f"[{self.value}]"


@dataclass(frozen=True, slots=True)
class Example:
    """A line to type, and what it does."""

    line: str
    effect: str


@dataclass(frozen=True)
class Subcommand:
    """An entry of the table.

    Parameters
    ----------
    name, summary : str
        The word to type, and one line about it.
    run : callable
        ``run(context, options) -> object``; the object is the cell's value.
    options : tuple of Option
        The first one that takes a value is suggested when somebody types a bare word.
    arguments : tuple of Argument
        Optional words after the subcommand.
    examples : tuple of Example
        At least one; typed after ``%scalable``.
    python : str
        The same in Python.
    on_command_line : bool
        Whether the subcommand makes sense without a notebook's session.
    takes_cell : bool
        Whether it is about the cell below its line: ``%%scalable`` instead of ``%scalable``.
    """

    name: str
    summary: str
    run: Callable[[Context, Namespace], object]
    examples: tuple[Example, ...]
    python: str
    options: tuple[Option, ...] = ()
    arguments: tuple[Argument, ...] = ()
    on_command_line: bool = False
    takes_cell: bool = False


@dataclass(frozen=True)
class Surface:
    """A place where subcommands are typed.

    Parameters
    ----------
    prompt : str
        What stands before a subcommand: ``"%scalable"`` or ``"scalable"``.
    subcommands : mapping of str to Subcommand
        The subcommands that make sense there.
    shared : tuple of Option
        What every subcommand takes there besides its own options.
    """

    prompt: str
    subcommands: Mapping[str, Subcommand]
    shared: tuple[Option, ...]

    def options(self, subcommand: Subcommand) -> tuple[Option, ...]:
        """All options that a subcommand takes here."""
        return (*subcommand.options, *self.shared)

    def line(self, subcommand: Subcommand) -> str:
        """How a line with the subcommand begins, e.g. ``%scalable start``."""
        return f"{'%' if subcommand.takes_cell else ''}{self.prompt} {subcommand.name}"

    def option(self, subcommand: Subcommand, spelling: str) -> Option | None:
        """The option that is spelled so, if there is one."""
        return next((o for o in self.options(subcommand) if spelling in o.names), None)


@dataclass(frozen=True)
class Context:
    """Where and for whom a subcommand runs.

    Parameters
    ----------
    surface : Surface
        Where the subcommand was typed.
    echo : callable
        Tells the person something in passing.
    variables : mutable mapping, optional
        The notebook's variables; None on the command line.
    cell : str, optional
        What stands below the line of a subcommand that takes a cell.
    """

    surface: Surface
    echo: Callable[[str], None]
    variables: MutableMapping[str, Any] | None = None
    cell: str | None = None


def format_option(*formats: str) -> Option:
    """``--format``: one of these words, the first one where it is not given."""

    def known(text: str) -> str:
        if text not in formats:
            raise ValueError(f"expected {' or '.join(formats)}")
        return text

    def offered(words: list[str]) -> Iterable[str]:
        return formats

    return Option(
        ("--format", "-F"),
        " or ".join(formats),
        "FORMAT",
        known,
        default=formats[0],
        candidates=offered,
    )


def variable_name(text: str) -> str:
    """A name that can be assigned to."""
    if not text.isidentifier() or keyword.iskeyword(text):
        raise ValueError("expected the name of a variable, e.g. results")
    return text


def whole_number(text: str) -> int:
    """0, 1, 2, ..."""
    try:
        number = int(text)
    except ValueError:
        number = -1
    if number < 0:
        raise ValueError("expected a whole number, 0 or more")
    return number


def seconds(text: str) -> float:
    """A duration: ``90``, ``90s`` or ``5m``."""
    from dask.utils import parse_timedelta

    try:
        duration_s = float(parse_timedelta(text, default="s"))
    except (ValueError, KeyError, IndexError, OverflowError):
        duration_s = 0.0
    if not 0 < duration_s < float("inf"):
        raise ValueError("expected a time above zero, e.g. 90, 90s or 5m")
    return duration_s
