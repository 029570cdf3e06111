"""Finds out what became of the job of a lost worker."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from scalable_nb.batch_system.job_logs import read_tail
from scalable_nb.batch_system.job_state import JobFacts, find_outcome, with_start
from scalable_nb.batch_system.slurm_query import parse_log
from scalable_nb.errors import BatchCommandError

if TYPE_CHECKING:
    from scalable_nb.batch_system.job_queue import Queue

logger = logging.getLogger(__name__)

#: Seconds between two questions about lost workers; accounting lags by a second or two.
WAITS_S: Final = (0.3, 0.7, 1.0, 1.0, 1.0, 2.0, 2.0, 2.0)
#: So often it is asked for details, when the job's own log has already said how it ended.
_TRIES_FOR_DETAILS: Final = 3


@dataclass(eq=False)
class LostJob:
    """A job whose worker is gone.

    Attributes
    ----------
    came_at : float
        When the worker connected; seconds since the epoch.
    logs : callable
        The files with its output.
    before : JobFacts or None
        The batch system's last word of the run before its end.
    on_outcome : callable
        Called once with its outcome, or None when nobody can say.
    """

    job_id: str
    came_at: float
    logs: Callable[[], Sequence[Path]]
    before: JobFacts | None
    on_outcome: Callable[[JobFacts | None], None]
    tries: int = 0
    outcome: JobFacts | None = field(default=None, init=False)

    def note_outcome(self, outcome: JobFacts) -> None:
        """Keep what the batch system says now; later answers may say more."""
        self.outcome = with_start(outcome, self.before, self.came_at)

    def end_try(self) -> None:
        """Count a question that was asked."""
        self.tries += 1


class JobOutcomes:
    """Asks about all lost jobs together until each has an answer, or nobody can give one.

    Parameters
    ----------
    queue : Queue
        The batch system.
    waits_s : sequence of float
        The waits before each question about a job, in seconds; after the last nobody can say.
    """

    def __init__(self, queue: Queue, waits_s: Sequence[float] = WAITS_S) -> None:
        self._queue = queue
        self._waits_s = waits_s
        self._open: list[LostJob] = []
        self._query_task: asyncio.Task[None] | None = None

    def query(self, lost: LostJob) -> None:
        """Find out what became of a job; returns at once."""
        self._open.append(lost)
        self._queue.look_soon()
        if self._query_task is None or self._query_task.done():
            self._query_task = asyncio.get_running_loop().create_task(self._query_all())

    def drop(self, lost: LostJob | None) -> None:
        """Nobody waits for this answer any more."""
        self._open = [other for other in self._open if other is not lost]

    async def _query_all(self) -> None:
        while self._open:
            # The one that waits longest sets the pace; newer ones get their tries as well.
            await asyncio.sleep(self._waits_s[max(lost.tries for lost in self._open)])
            pending = list(self._open)
            if not pending:
                return
            try:
                await self._look_up(pending)
            except Exception:
                # Whatever goes wrong here, the tasks must not wait for ever.
                logger.exception("the outcome of jobs could not be looked up")
            for lost in [lost for lost in self._open if lost in pending]:
                lost.end_try()
                if self._is_settled(lost):
                    self.drop(lost)
                    lost.on_outcome(lost.outcome)

    async def _look_up(self, pending: Sequence[LostJob]) -> None:
        runs: Mapping[str, Sequence[JobFacts]] = {}
        last: dict[str, JobFacts] = {}
        try:
            runs = await self._queue.runs(sorted({lost.job_id for lost in pending}))
            if not runs:
                last = await self._queue.last_runs()
        except BatchCommandError as error:
            logger.warning("%s", error)  # the log may still say it
        for lost in pending:
            lines = await asyncio.to_thread(read_tail, lost.logs)
            log = parse_log(lines, lost.job_id, lost.came_at)
            records, now = runs.get(lost.job_id, ()), last.get(lost.job_id)
            outcome = find_outcome(lost.came_at, records, now, log)
            if outcome is not None:
                lost.note_outcome(outcome)

    def _is_settled(self, lost: LostJob) -> bool:
        if lost.tries >= len(self._waits_s):
            return True
        if lost.outcome is None:
            return False
        return lost.outcome.source != "log" or lost.tries >= _TRIES_FOR_DETAILS
