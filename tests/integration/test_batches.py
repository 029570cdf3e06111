"""Batches of a live session: their inputs keep order and identity, and looking changes nothing."""

from __future__ import annotations

import importlib
import re
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
from counting import counted, executions
from waiting import until

from scalable_nb import ScalableSession, errors, resubmit
from scalable_nb.client.futures import FutureList
from scalable_nb.resubmission.resubmit_plan import ResubmitPlan

Start = Callable[..., ScalableSession]


@pytest.fixture(scope="module")
def second_kernel(shared_session: ScalableSession) -> Iterator[ScalableSession]:
    """Another kernel's session of the same run."""
    session = ScalableSession.attach(shared_session.run_id)
    yield session
    session.close()


def known_keys(session: ScalableSession) -> set[str]:
    """Return the keys that the scheduler knows."""
    keys = session.client.run_on_scheduler(lambda dask_scheduler: set(dask_scheduler.tasks))
    assert isinstance(keys, set)
    return keys


def batches_named(session: ScalableSession, name: str) -> list[FutureList]:
    """Return all batches of a name, oldest first."""
    every = [session.batches[each] for each in session.batches]
    return [batch for batch in every if batch.name == name]


# --- claims and looking -----------------------------------------------------------------


def test_dropped_inputs_run_when_they_are_mapped_again(
    shared_session: ScalableSession, tmp_path: Path
) -> None:
    """A look at a batch that was released does not answer the next map of its calls."""
    f = counted(tmp_path, "dropped")
    futures = shared_session.client.map(f, range(3))
    futures.results()
    keys, name = set(futures.keys), futures.name
    del futures
    until(lambda: not keys & known_keys(shared_session))
    shared_session.batches[name].partial()
    assert shared_session.client.map(f, range(3)).partial().results == [0, 10, 20]


def test_dropped_batch_is_shown_as_released(
    shared_session: ScalableSession, tmp_path: Path
) -> None:
    """Results that nobody claims are gone, and nobody cancelled them."""
    futures = shared_session.client.map(counted(tmp_path, "gone"), range(3))
    futures.results()
    keys, name = set(futures.keys), futures.name
    del futures
    until(lambda: not keys & known_keys(shared_session))
    outcome = shared_session.batches[name].partial()
    assert len(outcome.failures) == 3
    assert all("released" in str(failure.error) for failure in outcome.failures)


def test_refused_map_leaves_no_batch(shared_session: ScalableSession, tmp_path: Path) -> None:
    """A map that raised SubmitError is not listed, and its calls run when they are mapped."""
    f = counted(tmp_path, "refused")
    with pytest.raises(errors.SubmitError):
        shared_session.client.map(f, [0, 1, threading.Lock()], name="phantom")
    assert "phantom" not in shared_session.batches
    assert shared_session.client.map(f, range(2), name="phantom").results() == [0, 10]


def test_dropped_list_of_a_batch_releases_nothing(
    shared_session: ScalableSession, tmp_path: Path
) -> None:
    """The list that `map` returned is the claim, whatever other lists come and go."""
    futures = shared_session.client.map(counted(tmp_path, "held"), range(3))
    futures.results()
    shared_session.batches[futures.name].partial()
    resubmit(shared_session.batches[futures.name], dry_run=True)
    assert set(futures.keys) <= known_keys(shared_session)
    assert futures.results() == [0, 10, 20]
    assert executions(tmp_path, range(3), "held") == [1, 1, 1]


# --- resubmission -----------------------------------------------------------------------


def test_batch_has_the_results_of_corrected_code(
    shared_session: ScalableSession, tmp_path: Path
) -> None:
    """A generation with `func=` replaces the failures of its batch, in their places."""
    failing = counted(tmp_path, "broken", errors=dict.fromkeys([3, 7], ValueError))
    futures = shared_session.client.map(failing, range(10), name="corrected")
    assert len(futures.partial().failures) == 2
    corrected = futures.resubmit(func=counted(tmp_path, "good"))
    expected = [i * 10 for i in range(10)]
    assert corrected.results() == expected
    assert shared_session.batches["corrected"].results() == expected
    assert shared_session.batches[futures.batch_ids[0]].results() == expected
    assert executions(tmp_path, range(10), "good") == [0, 0, 0, 1, 0, 0, 0, 1, 0, 0]


