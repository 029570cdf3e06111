"""Run again only what failed, and join it with what is already there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from distributed import Future

from scalable_nb.client import ScalableClient
from scalable_nb.errors import SubmitError, UnknownNameError
from scalable_nb.faults.policy import RetryPolicy, TaskPolicy
from scalable_nb.futures import FutureList
from scalable_nb.telemetry.ledger import key_text
from scalable_nb.telemetry.records import FailureRow

#: Chooses failures: a class name, category, fingerprint or key, or a function of the row of
#: the task's last failed attempt.
Choice = str | Callable[[FailureRow], bool]


@dataclass(frozen=True)
class ResubmitPlan:
    """What a resubmission does with each task.

    Attributes
    ----------
    succeeded : int
        Tasks whose result is there already.
    unfinished : int
        Tasks that still run or wait; they are left alone.
    to_run : list of str
        Keys of the tasks that run again, in input order.
    left_out : dict of str to str
        Key -> why a failed task does not run again.
    """

    succeeded: int
    unfinished: int
    to_run: list[Any]
    left_out: dict[Any, str]

    def __str__(self) -> str:
        parts = [f"{self.succeeded} results are there", f"{len(self.to_run)} tasks to run again"]
        if self.unfinished:
            parts.append(f"{self.unfinished} still running")
        reasons = Counter(self.left_out.values())
        parts += [f"{count} left out ({reason})" for reason, count in reasons.items()]
        return ", ".join(parts)

    __repr__ = __str__


def plan_resubmission(
    statuses: Mapping[Any, str],
    last_failures: Mapping[str, FailureRow],
    only: Iterable[Choice] | None,
) -> ResubmitPlan:
    """Decide which tasks run again; pure.

    Parameters
    ----------
    statuses : mapping
        Key -> status of the future (``finished``, ``error``, ``pending``, ``cancelled``).
    last_failures : mapping
        Key as text -> row of the task's last failed attempt.
    only : iterable of Choice, optional
        Run only failed tasks that one of these names.

    Raises
    ------
    UnknownNameError
        When a word names none of the failures.
    """
    choices = list(only) if only is not None else None
    failed = [key for key, status in statuses.items() if status in ("error", "lost")]
    if choices:
        texts = map(key_text, failed)
        _check_choices(choices, [last_failures[text] for text in texts if text in last_failures])
    to_run, left_out = [], {}
    for key in failed:
        # A task that failed with one of its inputs has no failed attempt of its own.
        row = last_failures.get(key_text(key))
        if choices is None or (row is not None and _is_chosen(row, choices)):
            to_run.append(key)
        else:
            left_out[key] = "not chosen by only="
    counts = Counter(statuses.values())
    for key, status in statuses.items():
        if status == "cancelled":
            left_out[key] = "cancelled"
    return ResubmitPlan(counts["finished"], counts["pending"], to_run, left_out)


def resubmit(
    futures: Iterable[Future[Any]],
    *,
    only: Choice | Iterable[Choice] | None = None,
    retries: int | RetryPolicy | None = None,
    timeout_s: float | None = None,
    dry_run: bool = False,
) -> FutureList | ResubmitPlan:
    """Run failed tasks again; everything else stays as it is.

    The tasks keep their keys, so the futures given here are pending again and tasks that
    take their results recover too. Budgets begin anew; attempts go on counting.

    Parameters
    ----------
    futures : iterable of Future
        Failed or not.
    only : str, callable or iterable of them, optional
        Class name (``"ValueError"``), category (``"transient"``), fingerprint or key of the
        failures to run again, or a function of the row of the last failed attempt.
    retries : int or RetryPolicy, optional
        Instead of those the tasks were submitted with.
    timeout_s : float, optional
        Likewise, seconds.
    dry_run : bool
        Print and return the plan; run nothing.

    Returns
    -------
    FutureList or ResubmitPlan
        All futures, in input order.
    """
    listed = futures if isinstance(futures, FutureList) else FutureList(futures)
    if not listed:
        return ResubmitPlan(0, 0, [], {}) if dry_run else listed
    client = listed._client()
    client.session.check_alive()
    listed.check_may_wait("resubmit()", "`await client.retry(futures)`")
    changes = TaskPolicy(retries=retries, timeout_s=timeout_s).changes()
    choices = [only] if isinstance(only, str) or callable(only) else only
    choices = list(choices) if choices is not None else None
    last_failures = {row["task_id"]: row for row in client.session.failures() if "task_id" in row}
    statuses = {future.key: str(future.status) for future in listed}
    plan = plan_resubmission(statuses, last_failures, choices)
    named = [choice for choice in choices or () if isinstance(choice, str)]
    plan = _without_unsafe(client, plan, named)
    if dry_run:
        print(plan)  # noqa: T201 - a person asked for it
        return plan
    if plan.to_run:
        # Before the host is asked: its answer may overtake us with a task that is done.
        for key in plan.to_run:
            client.futures[key].retry()
        _ask(client, plan.to_run, changes, named, dry_run=False)
    return listed


def _without_unsafe(client: ScalableClient, plan: ResubmitPlan, named: list[str]) -> ResubmitPlan:
    """Leave out what the host would: tasks that are not idempotent, unless named."""
    if not plan.to_run:
        return plan
    answer = _ask(client, plan.to_run, {}, named, dry_run=True)
    left_out = {**plan.left_out, **dict.fromkeys(answer["left_out"], "not idempotent")}
    return ResubmitPlan(plan.succeeded, plan.unfinished, list(answer["chosen"]), left_out)


def _ask(
    client: ScalableClient,
    keys: list[Any],
    changes: dict[str, Any],
    named: list[str],
    *,
    dry_run: bool,
) -> dict[str, list[Any]]:
    answer: dict[str, list[Any]] = client.ask(
        "resubmit", keys=keys, changes=changes, named=named, dry_run=dry_run
    )
    return answer


def _is_chosen(row: FailureRow, choices: Iterable[Choice]) -> bool:
    return any(choice(row) if callable(choice) else choice in _words(row) for choice in choices)


_SHOWN: Final = ("failure_class", "category")


def _words(row: FailureRow) -> set[str]:
    names = (*_SHOWN, "fingerprint", "task_id")
    return {str(row[name]) for name in names if name in row}  # type: ignore[literal-required]


def _check_choices(choices: list[Choice], rows: list[FailureRow]) -> None:
    known = set().union(*map(_words, rows)) if rows else set()
    for choice in choices:
        if isinstance(choice, str):
            if choice not in known:
                shown = {str(row[name]) for row in rows for name in _SHOWN if name in row}
                raise UnknownNameError("failure", choice, shown, "Nothing was run.")
        elif not callable(choice):
            raise SubmitError(
                f"only={choice!r} is neither a name nor a function; expected e.g. "
                "only='TaskTimeoutError' or only=lambda row: row['duration_s'] > 10"
            )
