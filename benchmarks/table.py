"""What the live table of 100,000 tasks costs: the kernel's CPU, the host's, and bytes.

Host and kernel are played in this process, by the real ledger, mirror and table, four updates a
second. Left out is what lies between: Dask's and Jupyter's own handling of a message.
"""

from __future__ import annotations

import asyncio
import json
import random
import threading
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final

from benchmarks.measure import Benchmark, Budget
from scalable_nb.telemetry.ledger import Delta, Ledger
from scalable_nb.telemetry.ledger_mirror import Mirror
from scalable_nb.telemetry.rows import STATE_LABELS, TaskState
from scalable_nb.widgets.task_table.row_stream import RowStream
from scalable_nb.widgets.task_table.widget import TaskTable

TASKS: Final = 100_000
CHANGED: Final = 250  # rows of each update: 1,000 tasks/s
INTERVAL_S: Final = 0.25
SPAN_S: Final = 10.0


def kernel_benchmark() -> Benchmark:
    """Share of a core that the kernel's mirror and table take."""
    return Benchmark(
        name="table-kernel",
        summary=f"kernel CPU, {TASKS:,} tasks on show, {CHANGED} of them changed at 4 Hz",
        unit="s/s",
        budget=Budget(must=0.10, wanted=0.03, is_upper=True),
        ours=lambda: _cpu_shares()[0],
        plain=lambda: 1.0,
        against="one core",
    )


def host_benchmark() -> Benchmark:
    """Share of a core that the host's ledger takes."""
    return Benchmark(
        name="table-host",
        summary=f"host CPU of the same: changing {CHANGED} rows and making a delta at 4 Hz",
        unit="s/s",
        budget=Budget(must=0.10, wanted=0.03, is_upper=True),
        ours=lambda: _cpu_shares()[1],
        plain=lambda: 1.0,
        against="one core",
    )


def snapshot_benchmark() -> Benchmark:
    """Bytes of a task in the snapshot that a page begins with."""
    return Benchmark(
        name="table-snapshot",
        summary=f"bytes of a task in a page's first frame, {TASKS:,} tasks",
        unit="B/task",
        budget=None,
        ours=lambda: len(_stream(_made_ledger()).snapshot().data) / TASKS,
        plain=lambda: len(_as_json(_made_ledger(), range(TASKS))) / TASKS,
        against="JSON",
    )


def update_benchmark() -> Benchmark:
    """Bytes of a changed task in an update."""
    return Benchmark(
        name="table-update",
        summary=f"bytes of a changed task in an update of {CHANGED}",
        unit="B/task",
        budget=None,
        ours=_bytes_of_an_update,
        plain=lambda: len(_as_json(_made_ledger(), range(CHANGED))) / CHANGED,
        against="JSON",
    )


def _made_ledger() -> Ledger:
    ledger = Ledger("benchmark")
    codes = [ledger.code(f"worker-{number}") for number in range(64)]
    function = ledger.code("simulate")
    for number in range(TASKS):
        ledger.add(
            f"simulate-{number:032x}",
            f"simulate(scenario_id={number})",
            state=TaskState.QUEUED,
            attempts_allowed=4,
            function=function,
            worker=codes[number % 64],
            submitted_at=time.time(),
        )
    return ledger


def _stream(ledger: Ledger) -> RowStream:
    return RowStream(ledger, threading.RLock())


def _change(ledger: Ledger, chance: random.Random) -> None:
    for row in chance.sample(range(TASKS), CHANGED):
        ledger.set_state(row, TaskState.RUNNING)
        ledger.set(row, attempt=1, started_at=time.time(), duration_s=chance.random())


def _bytes_of_an_update() -> float:
    ledger = _made_ledger()
    stream = _stream(ledger)
    stream.snapshot()
    _change(ledger, random.Random(1))
    frame = stream.frame()
    assert frame is not None
    return len(frame.data) / frame.rows


def _as_json(ledger: Ledger, rows: range) -> bytes:
    records = [
        {
            "key": ledger.keys[row],
            "label": ledger.labels[row],
            "state": STATE_LABELS[ledger.columns["state"][row]],
            "worker": ledger.text("worker", row),
            "function": ledger.text("function", row),
            **{
                name: ledger.columns[name][row]
                for name in ("attempt", "attempts_allowed", "submitted_at", "duration_s")
            },
        }
        for row in rows
    ]
    return json.dumps(records).encode()


class _Host:
    """The host's ledger, which changes whenever it is asked; counts its own CPU time."""

    def __init__(self) -> None:
        self.ledger = _made_ledger()
        self.chance = random.Random(1)
        self.cpu_s = 0.0
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()

    async def fetch(self, ledger_id: str, since: int, wait_s: float) -> Delta | None:
        began = time.thread_time()
        if since:
            _change(self.ledger, self.chance)
        delta = self.ledger.delta(since if ledger_id == self.ledger.ledger_id else 0)
        self.cpu_s += time.thread_time() - began
        return delta

    def run(self, coroutine: Callable[[], Awaitable[Any]]) -> None:
        asyncio.run_coroutine_threadsafe(_awaited(coroutine), self._loop)

    def run_sync(self, coroutine: Callable[[], Awaitable[Any]]) -> Any:
        return asyncio.run_coroutine_threadsafe(_awaited(coroutine), self._loop).result()

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)


async def _awaited(coroutine: Callable[[], Awaitable[Any]]) -> Any:
    return await coroutine()


def _cpu_shares() -> tuple[float, float]:
    """CPU seconds per second of the kernel and of the host."""
    host = _Host()
    mirror = Mirror(host, "")
    mirror.refresh()
    table = TaskTable(mirror)
    try:
        _rest(2.0)  # the first snapshots are no updates
        began, cpu_s, host_cpu_s = time.monotonic(), time.process_time(), host.cpu_s
        _rest(SPAN_S)
        span_s = time.monotonic() - began
        host_cpu_s = host.cpu_s - host_cpu_s
        kernel_cpu_s = time.process_time() - cpu_s - host_cpu_s
    finally:
        table.close()
        mirror.end("closed")
        host.stop()
    return kernel_cpu_s / span_s, host_cpu_s / span_s


_rest: Final = partial(threading.Event.wait, threading.Event())
