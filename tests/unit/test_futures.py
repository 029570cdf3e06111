"""Lists of futures are lists, and results come together with what failed."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import pytest
from distributed import Future
from distributed.client import futures_of
from fake_client import FakeClient

from scalable_nb.client import futures as futures_module
from scalable_nb.client.futures import FutureList, PartialResult, TaskFailure, partial, set_view
from scalable_nb.errors import ScalableError, SessionError, SubmitError
from scalable_nb.paths import RunPaths
from scalable_nb.widgets.display import view


@pytest.fixture
def client() -> FakeClient:
    """A client without a host."""
    return FakeClient()


@pytest.fixture
def mixed(client: FakeClient) -> FutureList:
    """Five tasks: succeeded, failed, cancelled, succeeded with None, failed."""
    futures = client.submitted("a", "b", "c", "d", ("e", 1), name="study")
    client.succeed("a", 42)
    client.fail("b", ValueError("invalid input"))
    client.cancel_one("c")
    client.succeed("d", None)
    client.fail(("e", 1), TimeoutError("300 s"))
    return futures


@pytest.fixture
def front_end() -> Iterator[list[FutureList]]:
    """A front end that notes what it is asked to draw."""
    drawn: list[FutureList] = []
    before = futures_module._view
    set_view(lambda futures: drawn.append(futures) or {"text/html": "<table>"})  # type: ignore[func-returns-value]
    yield drawn
    set_view(before)


# --- a list ------------------------------------------------------------------------


def test_it_is_a_list(mixed: FutureList) -> None:
    """What takes a list of futures takes this one: it iterates, slices, adds and compares."""
    plain = list(mixed)
    assert isinstance(mixed, list)
    assert mixed == plain
    assert (mixed[0], mixed[-1], len(mixed)) == (plain[0], plain[-1], 5)
    assert mixed[1:3] == plain[1:3]
    assert mixed + plain == plain + plain
    for part in (mixed[1:3], mixed[::-1], mixed + plain[:1], mixed[:0]):
        assert type(part) is FutureList
        assert part.name == "study"


def test_dask_looks_into_it(mixed: FutureList) -> None:
    """`wait`, `cancel` and `progress` find its futures, also where it is nested."""
    assert futures_of(mixed) == list(mixed)
    assert futures_of({"all": (mixed, 1)}) == list(mixed)


def test_its_type_is_no_other() -> None:
    """It counts as a list where the exact type is asked for, and as nothing else."""
    assert type(FutureList()) in (tuple, set, list)
    assert type(FutureList()) not in (tuple, set, dict)
    assert {FutureList: 1}.get(list) is None
    assert len({FutureList, list, type(FutureList())}) == 2


def test_copies_are_plain_lists(mixed: FutureList) -> None:
    """Pickled, as the argument of a task is, it becomes a plain list of the same futures."""
    assert type(copy.copy(mixed)) is list
    loaded = pickle.loads(pickle.dumps(mixed))
    assert type(loaded) is list
    assert [future.key for future in loaded] == [future.key for future in mixed]


def test_keys_and_labels_are_the_ledgers(mixed: FutureList) -> None:
    """Keys are texts, as in the records; labels are the calls, or the key until they are known."""
    assert mixed.keys == ["a", "b", "c", "d", "('e', 1)"]
    assert mixed.labels == mixed.keys
    mixed.session.mirror.refresh()
    assert mixed.labels[0] == "f(a)"


def test_futures_of_another_client_are_refused() -> None:
    """A list of plain Dask futures says what it expected instead."""
    strangers = FutureList([Future("x")])
    with pytest.raises(SessionError) as caught:
        _ = strangers.session
    assert str(caught.value) == (
        "these futures do not belong to a session of scalable_nb; expected futures made by the "
        "`client` of `%scalable start` or `ScalableSession.start()`"
    )
    assert isinstance(caught.value, ScalableError)
    with pytest.raises(SessionError, match="do not belong to a session"):
        partial([Future("x")])


def two_sessions() -> FutureList:
    """Futures of the runs run-1 and run-2."""
    futures = FutureList()
    for number in (1, 2):
        client = FakeClient()
        client.session.paths = RunPaths(Path(f"run-{number}"))  # type: ignore[misc]
        futures += client.submitted("a", "b")
        client.succeed("a", number)
    return futures


@pytest.mark.parametrize(
    "use",
    [FutureList.results, FutureList.partial, FutureList.to_dataframe, lambda each: each.labels],
)
def test_futures_of_two_sessions_are_refused(use: Callable[[FutureList], Any]) -> None:
    """Nothing that concerns one session is done with those of two; the error names both runs."""
    with pytest.raises(SessionError, match=r"run-1, run-2"):
        use(two_sessions())


def test_futures_of_two_sessions_are_not_resubmitted() -> None:
    """The error names both runs."""
    with pytest.raises(SubmitError, match="run-1 and run-2"):
        two_sessions().resubmit()


def test_futures_of_two_sessions_are_shown_as_text() -> None:
    """No table can follow two ledgers."""
    assert view(two_sessions())["text/plain"].startswith("<FutureList: 4 tasks")


# --- what became of them ---------------------------------------------------------------


def test_failed_and_succeeded_tasks(mixed: FutureList) -> None:
    """The failed and the succeeded ones are lists of the same kind, in order."""
    assert [future.key for future in mixed.failed] == ["b", ("e", 1)]
    assert [future.key for future in mixed.succeeded] == ["a", "d"]
    assert type(mixed.failed) is FutureList
    assert mixed.failed.name == "study"


def test_as_text_it_counts(mixed: FutureList, client: FakeClient) -> None:
    """The text names the batch and how many tasks ended how."""
    assert repr(mixed) == "<FutureList 'study': 5 tasks: 1 cancelled, 2 error, 2 finished>"
    assert repr(FutureList()) == "<FutureList: 0 tasks>"
    assert repr(client.submitted("z")) == "<FutureList: 1 tasks: 1 pending>"


def test_partial_gives_results_and_failures_in_order(mixed: FutureList) -> None:
    """Each failure knows its place, its call, its error and its attempts; None is a result."""
    outcome = mixed.partial()
    assert outcome.results == [42, None, None, None, None]
    assert outcome.succeeded == [42, None]
    assert [(f.index, f.key, f.label, f.attempts) for f in outcome.failures] == [
        (1, "b", "f(b)", 2),
        (2, "c", "f(c)", 0),
        (4, "('e', 1)", "f(('e', 1))", 2),
    ]
    classes = [type(failure.error) for failure in outcome.failures]
    assert classes[0::2] == [ValueError, TimeoutError]
    assert issubclass(classes[1], CancelledError)
    assert outcome.failures[0].failure_class == "ValueError"
    assert str(outcome.failures[0]) == "f(b): ValueError: invalid input"


def test_a_result_lost_while_others_are_fetched_is_waited_for(
    client: FakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task that is computed again in the meantime is no cancelled one."""
    futures = client.submitted("a", "b")
    client.succeed("a", 1)
    client.succeed("b", 2)
    client.futures["b"].status = "lost"  # its worker died just after it was waited for
    fetch = client.gather_remote

    async def gather(asked: Any, *args: Any, **kwargs: Any) -> Any:
        client.futures["b"].finish()
        return await fetch(asked, *args, **kwargs)

    monkeypatch.setattr(client, "gather_remote", gather)
    assert futures.partial().results == [1, 2]


