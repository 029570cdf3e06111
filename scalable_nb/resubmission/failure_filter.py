"""Which failures are meant: by class, category, fingerprint, key, row or a function."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from scalable_nb.errors import SubmitError, UnknownNameError
from scalable_nb.telemetry.rows import FailureRow

#: Chooses failures: a class name, category, fingerprint or key, a row of ``failures.jsonl``
#: (its task is meant), or a function of the row of the task's last failed attempt.
FailureFilter = str | FailureRow | Callable[[FailureRow], bool]

_SHOWN: Final = ("failure_class", "category")
_Filter = str | Callable[[FailureRow], bool]


def as_filters(only: FailureFilter | Iterable[FailureFilter] | None) -> list[_Filter] | None:
    """What a person gave, as a list of words and functions; None where all are meant.

    Raises
    ------
    SubmitError
        When something in it is neither.
    """
    if only is None:
        return None
    each = [only] if isinstance(only, str | Mapping) or callable(only) else list(only)
    return [_as_filter(filter_) for filter_ in each]


def matches_any(row: FailureRow, filters: Iterable[_Filter]) -> bool:
    """Whether one of the choices means this failure."""
    return any(
        filter_(row) if callable(filter_) else filter_ in _filter_values(row) for filter_ in filters
    )


def check_filters(filters: Iterable[_Filter], rows: Iterable[FailureRow]) -> None:
    """Refuse a word that names none of the failures.

    Raises
    ------
    UnknownNameError
    """
    rows = list(rows)
    known = set().union(*map(_filter_values, rows)) if rows else set()
    for filter_ in filters:
        if isinstance(filter_, str) and filter_ not in known:
            shown = {str(row[name]) for row in rows for name in _SHOWN if name in row}
            raise UnknownNameError("failure", filter_, shown, "Nothing was run.")


def _as_filter(filter_: object) -> _Filter:
    if isinstance(filter_, str) or callable(filter_):
        return filter_
    if isinstance(filter_, Mapping) and "task_id" in filter_:
        return str(filter_["task_id"])
    raise SubmitError(
        f"only={filter_!r} is neither a name nor a function; expected e.g. "
        "only='TaskTimeoutError' or only=lambda row: row['duration_s'] > 10"
    )


def _filter_values(row: FailureRow) -> set[str]:
    names = (*_SHOWN, "fingerprint", "task_id")
    return {str(row[name]) for name in names if name in row}  # type: ignore[literal-required]
