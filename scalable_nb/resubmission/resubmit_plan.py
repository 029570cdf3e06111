"""What a resubmission does with each task, and which failures it is limited to; pure."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, Final

from scalable_nb.client.batch_records import CarriedOutcome
from scalable_nb.errors import SubmitError, UnknownNameError
from scalable_nb.paths import RunPaths
from scalable_nb.telemetry.rows import FailureRow, key_text

#: Chooses failures: a class name, category, fingerprint or key, a row of ``failures.jsonl``
#: (its task is meant), or a function of the row of the task's last failed attempt.
FailureFilter = str | FailureRow | Callable[[FailureRow], bool]
_SHOWN: Final = ("failure_class", "category")
_Filter = str | Callable[[FailureRow], bool]


NOT_SELECTED: Final = "not chosen by only="
NOT_IDEMPOTENT: Final = "not idempotent"
NOT_RECORDED: Final = "its arguments were not recorded"
DAMAGED: Final = "lost: record damaged"
_INPUT_LEFT_OUT: Final = "an input is left out"
_INPUT_UNKNOWN: Final = "an input was no call of ours"
_CANCELLED: Final = "cancelled"


@dataclass(frozen=True)
class ResubmitPlan:
    """A plan of a resubmission: the number of inputs by outcome, and what runs.

    Attributes
    ----------
    succeeded : int
        Inputs whose result is in the cluster's memory.
    unfinished : int
        Inputs that still run or wait; they are left alone.
    to_run : list
        Keys of the tasks that run, one for each input, in order.
    left_out : dict
        Key -> why a task does not run.
    from_cache : int
        Inputs whose stored result is taken.
    never_ran : int
        Those of `to_run` of which no attempt is known.
    core_hours : float or None
        About what `to_run` costs, by what the same functions took before; None: not known.
    notices : tuple of str
        What a person may not expect.
    left_out_inputs : mapping or None
        Reason -> number of inputs; None if no two inputs in `left_out` share a task.
    """

    succeeded: int
    unfinished: int
    to_run: list[Any]
    left_out: dict[Any, str]
    from_cache: int = 0
    never_ran: int = 0
    core_hours: float | None = None
    notices: tuple[str, ...] = ()
    left_out_inputs: Mapping[str, int] | None = None

    @property
    def total(self) -> int:
        """Number of inputs."""
        left_out = sum(self._reasons().values())
        return self.succeeded + self.from_cache + self.unfinished + len(self.to_run) + left_out

    def _reasons(self) -> Mapping[str, int]:
        counted = self.left_out_inputs
        return Counter(self.left_out.values()) if counted is None else counted

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
        parts += [f"{count:,} left out ({reason})" for reason, count in self._reasons().items()]
        if self.core_hours is not None and self.to_run:
            parts.append(f"about {self.core_hours:.3g} core-hours")
        return "\n".join([", ".join(parts), *(f"note: {notice}" for notice in self.notices)])

    __repr__ = __str__


class TaskOutcome(Enum):
    """The outcome of a task before a resubmission."""

    SUCCEEDED = "its result is in memory"
    STORED = "its result is stored"
    UNFINISHED = "it runs or waits"
    ATTEMPTED = "an attempt of it is known, and no result"
    NEVER_RAN = "no attempt of it is known"
    CANCELLED = "a person cancelled it"

    @property
    def has_no_result(self) -> bool:
        """Whether it must run before there is a result."""
        return self in (TaskOutcome.ATTEMPTED, TaskOutcome.NEVER_RAN)


#: The states of a `CarriedOutcome`.
CARRIED_STATES: Final = {
    TaskOutcome.CANCELLED: "cancelled",
    TaskOutcome.ATTEMPTED: "failed",
    TaskOutcome.NEVER_RAN: "never ran",
}
OUTCOMES_OF_CARRIED: Final = {state: outcome for outcome, state in CARRIED_STATES.items()}


@dataclass(frozen=True, slots=True)
class RecordedOutcome:
    """A recorded task and its outcome.

    Attributes
    ----------
    key : object
    outcome : TaskOutcome
    is_idempotent : bool
    has_call : bool
        Whether it can be called again.
    input_keys : tuple
        Tasks whose results it takes.
    is_damaged : bool
        Whether its record is damaged.
    """

    key: Any
    outcome: TaskOutcome
    is_idempotent: bool = True
    has_call: bool = True
    input_keys: tuple[Any, ...] = ()
    is_damaged: bool = False


def plan_resubmission(
    inputs: Sequence[Any],
    tasks: Iterable[RecordedOutcome],
    last_failures: Mapping[str, FailureRow],
    filters: Collection[Any] | None,
) -> ResubmitPlan:
    """Decide which inputs run again.

    Parameters
    ----------
    inputs : sequence
        The key of each input's task, in order; inputs may share one.
    tasks : iterable of RecordedOutcome
        These tasks, and those whose results they take: inputs come before what takes them.
    last_failures : mapping
        Key as text -> row of the task's last failed attempt.
    filters : collection, optional
        Run only tasks whose failures one of these names, and what they need; see `as_filters`.

    Raises
    ------
    UnknownNameError
        When a word names none of the failures.
    """
    filters = as_filters(filters)
    known = {task.key: task for task in tasks}
    rows = {
        key: row
        for key in dict.fromkeys(inputs)
        if known[key].outcome.has_no_result
        and (row := last_failures.get(key_text(key))) is not None
    }
    if filters:
        check_filters(filters, rows.values())
    obstacles = _obstacles(known, filters)
    # A task that failed with one of its inputs has no failed attempt of its own.
    selected = {
        key
        for key in dict.fromkeys(inputs)
        if known[key].outcome.has_no_result
        and key not in obstacles
        and (filters is None or (key in rows and matches_any(rows[key], filters)))
    }
    needed = _with_needed_inputs(selected, known)
    left_out = {
        key: obstacles.get(key, NOT_SELECTED)
        for key in dict.fromkeys(inputs)
        if key in obstacles or (known[key].outcome.has_no_result and key not in needed)
    }
    outcomes = Counter(known[key].outcome for key in inputs)
    to_run = [key for key in inputs if key in needed]
    return ResubmitPlan(
        succeeded=outcomes[TaskOutcome.SUCCEEDED],
        unfinished=outcomes[TaskOutcome.UNFINISHED],
        to_run=to_run,
        left_out=left_out,
        from_cache=outcomes[TaskOutcome.STORED],
        never_ran=sum(known[key].outcome is TaskOutcome.NEVER_RAN for key in to_run),
        left_out_inputs=Counter(left_out[key] for key in inputs if key in left_out),
    )


def _obstacles(
    tasks: Mapping[Any, RecordedOutcome], filters: Collection[Any] | None
) -> dict[Any, str]:
    """Return why tasks cannot run, whatever is selected."""
    found: dict[Any, str] = {}
    for key, task in tasks.items():
        if task.outcome is TaskOutcome.CANCELLED:
            found[key] = _CANCELLED
        elif task.outcome.has_no_result:
            reason = _obstacle(task, filters) or _obstacle_of_inputs(task, tasks, found)
            if reason:
                found[key] = reason
    return found


def _obstacle(task: RecordedOutcome, filters: Collection[Any] | None) -> str:
    if task.is_damaged:
        return DAMAGED
    if not task.is_idempotent and key_text(task.key) not in (filters or ()):
        return NOT_IDEMPOTENT
    return "" if task.has_call else NOT_RECORDED


def _obstacle_of_inputs(
    task: RecordedOutcome, tasks: Mapping[Any, RecordedOutcome], found: Mapping[Any, str]
) -> str:
    for key in task.input_keys:
        if key in found:
            return _INPUT_LEFT_OUT
        if key not in tasks:
            return _INPUT_UNKNOWN
    return ""


def _with_needed_inputs(
    selected: Collection[Any], tasks: Mapping[Any, RecordedOutcome]
) -> set[Any]:
    needed = set(selected)
    stack = list(selected)
    while stack:
        for key in tasks[stack.pop()].input_keys:
            if key not in needed and tasks[key].outcome.has_no_result:
                needed.add(key)
                stack.append(key)
    return needed


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


def find_last_failures(
    carried: Mapping[Any, CarriedOutcome], rows: Iterable[Mapping[str, Any]]
) -> dict[str, Any]:
    """Return the row of the last failed attempt of each task, by the key as text.

    Parameters
    ----------
    carried : mapping
        Key -> outcome in an earlier run.
    rows : iterable of mappings
        Of ``failures.jsonl``, oldest first.
    """
    earlier = {key_text(key): each.failure for key, each in carried.items() if each.failure}
    return {**earlier, **{row["task_id"]: row for row in rows if "task_id" in row}}


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


def named_keys(filters: Collection[Any] | None) -> list[str]:
    """Return the words among the filters: keys of tasks among them are meant."""
    return [filter_ for filter_ in filters or () if isinstance(filter_, str)]


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
