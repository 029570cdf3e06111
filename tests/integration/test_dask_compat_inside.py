"""Tasks that submit tasks, what tasks share, actors, and what is asked of the whole cluster."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import dask
import pytest
from counting import calls, mark
from dask_twins import Twins, another, raised
from distributed import (
    Client,
    Event,
    Lock,
    MultiLock,
    Queue,
    Semaphore,
    Variable,
    as_completed,
    get_client,
    get_worker,
    secede,
    wait,
    worker_client,
)
from sendable import Counter, fib_seceding, inc, sum_by_worker_client
from waiting import until

from scalable_nb import ScalableSession, errors
from scalable_nb.telemetry.journal_reader import read_rows

# --- tasks that submit tasks -------------------------------------------------------------


def test_tasks_submit_tasks(same: Twins) -> None:
    """By `get_client` with `secede` and `rejoin`, by `worker_client`, by `compute` inside."""

    def case(client: Client) -> Any:
        def computes(x: int) -> int:
            with worker_client():
                return int(dask.delayed(inc)(x).compute())

        async def coroutine(x: int) -> int:
            return int(await get_client().submit(inc, x))

        futures = [
            client.submit(fib_seceding, 6),
            client.submit(sum_by_worker_client, 5),
            client.submit(computes, 3),
            client.submit(coroutine, 7),
        ]
        return client.gather(futures)

    assert same(case) == [8, 15, 4, 8]


def test_errors_of_inner_tasks_come_out(same: Twins) -> None:
    """As themselves, through the task that waited for them."""

    def case(client: Client) -> Any:
        def breaks(x: int) -> None:
            raise LookupError(f"inside {x}")

        def outer(x: int) -> int:
            with worker_client() as inner_client:
                return int(inner_client.submit(breaks, x).result())

        return raised(client.submit(outer, 4).result)

    assert same(case) == ("LookupError", "inside 4")


def test_inner_tasks_are_in_the_ledger(shared_session: ScalableSession) -> None:
    """With their function, state and worker, beside the task that submitted them."""

    def inner(x: int) -> int:
        if x == 2:
            raise LookupError("two")
        return x

    def outer(n: int) -> int:
        with worker_client() as client:
            futures = client.map(inner, range(n))
            wait(futures)
            return sum(future.status == "finished" for future in futures)

    assert shared_session.client.submit(outer, 4).result(timeout=60) == 3
    assert shared_session.paths is not None
    shared_session.client.host_api.flush()
    tasks = read_rows(shared_session.paths.tasks).rows
    states = sorted(row["state"] for row in tasks if row["function_name"] == "inner")
    assert states == ["failed", "succeeded", "succeeded", "succeeded"]
    (failure,) = [
        row for row in read_rows(shared_session.paths.failures).rows
        if row["function_name"] == "inner"
    ]  # fmt: skip
    assert failure["failure_class"] == "LookupError"
    counts = shared_session.status().counts
    shared_session.mirror.refresh()
    assert sum(counts.values()) == len(set(shared_session.mirror.ledger.keys))


def test_a_task_that_seceded_is_no_obstacle_in_the_ledger(
    shared_session: ScalableSession, tmp_path: Path
) -> None:
    """What runs in the thread it left is told to run, not to wait in line."""

    def leaves(path: Path) -> None:
        secede()
        while not path.exists():
            time.sleep(0.01)

    gate = tmp_path / "gate"
    left = shared_session.client.map(leaves, [gate] * 2, pure=False)
    until(lambda: shared_session.status().counts["running"] == 2)
    running = shared_session.client.map(leaves, [gate] * 2, pure=False)
    until(lambda: shared_session.status().counts["running"] == 4)
    gate.touch()
    wait([*left, *running])


# --- what is shared ----------------------------------------------------------------------


def test_variables_hold_values_and_futures(same: Twins) -> None:
    """Set and read by client and task; a future in one is kept alive by it, and only by it."""

    def case(client: Client) -> Any:
        future = client.submit(inc, 1, key="in-a-variable")
        variable = Variable("v")
        variable.set(future)
        wait(future)
        del future
        client.submit(inc, 2).result(timeout=30)
        got = variable.get(timeout=10).result(timeout=30)
        inside = client.submit(lambda: Variable("v").get().result(), pure=False).result(timeout=30)
        client.submit(lambda: Variable("w").set({"a": [1]}), pure=False).result(timeout=30)
        plain = Variable("w").get(timeout=10)
        late = raised(lambda: Variable("never").get(timeout=0.1))[0]
        variable.delete()
        until(lambda: not _is_known(client, "in-a-variable"))
        return got, inside, plain, late

    assert same(case) == (2, 2, {"a": (1,)}, "TimeoutError")


def _is_known(client: Client, key: str) -> bool:
    return bool(client.run_on_scheduler(lambda dask_scheduler: key in dask_scheduler.tasks))


def test_queues_pass_values_and_futures_on(same: Twins) -> None:
    """In order, in batches, with a size, between tasks and client."""

    def case(client: Client) -> Any:
        queue = Queue("q", maxsize=3)
        for x in range(2):
            queue.put(client.submit(inc, x, key=f"in-a-queue-{x}"))
        queue.put("text")
        full = raised(lambda: queue.put(1, timeout=0.1))[0]
        size = queue.qsize()
        first = queue.get().result(timeout=30)
        rest = queue.get(batch=True)
        results = [item.result(timeout=30) if hasattr(item, "key") else item for item in rest]
        empty = raised(lambda: queue.get(timeout=0.1))[0]

        def produces(n: int) -> None:
            for x in range(n):
                Queue("q").put(x)

        client.submit(produces, 3, pure=False)
        produced = [queue.get(timeout=30) for _ in range(3)]
        del rest
        queue.close()
        until(lambda: not _is_known(client, "in-a-queue-0"))
        return full, size, first, results, empty, produced

    assert same(case)[2:4] == (1, [2, "text"])


def test_events_locks_and_semaphores_work_between_tasks(same: Twins, tmp_path: Path) -> None:
    """A task waits for the client's event; of two tasks one has the lock at a time."""

    def case(client: Client) -> Any:
        folder = tmp_path / type(client).__name__
        folder.mkdir()
        waiting = client.submit(lambda: Event("go").wait(timeout=30), pure=False)
        Event("go").set()
        is_set = Event("go").is_set(), waiting.result(timeout=30)
        Event("go").clear()

        def critical(x: int, kind: str) -> int:
            guard: Any = {
                "lock": lambda: Lock("one at a time"),
                "multi": lambda: MultiLock(names=["a", "b"]),
                "semaphore": lambda: Semaphore(max_leases=1, name="one"),
            }[kind]()
            with guard:
                inside = folder / f"inside-{kind}"
                was_alone = not inside.exists()
                inside.touch()
                time.sleep(0.02)
                inside.unlink()
                return int(was_alone)

        alone = [
            client.gather(client.map(critical, range(4), kind=kind))
            for kind in ("lock", "multi", "semaphore")
        ]
        held = Lock("held")
        first = held.acquire(timeout=timedelta(seconds=10))
        second = Lock("held").acquire(timeout="100ms")
        held.release()
        return is_set, alone, first, second, Lock("held").locked()

    assert same(case) == ((True, True), [[1] * 4] * 3, True, False, False)