def test_partial_takes_any_iterable(mixed: FutureList) -> None:
    """A generator of futures, a future twice, or none at all are fine."""
    assert partial(future for future in mixed[:1]).results == [42]
    twice = partial([mixed[1], mixed[0], mixed[1]])
    assert [failure.index for failure in twice.failures] == [0, 2]
    assert twice.succeeded == [42]
    assert partial([]) == PartialResult([], [])
    assert FutureList().partial().succeeded == []


def test_partial_in_a_few_lines(mixed: FutureList) -> None:
    """The text says how many succeeded and lists the others, short and not too many."""
    assert str(partial(mixed[:2])) == (
        "1 of 2 tasks succeeded.\n  [1] f(b): ValueError: invalid input"
    )
    failures = [
        TaskFailure(index=n, key="k", label="f()", error=ValueError("x" * 10_000), attempts=1)
        for n in range(25)
    ]
    lines = repr(PartialResult([None] * 30, failures)).splitlines()
    assert lines[0] == "5 of 30 tasks succeeded."
    assert len(lines) == 22
    assert all(len(line) <= 300 for line in lines)
    assert lines[-1] == "  ... and 5 more"


def test_results_raise_the_first_failure(mixed: FutureList, client: FakeClient) -> None:
    """`results()` gives all results in order, or the error of the first that has none."""
    assert FutureList().results() == []
    assert mixed.succeeded.results() == [42, None]
    with pytest.raises(ValueError, match="invalid input"):
        mixed.results()


