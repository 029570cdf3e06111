"""What a person asks for: `TaskPolicy`, and how it meets the manifest."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Final, TypeVar

from scalable_nb.errors import PolicyError
from scalable_nb.faults.backoff import Backoff, RetryPolicy
from scalable_nb.faults.classify import Rule
from scalable_nb.faults.decision import (
    PolicyTerms,
    check_timeout,
    unsafe_retries,
)
from scalable_nb.faults.memory_escalation import MemoryEscalation, check_memory_escalation
from scalable_nb.faults.validation import check_count, check_rules, refusal

_T = TypeVar("_T")
_RETRIES_EXAMPLE: Final = "retries=3 or retries=RetryPolicy(3, base_s=0.5)"


@dataclass(frozen=True)
class TaskPolicy:
    """What may be done when an attempt of a task fails.

    A parameter left None is not said here: the manifest's ``tasks:`` entry says it, else
    its ``defaults:``, else the value given below.

    Parameters
    ----------
    retries : int, RetryPolicy or None
        Further attempts after an error or a timeout (0). An int says how many and
        leaves the waits to `backoff`; a `RetryPolicy` says both, and `backoff` beside it
        is an error.
    backoff : Backoff or None
        The waits before retries (``Backoff()``), how many of them said elsewhere. Also a
        `RetryPolicy` that names no count.
    timeout_s : float or None
        Longest execution of one attempt in seconds (no limit). ``math.inf`` takes away
        the limit that the manifest sets.
    retry_on : Rule or iterable of Rule
        Errors that are retried though their category is permanent: exception types,
        names (``"ValueError"``, ``"pkg.mod.Error"``) or functions of the error.
    give_up_on : Rule or iterable of Rule
        Errors that are never retried; wins over `retry_on`.
    idempotent : bool or None
        Whether the function may be called again (True). False: never, by nobody, and
        retries are an error.
    validate : callable or None
        Called on the worker with the result; false or an exception fails the attempt.
    worker_losses : int or None
        Further attempts after a crash or an out-of-memory kill of the worker (3).
    escalate : dict or None
        ``{"memory": 2.0, "max": "64G"}``: the attempt after an out-of-memory goes to a worker
        with so many times the memory, at most ``max``. Needs a target with jobs; one with such
        a worker is started where there is none.

    Raises
    ------
    PolicyError
        For a value that makes no sense.

    Examples
    --------
    >>> TaskPolicy(retries=3, timeout_s=300, retry_on="sqlite3.OperationalError").timeout_s
    300.0
    """

    retries: int | RetryPolicy | None = None
    backoff: Backoff | None = None
    timeout_s: float | None = None
    retry_on: Rule | Iterable[Rule] = ()
    give_up_on: Rule | Iterable[Rule] = ()
    idempotent: bool | None = None
    validate: Callable[[Any], object] | None = None
    worker_losses: int | None = None
    escalate: MemoryEscalation | Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        checked: dict[str, Any] = {
            "retries": _check_retries(self.retries),
            "backoff": _check_backoff(self.backoff, self.retries),
            "retry_on": check_rules("retry_on", self.retry_on),
            "give_up_on": check_rules("give_up_on", self.give_up_on),
            "escalate": check_memory_escalation(self.escalate),
        }
        if self.timeout_s is not None and self.timeout_s != math.inf:
            checked["timeout_s"] = check_timeout(self.timeout_s)
        if self.worker_losses is not None:
            count = check_count("worker_losses", self.worker_losses, "worker_losses=3")
            checked["worker_losses"] = count
        for name, value in checked.items():
            object.__setattr__(self, name, value)
        if not (self.idempotent is None or isinstance(self.idempotent, bool)):
            raise refusal("idempotent", self.idempotent, "True or False", "idempotent=False")
        if self.validate is not None and not callable(self.validate):
            raise refusal(
                "validate", self.validate, "a function of the result", "validate=is_plausible"
            )
        if self.idempotent is False and self.max_retries:
            raise unsafe_retries(self.max_retries)

    @property
    def max_retries(self) -> int | None:
        """The number in `retries`; None where it is not said."""
        return self.retries.max_retries if isinstance(self.retries, RetryPolicy) else self.retries

    @property
    def waits(self) -> Backoff | None:
        """The waits in `retries` or `backoff`; None where they are not said."""
        return _waits(self.retries) if isinstance(self.retries, RetryPolicy) else self.backoff

    @property
    def rules(self) -> dict[str, Any]:
        """What is code of the user's: ``retry_on``, ``give_up_on``, ``validate``, where said."""
        names = ("retry_on", "give_up_on", "validate")
        # A tuple of rules is empty where none was said; a callable may be false by itself.
        given = {name: getattr(self, name) for name in names}
        return {name: value for name, value in given.items() if value not in ((), None)}

    def changes(self) -> dict[str, Any]:
        """What is said here, as values that may overwrite those of `PolicyTerms.to_wire`.

        Unlike there, a value that equals the default is kept: ``retries=0`` must undo 3.
        """
        given = {
            "retries": self.max_retries,
            "idempotent": self.idempotent,
            "worker_losses": self.worker_losses,
            **({} if self.waits is None else _values(self.waits)),
        }
        changes = {name: value for name, value in given.items() if value is not None}
        if isinstance(self.escalate, MemoryEscalation):
            changes["memory_factor"] = self.escalate.factor
            changes["max_memory_bytes"] = self.escalate.max_bytes
        if self.timeout_s is not None:
            changes["timeout_s"] = None if self.timeout_s == math.inf else self.timeout_s
        return changes


