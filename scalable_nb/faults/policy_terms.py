"""The plain numbers of a policy, as they travel with a task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final

from scalable_nb.errors import PolicyError
from scalable_nb.faults.backoff import Backoff
from scalable_nb.faults.memory_escalation import Escalation
from scalable_nb.faults.validation import check_count, check_number

_BACKOFF_NAMES: Final = tuple(item.name for item in fields(Backoff))


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
    def escalation(self) -> Escalation | None:
        """How the memory of a next attempt grows."""
        if self.memory_factor is None:
            return None
        return Escalation(self.memory_factor, self.max_memory_bytes)

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
