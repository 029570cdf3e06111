"""How long a second notebook waits for a batch, against a published dataset of plain Dask."""

from __future__ import annotations

import time
from functools import partial

from distributed import Client

from benchmarks.contenders import our_session, plain_client
from benchmarks.measure import Benchmark, Budget
from scalable_nb import ScalableSession
from scalable_nb.telemetry.rows import TaskState
from scalable_nb.widgets.task_table.widget import TaskTable


def benchmark(tasks: int = 10_000, name: str = "attach") -> Benchmark:
    """Seconds from nothing to a list of live futures; ours with the table of all tasks.

    Parameters
    ----------
    tasks : int
        Of the batch; they wait for a worker meanwhile.
    name : str
        Of the benchmark.
    """
    return Benchmark(
        name=name,
        summary=f"attach, session.batches[...] and live table of {tasks:,} tasks (10,000: <= 2 s)",
        unit="s",
        budget=Budget(must=3.0, wanted=1.0, is_upper=True),
        ours=partial(_measure_ours, tasks),
        plain=partial(_measure_plain, tasks),
    )


def _measure_ours(tasks: int) -> float:
    with our_session() as live:
        futures = live.client.map(time.sleep, [3600] * tasks, pure=False, name="many")
        keys = [future.key for future in futures]
        while live.client.sync(live.client.host_api.observe, keys):
            time.sleep(0.1)  # the host does not know them all yet
        started_at = time.perf_counter()
        joined = ScalableSession.attach(live.run_id)
        found = joined.batches["many"]
        table = TaskTable(joined.mirror, keys=found.keys)
        joined.mirror.refresh()
        frame = table.get_state("snapshot")["snapshot"]  # what a page gets
        duration_s = time.perf_counter() - started_at
        assert [future.key for future in found] == keys
        assert joined.mirror.ledger.counts[TaskState.QUEUED] > 0 and len(frame) > tasks
        table.close()
        joined.client.close()
    return duration_s


def _measure_plain(tasks: int) -> float:
    with plain_client() as client:
        futures = client.map(time.sleep, [3600] * tasks, pure=False)
        client.publish_dataset(many=futures)
        started_at = time.perf_counter()
        with Client(client.scheduler.address, set_as_default=False) as second:  # type: ignore[union-attr]
            count = len(second.get_dataset("many"))
            duration_s = time.perf_counter() - started_at
        client.cancel(futures)
    assert count == tasks
    return duration_s
