"""A future of ours is a future of Dask's: waiting, gathering, failing, cancelling, travelling."""

from __future__ import annotations

import pickle
import time
import traceback
from pathlib import Path
from typing import Any

import pytest
from counting import calls, mark
from dask_twins import Twins, a_plain_one, another, raised
from distributed import (
    Client,
    Future,
    Variable,
    as_completed,
    fire_and_forget,
    futures_of,
    progress,
    wait,
)
from sendable import Odd, fail_on_odd, inc, wait_for
from waiting import until

# --- gathering -------------------------------------------------------------------------


def test_gather_keeps_the_shape(same: Twins) -> None:
    """Lists, tuples, dicts, sets, nested, mixed with plain values; one future alone."""

    def case(client: Client) -> Any:
        a, b, c = client.map(inc, range(3))
        shapes: list[Any] = [
            a,
            [a, [b, [c]]],
            (a, b),
            {"a": a, "b": [b, {"c": c}]},
            {a, b},
            [a, 5, "text", None],
            [],
            {"x": (a, [1, b])},
            iter([a, b]),
        ]
        results = [client.gather(shape) for shape in shapes[:-1]]
        return results, [type(r).__name__ for r in results], list(client.gather(shapes[-1]))

    assert same(case)[0][3] == {"a": 1, "b": [2, {"c": 3}]}


def test_gather_meets_failures_as_dask_does(same: Twins) -> None:
    """It raises the error of the task, or leaves failed ones out of a list."""

    def case(client: Client) -> Any:
        futures = client.map(fail_on_odd, range(4))
        wait(futures)
        nested = {"a": futures[0], "b": [futures[1]]}
        return (
            raised(lambda: client.gather(futures[:2])),
            client.gather(futures, errors="skip"),
            raised(lambda: client.gather(nested)),
            client.gather(nested, errors="skip"),
            raised(lambda: client.gather(futures, errors="no such word"))[0],
        )

    assert same(case)[1] == [0, 2]


def test_gather_refuses_futures_of_another_client(same: Twins) -> None:
    """They have to be made known to this one first."""

    def case(client: Client) -> Any:
        with another(client) as other:
            return raised(lambda: client.gather([other.submit(inc, 1)]))[0]

    assert same(case) == "ValueError"


# --- waiting ---------------------------------------------------------------------------


def test_wait_says_what_is_done(same: Twins, tmp_path: Path) -> None:
    """All, the first one, or not in time."""

    def case(client: Client) -> Any:
        gate = tmp_path / type(client).__name__
        quick = client.map(fail_on_odd, range(2))
        slow = client.submit(wait_for, gate)
        first = wait([*quick, slow], timeout=30, return_when="FIRST_COMPLETED")
        has_first = bool(first.done), slow in first.not_done
        late = raised(lambda: wait([slow], timeout=0.1))[0]
        never = raised(lambda: slow.result(timeout=0.1))[0]
        gate.touch()
        every = wait([*quick, slow], timeout=30)
        return has_first, late, never, len(every.done), len(every.not_done), slow.result()

    assert same(case) == ((True, True), "TimeoutError", "TimeoutError", 3, 0, "done")


def test_as_completed_gives_each_once(same: Twins) -> None:
    """Bare, with results, in batches, growing, and with a task that failed."""

    def case(client: Client) -> Any:
        futures = client.map(inc, range(4))
        bare = sorted(future.result() for future in as_completed(futures))
        pairs = sorted(result for _, result in as_completed(futures, with_results=True))
        batches = sorted(f.result() for batch in as_completed(futures).batches() for f in batch)
        growing = as_completed(futures[:2])
        growing.add(futures[2])
        growing.update(futures[3:])
        grown = sorted(future.result() for future in growing)
        bad = client.map(fail_on_odd, range(3))
        raising = raised(lambda: list(as_completed(bad, with_results=True)))
        quiet = sorted(
            type(result).__name__
            for _, result in as_completed(bad, with_results=True, raise_errors=False)
        )
        empty = list(as_completed([]))
        return bare, pairs, batches, grown, raising, quiet, empty

    assert same(case)[4] == ("KeyError", "'odd 1'")


