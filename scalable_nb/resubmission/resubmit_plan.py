"""What a resubmission does with each task, and which failures it is limited to; pure."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, Final

from scalable_nb.errors import SubmitError, UnknownNameError
from scalable_nb.paths import RunPaths
from scalable_nb.telemetry.rows import FailureRow, key_text

#: Chooses failures: a class name, category, fingerprint or key, a row of ``failures.jsonl``
#: (its task is meant), or a function of the row of the task's last failed attempt.
FailureFilter = str | FailureRow | Callable[[FailureRow], bool]
_SHOWN: Final = ("failure_class", "category")
_Filter = str | Callable[[FailureRow], bool]


NOT_SELECTED = "not chosen by only="
NOT_IDEMPOTENT = "not idempotent"


@dataclass(frozen=True)
class ResubmitPlan:
    """What a resubmission does with each task.

    Attributes
    ----------
    succeeded : int
        Tasks whose result is in the cluster's memory.
    unfinished : int
        Tasks that still run or wait; they are left alone.
    to_run : list
        Keys of the tasks that run, in input order.
    left_out : dict
        Key -> why a task does not run.
    from_cache : int
        Tasks whose stored result is taken.
    never_ran : int
        Those of `to_run` of which no attempt is known.
    core_hours : float or None
        About what `to_run` costs, by what the same functions took before; None: not known.
    notices : tuple of str
        What a person may not expect.
    """

    succeeded: int
    unfinished: int
    to_run: list[Any]
    left_out: dict[Any, str]
    from_cache: int = 0
    never_ran: int = 0
    core_hours: float | None = None
    notices: tuple[str, ...] = ()

    def __str__(self) -> str:
        parts = []
        if self.from_cache or self.never_ran:
            parts.append(f"{self.from_cache:,} from cache")
        if self.succeeded or not parts:
            verb = " is" if self.succeeded == 1 else "s are"
            parts.append(f"{self.succeeded:,} result{verb} there")
        again = len(self.to_run) - self.never_ran
        if self.from_cache or self.never_ran:
            parts += [f"{again:,} to run again", f"{self.never_ran:,} never ran"]
        else:
            parts.append(f"{again:,} task{'' if again == 1 else 's'} to run again")
        if self.unfinished:
            parts.append(f"{self.unfinished:,} still running")
        reasons = Counter(self.left_out.values())
        parts += [f"{count:,} left out ({reason})" for reason, count in reasons.items()]
        if self.core_hours is not None and self.to_run:
            parts.append(f"about {self.core_hours:.3g} core-hours")
        return "\n".join([", ".join(parts), *(f"note: {notice}" for notice in self.notices)])

    __repr__ = __str__


def plan_resubmission(
    statuses: Mapping[Any, str],
    last_failures: Mapping[str, FailureRow],
    filters: Collection[Any] | None,
) -> ResubmitPlan:
    """Decide which tasks of a live session run again.

    Parameters
    ----------
    statuses : mapping
        Key -> status of the future (``finished``, ``error``, ``pending``, ``cancelled``).
    last_failures : mapping
        Key as text -> row of the task's last failed attempt.
    filters : collection, optional
        Run only failed tasks that one of these names; see `as_filters`.

    Raises
    ------
    UnknownNameError
        When a word names none of the failures.
    """
    filters = as_filters(filters)
    failed = [key for key, status in statuses.items() if status in ("error", "lost")]
    if filters:
        texts = map(key_text, failed)
        check_filters(filters, [last_failures[text] for text in texts if text in last_failures])
    to_run, left_out = [], {}
    for key in failed:
        # A task that failed with one of its inputs has no failed attempt of its own.
        row = last_failures.get(key_text(key))
        if filters is None or (row is not None and matches_any(row, filters)):
            to_run.append(key)
        else:
            left_out[key] = NOT_SELECTED
    counts = Counter(statuses.values())
    for key, status in statuses.items():
        if status == "cancelled":
            left_out[key] = "cancelled"
    return ResubmitPlan(counts["finished"], counts["pending"], to_run, left_out)


class TaskOutcome(Enum):
    """What became of a task of a run that is over."""

    STORED = "its result is stored"
    ATTEMPTED = "an attempt of it is known"
    NEVER_RAN = "no attempt of it is known"
    CANCELLED = "a person cancelled it"


@dataclass(frozen=True, slots=True)
class RecordedOutcome:
    """What is left of a recorded task.

    Attributes
    ----------
    key : object
    outcome : TaskOutcome
    is_idempotent : bool
    has_call : bool
        Whether it can be called again.
    input_keys : tuple
        Tasks whose results it takes.
    """

    key: Any
    outcome: TaskOutcome
    is_idempotent: bool = True
    has_call: bool = True
    input_keys: tuple[Any, ...] = ()


def plan_recorded(
    tasks: Iterable[RecordedOutcome],
    last_failures: Mapping[str, FailureRow],
    filters: Collection[Any] | None,
) -> ResubmitPlan:
    """Decide which tasks of a run that is over run in another one.

    Parameters
    ----------
    tasks : iterable of RecordedOutcome
        In the order of submission: inputs come before what takes them.
    last_failures, choices
        As for `plan_resubmission`.

    Raises
    ------
    UnknownNameError
        When a word names none of the failures.
    """
    tasks = list(tasks)
    texts = {task.key: key_text(task.key) for task in tasks}
    rows = {
        task.key: last_failures[texts[task.key]]
        for task in tasks
        if task.outcome is not TaskOutcome.STORED and texts[task.key] in last_failures
    }
    if filters:
        check_filters(filters, rows.values())
    known = {task.key for task in tasks}
    to_run: list[Any] = []
    left_out: dict[Any, str] = {}
    stored = never_ran = 0
    for task in tasks:
        if task.outcome is TaskOutcome.STORED:
            stored += 1
            continue
        reason = _obstacle(task, rows.get(task.key), filters) or next(
            (
                "an input is left out" if key in known else "an input was no call of ours"
                for key in task.input_keys
                if key in left_out or key not in known
            ),
            "",
        )
        if reason:
            left_out[task.key] = reason
        else:
            to_run.append(task.key)
            never_ran += task.outcome is TaskOutcome.NEVER_RAN
    return ResubmitPlan(0, 0, to_run, left_out, from_cache=stored, never_ran=never_ran)


def with_estimate(
    plan: ResubmitPlan,
    function_of: Callable[[Any], str],
    durations_s: Mapping[str, tuple[float, int]],
    cores: float,
) -> ResubmitPlan:
    """The plan with what it costs.

    Parameters
    ----------
    plan : ResubmitPlan
    function_of : callable
        Key -> name of the function.
    durations_s : mapping
        Name of a function -> sum of what its attempts took, and their number.
    cores : float
        Of one slot.
    """
    counts = Counter(map(function_of, plan.to_run))
    known = {name: durations_s[name] for name in counts if name in durations_s}
    if not known:
        return plan
    seconds = sum(counts[name] * total_s / attempts for name, (total_s, attempts) in known.items())
    return replace(plan, core_hours=seconds * cores / 3600)


def _obstacle(
    task: RecordedOutcome, row: FailureRow | None, filters: Collection[Any] | None
) -> str:
    if task.outcome is TaskOutcome.CANCELLED:
        return "cancelled"
    if filters is not None and (row is None or not matches_any(row, filters)):
        return NOT_SELECTED
    if not task.is_idempotent and key_text(task.key) not in (filters or ()):
        return NOT_IDEMPOTENT
    return "" if task.has_call else "its arguments were not recorded"


def durations_by_function(rows: Iterable[Mapping[str, Any]]) -> dict[str, tuple[float, int]]:
    """Name of a function -> sum of what its attempts took (s), and their number.

    Parameters
    ----------
    rows : iterable of mappings
        Of ``failures.jsonl`` and ``tasks.jsonl``.
    """
    found: dict[str, tuple[float, int]] = {}
    for row in rows:
        name, duration_s = row.get("function_name"), row.get("duration_s")
        if isinstance(name, str) and isinstance(duration_s, float) and duration_s > 0:
            total_s, count = found.get(name, (0.0, 0))
            found[name] = total_s + duration_s, count + 1
    return found


def cores_of_a_slot(paths: RunPaths) -> float:
    """Cores that a task had for itself, by the plan of the run; one where it does not say."""
    try:
        plan = json.loads(paths.plan_json.read_bytes())
        return float(plan["cores"] / (plan["workers"] * plan["threads_per_worker"]))
    except (OSError, ValueError, KeyError, ZeroDivisionError):
        return 1.0


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