def test_results_of_a_resubmission_are_there_when_requested(
    shared_session: ScalableSession, tmp_path: Path
) -> None:
    """A list that replaces the one it was made from has all results, also of unnamed calls."""
    failing = counted(tmp_path, "replaced", errors={1: ValueError})
    futures = shared_session.client.map(failing, range(3))
    futures.partial()
    futures = futures.resubmit(func=counted(tmp_path, "replacing"))
    until(lambda: executions(tmp_path, [1], "replacing") == [1])
    until(futures[1].done)
    assert futures.results() == [0, 10, 20]
    assert executions(tmp_path, range(3), "replaced") == [1, 1, 1]
    assert executions(tmp_path, range(3), "replacing") == [0, 1, 0]


def test_both_stages_recover_with_corrected_code(
    shared_session: ScalableSession, tmp_path: Path
) -> None:
    """`func=` replaces the function of its name; dependents run their own on the new results."""
    stage_a = counted(tmp_path, "stage_a", errors={3: ValueError})
    first = shared_session.client.map(stage_a, range(5))
    second = shared_session.client.map(counted(tmp_path, "stage_b"), first)
    both = first + second
    assert [failure.index for failure in both.partial().failures] == [3, 8]

    def good(i: int) -> int:
        counted(tmp_path, "good")(i)
        return i * 100

    good.__name__ = "stage_a"
    recovered = both.resubmit(func=good)
    assert recovered.results() == [0, 10, 20, 300, 40, 0, 100, 200, 3000, 400]
    assert executions(tmp_path, range(5), "stage_a") == [1] * 5
    assert executions(tmp_path, range(5), "good") == [0, 0, 0, 1, 0]
    assert executions(tmp_path, [0, 10, 20, 300, 40], "stage_b") == [1] * 5
    assert shared_session.batches[second.batch_ids[0]].results() == [0, 100, 200, 3000, 400]


def test_corrected_code_for_two_functions_is_refused(
    shared_session: ScalableSession, tmp_path: Path
) -> None:
    """`func=` of another name is refused if functions of several names failed."""
    one = counted(tmp_path, "one", errors={1: ValueError})
    two = counted(tmp_path, "two", errors={1: ValueError})
    both = shared_session.client.map(one, range(2)) + shared_session.client.map(two, range(2))
    assert len(both.partial().failures) == 2
    with pytest.raises(errors.SubmitError, match="replaces which of one, two"):
        both.resubmit(func=counted(tmp_path, "three"))
    assert executions(tmp_path, range(2), "three") == [0, 0]


def test_list_over_two_batches_keeps_its_order(
    shared_session: ScalableSession, tmp_path: Path
) -> None:
    """Each batch gets a generation, and the list its results in the list's order."""
    f = counted(tmp_path, "mixed", errors=dict.fromkeys([1, 5], ValueError))
    first = shared_session.client.map(f, range(3), name="mixed-1")
    second = shared_session.client.map(f, range(3, 7), name="mixed-2")
    mixed = FutureList([second[2], first[1], second[0], first[0]])
    assert len(mixed.partial().failures) == 2
    (tmp_path / "fixed").touch()
    assert mixed.resubmit().results() == [50, 10, 30, 0]
    assert shared_session.batches["mixed-1"].results() == [0, 10, 20]
    assert shared_session.batches["mixed-2"].results() == [30, 40, 50, 60]
    assert executions(tmp_path, range(7), "mixed") == [1, 2, 1, 1, 1, 2, 1]