def test_futures_are_found_and_followed(same: Twins) -> None:
    """`futures_of` looks into what `map` returns, `progress` follows it to the end."""

    def case(client: Client) -> Any:
        futures = client.map(inc, range(3))
        progress(futures, notebook=False)
        return len(futures_of(futures)), len(futures_of([futures, {"a": futures}]))

    same(case)


# --- one future ------------------------------------------------------------------------


def test_a_future_tells_its_state(same: Twins, tmp_path: Path) -> None:
    """Status, done, cancelled, exception, traceback, type and repr: pending, finished, failed."""

    def case(client: Client) -> Any:
        gate = tmp_path / type(client).__name__
        reported = []

        def tell(future: Future) -> None:
            reported.append((future.status, future.done(), future.cancelled(), repr(future)))

        pending = client.submit(wait_for, gate, key="waits")
        tell(pending)
        gate.touch()
        wait(pending)
        tell(pending)
        bad = client.submit(fail_on_odd, 1, key="fails")
        wait(bad)
        tell(bad)
        trace = traceback.extract_tb(bad.traceback())
        return (
            reported,
            pending.exception(),
            pending.traceback(),
            pending.type,
            repr(bad.exception()),
            trace[-1].name,
            raised(bad.result),
            pending.key,
            pending == bad,
            pending == Future("waits", client),
        )

    assert same(case)[5] == "fail_on_odd"


def test_a_failure_arrives_as_it_was_raised(same: Twins) -> None:
    """Class, arguments, attributes, cause, context, notes; groups and odd constructors too."""

    def case(client: Client) -> Any:
        def function(kind: str) -> None:
            if kind == "odd":
                raise Odd(3, text="three")
            if kind == "group":
                raise ExceptionGroup("two", [ValueError(1), OSError(2, "no")])
            if kind == "os":
                raise FileNotFoundError(2, "No such file", "/nowhere")
            try:
                {}["missing"]
            except KeyError as error:
                problem = ValueError("bad", 7)
                problem.add_note("seen in a test")
                if kind == "cause":
                    raise problem from error
                raise problem  # noqa: B904 - with a context and without a cause

        def describe(error: BaseException | None) -> Any:
            if error is None:
                return None
            return (
                repr(error),
                sorted(vars(error).items()),
                getattr(error, "filename", None),
                describe(error.__cause__),
                describe(error.__context__),
                [describe(each) for each in getattr(error, "exceptions", ())],
            )

        kinds = ("odd", "group", "os", "cause", "context")
        futures = client.map(function, kinds)
        wait(futures)
        return [describe(future.exception()) for future in futures]

    same(case)


def test_dependents_fail_with_the_error_of_their_input(same: Twins) -> None:
    """Through two steps, and with one good input beside the bad one."""

    def case(client: Client) -> Any:
        good, bad = client.map(fail_on_odd, range(2))
        one = client.submit(lambda x, y: x, good, bad)
        two = client.submit(inc, one)
        wait([one, two])
        return [(f.status, raised(f.result), repr(f.exception())) for f in (one, two)]

    assert same(case)[1][1] == ("KeyError", "'odd 1'")


def test_callbacks_are_called_with_the_future(same: Twins) -> None:
    """For results and failures, also when the task is done already; their errors stay theirs."""

    def case(client: Client) -> Any:
        seen: list[tuple[str, str]] = []
        good, bad = client.map(fail_on_odd, range(2))
        for future in (good, bad):
            future.add_done_callback(lambda f: seen.append((f.status, "early")))
        wait([good, bad])
        good.add_done_callback(lambda f: seen.append((f.status, "late")))
        until(lambda: len(seen) == 3)
        return sorted(seen)

    assert same(case) == [("error", "early"), ("finished", "early"), ("finished", "late")]


# --- cancel and retry ------------------------------------------------------------------


