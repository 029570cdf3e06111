"""What is done to the workers while they work."""

from __future__ import annotations

import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random

import psutil

from scalable_nb import ScalableSession
from scalable_nb.worker.attempt_registry import read_owner

from .network import reset, silence

_POLL_S = 0.05
_MAX_STOP_S = 5.0  # of a process that goes on; its nanny ends one that stands still for longer


@dataclass(frozen=True)
class Forecast:
    """How often the storm strikes, in which way."""

    kills: int
    stops: int
    cuts: int

    def strikes(self, random: Random) -> list[str]:
        """All strikes in the order of this seed."""
        return random.sample(
            ["kill", "stop", "cut"],
            k=self.total,
            counts=[self.kills, self.stops, self.cuts],
        )

    @property
    def total(self) -> int:
        """Number of strikes."""
        return self.kills + self.stops + self.cuts


@dataclass
class Storm:
    """Strikes at the workers of a session, evenly over its work.

    Parameters
    ----------
    session : ScalableSession
    forecast : Forecast
    random : Random
        Decides about order, victims and pauses.
    say : callable
        Told each strike as it happens.
    """

    session: ScalableSession
    forecast: Forecast
    random: Random
    say: Callable[[str], None]
    struck: Counter[str] = field(default_factory=Counter)

    def rage(self, task_count: int) -> None:
        """Strike whenever another part of the tasks has ended, until all have."""
        self._host = psutil.Process(self.session.status().host_pid)
        self._port = int(self.session.client.scheduler.address.rpartition(":")[2])  # type: ignore[union-attr]
        self._begun = time.monotonic()
        self._timers: list[threading.Timer] = []
        strikes = self.forecast.strikes(self.random)
        for number, strike in enumerate(strikes):
            while self._tasks_done() < number * task_count // (len(strikes) + 1):
                time.sleep(_POLL_S)
            time.sleep(self.random.uniform(0, 2 * _POLL_S))
            while not self._strike(strike):
                time.sleep(_POLL_S)  # nobody is up at the moment
        for timer in self._timers:
            timer.join()

    def _tasks_done(self) -> int:
        counts = self.session.status().counts
        final = ("succeeded", "cached", "failed", "cancelled", "never ran")
        return sum(counts[state] for state in final)

    def _strike(self, kind: str) -> bool:
        try:
            victim = psutil.Process(self.random.choice(self._workers()))
            happened = getattr(self, f"_{kind}")(victim)
        except (IndexError, psutil.Error):
            return False  # no worker there, or it had just ended by itself
        if happened:
            self.struck[kind] += 1
            seconds = time.monotonic() - self._begun
            self.say(
                f"{seconds:6.1f} s  {self._tasks_done():5} done  {happened} (process {victim.pid})"
            )
        return bool(happened)

    def _workers(self) -> list[int]:
        """Processes that have registered as workers and live, as their nannies see it."""
        assert self.session.paths is not None
        owners = map(read_owner, sorted(self.session.paths.workspace.rglob("attempts-*")))
        return [owner.pid for owner in owners if owner and psutil.pid_exists(owner.pid)]

    def _kill(self, victim: psutil.Process) -> str:
        victim.kill()
        return "kill"

    def _stop(self, victim: psutil.Process) -> str:
        victim.suspend()
        if self.random.random() < 0.5:
            return "stop, for good"
        pause_s = self.random.uniform(0, _MAX_STOP_S)
        timer = threading.Timer(pause_s, _go_on, [victim])
        timer.start()
        self._timers.append(timer)
        return f"stop, for {pause_s:.1f} s"

    def _cut(self, victim: psutil.Process) -> str:
        if self.random.random() < 0.3:
            count = silence(victim, self._port, self._host)
            return f"cut, silently, of {count} connections" if count else ""
        count = reset(victim, self._port)
        return f"cut of {count} connections" if count else ""


def _go_on(process: psutil.Process) -> None:
    with suppress(psutil.NoSuchProcess):  # struck again meanwhile
        process.send_signal(signal.SIGCONT)
