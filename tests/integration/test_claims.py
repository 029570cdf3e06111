"""What keeps a task: claims of clients, live and vanished, but not their observations."""

from __future__ import annotations

import gc
import signal
import threading
import time
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import CancelledError
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from counting import calls, mark
from distributed import Future, wait
from kernels import run_kernel
from waiting import until

from scalable_nb import ScalableSession
from scalable_nb.client.client import ScalableClient
from scalable_nb.telemetry.rows import CANCELLED_BY_USER, RELEASED

#: A kernel that dies when its unnamed tasks are done, while those of a named batch run.
DYING = """
    import os, time
    from pathlib import Path
    from counting import mark
    from scalable_nb import ScalableSession

    HERE = Path.cwd()

    def slow(x):
        mark(HERE, f"slow-{x}")
        while not (HERE / "go").exists():
            time.sleep(0.02)
        return x * 10

    def quick(x):
        mark(HERE, f"quick-{x}")
        return -x

    client = ScalableSession.from_yaml().start()
    unnamed = client.map(quick, range(3))
    unnamed.results()
    named = client.map(slow, range(8), name="big")
    last = named[-1].key
    while not client.run_on_scheduler(lambda dask_scheduler: last in dask_scheduler.tasks):
        time.sleep(0.01)
    os.kill(os.getpid(), 9)
"""


def known(client: ScalableClient) -> set[Any]:
    """Keys of the tasks that the scheduler has."""
    return set(client.run_on_scheduler(lambda dask_scheduler: list(dask_scheduler.tasks)))


def wanting(client: ScalableClient, keys: list[Any]) -> list[set[str]]:
    """Names of the clients that want each task that the scheduler has."""

    def find(dask_scheduler: Any) -> list[set[str]]:
        found = [dask_scheduler.tasks[key] for key in keys if key in dask_scheduler.tasks]
        return [{cs.client_key for cs in ts.who_wants or ()} for ts in found]

    return list(client.run_on_scheduler(find))


def settle(client: ScalableClient, keys: Collection[Any]) -> None:
    """Cancel the futures of released tasks: no result is stored."""
    for key in keys:
        client.cancel_future(key, RELEASED, None)


def observe(client: ScalableClient, keys: list[Any]) -> list[Future[Any]]:
    """Futures of tasks that are only observed."""
    futures, new = client.open_futures(keys)
    assert client.observed_keys.observe(new, partial(settle, client)) == []
    return futures


def endings(session: ScalableSession, keys: list[Any]) -> list[tuple[str, str | None]]:
    """State and reason in the rows of some tasks, once all of them have one."""

    def rows() -> dict[str, tuple[str, str | None]]:
        _, ended = session.journals()
        return {row["task_id"]: (row["state"], row["reason"]) for row in ended}

    until(lambda: rows().keys() >= set(keys))
    found = rows()
    return [found[key] for key in keys]


@pytest.fixture
def client(shared_session: ScalableSession) -> ScalableClient:
    """The client that submits."""
    return shared_session.client


@pytest.fixture
def other(shared_session: ScalableSession) -> Iterator[ScalableClient]:
    """Another client of the session."""
    with shared_session.connect() as connected:
        yield connected


# --- a kernel that is gone ---------------------------------------------------------------


def test_looking_at_the_run_of_a_killed_kernel_changes_nothing(folder: Path) -> None:
    """All its tasks run, once, and all its results stay until they are dropped."""
    assert run_kernel(folder, DYING) == -signal.SIGKILL
    with ScalableSession.attach() as session:
        client = session.client
        before = known(client)
        assert len(before) == 11
        for _ in range(3):
            assert len(session.batches["big"]) == 8
            assert len(session.batches.list_inputs()) == 11
            gc.collect()
        client.sync(client.host_api.observe, [])  # its reply comes after what was released
        assert known(client) >= before
        (folder / "go").touch()
        assert session.batches["big"].results() == [10 * x for x in range(8)]
        assert session.batches["quick"].results() == [0, -1, -2]
        assert session.status().counts["cancelled"] == session.status().counts["never ran"] == 0
        assert [calls(folder, f"slow-{x}") for x in range(8)] == [1] * 8
        assert [calls(folder, f"quick-{x}") for x in range(3)] == [1] * 3


def test_dropped_batch_of_a_killed_kernel_is_released(folder: Path) -> None:
    """Finished results go at once; unfinished tasks of a named batch run to their end before."""
    assert run_kernel(folder, DYING) == -signal.SIGKILL
    with ScalableSession.attach() as session:
        client = session.client
        assert len(known(client)) == 11
        del session.batches["quick"]
        until(lambda: len(known(client)) == 8)
        del session.batches["big"]
        assert len(known(client)) == 8
        (folder / "go").touch()
        until(lambda: not known(client))
        assert session.status().counts["succeeded"] == 11


# --- the last claim ----------------------------------------------------------------------


@pytest.mark.parametrize("name", [None, "study"])
def test_last_claim_ends_unfinished_tasks_unless_their_batch_has_a_name(
    shared_session: ScalableSession, client: ScalableClient, tmp_path: Path, name: str | None
) -> None:
    """Those of an unnamed batch stop, which is no cancellation by the user."""

    def function(x: int) -> int:
        mark(tmp_path, x)
        while tmp_path.exists() and not (tmp_path / "go").exists():  # removed after the test
            time.sleep(0.02)
        return x

    options = {} if name is None else {"name": name}
    futures = client.map(function, range(6), **options)
    keys = futures.keys
    until(lambda: calls(tmp_path, 0))
    del futures
    until(lambda: wanting(client, keys) == ([] if name is None else [{"fire-and-forget"}] * 6))
    (tmp_path / "go").touch()
    expected = ("never ran", RELEASED) if name is None else ("succeeded", None)
    assert endings(shared_session, keys) == [expected] * 6
    until(lambda: not known(client) & set(keys))