def test_topics_carry_messages(same: Twins) -> None:
    """`log_event`, `get_events` and `subscribe_topic`, from client and worker."""

    def case(client: Client) -> Any:
        seen: set[str] = set()
        client.subscribe_topic("news", lambda event: seen.add(event[1]["by"]))
        # A subscription travels apart from what is logged: until it is there, nobody hears.
        until(lambda: seen or client.log_event("news", {"by": "client"}))
        client.submit(lambda: get_worker().log_event("news", {"by": "worker"}), pure=False).result(
            timeout=30
        )
        until(lambda: "worker" in seen)
        client.unsubscribe_topic("news")
        return sorted(seen)

    assert same(case) == ["client", "worker"]


# --- actors ------------------------------------------------------------------------------


def test_actors_keep_their_state(same: Twins) -> None:
    """By submit and map; methods, attributes, coroutines, errors, as arguments of tasks."""

    def case(client: Client) -> Any:
        actor = client.submit(Counter, 10, actor=True).result(timeout=30)
        steps = [actor.increment().result(timeout=30), actor.increment(by=5).result(timeout=30)]
        failed = raised(lambda: actor.fail().result(timeout=30))
        several = [
            future.result(timeout=30) for future in client.map(Counter, range(2), actors=True)
        ]
        bumped = [each.increment().result(timeout=30) for each in several]
        through = client.submit(lambda each: each.increment().result(), actor).result(timeout=30)
        return steps, failed, bumped, actor.n, actor.later().result(timeout=30), through

    assert same(case) == ([11, 16], ("ValueError", "no more"), [1, 2], 17, 17, 17)


# --- asynchronous ------------------------------------------------------------------------


@asynccontextmanager
async def _as_current(client: Client) -> AsyncIterator[None]:
    with client.as_current():
        yield


