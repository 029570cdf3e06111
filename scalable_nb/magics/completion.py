"""What the Tab key offers on a ``%scalable`` line, and in a shell."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from scalable_nb.magics.subcommand import Option, Subcommand, Surface

if TYPE_CHECKING:
    from scalable_nb.session.session import ScalableSession

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


def targets(words: list[str]) -> Iterable[str]:
    """The targets of the manifest that the line uses."""
    from scalable_nb.errors import ScalableError, UnknownNameError
    from scalable_nb.manifest.load import load_manifest

    named = dict(pairwise(words))
    path = named.get("--manifest") or named.get("-m")
    try:
        # No target can have this name, and the error lists those that exist: also where the
        # manifest has several and a plain load would ask for a choice.
        load_manifest(path, target="?")
    except UnknownNameError as error:
        return error.known
    except (ScalableError, OSError):
        return []
    return []


def run_ids(words: list[str]) -> Iterable[str]:
    """The runs of the runs folder, newest first."""
    from scalable_nb.errors import ScalableError
    from scalable_nb.paths import list_runs
    from scalable_nb.settings import load_settings

    try:
        return [paths.run_id for paths in reversed(list_runs(load_settings().runs_dir))]
    except (ScalableError, OSError):
        return []


def log_names(words: list[str]) -> Iterable[str]:
    """The logs of the run that the line names, else of the newest one."""
    from scalable_nb.errors import ScalableError
    from scalable_nb.paths import find_run
    from scalable_nb.settings import load_settings

    named = dict(pairwise(words))
    run = named.get("--run") or named.get("-r") or "last"
    try:
        return find_run(load_settings().runs_dir, run).log_files()
    except (ScalableError, OSError):
        return []


def batches(words: list[str]) -> Iterable[str]:
    """The batches of the live session that have tasks to do."""
    return _of_live_session(lambda session: session.unfinished())


def paused_batches(words: list[str]) -> Iterable[str]:
    """The batches of the live session that are paused."""
    return _of_live_session(
        lambda session: [name for name, states in session.unfinished().items() if states["paused"]]
    )


def tasks(words: list[str]) -> Iterable[str]:
    """The tasks of the live session's manifest."""
    return _of_live_session(lambda session: session.manifest.manifest.tasks)


def components(words: list[str]) -> Iterable[str]:
    """The components of the live session's manifest."""
    return _of_live_session(lambda session: session.manifest.manifest.components)


def failures(words: list[str]) -> Iterable[str]:
    """The categories of failures, and the classes of those in the live session."""
    from scalable_nb.faults.categories import Category

    classes = _of_live_session(lambda session: {row["failure_class"] for row in session.failures()})
    return [*Category, *classes]


def _of_live_session(read: Callable[[ScalableSession], Iterable[str]]) -> list[str]:
    """What the newest live session answers, sorted; nothing where it cannot."""
    from scalable_nb.errors import ScalableError
    from scalable_nb.session.session import live_sessions

    try:
        names = {name for session in live_sessions()[-1:] for name in read(session)}
    except (ScalableError, OSError):
        return []
    return sorted(filter(None, names))
