"""The kernel's side of the live table."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fake_mirror import FakeMirror
from frame_reader import FrameReader
from IPython.core.interactiveshell import InteractiveShell

from scalable_nb.telemetry.ledger import Ledger
from scalable_nb.telemetry.rows import TaskState
from scalable_nb.widgets.task_table import saved_output
from scalable_nb.widgets.task_table import widget as module
from scalable_nb.widgets.task_table.actions import Outcome
from scalable_nb.widgets.task_table.widget import TaskTable

WAIT_S = 20


class Comm:
    """The line to a page, which keeps what is sent."""

    comm_id = "0123"

    def __init__(self, data: dict[str, Any], buffers: list[bytes], **_: Any) -> None:
        self.sent: list[tuple[dict[str, Any], list[bytes]]] = []
        self.arrived = threading.Condition()
        self.handler: Callable[[dict[str, Any]], None] | None = None
        self.send({"method": "update", **data}, buffers)

    def send(self, data: dict[str, Any], buffers: list[bytes] | None = None) -> None:
        with self.arrived:
            self.sent.append((data, list(buffers or ())))
            self.arrived.notify_all()

    def on_msg(self, handler: Callable[[dict[str, Any]], None]) -> None:
        self.handler = handler

    def close(self) -> None:
        """Nobody listens any more."""

    def ask(self, content: dict[str, Any]) -> None:
        """What the page sends."""
        assert self.handler is not None
        data = {"method": "custom", "content": content}
        self.handler({"content": {"data": data}, "buffers": []})

    def frames(self) -> Iterator[bytes]:
        """What a page that hears everything takes in."""
        for data, buffers in list(self.sent):
            if data["method"] == "custom" and data["content"]["type"] == "delta":
                yield buffers[0]
            elif ["snapshot"] in data.get("buffer_paths", []):
                yield buffers[data["buffer_paths"].index(["snapshot"])]

    def states(self, name: str) -> list[Any]:
        """The values a trait had."""
        updates = [data["state"] for data, _ in list(self.sent) if data["method"] == "update"]
        return [state[name] for state in updates if name in state]

    def messages(self, kind: str) -> list[dict[str, Any]]:
        """Custom messages of a kind."""
        contents = [data.get("content", {}) for data, _ in list(self.sent)]
        return [content for content in contents if content.get("type") == kind]

    def wait(self, condition: Callable[[], bool]) -> None:
        """Until something sent fulfils a condition."""
        with self.arrived:
            assert self.arrived.wait_for(condition, WAIT_S)

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Until something of the table's own thread fulfils a condition."""
        deadline = time.monotonic() + WAIT_S
        while not condition():
            assert time.monotonic() < deadline
            threading.Event().wait(0.005)

    def page(self) -> FrameReader:
        """The table as the page holds it."""
        reader = FrameReader()
        for frame in self.frames():
            reader.read(frame)
        return reader