def test_errors_can_stand_in_the_place_of_results(mixed: FutureList, client: FakeClient) -> None:
    """`gather(errors="return")` gives the exception where the result would be."""
    values = client.gather(mixed, errors="return")
    assert values[0] == 42
    assert isinstance(values[1], ValueError)
    assert values[3] is None
    assert isinstance(client.gather(mixed[1], errors="return"), ValueError)
    with pytest.raises(ValueError, match="expected 'raise', 'skip' or 'return'"):
        client.gather(mixed, errors="ignore")


def test_a_table_with_a_row_per_task(mixed: FutureList, client: FakeClient) -> None:
    """The frame has the states of now in the order of the list, also of tasks not known yet."""
    frame = FutureList([*mixed, Future("unknown", client)]).to_dataframe()
    assert list(frame.columns) == [
        "label", "state", "attempt", "attempts_allowed", "worker", "error", "duration_s", "key",
    ]  # fmt: skip
    assert frame["state"].tolist()[:5] == [
        "succeeded", "failed", "cancelled", "succeeded", "failed",
    ]  # fmt: skip
    assert frame["error"].tolist()[:5] == ["", "ValueError", "", "", "TimeoutError"]
    assert frame["label"].tolist()[:2] == ["f(a)", "f(b)"]
    assert frame["key"].tolist() == [*mixed.keys, "unknown"]
    assert frame.loc[0, ["attempt", "attempts_allowed", "worker", "duration_s"]].tolist() == [
        1, 2, "worker-0", 0.5,
    ]  # fmt: skip
    assert frame.loc[5, "label"] == "unknown"
    assert frame.loc[5, ["state", "attempt", "worker"]].isna().all()


def test_an_empty_table_has_the_same_columns(mixed: FutureList) -> None:
    """Without tasks there are no rows, and the columns are what they always are."""
    frame = FutureList().to_dataframe()
    assert len(frame) == 0
    assert list(frame.columns) == list(mixed.to_dataframe().columns)


# --- in a notebook -----------------------------------------------------------------------


def test_the_front_end_draws_it(mixed: FutureList, front_end: list[FutureList]) -> None:
    """Where a front end is there it draws the list; an empty list stays a line of text."""
    assert mixed._repr_mimebundle_() == {"text/html": "<table>"}
    assert FutureList()._repr_mimebundle_() == {"text/plain": "<FutureList: 0 tasks>"}
    assert front_end == [mixed]


def test_without_a_front_end_it_is_text(mixed: FutureList, front_end: Any) -> None:
    """In a plain Python the list is shown as its text."""
    set_view(None)
    assert mixed._repr_mimebundle_() == {"text/plain": repr(mixed)}