def test_a_cancelled_task_says_so(same: Twins, tmp_path: Path) -> None:
    """By future or client, before and while it runs; what needs it is cancelled too."""

    def case(client: Client) -> Any:
        gate = tmp_path / type(client).__name__
        running = client.map(wait_for, [gate, gate], pure=False)
        queued = client.submit(inc, 900)
        dependent = client.submit(inc, queued)
        queued.cancel(reason="no need", msg="of it")
        client.cancel([running[0]])
        until(lambda: dependent.status == "cancelled")
        errors = [raised(f.result) for f in (queued, running[0], dependent)]
        gate.touch()
        again = client.submit(inc, 900)
        return (
            queued.status,
            queued.cancelled(),
            [(name, text.partition(" ")[2]) for name, text in errors],
            again.result(timeout=30),
            running[1].result(timeout=30),
        )

    assert same(case)[3:] == (901, "done")


def test_cancel_spares_what_another_client_wants_unless_forced(same: Twins) -> None:
    """Without force only the own wish ends; with force the other's future is cancelled too."""

    def case(client: Client) -> Any:
        with another(client) as other:
            mine = client.submit(inc, 40, workers="tcp://127.0.0.1:9")
            until(lambda: _wanted_by(client, mine.key) == 1)  # it waits for that worker
            theirs = other.submit(inc, 40)
            until(lambda: _wanted_by(client, mine.key) == 2)
            client.cancel(mine)
            client.submit(inc, 41).result(timeout=30)  # by now the scheduler has read it
            spared = mine.status, theirs.status != "cancelled"
            again = client.submit(inc, 40)
            client.cancel(again, force=True)
            until(lambda: theirs.status == "cancelled")
            return spared, again.status, theirs.status

    same(case)


def _wanted_by(client: Client, key: str) -> int:
    def count(dask_scheduler: Any) -> int:
        ts = dask_scheduler.tasks.get(key)
        names = [cs.client_key for cs in (ts.who_wants or ())] if ts else []
        return sum(name != "scalable-left-claims" for name in names)

    return int(client.run_on_scheduler(count))


@pytest.mark.parametrize("by", ["client", "future"])
def test_a_failed_task_can_be_retried(same: Twins, tmp_path: Path, by: str) -> None:
    """It runs again, and so does what failed with it."""

    def case(client: Client) -> Any:
        gate = tmp_path / type(client).__name__

        def function(x: int) -> int:
            if not gate.exists():
                raise OSError("not yet")
            return x

        future = client.submit(function, 3)
        dependent = client.submit(inc, future)
        wait([future, dependent])
        before = future.status, dependent.status
        gate.touch()
        if by == "client":
            client.retry([dependent])
        else:
            dependent.retry()
        return before, dependent.result(timeout=30), future.result(timeout=30)

    assert same(case) == (("error", "error"), 4, 3)


def test_a_failed_call_that_is_submitted_again_runs_again(same: Twins, tmp_path: Path) -> None:
    """A difference on purpose: Dask hands out the old failure for as long as it is held."""
    outcomes = {}
    for client in (same.plain, same.ours):
        gate = tmp_path / type(client).__name__

        def function(x: int, gate: Path = gate) -> int:
            if not gate.exists():
                raise OSError("not yet")
            return x

        held = client.submit(function, 3)
        wait(held)
        gate.touch()
        again = client.submit(function, 3)
        wait(again)
        outcomes[type(client).__name__] = again.status
    assert outcomes == {"Client": "error", "ScalableClient": "finished"}


# --- released, forgotten, fired --------------------------------------------------------


def _is_known(client: Client, key: str) -> bool:
    return bool(client.run_on_scheduler(lambda dask_scheduler: key in dask_scheduler.tasks))


def test_what_nobody_holds_is_forgotten(same: Twins) -> None:
    """Results leave the workers when the last future goes; those of others stay."""

    def case(client: Client) -> Any:
        mine, other = client.submit(inc, 70, key="mine"), client.submit(inc, 71, key="kept")
        wait([mine, other])
        del mine
        until(lambda: not _is_known(client, "mine"))
        return other.result(timeout=30)

    assert same(case) == 72


def _count_fired(dask_scheduler: Any) -> int:
    return len(dask_scheduler.clients["fire-and-forget"].wants_what)