@pytest.fixture(autouse=True)
def _comms(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("comm.create_comm", Comm)


@pytest.fixture
def mirror() -> FakeMirror:
    mirror = FakeMirror()
    mirror.add(5)
    return mirror


@pytest.fixture
def make(mirror: FakeMirror) -> Iterator[Callable[..., TaskTable]]:
    made: list[TaskTable] = []

    def make_table(**options: Any) -> TaskTable:
        made.append(TaskTable(mirror, **options))
        return made[-1]

    yield make_table
    for table in made:
        table.close()


def has_state(comm: Comm, row: int, state: TaskState) -> Callable[[], bool]:
    return lambda: comm.page().rows[row].get("state") == state


def test_changes_are_pushed_while_nobody_asks(mirror: FakeMirror, make: Any) -> None:
    """What the mirror tells on another thread reaches the page without a message from it."""
    table = make()
    assert [row["label"] for row in table.comm.page().rows] == list(mirror.ledger.labels)
    mirror.change(3, TaskState.FAILED, attempt=2, error="ValueError", worker="w1")
    mirror.tell()
    table.comm.wait(has_state(table.comm, 3, TaskState.FAILED))
    page = table.comm.page()
    assert (page.text(3, "error"), page.text(3, "worker")) == ("ValueError", "w1")


def test_a_page_that_lost_a_frame_is_healed_though_it_cannot_ask(
    mirror: FakeMirror, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Frames are followed by a snapshot by itself, then there is silence."""
    monkeypatch.setattr(module, "_SNAPSHOT_AFTER_S", 0.05)
    table = make()
    comm = table.comm
    snapshots = len(comm.states("snapshot")) + sum("snapshot" in str(d) for d, _ in comm.sent)
    mirror.change(0, TaskState.RUNNING)
    mirror.tell()
    comm.wait(lambda: sum("snapshot" in str(data) for data, _ in comm.sent) > snapshots)
    late = FrameReader()
    assert late.read(list(comm.frames())[-1])
    assert late.rows[0]["state"] == TaskState.RUNNING
    assert table._wait_s() > 60  # nothing more to do until something changes


def test_only_the_chosen_tasks_are_shown_also_those_to_come(mirror: FakeMirror, make: Any) -> None:
    """A table of keys has these rows in this order; keys not known yet are filled in later."""
    table = make(keys=["key-4", "later-5", "key-0", "key-4"])
    assert [row["label"] for row in table.comm.page().rows] == [
        "simulate(scenario=4)",
        "later-5",
        "simulate(scenario=0)",
    ]
    mirror.add(1, prefix="later")
    mirror.tell()
    table.comm.wait(lambda: table.comm.page().rows[1]["label"] == "simulate(scenario=5)")


class Controls:
    """Stands in for a session: one paused batch, and a note of what was asked and decided."""

    actions = ("cancel", "reproduce")

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []

    def attempts(self, task_id: str) -> Any:
        self.asked.append(("attempts", task_id))
        return [{"attempt": 1, "failure_class": "ValueError"}]

    def log(self, task_id: str, attempt: int) -> list[str]:
        self.asked.append(("log", task_id, attempt))
        return ["a line"]

    def act(self, action: str, task_ids: Any) -> Outcome:
        self.asked.append((action, *task_ids))
        if action == "reproduce":
            return Outcome("running ...", follow_up=lambda: Outcome("raised", "a traceback"))
        return Outcome(f"{len(task_ids)} tasks")

    def pauses(self) -> Any:
        cause = {"limit": 20, "failure_class": "ValueError", "message": "no licence"}
        return [{"batch": "sweep", "count": 99, **cause}]

    def decide(self, choice: str, batch: str) -> None:
        self.asked.append((choice, batch))


def test_attempts_and_logs_are_answered(make: Any) -> None:
    """The page names a row and gets the attempts of that task, or what its worker logged."""
    controls = Controls()
    table = make(keys=["key-2", "key-1"], controls=controls)
    table.comm.ask({"type": "attempts", "row": 1})
    table.comm.ask({"type": "log", "row": 0, "attempt": 3})
    assert controls.asked == [("attempts", "key-1"), ("log", "key-2", 3)]
    assert table.comm.messages("attempts") == [
        {
            "type": "attempts",
            "row": 1,
            "key": "key-1",
            "rows": [{"attempt": 1, "failure_class": "ValueError"}],
        }
    ]
    log = {"type": "log", "row": 0, "attempt": 3, "lines": ["a line"]}
    assert table.comm.messages("log") == [log]


def test_buttons_act_and_what_takes_long_is_told_when_it_is_over(make: Any) -> None:
    """An action gets the tasks' keys and its outcome is told; one with a rest, twice."""
    controls = Controls()
    table = make(controls=controls)
    assert table.actions == ["cancel", "reproduce"]
    table.comm.ask({"type": "act", "id": 1, "action": "cancel", "rows": [0, 3]})
    table.comm.ask({"type": "act", "id": 2, "action": "reproduce", "rows": [4]})
    table.comm.wait(lambda: len(table.comm.messages("acted")) == 3)
    assert controls.asked == [("cancel", "key-0", "key-3"), ("reproduce", "key-4")]
    reported = [
        (each["id"], each["text"], each["details"]) for each in table.comm.messages("acted")
    ]
    assert reported == [(1, "2 tasks", ""), (2, "running ...", ""), (2, "raised", "a traceback")]


def test_an_error_in_a_callback_is_shown_and_goes_away(make: Any, monkeypatch: Any) -> None:
    """A request that fails says so under the table; one that works clears it."""

    def fail(task_id: str) -> Any:
        raise OSError(f"no journal for {task_id}")

    controls = Controls()
    monkeypatch.setattr(controls, "attempts", fail)
    table = make(controls=controls)
    table.comm.ask({"type": "attempts", "row": 1})
    assert table.problem.endswith("OSError: no journal for key-1")
    table.comm.ask({"type": "act", "id": 7, "action": "cancel", "rows": [99]})
    assert "no row 99 in a table of 5 tasks" in table.problem
    assert table.comm.messages("acted")[-1]["id"] == 7
    table.comm.ask({"type": "what?"})
    assert "what?" in table.problem
    table.comm.ask({"type": "log", "row": 1, "attempt": 1})
    assert table.problem == ""


def test_a_pause_is_told_and_decided_about(mirror: FakeMirror, make: Any) -> None:
    """The page hears how many of its tasks are paused and why, and what it says is done."""
    controls = Controls()
    table = make(keys=["key-1", "key-2", "key-3"], controls=controls)
    other = make(keys=["key-0"], controls=controls)
    for row in (2, 3, 4):  # one of them in neither table
        mirror.change(row, TaskState.PAUSED, batch="sweep")
    mirror.tell()
    text = "2 tasks of 'sweep' are paused: 20 in a row failed with ValueError: no licence"
    table.comm.wait(lambda: [{"batch": "sweep", "text": text}] in table.comm.states("pauses"))
    table.comm.ask({"type": "resume", "batch": "sweep"})
    table.comm.ask({"type": "cancel", "batch": "sweep"})
    assert controls.asked == [("resume", "sweep"), ("cancel", "sweep")]
    assert table.comm.messages("decided") == [{"type": "decided", "batch": "sweep"}] * 2
    for row in (2, 3, 4):
        mirror.change(row, TaskState.RUNNING)
    mirror.tell()
    table.comm.wait(lambda: table.comm.states("pauses")[-1] == [])
    assert other.pauses == []
    assert any(other.comm.states("pauses")) is False


def test_what_nobody_looks_at_is_not_followed(mirror: FakeMirror, make: Any) -> None:
    """When the last page has left, the run is followed no more; who comes back gets all of it."""
    table = make()
    table.comm.ask({"type": "watch"})
    assert len(mirror.callbacks) == 1
    table.comm.ask({"type": "unwatch"})
    table.comm.wait_until(lambda: not mirror.callbacks)
    sent = len(table.comm.sent)
    mirror.change(0, TaskState.RUNNING)
    mirror.tell()
    assert len(table.comm.sent) == sent
    table.comm.ask({"type": "watch"})
    table.comm.wait(has_state(table.comm, 0, TaskState.RUNNING))
    assert len(mirror.callbacks) == 1


def test_a_cell_that_runs_is_followed_though_nobody_can_be_heard(
    mirror: FakeMirror, make: Any
) -> None:
    """From the begin of a cell on the run is followed, because who looks cannot say so."""
    table = make()
    table.comm.ask({"type": "unwatch"})
    table.comm.wait_until(lambda: not mirror.callbacks)
    module.begin_cell()
    table.comm.wait_until(lambda: bool(mirror.callbacks))
    mirror.change(0, TaskState.RUNNING)
    mirror.tell()
    table.comm.wait(has_state(table.comm, 0, TaskState.RUNNING))
    module.finish_outputs()
    table.comm.wait_until(lambda: not mirror.callbacks)


def test_a_page_that_asks_gets_a_snapshot(mirror: FakeMirror, make: Any) -> None:
    """A reloaded page, or one that noticed a gap, gets what is true now."""
    table = make()
    mirror.change(1, TaskState.CACHED)
    table.comm.ask({"type": "resync"})
    late = FrameReader()
    assert late.read(list(table.comm.frames())[-1])
    assert late.rows[1]["state"] == TaskState.CACHED


@pytest.mark.parametrize("status", ["lost", "closed"])
def test_the_end_of_the_session_is_told(mirror: FakeMirror, make: Any, status: str) -> None:
    """The page hears that the session ended, with the last state as a snapshot."""
    table = make()
    mirror.change(0, TaskState.SUCCEEDED, attempt=1)
    mirror.end(status)
    table.comm.wait(lambda: status in table.comm.states("status"))
    table.comm.wait(has_state(table.comm, 0, TaskState.SUCCEEDED))
    words = {"lost": "lost contact with the host", "closed": "the session has ended"}
    assert words[status] in repr(table)


def test_a_closed_table_follows_nothing(mirror: FakeMirror, make: Any) -> None:
    """Closing ends the subscription and the thread."""
    before = set(threading.enumerate())
    table = make()
    (thread,) = set(threading.enumerate()) - before
    table.close()
    thread.join(WAIT_S)
    assert not thread.is_alive()
    assert mirror.callbacks == []
    table.close()


def test_a_finished_run_needs_no_mirror(mirror: FakeMirror) -> None:
    """The table of a ledger that nobody changes shows it and starts nothing."""
    threads = threading.active_count()
    table = TaskTable.of_ledger(mirror.ledger, title="run-1")
    assert table.status == "finished"
    assert len(FrameReader().rows) == 0
    assert len(table.comm.page().rows) == 5  # type: ignore[attr-defined]
    assert threading.active_count() == threads
    table.close()


def test_an_empty_table_is_shown_and_filled(make: Any) -> None:
    """A table can be shown before the first task, and before the ledger has its name."""
    mirror = FakeMirror("")
    table = TaskTable(mirror)
    assert "0 tasks" in repr(table)
    host = Ledger("run")
    host.add("a", "f(a)", state=TaskState.RUNNING)
    with mirror.lock:
        mirror.ledger.apply(host.delta())
    mirror.tell()
    comm: Any = table.comm
    comm.wait(lambda: [row["label"] for row in comm.page().rows] == ["f(a)"])
    table.close()


def test_the_bundle_has_a_live_a_static_and_a_text_form(mirror: FakeMirror, make: Any) -> None:
    """What is saved beside the widget stands for itself where no widget can live."""
    table = make(title="sweep")
    mirror.change(0, TaskState.FAILED, attempt=1, error="ValueError")
    bundle, _ = table._repr_mimebundle_()
    assert bundle["application/vnd.jupyter.widget-view+json"]["model_id"] == table.model_id
    assert "sweep: 5 tasks, 20 % done" in bundle["text/plain"]
    assert "simulate(scenario=0)" in bundle["text/html"]


# --- the saved output ------------------------------------------------------------


@pytest.fixture
def outputs(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, str, bool]]]:
    """What a kernel displays: (display_id, text, is_update)."""
    shell = InteractiveShell.instance()
    shown: list[tuple[str, str, bool]] = []

    def publish(data: Any, *, transient: Any = None, update: bool = False, **_: Any) -> None:
        shown.append(((transient or {}).get("display_id", ""), data["text/plain"], update))

    monkeypatch.setattr(shell.display_pub, "publish", publish)
    monkeypatch.setattr(saved_output, "in_notebook", lambda: True)
    yield shown
    InteractiveShell.clear_instance()