def resolve_policy(
    *,
    retries: int | RetryPolicy | None = None,
    policy: TaskPolicy | None = None,
    task: TaskPolicy | None = None,
    defaults: TaskPolicy | None = None,
) -> PolicyTerms:
    """The terms of a task: what the call says, else the manifest's task, else its defaults.

    The code of a policy is not in them: where ``policy.rules`` is not empty, put it there,
    pickled, with ``dataclasses.replace(terms, code=...)``.

    Parameters
    ----------
    retries, policy
        Arguments of ``submit`` or ``map``; `retries` overrides those of `policy`.
    task : TaskPolicy, optional
        What the entry under ``tasks:`` says.
    defaults : TaskPolicy, optional
        What the manifest says for all tasks. Its retries are not addressed to a task
        that is not idempotent, and pass it by; retries of the call or of the task's own
        entry are an error there.

    Raises
    ------
    PolicyError
        For a value that makes no sense, or retries of a function
        that must not be called twice.
    """
    call = _call_policy(retries, policy)
    task, defaults = task or TaskPolicy(), defaults or TaskPolicy()
    layers = (call, task, defaults)
    timeout_s = _first(layer.timeout_s for layer in layers)
    idempotent = _first(layer.idempotent for layer in layers) is not False
    counts = (layer.max_retries for layer in (layers if idempotent else (call, task)))
    worker_losses = _first(layer.worker_losses for layer in layers)
    escalation = check_memory_escalation(_first(layer.escalate for layer in layers))
    return PolicyTerms(
        retries=_first(counts) or 0,
        backoff=_first(layer.waits for layer in layers) or Backoff(),
        timeout_s=None if timeout_s == math.inf else timeout_s,
        idempotent=idempotent,
        worker_losses=3 if worker_losses is None else worker_losses,
        memory_factor=escalation.factor if escalation else None,
        max_memory_bytes=escalation.max_bytes if escalation else None,
    )


def _call_policy(retries: int | RetryPolicy | None, policy: TaskPolicy | None) -> TaskPolicy:
    if policy is None:
        return TaskPolicy(retries=retries)
    if not isinstance(policy, TaskPolicy):
        raise refusal("policy", policy, "a TaskPolicy", "policy=TaskPolicy(retries=3)")
    if retries is None:
        return policy
    waits = None if isinstance(retries, RetryPolicy) else policy.waits
    return replace(policy, retries=retries, backoff=waits)


def _check_retries(value: Any) -> int | RetryPolicy | None:
    if value is None or isinstance(value, RetryPolicy):
        return value
    return check_count("retries", value, _RETRIES_EXAMPLE)


def _check_backoff(value: Any, retries: Any) -> Backoff | None:
    if value is None:
        return None
    example = "backoff=Backoff(base_s=0.5, max_s=30)"
    if not isinstance(value, Backoff):
        raise refusal("backoff", value, "a Backoff", example)
    if isinstance(retries, RetryPolicy):
        raise PolicyError(
            f"backoff={value!r} beside retries={retries!r}: a RetryPolicy says the waits too; "
            f"say them once, e.g. retries={retries.max_retries}, {example}"
        )
    if isinstance(value, RetryPolicy):
        if value.max_retries:
            raise refusal("backoff", value, "waits alone; how often is said by retries=", example)
        return _waits(value)
    return value


def _waits(policy: RetryPolicy) -> Backoff:
    return Backoff(**_values(policy))


def _values(backoff: Backoff) -> dict[str, Any]:
    return {item.name: getattr(backoff, item.name) for item in fields(Backoff)}


def _first(values: Iterable[_T | None]) -> _T | None:
    return next((value for value in values if value is not None), None)
