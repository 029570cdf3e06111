"""A mirror that a test fills by hand."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from scalable_nb.telemetry.ledger import Delta, Ledger
from scalable_nb.telemetry.rows import TaskState


class FakeMirror:
    """What a table needs of `scalable_nb.telemetry.ledger_mirror.Mirror`."""

    def __init__(self, ledger_id: str = "run") -> None:
        self.ledger = Ledger(ledger_id)
        self.lock = threading.RLock()
        self.status = "live"
        self.callbacks: list[Callable[[Delta], None]] = []

    def subscribe(self, callback: Callable[[Delta], None]) -> Callable[[], None]:
        """Follow; the first call is a snapshot."""
        callback(self.ledger.delta(0))
        self.callbacks.append(callback)
        return lambda: self.callbacks.remove(callback)

    def add(self, number: int, *, prefix: str = "key") -> None:
        """Add tasks in the state QUEUED."""
        with self.lock:
            first = len(self.ledger)
            for row in range(first, first + number):
                self.ledger.add(
                    f"{prefix}-{row}",
                    f"simulate(scenario={row})",
                    state=TaskState.QUEUED,
                    attempts_allowed=4,
                    submitted_at=time.time(),
                )

    def change(self, row: int, state: TaskState, **values: Any) -> None:
        """Bring a task to a state; strings may be given as text."""
        with self.lock:
            for name, value in values.items():
                if isinstance(value, str):
                    values[name] = self.ledger.code(value)
            self.ledger.set(row, **values)
            self.ledger.set_state(row, state)

    def tell(self) -> None:
        """Tell the subscribers, as the client's IO thread does."""
        with self.lock:
            delta = self.ledger.delta(self.ledger.seq)
        thread = threading.Thread(target=lambda: [call(delta) for call in list(self.callbacks)])
        thread.start()
        thread.join()

    def end(self, status: str) -> None:
        """Let the session end."""
        self.status = status
        self.tell()
