"""What is submitted is what plain Dask would run: arguments, keys, places, orders, errors."""

from __future__ import annotations

import operator
import queue
import threading
from calendar import isleap
from pathlib import Path
from typing import Any

import dask
import pytest
from counting import calls, failing_first, mark
from dask_twins import Twins, raised
from distributed import Client, wait
from sendable import Point, Scale, inc, inc_async, wait_for, where

# --- calls and arguments ---------------------------------------------------------------


@pytest.mark.parametrize(
    "function",
    [inc, inc_async, Scale(3), Scale(3).plus, lambda x: x - 1, operator.neg, float],
    ids=["function", "coroutine", "object", "method", "lambda", "builtin", "class"],
)
def test_everything_that_can_be_called_can_be_submitted(same: Twins, function: Any) -> None:
    """Functions, coroutine functions, objects, methods and classes are called alike."""
    same(lambda client: client.submit(function, 4).result(timeout=30))


def test_arguments_arrive_as_they_were_given(same: Twins) -> None:
    """Positional, by keyword, unusual types; the types stay."""

    def case(client: Client) -> Any:
        def function(*args: Any, **kwargs: Any) -> str:
            return repr((args, kwargs))

        given = (1, None, "a", [1, (2, {3})], {"k": [b"x"]}, Point(1, 2), range(3), 2**70)
        return client.submit(function, *given, x=1, key_=2, name_=Point(0, 1)).result(timeout=30)

    assert "Point(x=0, y=1)" in same(case)


def test_futures_in_arguments_are_replaced_by_results(same: Twins) -> None:
    """As an argument, by keyword, and inside lists, tuples, sets, dicts and named tuples."""

    def case(client: Client) -> Any:
        def function(*args: Any, **kwargs: Any) -> Any:
            return args, kwargs

        one, two = client.submit(inc, 0), client.submit(inc, 1)
        future = client.submit(
            function, one, [two, 5], (one, [two]), {one}, {"k": {"k": two}}, Point(one, 3), by=two
        )
        return future.result(timeout=30)

    args, kwargs = same(case)
    assert args == (1, [2, 5], (1, [2]), {1}, {"k": {"k": 2}}, (1, 3))
    assert type(args[5]) is Point
    assert kwargs == {"by": 2}


def test_futures_are_replaced_in_the_arguments_of_map(same: Twins) -> None:
    """Among the items, inside them, and as a keyword for all."""

    def case(client: Client) -> Any:
        ones = client.map(inc, [0, 1, 2])
        sums = client.map(lambda x, y, z: x + sum(y) + z, ones, [[f, 1] for f in ones], z=ones[2])
        return client.gather(sums)

    assert same(case) == [6, 8, 10]


def test_a_list_that_map_returned_is_an_argument_like_any_list(same: Twins) -> None:
    """`submit(sum, futures)` sums results, also of a slice and of a sum of two lists."""

    def case(client: Client) -> Any:
        futures = client.map(inc, range(4))
        kinds = client.submit(lambda x: type(x).__name__, futures).result(timeout=30)
        parts = futures, futures[1:], futures + futures
        return kinds, [client.submit(sum, part).result(timeout=30) for part in parts]

    assert same(case) == ("list", [10, 9, 20])


def test_map_takes_several_iterables_and_stops_with_the_shortest(same: Twins) -> None:
    """Zipped as the built-in does; ranges, tuples, strings and arrays of any length."""

    def case(client: Client) -> Any:
        return [
            client.gather(client.map(lambda *a: a, *iterables, **options))
            for iterables, options in [
                (([1, 2, 3], range(2)), {}),
                (("ab", (1, 2)), {}),
                (([],), {}),
                ((range(7), range(7)), {"batch_size": 3}),
                ((range(5),), {"batch_size": 1}),
                ((range(3),), {"batch_size": 100}),
            ]
        ]

    assert same(case)[0] == [(1, 0), (2, 1)]


def test_map_takes_generators_where_dask_refuses_them(same: Twins) -> None:
    """A difference on purpose: what is known only once it is asked for is taken one by one."""
    assert "TypeError" in raised(lambda: same.plain.map(inc, iter([1, 2])))
    futures = same.ours.map(operator.add, (x for x in range(3)), iter("abc" for _ in range(0)))
    assert futures == []
    assert same.ours.gather(same.ours.map(inc, (x for x in range(3)))) == [1, 2, 3]


