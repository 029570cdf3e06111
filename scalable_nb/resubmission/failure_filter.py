"""Which failures are meant: by class, category, fingerprint, key, row or a function."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from scalable_nb.errors import SubmitError, UnknownNameError
from scalable_nb.telemetry.rows import FailureRow

#: Chooses failures: a class name, category, fingerprint or key, a row of ``failures.jsonl``
#: (its task is meant), or a function of the row of the task's last failed attempt.
Choice = str | FailureRow | Callable[[FailureRow], bool]

_SHOWN: Final = ("failure_class", "category")
_Plain = str | Callable[[FailureRow], bool]


def listed_choices(only: Choice | Iterable[Choice] | None) -> list[_Plain] | None:
    """What a person gave, as a list of words and functions; None where all are meant.

    Raises
    ------
    SubmitError
        When something in it is neither.
    """
    if only is None:
        return None
    each = [only] if isinstance(only, str | Mapping) or callable(only) else list(only)
    return [_plain(choice) for choice in each]


def is_chosen(row: FailureRow, choices: Iterable[_Plain]) -> bool:
    """Whether one of the choices means this failure."""
    return any(choice(row) if callable(choice) else choice in _words(row) for choice in choices)


def check_choices(choices: Iterable[_Plain], rows: Iterable[FailureRow]) -> None:
    """Refuse a word that names none of the failures.

    Raises
    ------
    UnknownNameError
    """
    rows = list(rows)
    known = set().union(*map(_words, rows)) if rows else set()
    for choice in choices:
        if isinstance(choice, str) and choice not in known:
            shown = {str(row[name]) for row in rows for name in _SHOWN if name in row}
            raise UnknownNameError("failure", choice, shown, "Nothing was run.")


def _plain(choice: object) -> _Plain:
    if isinstance(choice, str) or callable(choice):
        return choice
    if isinstance(choice, Mapping) and "task_id" in choice:
        return str(choice["task_id"])
    raise SubmitError(
        f"only={choice!r} is neither a name nor a function; expected e.g. "
        "only='TaskTimeoutError' or only=lambda row: row['duration_s'] > 10"
    )


def _words(row: FailureRow) -> set[str]:
    names = (*_SHOWN, "fingerprint", "task_id")
    return {str(row[name]) for name in names if name in row}  # type: ignore[literal-required]