def test_the_saved_output_ends_with_the_last_state(
    mirror: FakeMirror, make: Any, outputs: list[tuple[str, str, bool]]
) -> None:
    """The output written when the run began is written again when the work is over."""
    table = make(keys=["key-0", "key-1"])
    table._ipython_display_()
    mirror.change(0, TaskState.SUCCEEDED, attempt=1)
    mirror.tell()
    table.comm.wait(has_state(table.comm, 0, TaskState.SUCCEEDED))
    assert [is_update for _, _, is_update in outputs] == [False]
    mirror.change(1, TaskState.FAILED, attempt=1, error="ValueError")
    module.finish_outputs()  # the end of a cell, before the mirror's thread says anything
    (first, begun, _), (second, ended, is_update) = outputs
    assert "0 % done" in begun
    assert "100 % done" in ended
    assert "ValueError" in ended
    assert is_update
    assert first == second != ""
    module.finish_outputs()
    assert len(outputs) == 2


def test_the_saved_output_of_an_ended_session_is_the_last_one(
    mirror: FakeMirror, make: Any, outputs: list[tuple[str, str, bool]]
) -> None:
    """Where the session ends before its work, the saved output says how far it came."""
    table = make()
    table._ipython_display_()
    mirror.change(0, TaskState.SUCCEEDED, attempt=1)
    mirror.end("closed")
    table.comm.wait(lambda: "closed" in table.comm.states("status"))
    module.finish_outputs()
    assert "20 % done (the session has ended)" in outputs[-1][1]


def test_a_terminal_gets_text_once(
    mirror: FakeMirror, make: Any, outputs: list[tuple[str, str, bool]], monkeypatch: Any
) -> None:
    """Without a kernel nothing can be updated, so nothing is printed a second time."""
    monkeypatch.setattr(saved_output, "in_notebook", lambda: False)
    table = make()
    table._ipython_display_()
    mirror.end("closed")
    module.finish_outputs()
    assert [(name, is_update) for name, _, is_update in outputs] == [("", False)]
