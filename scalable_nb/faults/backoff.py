"""How long to wait between two attempts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from scalable_nb.faults.validation import check_count, check_number


@dataclass(frozen=True, kw_only=True)
class Backoff:
    """Waits that grow from attempt to attempt; `delay_s` is the rule.

    Parameters
    ----------
    base_s : float
        Seconds after the first failed attempt; 0 or more.
    factor : float
        By which each further wait grows; 1 or more (1: always the same wait).
    max_s : float
        Seconds that no wait exceeds; 0 or more.
    jitter : float
        Share of a wait that chance may take away, 0 to 1, so that tasks that failed
        together do not all come back at the same moment.

    Raises
    ------
    PolicyError
        For a value outside these limits.
    """

    base_s: float = 1.0
    factor: float = 2.0
    max_s: float = 60.0
    jitter: float = 0.25

    def __post_init__(self) -> None:
        for name, low, high, expected, example in (
            ("base_s", 0.0, float("inf"), "seconds, 0 or more", "base_s=1.0"),
            ("factor", 1.0, float("inf"), "a finite number, 1 or more", "factor=2.0"),
            ("max_s", 0.0, float("inf"), "seconds, 0 or more", "max_s=60.0"),
            ("jitter", 0.0, 1.0, "a share from 0 to 1", "jitter=0.25"),
        ):
            value = check_number(name, getattr(self, name), expected, example, low=low, high=high)
            object.__setattr__(self, name, value)


@dataclass(frozen=True)
class RetryPolicy(Backoff):
    """How many retries, and the waits before them.

    Parameters
    ----------
    max_retries : int
        Further attempts after the first: 3 means at most four attempts. The only
        parameter that may be given by position.
    base_s, factor, max_s, jitter
        See `Backoff`.

    Raises
    ------
    PolicyError
        For a value that makes no sense.

    Examples
    --------
    >>> RetryPolicy(3, base_s=0.5).max_retries
    3
    """

    max_retries: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        count = check_count("max_retries", self.max_retries, "RetryPolicy(max_retries=3)")
        object.__setattr__(self, "max_retries", count)


def delay_s(policy: Backoff, attempt: int, random: Callable[[], float]) -> float:
    """Seconds to wait after attempt number `attempt` failed.

    The wait is ``min(max_s, base_s * factor**(attempt - 1))``, and jitter takes a random
    share of it away: it is multiplied by ``1 - jitter * random()``. So every wait lies in
    ``[(1 - jitter) * wait, wait]`` and none exceeds `max_s`. Jitter that also lengthened
    waits would have to be cut at `max_s`, where half of all tasks would then meet again.

    Parameters
    ----------
    policy : Backoff
        A `RetryPolicy` is one.
    attempt : int
        The attempt that failed, counted from 1.
    random : callable
        Gives a number in [0, 1).

    Raises
    ------
    ValueError
        When `attempt` is less than 1.

    Examples
    --------
    >>> [delay_s(Backoff(), attempt, lambda: 0.0) for attempt in (1, 2, 3, 10_000)]
    [1.0, 2.0, 4.0, 60.0]
    """
    if attempt < 1:
        raise ValueError(f"attempt={attempt}: attempts are counted from 1")
    try:
        wait_s = min(policy.max_s, policy.base_s * policy.factor ** (attempt - 1))
    except OverflowError:  # the power, long after the wait has reached its limit
        wait_s = policy.max_s if policy.base_s else 0.0
    return wait_s * (1.0 - policy.jitter * random())
