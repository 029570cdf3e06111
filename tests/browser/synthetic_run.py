"""A run that a test makes by hand, and what a page gets of it."""

from __future__ import annotations

import random
import threading
import time
from typing import Any

from scalable_nb.telemetry.ledger import Ledger
from scalable_nb.telemetry.rows import TaskState
from scalable_nb.widgets.task_table.row_stream import RowStream

EVIL = "<script>window.wasHacked = true</script><img src=x onerror='window.wasHacked = true'>"


class Run:
    """A ledger, as a host changes it, and the frames of a table of all its tasks."""

    def __init__(self, tasks: int) -> None:
        self.ledger = Ledger("run")
        self.stream = RowStream(self.ledger, threading.RLock())
        self.codes = {
            text: self.ledger.code(text)
            for text in ("worker-1", "worker-2", "node-é", "ConnectionError", "ValueError", EVIL)
        }
        self.began_at = time.time() - 100
        for number in range(tasks):
            self.ledger.add(
                f"key-{number}",
                f"simulate(scenario={number})",
                state=TaskState.QUEUED,
                attempts_allowed=4,
                submitted_at=self.began_at,
            )

    def snapshot(self) -> bytes:
        return self.stream.snapshot().data

    def delta(self) -> bytes:
        frame = self.stream.frame()
        assert frame is not None
        return frame.data

    def become(self, row: int, state: TaskState, **values: Any) -> None:
        for name in ("worker", "error"):
            if name in values:
                values[name] = self.codes[values[name]]
        self.ledger.set(row, **values)
        self.ledger.set_state(row, state)

    def work_off(self, share: float) -> None:
        """Bring the first tasks to the states of a run in its midst."""
        chance = random.Random(7)
        last = int(len(self.ledger) * share)
        for row in range(last):
            started_at = self.began_at + 98 * row / last
            state = chance.choices(
                [TaskState.SUCCEEDED, TaskState.CACHED, TaskState.FAILED, TaskState.RETRYING],
                [88, 6, 5, 1],
            )[0]
            if state == TaskState.CACHED:
                self.become(row, state)
                continue
            values: dict[str, Any] = {
                "attempt": chance.choice([1, 1, 1, 2, 4]),
                "worker": chance.choice(["worker-1", "worker-2", "node-é"]),
                "started_at": started_at,
                "duration_s": chance.expovariate(0.7),
            }
            if state != TaskState.SUCCEEDED:
                values["error"] = chance.choice(["ConnectionError", "ValueError"])
            if state == TaskState.RETRYING:
                values["retry_at"] = time.time() + 20 + chance.random() * 20
            self.become(row, state, **values)
        for row in range(last, min(last + 12, len(self.ledger))):
            self.become(
                row, TaskState.RUNNING, attempt=1, worker="worker-1", started_at=time.time() - 3
            )
