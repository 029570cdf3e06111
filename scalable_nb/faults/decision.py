"""Whether a failed attempt is followed by another one, and which budget pays for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from random import random as _random
from typing import Any, Final, Literal

from scalable_nb.errors import PolicyError
from scalable_nb.faults.backoff import Backoff, delay_s
from scalable_nb.faults.categories import Category
from scalable_nb.faults.memory_escalation import MemoryEscalation
from scalable_nb.faults.validation import check_count, check_number

_BACKOFF_NAMES: Final = tuple(item.name for item in fields(Backoff))


class WorkerLossCause(StrEnum):
    """Why the worker of an attempt went away."""

    CRASH = "crash"  # an exit code, a signal, or nobody knows
    CONNECTION = "connection"  # between worker and scheduler
    OUT_OF_MEMORY = "out_of_memory"  # killed for its memory: nanny, kernel, batch system
    WALLTIME = "walltime"  # the job's time was over
    WHOLE_WALLTIME = "whole_walltime"  # ... and this attempt had had all of it
    PREEMPTION = "preemption"
    REQUEUE = "requeue"
    NODE_FAILURE = "node_failure"
    SCANCEL = "scancel"
    SCALE_DOWN = "scale_down"
    NEIGHBOUR = "neighbour"  # another task's crash or timeout ended the process


_CHARGED: Final = frozenset(
    {
        WorkerLossCause.CRASH,
        WorkerLossCause.CONNECTION,
        WorkerLossCause.OUT_OF_MEMORY,
        WorkerLossCause.WALLTIME,
    }
)

_WORDS: Final = {
    WorkerLossCause.CRASH: "the worker crashed",
    WorkerLossCause.CONNECTION: "the connection to the worker broke",
    WorkerLossCause.OUT_OF_MEMORY: "the worker ran out of memory",
    WorkerLossCause.WALLTIME: "the walltime of the job ended",
    WorkerLossCause.PREEMPTION: "the job was preempted",
    WorkerLossCause.REQUEUE: "the job was requeued",
    WorkerLossCause.NODE_FAILURE: "the node failed",
    WorkerLossCause.SCANCEL: "the job was cancelled",
    WorkerLossCause.SCALE_DOWN: "the worker was retired",
    WorkerLossCause.NEIGHBOUR: "another task ended the worker",
}


@dataclass(frozen=True, slots=True)
class Decision:
    """What follows a failed attempt.

    Attributes
    ----------
    will_retry : bool
        Whether there is another attempt.
    retry_in_s : float or None
        Seconds until it may begin; None when there is none.
    charged : {"retries", "worker_losses"} or None
        The budget that pays for it; None when it is free, or there is none.
    reason : str
        Why, in words.
    """

    will_retry: bool
    retry_in_s: float | None
    charged: Literal["retries", "worker_losses"] | None
    reason: str


def decide(
    terms: PolicyTerms,
    *,
    category: str,
    attempt: int,
    retries_used: int,
    losses_used: int,
    verdict: str | None = None,
    loss: WorkerLossCause | str | None = None,
    random: Callable[[], float] = _random,
) -> Decision:
    """Decide about a failed attempt; sees no exception, so the host imports nothing of the user's.

    Parameters
    ----------
    terms : PolicyTerms
    category : str
        A `Category`; not asked where there is a `loss`.
    attempt : int
        The attempt that failed, counted from 1; sets the wait.
    retries_used, losses_used : int
        Charged so far.
    verdict : {"retry_on", "give_up_on"} or None
        What the user's rules said on the worker.
    loss : WorkerLossCause or None
        Why the worker went away, when it did. Only for a task that was executing, or
        may have been where nobody can know.
    random : callable
        Gives a number in [0, 1), for the jitter.

    Raises
    ------
    ValueError
        For a `loss` that is none.
    """
    if loss is not None:
        return _after_loss(terms, WorkerLossCause(loss), losses_used)
    final = _why_final(terms, category, retries_used, verdict)
    if final:
        return _final(final)
    reason = f"{category} error: retry {retries_used + 1} of {terms.retries}"
    return Decision(True, delay_s(terms.backoff, attempt, random), "retries", reason)


def _why_final(
    terms: PolicyTerms, category: str, retries_used: int, verdict: str | None
) -> str | None:
    if not terms.idempotent:
        return "not idempotent: never called a second time"
    if verdict == "give_up_on":
        return "give_up_on names this error"
    if category == Category.PERMANENT and verdict != "retry_on":
        return "a permanent error is not retried, unless retry_on names it"
    if not terms.retries:
        return "no retries were asked for"
    if retries_used >= terms.retries:
        return f"all {terms.retries} retries are used"
    return None


def _after_loss(terms: PolicyTerms, loss: WorkerLossCause, losses_used: int) -> Decision:
    if not terms.idempotent:
        return _final("not idempotent: nobody knows how far the lost attempt came")
    if loss is WorkerLossCause.WHOLE_WALLTIME:
        return _final("the attempt had a whole walltime to itself and was not done")
    happened = _WORDS[loss]
    # No wait: what was lost is lost, and waiting helps nobody to come back sooner.
    if loss not in _CHARGED:
        return Decision(True, 0.0, None, f"{happened}: runs again, charged to no budget")
    if losses_used >= terms.worker_losses:
        return _final(f"{happened}, and all {terms.worker_losses} worker losses are used")
    reason = f"{happened}: worker loss {losses_used + 1} of {terms.worker_losses}"
    return Decision(True, 0.0, "worker_losses", reason)


def _final(reason: str) -> Decision:
    return Decision(False, None, None, reason)


@dataclass(frozen=True)
class PolicyTerms:
    """What the host knows of a task's policy: plain values, and bytes it never opens.

    Parameters
    ----------
    retries : int
        Retries of attempts that failed with an error or ran too long.
    backoff : Backoff
        The waits before them.
    timeout_s : float or None
        Longest execution of an attempt in seconds; None: no limit.
    idempotent : bool
        Whether the function may be called a second time at all.
    worker_losses : int
        Further attempts after the worker's process ended under the task.
    memory_factor : float or None
        By which an attempt after an out-of-memory gets more memory; None: as much as before.
    max_memory_bytes : int or None
        What it gets at most.
    code : bytes
        The pickled ``TaskPolicy.rules``; empty: none. Pickled by the client, unpickled on
        workers only.

    Raises
    ------
    PolicyError
        For a value that makes no sense.
    """

    retries: int = 0
    backoff: Backoff = field(default_factory=Backoff)
    timeout_s: float | None = None
    idempotent: bool = True
    worker_losses: int = 3
    memory_factor: float | None = None
    max_memory_bytes: int | None = None
    code: bytes = b""

    def __post_init__(self) -> None:
        check_count("retries", self.retries, "retries=3")
        check_count("worker_losses", self.worker_losses, "worker_losses=3")
        if self.timeout_s is not None:
            check_timeout(self.timeout_s)
        if self.retries and not self.idempotent:
            raise unsafe_retries(self.retries)

    @property
    def escalation(self) -> MemoryEscalation | None:
        """How the memory of a next attempt grows."""
        if self.memory_factor is None:
            return None
        return MemoryEscalation(self.memory_factor, self.max_memory_bytes)

    def to_wire(self) -> dict[str, Any]:
        """Values that msgpack can carry, those that equal the default left out."""
        return {name: value for name, value in _flat(self).items() if value != _DEFAULTS[name]}

    @classmethod
    def from_wire(cls, values: Mapping[str, Any]) -> PolicyTerms:
        """The terms that `to_wire` wrote; names of other versions are passed over.

        Raises
        ------
        PolicyError
            When a value makes no sense.
        """
        known = {name: values[name] for name in values.keys() & _DEFAULTS.keys()}
        waits = {name: known.pop(name) for name in _BACKOFF_NAMES if name in known}
        if waits:
            known["backoff"] = Backoff(**waits)
        return cls(**known)


def check_timeout(value: Any) -> float:
    """Seconds, more than 0.

    Raises
    ------
    PolicyError
        For anything else.
    """
    # The smallest float above 0 stands for "more than 0".
    return check_number("timeout_s", value, "seconds, more than 0", "timeout_s=300", low=5e-324)


def unsafe_retries(retries: int) -> PolicyError:
    """The error for retries of a function that must not be called twice."""
    return PolicyError(
        f"retries={retries} with idempotent=False: a function that is not idempotent is never "
        "called a second time; say retries=0, or idempotent=True if calling it again does no harm"
    )


def _flat(terms: PolicyTerms) -> dict[str, Any]:
    flat = {item.name: getattr(terms, item.name) for item in fields(terms)}
    backoff = flat.pop("backoff")
    return flat | {name: getattr(backoff, name) for name in _BACKOFF_NAMES}


_DEFAULTS: Final = _flat(PolicyTerms())


def default_term(name: str) -> Any:
    """Return the default of a value of `PolicyTerms.to_wire`; None for any other name."""
    return _DEFAULTS.get(name)


#: Names of the values of `PolicyTerms.to_wire`.
TERM_NAMES: Final = frozenset(_DEFAULTS)