def test_an_asynchronous_client_does_the_same(same: Twins) -> None:
    """Submit, map, gather, as_completed, wait, cancel, scatter, errors, in coroutines."""

    async def program(client: Client) -> Any:
        async with client, _as_current(client):
            one = client.submit(inc, 1)
            futures = client.map(inc, range(4))
            bad = client.submit(lambda x: 1 // x, 0)
            results = await client.gather(futures)
            pairs = sorted([(await f) for f in futures])
            found = []
            async for future in as_completed(futures):
                found.append(await future.result())
            await wait([one, bad])
            try:
                await bad
            except ZeroDivisionError as error:
                message = str(error)
            data = await client.scatter([1, 2])
            total = await client.submit(sum, data)
            cancelled = client.submit(inc, 50, workers="tcp://127.0.0.1:9")
            await client.cancel(cancelled)
            lazy = await client.compute(dask.delayed(inc)(8))
            try:
                await client.gather([bad])
            except ZeroDivisionError as error:
                gathered = str(error)
            skipped = await client.gather([one, bad], errors="skip")
            workers = len((await client.scheduler.identity())["workers"])
            return (
                await one, results, pairs, sorted(found), message, total, cancelled.status, lazy,
                gathered, skipped, workers,
            )  # fmt: skip

    def case(client: Client) -> Any:
        async def run() -> Any:
            return await program(another(client, asynchronous=True))

        return asyncio.run(run())

    assert same(case)[1] == [1, 2, 3, 4]


def test_an_asynchronous_client_of_ours_says_what_waits(shared_session: ScalableSession) -> None:
    """What only waits names what to await; retries and `errors="return"` work as ever."""

    async def program() -> Any:
        async with shared_session.connect(asynchronous=True) as client:
            futures = client.map(inc, ["x", 1], retries=1)
            values = await client.gather(futures, errors="return")
            refusals = []
            for call in (futures.results, futures.partial, futures.resubmit):
                with pytest.raises(errors.SessionError, match="await client") as caught:
                    call()
                refusals.append(str(caught.value))
            hurried = await client.retry_now(futures), await client.give_up(futures)
            return values, refusals, hurried, len(client.attempts(futures[0]))

    values, refusals, hurried, attempts = asyncio.run(program())
    assert isinstance(values[0], TypeError)
    assert values[1] == 2
    assert len(set(refusals)) == 3
    assert (hurried, attempts) == ((0, 0), 1)


# --- the whole cluster -------------------------------------------------------------------


def test_the_cluster_answers_questions(same: Twins) -> None:
    """Functions on workers and scheduler, and who has what."""

    def case(client: Client) -> Any:
        futures = client.map(inc, range(4))
        wait(futures)
        held = [key for keys in client.has_what().values() for key in keys]
        where = client.who_has(futures)
        pid = client.run(lambda dask_worker: dask_worker.state.nthreads)
        return (
            sorted(pid.values()),
            len(client.run(inc, 1, workers=list(client.nthreads())[:1])),
            client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.workers)),
            sorted(client.nthreads().values()),
            {future.key for future in futures} <= set(held),
            sorted(len(workers) for workers in where.values()),
            raised(lambda: client.run(lambda: 1 // 0))[0],
            sorted(client.ncores().values()),
            len(client.processing()),
            type(client.call_stack()).__name__,
            client.get_metadata("no such", default=5),
            client.status,
            len(client.scheduler_info()["workers"]),
        )

    assert same(case)[:4] == ([1, 1], 1, 2, [1, 1])


def test_data_is_moved_and_copied(same: Twins) -> None:
    """`replicate` and `rebalance` leave results where they were asked for."""

    def case(client: Client) -> Any:
        futures = client.map(inc, range(6))
        wait(futures)
        client.replicate(futures[:1], n=2)
        copies = len(client.who_has(futures[:1])[futures[0].key])
        client.rebalance()
        return copies, client.gather(futures)

    assert same(case) == (2, [1, 2, 3, 4, 5, 6])


def test_a_restart_forgets_everything_and_goes_on(same: Twins, tmp_path: Path) -> None:
    """Tasks are cancelled, workers are new ones, and new work runs; nothing stays unfinished."""

    def case(client: Client) -> Any:
        folder = tmp_path / type(client).__name__
        folder.mkdir()

        def dawdles(x: int) -> None:
            mark(folder, x)
            time.sleep(1)  # the worker's process ends only after that

        running = client.submit(dawdles, 1, pure=False)
        waiting = client.submit(lambda x: x, running)
        done = client.submit(inc, 1)
        until(lambda: calls(folder, 1) == 1)
        wait(done)
        before = set(client.run(lambda: __import__("os").getpid()).values())
        client.restart(timeout=60)
        after = set(client.run(lambda: __import__("os").getpid()).values())
        statuses = [future.status for future in (running, waiting, done)]
        again = client.submit(inc, 1).result(timeout=30), client.map(inc, range(3))
        return statuses, before & after, len(after), again[0], client.gather(again[1])

    assert same(case) == (["cancelled"] * 3, set(), 2, 2, [1, 2, 3])
    assert not same.ours.session.unfinished()


def test_workers_can_be_restarted_one_by_one(same: Twins) -> None:
    """By address; results that were lost with one are computed again."""

    def case(client: Client) -> Any:
        futures = client.map(inc, range(4))
        wait(futures)
        first = next(iter(client.scheduler_info()["workers"]))
        answer = client.restart_workers([first], timeout=60)
        return list(answer.values()), client.gather(futures)

    assert same(case) == (["OK"], [1, 2, 3, 4])
