"""The kernel's copy of the ledger follows the host's, and the views follow the copy."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from scalable_nb.telemetry import ledger_mirror as mirror_module
from scalable_nb.telemetry.ledger import Delta, Ledger
from scalable_nb.telemetry.ledger_mirror import Mirror
from scalable_nb.telemetry.rows import TaskState

Step = Callable[[], Any]


class FakeHost:
    """A ledger that moves by one step whenever the mirror asks, until all views have left."""

    def __init__(self) -> None:
        self.ledger = Ledger("run")
        self.steps: list[Step] = []
        self.asked: list[tuple[str, int, float]] = []
        self.started: list[Callable[[], Awaitable[Any]]] = []
        self.at_end: Step = lambda: None
        self.odd_answers: list[Delta] = []

    async def fetch(self, ledger_id: str, since: int, wait_s: float) -> Delta | None:
        self.asked.append((ledger_id, since, wait_s))
        if wait_s:
            (self.steps.pop(0) if self.steps else self.at_end)()
        if self.odd_answers:
            return self.odd_answers.pop()
        since = since if ledger_id == self.ledger.ledger_id else 0
        return self.ledger.delta(since) if self.ledger.has_changed(since) else None

    def run(self, coroutine: Callable[[], Awaitable[Any]]) -> None:
        self.started.append(coroutine)

    def run_sync(self, coroutine: Callable[[], Awaitable[Any]]) -> Any:
        return asyncio.run(_await(coroutine))

    def follow(self, *steps: Step, at_end: Step) -> None:
        """Run the IO thread's part until ``at_end`` made it stop."""
        self.steps, self.at_end = list(steps), at_end
        self.run_sync(self.started.pop())

    def add(self, key: str) -> None:
        self.ledger.add(key, f"f({key})", worker=self.ledger.code(f"worker of {key}"))


async def _await(coroutine: Callable[[], Awaitable[Any]]) -> Any:
    return await coroutine()