def test_counts_of_a_plan_are_of_inputs(shared_session: ScalableSession, tmp_path: Path) -> None:
    """An input that occurs twice counts twice in a plan, and is executed once."""
    f = counted(tmp_path, "twice", errors={2: ValueError})
    futures = shared_session.client.map(f, [1, 2, 2, 1], name="twice")
    assert len(futures.partial().failures) == 2
    plan = resubmit(futures, dry_run=True)
    assert isinstance(plan, ResubmitPlan)
    assert str(plan).startswith("2 results are there, 2 tasks to run again")
    (tmp_path / "fixed").touch()
    assert futures.resubmit().results() == [10, 20, 20, 10]
    assert executions(tmp_path, [1, 2], "twice") == [1, 2]


def test_status_counts_inputs(
    shared_session: ScalableSession, second_kernel: ScalableSession, tmp_path: Path
) -> None:
    """Inputs count each if calls are equal, held, of another kernel, or replaced by `func=`."""
    before = Counter(shared_session.status().counts)

    def counts() -> dict[str, int]:
        shared_session.client.host_api.flush()
        found = Counter(shared_session.status().counts)
        return {state: found[state] - before[state] for state in ("succeeded", "failed")}

    f = counted(tmp_path, "inputs", errors=dict.fromkeys([4], ValueError))
    futures = shared_session.client.map(f, [1, 1, 2, 4, 4, 3])
    futures.partial()
    until(lambda: counts() == {"succeeded": 4, "failed": 2})
    again = shared_session.client.map(f, [1, 5])
    other = second_kernel.client.map(f, [1])
    single = [shared_session.client.submit(f, 2) for _ in range(2)]
    again.results(), other.results(), single[0].result()
    until(lambda: counts()["succeeded"] == 9)
    corrected = futures.resubmit(func=counted(tmp_path, "corrected"))
    assert corrected.results() == [10, 10, 20, 40, 40, 30]
    until(lambda: counts() == {"succeeded": 11, "failed": 0})
    assert executions(tmp_path, range(1, 6), "inputs") == [1, 2, 1, 1, 1]


def test_futures_of_two_sessions_are_refused(
    shared_session: ScalableSession, second_kernel: ScalableSession, tmp_path: Path
) -> None:
    """`resubmit` says that a list has futures of two sessions, and runs none of them."""
    f = counted(tmp_path, "apart", errors=dict.fromkeys(range(4), ValueError))
    one = shared_session.client.map(f, range(2))
    two = second_kernel.client.map(f, range(2, 4))
    one.partial(), two.partial()
    with pytest.raises(errors.SubmitError, match="session"):
        resubmit([*one, *two])
    assert executions(tmp_path, range(4), "apart") == [1] * 4


# --- names and ids ----------------------------------------------------------------------


def test_each_kernel_has_its_own_newest_batch(
    shared_session: ScalableSession, second_kernel: ScalableSession, tmp_path: Path
) -> None:
    """`batches[name]` is this kernel's newest batch of the name; by id both are reachable."""
    g = counted(tmp_path, "g")
    mine = shared_session.client.map(g, range(2), name="mutual")
    other = second_kernel.client.map(g, range(2, 5), name="mutual")
    assert shared_session.batches["mutual"].results() == [0, 10]
    assert second_kernel.batches["mutual"].results() == [20, 30, 40]
    assert shared_session.batches[other.batch_ids[0]].results() == [20, 30, 40]
    assert second_kernel.batches[mine.batch_ids[0]].results() == [0, 10]