def test_fire_and_forget_runs_and_leaves_nothing(same: Twins, tmp_path: Path) -> None:
    """It runs without a future and its result is not kept; one that fails is gone as well."""

    def case(client: Client) -> Any:
        folder = tmp_path / type(client).__name__
        folder.mkdir()

        def function(x: int) -> int:
            mark(folder, x)
            while not (folder / "go").exists():
                time.sleep(0.02)
            return fail_on_odd(x)

        futures = [client.submit(function, x, key=f"fired-{x}") for x in range(2)]
        fire_and_forget(futures)
        # What is done before that word arrives stays for ever, in Dask itself.
        until(lambda: client.run_on_scheduler(_count_fired) == 2)
        del futures
        (folder / "go").touch()
        until(lambda: not _is_known(client, "fired-0") and not _is_known(client, "fired-1"))
        return calls(folder, 0), calls(folder, 1)

    assert same(case) == (1, 1)


# --- futures on their way --------------------------------------------------------------


@pytest.mark.parametrize("kind", [another, a_plain_one], ids=["same kind", "plain"])
def test_a_future_works_with_another_client(same: Twins, kind: Any) -> None:
    """Pickled and opened there it gives its result, and is an argument like any other."""

    def case(client: Client) -> Any:
        mine = client.submit(inc, 10)
        data = pickle.dumps(mine)
        with kind(client) as other, other.as_current():
            theirs = pickle.loads(data)
            through = other.submit(inc, theirs), other.submit(sum, [theirs, 1])
            Variable("sent", client=client).set(mine)
            received = Variable("sent", client=other).get()
            del mine
            results = [future.result(timeout=30) for future in (received, *through)]
            Variable("sent", client=client).delete()
            return results, received.client is other

    assert same(case) == ([11, 12, 12], True)


@pytest.mark.parametrize("kind", [another, a_plain_one], ids=["same kind", "plain"])
def test_the_same_key_from_two_clients_is_one_task(same: Twins, tmp_path: Path, kind: Any) -> None:
    """It runs once, both get the result, and it stays until both have let go."""

    def case(client: Client) -> Any:
        folder = tmp_path / type(client).__name__
        folder.mkdir()

        def function(x: int) -> int:
            mark(folder, x)
            return x

        with kind(client) as other:
            mine = client.submit(function, 5, key="shared")
            wait(mine)
            theirs = other.submit(function, 5, key="shared")
            results = mine.result(timeout=30), theirs.result(timeout=30)
            until(lambda: _wanted_by(client, "shared") == 2)
            del mine
            until(lambda: _wanted_by(client, "shared") == 1)
            again = theirs.result(timeout=30)
            del theirs
            until(lambda: not _is_known(client, "shared"))
        return results, again, calls(folder, 5)

    assert same(case) == ((5, 5), 5, 1)


def test_a_client_is_a_context_and_leaves_its_cluster_alone(same: Twins) -> None:
    """Closed, it takes no more work; the others go on."""

    def case(client: Client) -> Any:
        with another(client) as other:
            future = other.submit(inc, 1)
            result = future.result(timeout=30)
        after = raised(lambda: other.submit(inc, 2).result(timeout=5))[0]
        return result, other.status, future.status, bool(after), client.submit(inc, 3).result()

    same(case)


def test_who_cancels_an_input_leaves_the_tasks_of_a_vanished_client_alone(same: Twins) -> None:
    """A difference on purpose: what a client wanted that is gone goes on, and needs its input."""
    with another(same.ours) as vanishing:
        mine = same.ours.submit(inc, 1, key="input", workers="tcp://127.0.0.1:9")
        until(lambda: _is_known(same.ours, "input"))  # each client has a connection of its own
        theirs = vanishing.submit(inc, mine, key="orphan")
        until(lambda: _wanted_by(same.ours, "orphan") == 1)
    until(lambda: _wanted_by(same.ours, "orphan") == 0)
    same.ours.cancel(mine)
    assert same.ours.submit(inc, 1).result(timeout=30) == 2
    assert _is_known(same.ours, "orphan")
    assert theirs.status == "cancelled"
    same.ours.session.cancel()
    until(lambda: not _is_known(same.ours, "orphan"))