def test_wrong_calls_are_refused_with_the_same_kind_of_error(same: Twins) -> None:
    """No function, no list, a contradiction: a TypeError or a ValueError, or taken by both."""

    def case(client: Client) -> list[str]:
        def kind(call: Any) -> str:
            try:
                call()
            except TypeError:
                return "TypeError"
            except ValueError:
                return "ValueError"
            return "accepted"

        return [
            kind(lambda: client.submit(1)),
            kind(lambda: client.map(1, [2])),
            kind(lambda: client.map(inc, queue.Queue())),
            kind(lambda: client.map(inc, 5)),
            kind(lambda: client.submit(inc, 1, allow_other_workers=True)),
            kind(lambda: client.map(inc, [1], allow_other_workers=True)),
            kind(lambda: client.submit(inc, 1, workers="a", allow_other_workers="yes")),
            kind(lambda: client.submit(inc, threading.Lock())),
            kind(lambda: client.submit(inc, 1, key=1.5)),
        ]

    same(case)


# --- keys ------------------------------------------------------------------------------


def test_keys_are_those_of_dask(same: Twins) -> None:
    """Named after the function and the arguments; given ones stay, tuples too.

    The code of the user's own functions is in the key as well, so these are Python's.
    """

    def case(client: Client) -> Any:
        futures = [
            client.submit(isleap, 1),
            client.submit(isleap, year=1),
            client.submit(isleap, 1, key="mine"),
            client.submit(isleap, 1, key=("block", 0, 1)),
            *client.map(isleap, range(3)),
            *client.map(isleap, range(3), key="prefix"),
            *client.map(isleap, range(2), key=["a-1", ("a", 2)]),
            *client.map(isleap, range(2), key=(("t", 1), ("t", 2))),
            *client.map(operator.add, range(2), range(2), batch_size=1),
            *client.map(sum, [[[1]], [[2]]], start=[3], key="with-kwargs"),
        ]
        keys = [future.key for future in futures]
        wait(futures)
        return keys

    assert ("block", 0, 1) in same(case)


def test_pure_calls_are_one_task_and_others_are_not(same: Twins, tmp_path: Path) -> None:
    """The same call twice runs once, with `pure=False` twice; in map and submit, and mixed."""

    def case(client: Client) -> Any:
        folder = tmp_path / type(client).__name__
        folder.mkdir()

        def function(x: int) -> int:
            mark(folder, x)
            return x

        futures = [
            client.submit(function, 1),
            client.submit(function, 1),
            *client.map(function, [1, 1, 2]),
            client.submit(function, 3, pure=False),
            client.submit(function, 3, pure=False),
            *client.map(function, [4, 4], pure=False),
        ]
        wait(futures)
        return [calls(folder, x) for x in (1, 2, 3, 4)], len({future.key for future in futures})

    counts, _ = same(case)
    assert counts == [2, 1, 2, 2]  # `map` and `submit` name the same call differently


def test_the_same_key_again_is_the_same_task(same: Twins) -> None:
    """Whatever function comes with it, as long as a future is held."""

    def case(client: Client) -> Any:
        first = client.submit(inc, 1, key="once")
        second = client.submit(inc, 100, key="once")
        return first.result(timeout=30), second.result(timeout=30), first.key == second.key

    assert same(case) == (2, 2, True)


# --- where and in which order ----------------------------------------------------------


def test_tasks_run_where_they_are_told_to(same: Twins) -> None:
    """`workers=` by address, in a list, with others allowed; in submit and map."""

    def case(client: Client) -> list[bool]:
        addresses = list(client.scheduler_info()["workers"])
        name = {a: i["name"] for a, i in client.scheduler_info()["workers"].items()}
        found = []
        for number, address in enumerate(addresses):
            own = str(name[address])
            futures = [
                client.submit(where, number, workers=address, pure=False),
                client.submit(where, number, workers=[address], pure=False),
                *client.map(where, range(3), workers=[address], pure=False),
                client.submit(where, workers=address, allow_other_workers=True, pure=False),
            ]
            found += [result == own for result in client.gather(futures[:-1])]
            found.append(futures[-1].result(timeout=30) in map(str, name.values()))
        return found

    assert all(same(case))