class View:
    """Keeps a copy of its own from what it is told."""

    def __init__(self) -> None:
        self.ledger = Ledger("")
        self.reported: list[tuple[int, int]] = []

    def __call__(self, delta: Delta) -> None:
        self.reported.append((delta["base"], delta["seq"]))
        assert self.ledger.apply(delta)


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long the mirror would have slept."""
    slept: list[float] = []
    sleep = asyncio.sleep

    async def note(delay: float) -> None:
        slept.append(delay)
        await sleep(0)

    monkeypatch.setattr(mirror_module.asyncio, "sleep", note)
    return slept


@pytest.fixture
def host() -> FakeHost:
    """A host with one task."""
    host = FakeHost()
    host.add("a")
    return host


def test_first_a_snapshot_then_what_changed(host: FakeHost) -> None:
    """A view begins with all that the copy holds and is then told of changes alone."""
    mirror, view = Mirror(host, ""), View()
    mirror.refresh()
    leave = mirror.subscribe(view)
    assert (view.reported, view.ledger.keys) == ([(0, 1)], ["a"])
    host.follow(
        lambda: host.add("b"),
        lambda: None,
        lambda: host.ledger.set_state(0, TaskState.RUNNING),
        at_end=leave,
    )
    assert view.reported == [(0, 1), (1, 2), (2, 3)]
    assert view.ledger.keys == mirror.ledger.keys == ["a", "b"]
    assert view.ledger.count()["running"] == 1
    assert view.ledger.text("worker", 1) == "worker of b"


def test_nothing_is_fetched_while_nobody_looks(host: FakeHost) -> None:
    """Without a view the host is not asked; with several it is asked once for all of them."""
    mirror = Mirror(host, "")
    assert (host.asked, host.started) == ([], [])
    leave_first = mirror.subscribe(View())
    leave_second = mirror.subscribe(View())
    assert len(host.started) == 1
    host.follow(leave_first, lambda: host.add("b"), at_end=leave_second)
    asked = len(host.asked)
    assert asked == 3
    assert len(mirror.ledger) == 2
    leave_second()  # a second time is harmless
    mirror.subscribe(View())  # somebody looks again: it goes on from where it was
    assert len(host.started) == 1
    host.follow(at_end=lambda: mirror.end("closed"))
    assert host.asked[asked] == ("run", 2, host.asked[0][2])


def test_views_are_told_at_most_four_times_a_second(host: FakeHost, pauses: list[float]) -> None:
    """Between two questions there is a pause of a quarter of a second, however busy it is."""
    mirror = Mirror(host, "")
    leave = mirror.subscribe(View())
    host.follow(*[lambda n=n: host.add(f"key-{n}") for n in range(5)], at_end=leave)
    assert pauses == [0.25] * len(host.asked)


def test_a_gap_is_healed_by_a_snapshot(host: FakeHost) -> None:
    """When an answer does not continue the copy, all is fetched and the views get all of it."""
    mirror, view = Mirror(host, ""), View()
    leave = mirror.subscribe(view)

    def replace_ledger() -> None:
        host.ledger = Ledger("another run")
        for key in "xyz":
            host.add(key)
            host.ledger.delta(0)
        # It belongs to the other ledger and is no snapshot: what a gap looks like.
        host.odd_answers.append(host.ledger.delta(2))

    host.follow(lambda: None, replace_ledger, at_end=leave)
    assert ("", 0, 0.0) in host.asked
    assert mirror.ledger.ledger_id == "another run"
    assert view.ledger.keys == mirror.ledger.keys == ["x", "y", "z"]


def test_an_overtaken_answer_tells_nobody(host: FakeHost) -> None:
    """When `refresh` was faster than the answer under way, the views are not told twice."""
    mirror, view = Mirror(host, ""), View()
    leave = mirror.subscribe(view)
    fetch = host.fetch
    late: list[Delta | None] = []

    async def slow(ledger_id: str, since: int, wait_s: float) -> Delta | None:
        late.append(await fetch(ledger_id, since, wait_s))
        host.add("b")
        host.fetch = fetch  # type: ignore[method-assign]
        await mirror._step(0.0)
        return late[0]

    host.fetch = slow  # type: ignore[method-assign]
    host.follow(lambda: None, at_end=leave)
    assert late[0] is not None
    assert late[0]["keys"] == ["a"]
    assert view.reported == [(0, 0), (0, 2)]
    assert view.ledger.keys == ["a", "b"]


def test_a_broken_view_is_dropped_and_the_others_go_on(
    host: FakeHost, caplog: pytest.LogCaptureFixture
) -> None:
    """A view that raises is told nothing more, the log says so, and the others are served."""
    mirror, view, tries = Mirror(host, ""), View(), []

    def broken(delta: Delta) -> None:
        tries.append(delta["seq"])
        if len(tries) > 1:
            raise ValueError("cannot draw")

    mirror.subscribe(broken)
    leave = mirror.subscribe(view)
    with caplog.at_level(logging.ERROR):
        host.follow(lambda: host.add("b"), lambda: host.add("c"), at_end=leave)
    assert tries == [0, 1]
    assert view.ledger.keys == ["a", "b", "c"]
    assert [record.getMessage() for record in caplog.records] == [
        "a view failed and no longer follows the ledger"
    ]
    assert "cannot draw" in caplog.text


def test_a_view_may_leave_while_it_is_told(host: FakeHost) -> None:
    """A view that ends its subscription and then fails disturbs nobody."""
    mirror, view = Mirror(host, ""), View()

    def leaving(delta: Delta) -> None:
        if delta["seq"]:
            leave_at_once()
            raise ValueError("gone already")

    leave_at_once = mirror.subscribe(leaving)
    leave = mirror.subscribe(view)
    host.follow(lambda: host.add("b"), lambda: host.add("c"), at_end=leave)
    assert view.ledger.keys == ["a", "b", "c"]


def test_a_view_that_cannot_begin_does_not_follow(host: FakeHost) -> None:
    """An error of a view's first drawing is its caller's, and nothing is left behind."""

    def fail(_: Delta) -> None:
        raise ValueError("no screen")

    with pytest.raises(ValueError, match="no screen"):
        Mirror(host, "").subscribe(fail)
    assert host.started == []


def test_a_connection_that_breaks_is_asked_again(host: FakeHost, pauses: list[float]) -> None:
    """A question that gets lost is asked again after a pause, and the status stays live."""
    mirror, view = Mirror(host, ""), View()
    leave = mirror.subscribe(view)

    def lose() -> None:
        raise ConnectionResetError("connection reset")

    host.follow(lose, lose, lambda: host.add("b"), at_end=leave)
    assert view.ledger.keys == ["a", "b"]
    assert mirror.status == "live"
    assert len(pauses) == len(host.asked) + 2


@pytest.mark.parametrize("status", ["lost", "closed"])
def test_the_end_is_told_once(host: FakeHost, status: str) -> None:
    """Views learn of the end by an empty delta; the last contents and the first word stay."""
    mirror, view = Mirror(host, ""), View()
    mirror.subscribe(view)
    host.follow(lambda: host.add("b"), at_end=lambda: mirror.end(status))
    asked = len(host.asked)
    assert view.reported[-1] == (1, 1)
    assert view.ledger.keys == ["a", "b"]
    reported = len(view.reported)
    mirror.end("closed")
    mirror.refresh()
    assert (mirror.status, len(view.reported), len(host.asked)) == (status, reported, asked)
    late = View()
    mirror.subscribe(late)
    assert late.ledger.keys == mirror.snapshot()["keys"] == ["a", "b"]
    assert host.started == []


def test_refresh_brings_the_copy_up_to_date_at_once(host: FakeHost) -> None:
    """After `refresh` the copy holds what the host holds, and views know it too."""
    mirror, view = Mirror(host, ""), View()
    mirror.subscribe(view)
    host.add("b")
    mirror.refresh()
    assert mirror.ledger.keys == view.ledger.keys == ["a", "b"]
    assert host.asked == [("", 0, 0.0)]


def test_whoever_holds_the_lock_sees_one_state(host: FakeHost) -> None:
    """An answer that arrives while somebody reads waits for him."""
    mirror = Mirror(host, "")
    mirror.refresh()
    host.add("b")
    thread = threading.Thread(target=mirror.refresh)
    with mirror.lock:
        thread.start()
        while len(host.asked) < 2:
            threading.Event().wait(0.001)
        assert len(mirror.ledger) == 1
        assert thread.is_alive()
    thread.join()
    assert len(mirror.ledger) == 2