def test_batches_of_one_name_are_all_listed(
    shared_session: ScalableSession, second_kernel: ScalableSession, tmp_path: Path
) -> None:
    """A kernel that attaches sees each batch with its failures, time and counts."""
    f = counted(tmp_path, "many", errors=dict.fromkeys(range(7), ValueError))
    large = shared_session.client.map(f, range(60), name="same")
    small = shared_session.client.map(f, range(60, 70), name="same")
    large.partial(), small.partial()
    listed = batches_named(second_kernel, "same")
    assert [len(batch) for batch in listed] == [60, 10]
    assert [len(batch.partial().failures) for batch in listed] == [7, 0]
    shown = repr(second_kernel.batches)
    lines = [line for line in shown.splitlines() if "same" in line]
    assert [re.findall(r"(\d+) tasks", line) for line in lines] == [["60"], ["10"]]
    assert all(re.search(r"\d\d:\d\d", line) for line in lines)


def test_submit_is_a_batch_of_one(shared_session: ScalableSession, tmp_path: Path) -> None:
    """Each `submit` is a batch with an id; those of a function are also listed together."""
    f = counted(tmp_path, "single")
    held = [shared_session.client.submit(f, i) for i in range(2)]
    together = shared_session.batches["submit-single"]
    assert together.results() == [0, 10]
    assert len(together.batch_ids) == len(held)
    each = [shared_session.batches[batch_id].results() for batch_id in together.batch_ids]
    assert each == [[0], [10]]


def test_unknown_batch_is_an_error_with_the_closest(shared_session: ScalableSession) -> None:
    """The error has the closest name."""
    shared_session.client.map(abs, [-1], name="closest").results()
    with pytest.raises(errors.UnknownNameError, match="Did you mean 'closest'"):
        shared_session.batches["closets"]


# --- cancellation -----------------------------------------------------------------------


def test_cancelled_batch_spares_what_another_batch_holds(
    shared_session: ScalableSession, tmp_path: Path
) -> None:
    """A task of two batches goes on if one of them is cancelled."""
    f = counted(tmp_path, "shared", gate="go")
    one = shared_session.client.map(f, [1, 2], name="cancelled")
    two = shared_session.client.map(f, [2, 3], name="spared")
    until(lambda: executions(tmp_path, [1, 2], "shared") == [1, 1])
    shared_session.cancel("cancelled")
    (tmp_path / "go").touch()
    assert two.results() == [20, 30]
    assert one[0].cancelled()
    assert executions(tmp_path, [2, 3], "shared") == [1, 1]


def test_cancelled_future_is_cancelled_in_each_batch(
    shared_session: ScalableSession, tmp_path: Path
) -> None:
    """`future.cancel()` cancels every input of that task."""
    f = counted(tmp_path, "ended", gate="go")
    one = shared_session.client.map(f, [1, 2, 1], name="ended-1")
    two = shared_session.client.map(f, [2, 3], name="ended-2")
    until(lambda: executions(tmp_path, [1, 2], "ended") == [1, 1])
    one[1].cancel()
    (tmp_path / "go").touch()
    assert [failure.index for failure in one.partial().failures] == [1]
    assert [failure.index for failure in two.partial().failures] == [0]
    assert [future.cancelled() for future in [*one, *two]] == [False, True, False, True, False]


# --- functions that changed -------------------------------------------------------------


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """A module of the user's with a function `work` that fails for 1."""
    (tmp_path / "users_work.py").write_text("def work(i):\n    return 1 // (i - 1)\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("users_work")
    del sys.modules["users_work"]


def correct(module: ModuleType, tmp_path: Path) -> None:
    """Correct the function in its file, and reload the module."""
    (tmp_path / "users_work.py").write_text("def work(i):\n    # Corrected.\n    return i * 10\n")
    importlib.invalidate_caches()
    importlib.reload(module)


def test_reloaded_function_replaces_held_futures(
    shared_session: ScalableSession, module: ModuleType, tmp_path: Path
) -> None:
    """A map of the new code neither returns old results nor runs the old code."""
    old = shared_session.client.map(module.work, range(3))
    assert [failure.index for failure in old.partial().failures] == [1]
    correct(module, tmp_path)
    assert shared_session.client.map(module.work, range(3)).partial().results == [0, 10, 20]
    assert old.partial().results == [-1, None, 1]