def test_a_place_that_does_not_exist_is_waited_for(same: Twins) -> None:
    """The task stays pending; where others are allowed it runs there."""

    def case(client: Client) -> Any:
        nowhere = "tcp://127.0.0.1:9"
        waiting = client.submit(inc, 50, workers=nowhere)
        loose = client.submit(inc, 51, workers=nowhere, allow_other_workers=True)
        result = loose.result(timeout=30)
        missing = client.submit(inc, 52, resources={"no such thing": 1})
        client.submit(inc, 53).result(timeout=30)
        return result, waiting.status, missing.status

    assert same(case) == (52, "pending", "pending")


def test_tasks_that_take_resources_run_where_there_are_some(same: Twins) -> None:
    """Six tasks of one slot each on two workers that have one."""

    def case(client: Client) -> Any:
        return client.gather(client.map(inc, range(6), resources={"slots": 1}))

    assert same(case) == [1, 2, 3, 4, 5, 6]


def test_a_higher_priority_goes_first(same: Twins, tmp_path: Path) -> None:
    """Of what waits for the one worker, the highest number is taken first."""

    def case(client: Client) -> Any:
        file = tmp_path / type(client).__name__
        one = next(iter(client.scheduler_info()["workers"]))
        started = client.submit(wait_for, tmp_path / "go", workers=one, pure=False)

        def note(x: int) -> None:
            with file.open("a") as out:
                out.write(f"{x} ")

        futures = [client.submit(note, x, priority=x, workers=one) for x in (0, 10, -10, 5)]
        with dask.annotate(priority=7):
            futures.append(client.submit(note, 7, workers=one))
        client.submit(inc, 0).result(timeout=30)  # so that the others have reached the scheduler
        (tmp_path / "go").touch()
        client.gather([started, *futures])
        (tmp_path / "go").unlink()
        return file.read_text()

    assert same(case) == "10 7 5 0 -10 "


def test_annotations_hold_for_submit_and_map(same: Twins) -> None:
    """`dask.annotate` says where a task runs and what it takes; an argument says it better."""

    def case(client: Client) -> Any:
        first, second = list(client.scheduler_info()["workers"])
        names = {a: str(i["name"]) for a, i in client.scheduler_info()["workers"].items()}
        with dask.annotate(workers=[first], custom="mine"):
            annotated = client.map(where, range(2), pure=False)
            overruled = client.submit(where, workers=[second], pure=False)
        with dask.annotate(resources={"no such thing": 1}):
            missing = client.submit(inc, 60)
        found = client.gather([*annotated, overruled])
        return found == [names[first], names[first], names[second]], missing.status

    assert same(case) == (True, "pending")


# --- retries ---------------------------------------------------------------------------


@pytest.mark.parametrize("retries", [0, 2, 3])
def test_retries_that_are_enough_lead_to_the_result(
    same: Twins, tmp_path: Path, retries: int
) -> None:
    """A function that fails twice for want of a file server: error, or the result."""

    def case(client: Client) -> Any:
        folder = tmp_path / type(client).__name__
        folder.mkdir()
        function = failing_first(folder, 2, ConnectionError)
        future = client.submit(function, 5, retries=retries)
        mapped = client.map(function, [6, 7], retries=retries)
        ways = [raised(f.result) if f.exception() else f.result() for f in (future, *mapped)]
        return ways, [calls(folder, x) for x in (5, 6, 7)]

    _, counts = same(case)
    assert counts == [min(retries + 1, 3)] * 3


@pytest.mark.parametrize("retries", [1, 2])
def test_annotated_retries_are_retries(same: Twins, tmp_path: Path, retries: int) -> None:
    """`dask.annotate(retries=)` allows as many attempts as `retries=`."""

    def case(client: Client) -> Any:
        folder = tmp_path / type(client).__name__
        folder.mkdir()
        function = failing_first(folder, 2, ConnectionError)
        with dask.annotate(retries=retries):
            future = client.submit(function, 5)
            lazy = client.compute(dask.delayed(function)(8))
        wait([future, lazy])
        return future.status, lazy.status, calls(folder, 5), calls(folder, 8)

    assert same(case)[2:] == (retries + 1, retries + 1)


def test_what_no_retry_can_mend_is_not_retried(same: Twins, tmp_path: Path) -> None:
    """A difference on purpose: a wrong value stays wrong, so the budget is not wasted on it."""
    counts = {}
    for client in (same.plain, same.ours):
        folder = tmp_path / type(client).__name__
        folder.mkdir()
        future = client.submit(failing_first(folder, 9, ValueError), 1, retries=2)
        wait(future)
        counts[type(client).__name__] = calls(folder, 1)
    assert counts == {"Client": 3, "ScalableClient": 1}