def test_user_cancels_a_named_batch_without_claims(
    shared_session: ScalableSession, client: ScalableClient
) -> None:
    """Its rows say so."""
    futures = client.map(time.sleep, [3600, 3601], name="endless", workers="tcp://127.0.0.1:9")
    keys = futures.keys
    until(lambda: known(client) >= set(keys))
    del futures
    assert shared_session.cancel("endless") == 2
    assert endings(shared_session, keys) == [("cancelled", CANCELLED_BY_USER)] * 2


# --- observers ---------------------------------------------------------------------------


def test_observer_learns_that_a_result_was_released(
    client: ScalableClient, other: ScalableClient, tmp_path: Path
) -> None:
    """Its future is cancelled, with the reason; the same call submitted again runs."""

    def function(x: int) -> int:
        mark(tmp_path, x)
        return x

    mine = client.submit(function, 5)
    assert mine.result() == 5
    (seen,) = observe(other, [mine.key])
    until(lambda: seen.status == "finished")
    del mine
    until(lambda: seen.status == "cancelled")
    with pytest.raises(CancelledError, match=RELEASED):
        seen.result()
    assert other.submit(function, 5).result() == 5
    assert calls(tmp_path, 5) == 2


def test_observed_failure_is_known_after_its_release(
    client: ScalableClient, other: ScalableClient
) -> None:
    """The error is here, so the future keeps it."""

    def function(x: int) -> int:
        raise ValueError(x)

    mine = client.submit(function, 6)
    wait(mine)
    (seen,) = observe(other, [mine.key])
    until(lambda: seen.status == "error")
    del mine
    until(lambda: seen.key not in other.futures)
    with pytest.raises(ValueError, match="6"):
        seen.result()


def test_stored_result_is_there_after_its_release(
    start: Callable[..., ScalableSession], tmp_path: Path
) -> None:
    """Lists that another kernel made before return it."""

    def function(x: int) -> int:
        mark(tmp_path, x)
        return x * 3

    client = start().client
    mine = client.map(function, range(4), name="stored")
    mine.results()
    second = ScalableSession.attach()
    seen = second.batches["stored"]
    keys = mine.keys
    del mine
    until(lambda: not known(client) & set(keys))
    assert seen.results() == [0, 3, 6, 9]
    assert seen[1].result() == 3
    assert seen.partial().results == [0, 3, 6, 9]
    assert [calls(tmp_path, x) for x in range(4)] == [1] * 4


@pytest.mark.parametrize(
    "request_value",
    [
        lambda client, seen: client.gather(seen),
        lambda client, seen: seen[0].result(),
        lambda client, seen: client.gather(seen, errors="return"),
        lambda client, seen: client.outcomes(seen),
        lambda client, seen: client.submit(sum, seen).result(),
    ],
    ids=["gather", "result", "return", "outcomes", "input"],
)
def test_requested_value_is_kept(
    client: ScalableClient,
    other: ScalableClient,
    request_value: Callable[[ScalableClient, list[Future[Any]]], Any],
) -> None:
    """The observation becomes a claim, which only this client releases."""
    mine = client.map(abs, [-30], pure=False)
    mine.results()
    key = mine[0].key
    seen = observe(other, [key])
    request_value(other, seen)
    assert not other.observed_keys
    del mine
    until(lambda: wanting(client, [key]) == [{other.id}])
    assert other.gather(seen) == [30]
    del seen
    until(lambda: key not in known(client))


def test_result_is_claimed_while_it_is_waited_for(
    client: ScalableClient, other: ScalableClient, tmp_path: Path
) -> None:
    """Another client may release it meanwhile."""

    def function(x: int) -> int:
        while not (tmp_path / "go").exists():
            time.sleep(0.02)
        return x

    mine = client.submit(function, 7)
    key = mine.key
    until(lambda: key in known(client))
    (seen,) = observe(other, [key])
    received: list[int] = []
    waiting = threading.Thread(target=lambda: received.append(seen.result()))
    waiting.start()
    until(lambda: not other.observed_keys)
    other.sync(other.host_api.observe, [])  # its reply comes after the claim
    del mine
    until(lambda: wanting(client, [key]) == [{other.id}])
    (tmp_path / "go").touch()
    waiting.join(timeout=30)
    assert received == [7]


def test_observed_call_that_is_submitted_is_claimed(
    client: ScalableClient, other: ScalableClient, tmp_path: Path
) -> None:
    """It runs once, and the submitting client keeps it."""

    def function(x: int) -> int:
        mark(tmp_path, x)
        return x

    mine = client.submit(function, 8)
    mine.result()
    key = mine.key
    (seen,) = observe(other, [key])
    again = other.submit(function, 8)
    assert again.key == key
    other.sync(other.host_api.observe, [])  # its reply comes after the graph
    del mine
    until(lambda: wanting(client, [key]) == [{other.id}])
    assert again.result() == seen.result() == 8
    assert calls(tmp_path, 8) == 1


def test_futures_that_come_and_go_quickly_stay_informed(
    client: ScalableClient, other: ScalableClient
) -> None:
    """An observation is not ended by the release of an earlier one."""
    mine = client.map(abs, range(50), pure=False)
    mine.results()
    for _ in range(30):
        seen = observe(other, [future.key for future in mine])
        assert [future.status for future in seen] == ["finished"] * 50
        del seen
    seen = observe(other, [future.key for future in mine])
    assert other.gather(seen) == list(range(50))
