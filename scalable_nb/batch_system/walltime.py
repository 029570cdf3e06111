"""The longest life of a job: read, and how a worker's tasks are fitted into what is left of it."""

from __future__ import annotations

import re
from typing import Final

_DAY_S: Final = 86400.0
_HOUR_S: Final = 3600.0
_MINUTE_S: Final = 60.0


def walltime_s(provider: str, text: str | None) -> float | None:
    """Seconds of a walltime as the batch system reads it; None: no limit, or not understood.

    Notes
    -----
    Slurm takes minutes, minutes:seconds, hours:minutes:seconds, days-hours,
    days-hours:minutes and days-hours:minutes:seconds (sbatch(1), 22.05); LSF takes minutes or
    hours:minutes; all others hours:minutes:seconds or seconds.

    Examples
    --------
    >>> walltime_s("slurm", "1-12:30")
    131400.0
    >>> walltime_s("lsf", "01:30")
    5400.0
    >>> walltime_s("pbs", "00:30:00")
    1800.0
    """
    match = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", (text or "").strip())
    if match is None:
        return None
    days, *groups = match.groups()
    numbers = [float(group) for group in groups if group is not None]
    if days is not None:  # the first number after the days are hours
        return float(days) * _DAY_S + _sum(numbers, (_HOUR_S, _MINUTE_S, 1.0))
    if len(numbers) == 3:
        return _sum(numbers, (_HOUR_S, _MINUTE_S, 1.0))
    if provider == "lsf":
        return _sum(numbers, (_HOUR_S, _MINUTE_S) if len(numbers) == 2 else (_MINUTE_S,))
    if provider == "slurm":
        return _sum(numbers, (_MINUTE_S, 1.0))
    return _sum(numbers, (_MINUTE_S, 1.0) if len(numbers) == 2 else (1.0,))


def leaves_at_s(walltime_s: float, needed_s: float, number: int) -> float:
    """What is left of its walltime when a worker takes no more tasks.

    Parameters
    ----------
    walltime_s : float
    needed_s : float
        What a task may take.
    number : int
        Of the worker; those that began together do not end together.

    Notes
    -----
    The margin is for the next job to come and take over the results. Less than half of the
    walltime is never left to work in, so that a fresh worker gets tasks in any case.

    Examples
    --------
    >>> leaves_at_s(7200, 300, 0)
    420.0
    >>> leaves_at_s(7200, 300, 1)
    450.0
    """
    margin_s = min(120.0, max(15.0, walltime_s / 20))
    stagger_s = margin_s / 4 * (number % 4)
    return min(needed_s + margin_s + stagger_s, walltime_s / 2)


def ends_early_s(walltime_s: float | None) -> float:
    """What is left of its walltime when a host ends itself.

    Enough to write what is still wanted and to cancel the jobs of the workers.

    Parameters
    ----------
    walltime_s : float or None
        As it was asked for; None: it was not.

    Examples
    --------
    >>> ends_early_s(86400)
    300.0
    >>> ends_early_s(600)
    60.0
    """
    return 300.0 if walltime_s is None else min(300.0, walltime_s / 10)


def _sum(numbers: list[float], units_s: tuple[float, ...]) -> float:
    return sum(number * unit_s for number, unit_s in zip(numbers, units_s, strict=False))
