"""Runs with one planted cause, as a run would have recorded them."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from journal_rows import failure, task

TASKS = 400
_BEGIN = datetime(2026, 3, 1, 12, tzinfo=UTC)


@dataclass
class Call:
    """A task before it ran."""

    number: int
    year: int
    region: str
    worker: str
    host: str
    job_id: str
    at: datetime

    @property
    def preview(self) -> str:
        return f"scenario_id={self.number}, year={self.year}, region={self.region!r}"


@dataclass
class SyntheticRun:
    """The journals of a run.

    A call fails like a `Failing` says: with these values, in so many attempts, for good or not.
    """

    dice: random.Random
    failures: list[dict[str, Any]] = field(default_factory=list)
    tasks: list[dict[str, Any]] = field(default_factory=list)
    workers: list[dict[str, Any]] = field(default_factory=list)


#: What becomes of a call: how many attempts fail, whether for good, and with what values.
AttemptEnd = tuple[int, bool, dict[str, Any]]
Plan = Callable[[Call, random.Random], AttemptEnd | None]


def run_with(plan: Plan, seed: int, noise: float = 0.02) -> SyntheticRun:
    """A run of 400 calls on 8 nodes; some connections break and recover besides."""
    dice = random.Random(seed)
    run = SyntheticRun(dice)
    for number in range(TASKS):
        slot = dice.randrange(16)
        call = Call(
            number,
            dice.randrange(1950, 2050),
            dice.choice(["north", "south", "east", "west"]),
            f"worker-{slot}",
            f"n{slot // 2}",
            str(4000 + slot),
            _BEGIN + timedelta(seconds=number * 2 + dice.random()),
        )
        outcome = plan(call, dice)
        if outcome is None and dice.random() < noise:
            outcome = 1, False, RESET
        _record(run, call, *(outcome or (0, False, {})))
    return run


RESET = {
    "failure_class": "ConnectionResetError",
    "category": "transient",
    "message": "[Errno 104] Connection reset by peer",
    "fingerprint": "reset",
    "duration_s": 1.5,
}


def _record(
    run: SyntheticRun, call: Call, failed: int, is_final: bool, values: dict[str, Any]
) -> None:
    place = {"worker": call.worker, "host": call.host, "job_id": call.job_id}
    for attempt in range(1, failed + 1):
        ends = is_final and attempt == failed
        at = call.at + timedelta(seconds=attempt)
        seconds = {"duration_s": values.get("duration_s", 3.0) * run.dice.uniform(0.9, 1.1)}
        stamp = {"timestamp": at.isoformat(timespec="milliseconds")}
        row = {**place, **stamp, **values, **seconds}
        run.failures.append(
            failure(
                call.number,
                attempt=attempt,
                is_final=ends,
                will_retry=not ends,
                args_preview=call.preview,
                **row,
            )
        )
    state = "failed" if is_final else "succeeded"
    run.tasks.append(
        task(
            call.number,
            state=state,
            attempts=failed + (not is_final),
            worker=call.worker,
            args_preview=call.preview,
            failure_class=values.get("failure_class") if is_final else None,
        )
    )
