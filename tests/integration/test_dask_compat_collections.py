"""Collections, data and annotations: computed as plain Dask does, and told in the ledger."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from counting import calls, failing_first
from dask_twins import Twins, another, raised
from distributed import Client, KilledWorker, wait
from sendable import add, fail_on_odd, inc, where
from waiting import until

from scalable_nb import ScalableSession

lazy_inc = dask.delayed(inc)
lazy_fail = dask.delayed(fail_on_odd, pure=True)


# --- computing -------------------------------------------------------------------------


def test_delayed_graphs_are_computed(same: Twins) -> None:
    """Alone, several at once, nested, and with a future among the arguments."""

    def case(client: Client) -> Any:
        future = client.submit(inc, 9)
        tree = dask.delayed(add)(*[lazy_inc(x) for x in range(5)])
        with_future = dask.delayed(add)(tree, future)
        return (
            tree.compute(),
            dask.compute(tree, [lazy_inc(1)], {"k": with_future}),
            client.compute(tree).result(timeout=30),
            client.compute(tree, sync=True),
            client.gather(client.compute([tree, with_future])),
            client.compute([tree, 5], sync=True),
            client.submit(add, client.compute(tree), 1).result(timeout=30),
        )

    assert same(case)[0] == 15


def test_functions_of_a_module_beside_the_notebook_can_be_in_a_graph(same: Twins) -> None:
    """The scheduler unpickles graphs, so it has to find what they name."""

    def case(client: Client) -> Any:
        return client.compute(dask.delayed(inc)(1), sync=True), lazy_inc(5).compute()

    assert same(case) == (2, 6)


def test_arrays_are_computed(same: Twins) -> None:
    """Also persisted, indexed, and handed to a task as an argument."""

    def case(client: Client) -> Any:
        x = da.arange(1000, chunks=100)
        kept = (x + x[::-1]).persist()
        wait(kept)
        blocks = client.map(np.sum, client.sync(_first_futures, kept))
        return (
            int(x.sum().compute()),
            kept[:3].compute().tolist(),
            [int(b) for b in client.gather(blocks)],
            client.compute(x.mean(), sync=True),
            (da.ones((20, 20), chunks=7) @ da.ones((20, 20), chunks=6)).sum().compute(),
        )

    same(case)


async def _first_futures(collection: Any) -> Any:
    from distributed import futures_of

    return futures_of(collection)[:2]


def test_dataframes_are_computed(same: Twins) -> None:
    """Group-by with a shuffle, persist, head, and lengths."""

    def case(client: Client) -> Any:
        frame = pd.DataFrame({"k": [i % 7 for i in range(200)], "v": range(200)})
        lazy = dd.from_pandas(frame, npartitions=5)
        sums = lazy.groupby("k").v.sum().compute()
        kept = lazy[lazy.v % 4 > 0].persist()
        shuffled = lazy.shuffle("k").map_partitions(len).compute()
        return sums.to_dict(), len(kept), kept.head(2).v.tolist(), int(shuffled.sum())

    assert same(case)[1:] == (150, [1, 2], 200)


def test_persisted_collections_are_built_upon(same: Twins) -> None:
    """`client.persist` of several, and what is computed from them after the fact."""

    def case(client: Client) -> Any:
        a, b = client.persist([lazy_inc(1), lazy_inc(2)])
        wait([a, b])
        both = dask.delayed(add)(a, b)
        return both.compute(), client.compute(both).result(timeout=30), type(a).__name__

    assert same(case) == (5, 5, "Delayed")


def test_compute_takes_the_same_options(same: Twins, tmp_path: Path) -> None:
    """Retries, priority, places, resources; as arguments and as annotations."""

    def case(client: Client) -> Any:
        folder = tmp_path / type(client).__name__
        folder.mkdir()
        first = next(iter(client.scheduler_info()["workers"]))
        name = str(client.scheduler_info()["workers"][first]["name"])
        flaky = failing_first(folder, 2, ValueError)
        ok = client.compute(dask.delayed(flaky)(1), retries=2)
        few = client.compute(dask.delayed(flaky)(2), retries=1)
        placed = client.compute(dask.delayed(where)(1), workers=[first])
        with dask.annotate(retries=2, workers=[first], priority=3):
            annotated = dask.delayed(flaky)(3)
            there = dask.delayed(where)(2)
        options = {"optimize_graph": False}
        through = client.compute([annotated, there], **options)
        limited = client.compute(dask.delayed(inc)(3), resources={"slots": 1}, priority=10)
        wait([ok, few, placed, limited, *through])
        return (
            [f.status for f in (ok, few, through[0])],
            [calls(folder, x) for x in (1, 2, 3)],
            [placed.result() == name, through[1].result() == name],
            limited.result(),
        )

    assert same(case) == (["finished", "error", "finished"], [3, 2, 3], [True, True], 4)


def test_a_collection_fails_with_the_error_of_its_task(same: Twins) -> None:
    """Computed, persisted and gathered; it can be retried and fails again."""

    def case(client: Client) -> Any:
        tree = dask.delayed(add)(lazy_inc(1), lazy_fail(7), lazy_inc(3))
        future, single = client.compute([tree, lazy_fail(9)])
        wait([future, single])
        first = future.status, raised(future.result)
        single.retry()
        wait(single)
        return first, single.status, raised(single.result), raised(tree.compute)

    assert same(case)[2] == ("KeyError", "'odd 9'")


# --- data ------------------------------------------------------------------------------


def test_scattered_data_is_an_argument(same: Twins) -> None:
    """Lists, dicts, one object, to all workers, hashed or not, directly."""

    def case(client: Client) -> Any:
        client.amm.stop()  # it takes copies away again, every two seconds
        one = client.scatter(41)
        many = client.scatter([1, 2, 3])
        named = client.scatter({"a": 1, "b": 2})
        everywhere = client.scatter({"big": list(range(10))}, broadcast=True)
        twice = client.scatter(7, hash=False), client.scatter(7, hash=False)
        again = client.scatter(41), client.scatter([1], direct=True)
        futures = [
            client.submit(inc, one),
            client.submit(sum, many),
            client.submit(add, named["a"], named["b"]),
            client.submit(sum, everywhere["big"]),
            *client.map(inc, many),
        ]
        holders = client.who_has([everywhere["big"]])
        client.amm.start()
        return (
            client.gather(futures),
            twice[0].key == twice[1].key,
            again[0].key == one.key,
            client.gather([*many, *again[1]]),
            client.gather(named),
            [len(workers) for workers in holders.values()],
            one.status,
        )

    assert same(case)[0] == [42, 6, 3, 45, 2, 3, 4]


def test_datasets_are_published(same: Twins) -> None:
    """Another client finds them; unpublished and released, they are gone."""

    def case(client: Client) -> Any:
        futures = client.map(inc, range(3), key="published")
        client.publish_dataset(numbers=futures, lazy=client.persist(lazy_inc(5)))
        client.publish_dataset([1, "a"], name="plain")
        keys = [future.key for future in futures]
        del futures
        with another(client) as other, other.as_current():
            names = sorted(other.list_datasets())
            found = other.get_dataset("numbers")
            results = [future.result(timeout=30) for future in found]
            lazy = other.get_dataset("lazy").compute()
            plain = other.get_dataset("plain")
            missing = raised(lambda: other.get_dataset("nothing"))[0]
            double = raised(lambda: other.publish_dataset(1, name="plain"))[0]
            del found
            for name in names:
                other.unpublish_dataset(name)
            left = other.list_datasets()

        def known(dask_scheduler: Any) -> bool:
            return any(key in dask_scheduler.tasks for key in keys)

        until(lambda: not client.run_on_scheduler(known))
        return names, results, lazy, plain, missing, double, len(left)

    assert same(case) == (
        ["lazy", "numbers", "plain"], [1, 2, 3], 6, [1, "a"], "KeyError", "KeyError", 0,
    )  # fmt: skip


# --- what the ledger says of them -------------------------------------------------------


@pytest.fixture
def reported(shared_session: ScalableSession) -> Iterator[Any]:
    """The rows of ``tasks.jsonl`` and ``failures.jsonl`` for keys of a prefix; counts add up."""

    def rows(prefix: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        from scalable_nb.telemetry.journal_reader import read_rows

        shared_session.client.host_api.flush()
        assert shared_session.paths is not None
        return tuple(
            [row for row in read_rows(path).rows if row["function_name"] == prefix]
            for path in (shared_session.paths.tasks, shared_session.paths.failures)
        )  # type: ignore[return-value]

    yield rows
    counts = shared_session.status().counts
    shared_session.mirror.refresh()
    assert sum(counts.values()) == len(set(shared_session.mirror.ledger.keys))


def test_tasks_of_collections_are_in_the_ledger(
    shared_session: ScalableSession, reported: Any
) -> None:
    """Each by its key, with function, worker and duration; also when they are forgotten."""

    def step(x: int) -> int:
        return x

    with shared_session.client.as_current():
        total = dask.delayed(add)(*[dask.delayed(step)(x) for x in range(5)]).compute()
    assert total == 10
    until(lambda: len(reported("step")[0]) == 5)
    tasks, failures = reported("step")
    assert failures == []
    for row in tasks:
        assert row["task_id"].startswith("step-")
        assert row | {"state": "succeeded", "attempts": 1, "attempts_allowed": 1} == row
        assert row["worker"].startswith("worker-")
        assert row["started_at"]
        assert row["duration_s"] is not None


def test_a_failed_task_of_a_collection_has_its_row(
    shared_session: ScalableSession, reported: Any
) -> None:
    """Class, message, traceback, worker; what needed it failed with it, what did not is let go."""

    def breaks(x: int) -> int:
        raise LookupError(f"nothing at {x}")

    def builds(*parts: int) -> int:
        return 0

    client = shared_session.client
    future = client.compute(dask.delayed(builds)(dask.delayed(breaks)(1), lazy_inc(2)))
    wait(future)
    until(lambda: reported("builds")[0])
    (row,) = reported("breaks")[1]
    assert row["failure_class"] == "LookupError"
    assert "nothing at 1" in row["message"]
    assert "in breaks" in row["traceback"]
    assert row["worker"].startswith("worker-")
    assert row | {"is_final": True, "category": "permanent", "attempt": 1} == row
    (needed,) = reported("builds")[0]
    assert needed["state"] == "failed"
    assert "breaks" in needed["reason"]
    assert reported("builds")[1] == []
    assert client.attempts(future) == []
    del future
    until(lambda: not shared_session.unfinished())


def test_retries_of_dask_are_attempts_too(
    shared_session: ScalableSession, reported: Any, tmp_path: Path
) -> None:
    """A row for each failed attempt, although Dask itself forgets them."""

    def flaky(x: int) -> int:
        with (tmp_path / "tries").open("a+") as file:
            file.write("x")
            if file.tell() < 3:
                raise ConnectionError("again")
        return x

    future = shared_session.client.compute(dask.delayed(flaky)(1), retries=3)
    assert future.result(timeout=30) == 1
    tasks, failures = reported("flaky")
    assert [row["attempts"] for row in tasks] == [3]
    assert [(row["attempt"], row["attempts_allowed"], row["will_retry"]) for row in failures] == [
        (1, 4, True),
        (2, 4, True),
    ]
    assert {row["category"] for row in failures} == {"transient"}


def test_calls_have_their_attempts_in_the_ledger(
    shared_session: ScalableSession, reported: Any, tmp_path: Path
) -> None:
    """What came through submit and map, beside collections: the attempts it took."""
    function = failing_first(tmp_path, 2, ConnectionError)
    function.__name__ = function.__qualname__ = "in_ledger"
    futures = shared_session.client.map(function, range(3), retries=3)
    futures.append(shared_session.client.submit(function, 9, retries=3))
    wait(futures)
    tasks, failures = reported("in_ledger")
    assert [row["attempts"] for row in tasks] == [3] * 4
    assert len(failures) == 8
    frame = futures.to_dataframe()
    assert frame.attempt.tolist() == [3] * 4


def test_a_failed_collection_can_be_resubmitted(
    shared_session: ScalableSession, reported: Any, tmp_path: Path
) -> None:
    """`resubmit` takes futures of collections: what failed in the graph runs again."""
    from scalable_nb import resubmit

    gate = tmp_path / "gate"

    def needs_file(x: int) -> int:
        if not gate.exists():
            raise FileNotFoundError(gate)
        return x

    future = shared_session.client.compute(lazy_inc(dask.delayed(needs_file)(4)))
    wait(future)
    assert future.status == "error"
    gate.touch()
    resubmit([future])
    assert future.result(timeout=30) == 5
    assert [row["state"] for row in reported("needs_file")[0]] == ["failed", "succeeded"]


def test_a_task_that_is_stopped_half_way_is_cancelled_in_the_ledger(
    shared_session: ScalableSession, reported: Any
) -> None:
    """A collection whose futures are dropped while it runs leaves nothing unfinished."""

    def dawdles(x: int) -> int:
        time.sleep(0.2)
        return x

    futures = shared_session.client.compute([dask.delayed(dawdles)(x) for x in range(6)])
    until(lambda: shared_session.status().counts["running"])
    del futures
    until(lambda: len(reported("dawdles")[0]) == 6)
    assert "never ran" in {row["state"] for row in reported("dawdles")[0]}
    assert not shared_session.unfinished()


def test_a_task_of_a_collection_that_kills_its_workers_ends(
    shared_session: ScalableSession, reported: Any
) -> None:
    """What was not submitted through us has Dask's own limit: four workers, then an error."""

    def dies(x: int) -> None:
        os._exit(x)

    future = shared_session.client.compute(dask.delayed(dies)(1))
    with pytest.raises(KilledWorker):
        future.result(timeout=60)
    (row,) = reported("dies")[1]
    assert row | {"failure_class": "KilledWorker", "category": "infrastructure"} == row
    assert (row["attempt"], reported("dies")[0][0]["state"]) == (4, "failed")
