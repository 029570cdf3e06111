"""Each input of a batch counts once, live and in the records, whatever tasks it shares."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tracked_scheduler import SchedulerAlone

from scalable_nb.client.submitter import PackedSubmissions
from scalable_nb.faults.decision import PolicyTerms
from scalable_nb.host.tasks.run_recorder import RunRecorder
from scalable_nb.host.tasks.task import TaskBatch
from scalable_nb.paths import RunPaths
from scalable_nb.protocol.messages import AnsweredCalls, BatchMessage, LeftOutCalls
from scalable_nb.telemetry.journal_reader import read_rows
from scalable_nb.telemetry.recorded_inputs import RecordedInputs
from scalable_nb.telemetry.rows import TaskState

TASKS = st.sampled_from("abcde")
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("submit"), TASKS),
        st.tuples(st.just("answer"), TASKS),
        st.tuples(st.just("share"), TASKS),
        st.tuples(st.just("replace"), TASKS),
        st.tuples(st.just("flush"), TASKS),
    ),
    max_size=30,
)


@pytest.fixture
def recorder(tmp_path: Path) -> RunRecorder:
    return new_recorder(tmp_path)


def new_recorder(folder: Path) -> RunRecorder:
    paths = RunPaths(folder / "run-1")
    paths.folder.mkdir()
    return RunRecorder(paths, "local")


def enter(recorder: RunRecorder, *keys: str) -> None:
    """Enter tasks that a client has announced."""
    recorder.inputs.announce(keys)
    open_tasks(recorder, *keys)


def open_tasks(recorder: RunRecorder, *keys: str) -> None:
    """Enter tasks of a graph that arrived."""
    batch = TaskBatch("id", function="f", previews=dict.fromkeys(keys, "x=1"))
    for key in keys:
        recorder.open(key, batch, PolicyTerms())


def recorded(recorder: RunRecorder) -> RecordedInputs:
    """Return the numbers that a reader of the run folder finds."""
    recorder.flush()
    folder = Path(recorder.tasks.path).parent
    return RecordedInputs.from_rows(read_rows(RunPaths(folder).inputs).rows)


def total(recorder: RunRecorder) -> int:
    return sum(recorder.ledger.count().values())


def test_each_task_stands_for_one_input(recorder: RunRecorder) -> None:
    """Without shared tasks, inputs are as many as tasks, and only their sum is recorded."""
    enter(recorder, "a", "b", "c")
    assert total(recorder) == 3
    assert recorded(recorder) == RecordedInputs({}, 3)


@pytest.mark.parametrize("is_early", [True, False])
def test_inputs_that_share_a_task_count_each(recorder: RunRecorder, is_early: bool) -> None:
    """The numbers are right whether the tasks or the change arrive first."""
    recorder.inputs.announce(["a", "b"])
    if is_early:
        recorder.inputs.change({"b": 2})
    open_tasks(recorder, "a", "b")
    if not is_early:
        recorder.inputs.change({"b": 2})
    assert recorder.ledger.count()["pending"] == 4
    assert recorded(recorder) == RecordedInputs({"b": 3}, 4)


def test_task_of_two_clients_counts_for_both(recorder: RunRecorder) -> None:
    """A task that another client announces before or after it arrived has two inputs."""
    recorder.inputs.announce(["a"])
    recorder.inputs.announce(["a"])
    open_tasks(recorder, "a")
    recorder.inputs.announce(["a"])
    assert total(recorder) == 3
    assert recorded(recorder) == RecordedInputs({"a": 3}, 3)


def test_replaced_task_has_no_input(recorder: RunRecorder) -> None:
    """The input of a task that was replaced counts with the new task only."""
    enter(recorder, "a", "b")
    recorder.ledger.set_state(0, TaskState.FAILED)
    recorder.inputs.change({"a": -1})
    enter(recorder, "a-new")
    recorder.ledger.set_state(2, TaskState.SUCCEEDED)
    counts = recorder.ledger.count()
    assert (counts["failed"], counts["succeeded"], counts["pending"]) == (0, 1, 1)
    assert recorded(recorder) == RecordedInputs({"a": 0}, 2)


def test_number_goes_to_the_newest_row_of_a_task(recorder: RunRecorder) -> None:
    """A task that was released and is submitted again has two rows, and counts with the newer."""
    enter(recorder, "a")
    recorder.ledger.set_state(0, TaskState.CANCELLED)
    enter(recorder, "a")
    assert recorder.ledger.columns["inputs"].tolist() == [0, 2]
    assert recorder.ledger.count()["pending"] == total(recorder) == 2
    assert recorded(recorder) == RecordedInputs({"a": 2}, 2)


def test_task_that_is_sent_after_all_counts_once(recorder: RunRecorder) -> None:
    """A stored result answered its call, and another task needs it: the input is the same."""
    batch = BatchMessage("id", function="f")
    recorder.enter_answered(AnsweredCalls(batch.with_previews({"a": "", "b": ""}), ("r1", "r2")))
    recorder.inputs.announce(["a"], is_known=True)
    recorder.enter_answered(AnsweredCalls(batch.with_previews({"b": ""}, is_known=True), ("r2",)))
    assert recorder.ledger.count()["cached"] == total(recorder) == 2


def test_left_out_inputs_that_share_a_task_count_each(recorder: RunRecorder) -> None:
    """Inputs of an earlier run that do not run are counted by input, too."""
    recorder.inputs.change({"a": 1})
    batch = BatchMessage("id", function="f").with_previews({"a": "", "b": ""})
    states, reasons = ("left out", "cancelled"), ("not idempotent", "cancelled")
    recorder.enter_left_out(LeftOutCalls(batch, states, reasons, ("ValueError", "")))
    counts = recorder.ledger.count()
    assert (counts["left out"], counts["cancelled"]) == (2, 1)


def test_plain_tasks_of_dask_count_one_each(recorder: RunRecorder) -> None:
    """A task that no client announced is its own input."""
    native = TaskBatch("", function="sum")
    for key in ("sum-1", "sum-2"):
        recorder.open(key, native, PolicyTerms())
    assert recorder.summary()["counts"]["pending"] == 2
    assert recorded(recorder) == RecordedInputs({}, 2)


@given(STEPS)
def test_records_agree_with_the_ledger(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, str]]
) -> None:
    """After any sequence, ledger and ``inputs.jsonl`` have the numbers of the inputs' tasks."""
    recorder = new_recorder(tmp_path_factory.mktemp("inputs"))
    inputs: Counter[str] = Counter()
    for number, (what, key) in enumerate(steps):
        if what == "submit":
            enter(recorder, key)
            inputs[key] += 1
        elif what == "answer":
            batch = BatchMessage("id", function="f").with_previews({key: ""})
            recorder.enter_answered(AnsweredCalls(batch, ("result",)))
            inputs[key] += 1
        elif what == "share" and inputs[key]:
            recorder.inputs.change({key: 2})
            inputs[key] += 2
        elif what == "replace" and inputs[key]:
            new, count = f"{key}-{number}", inputs.pop(key)
            recorder.inputs.change({key: -count, new: count - 1})
            enter(recorder, new)
            inputs[new] = count
        elif what == "flush":
            recorder.flush()
    ledger, found = recorder.ledger, recorded(recorder)
    live = {key: ledger.columns["inputs"][row] for key, row in ledger.row_of.items()}
    assert Counter({key: count for key, count in live.items() if count}) == +inputs
    assert {key: found.by_task.get(key, 1) for key in live} == live
    assert found.total == total(recorder) == inputs.total()
    recorder.close()


# --- what a client reports ----------------------------------------------------------------


def packed(*parts: str) -> PackedSubmissions:
    """Return submissions with a call for each letter of their texts."""
    new: Any = [(None, dict.fromkeys(part)) for part in parts]
    return PackedSubmissions(None, [], {}, new)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("inputs", "parts", "changes"),
    [
        ("abc", ["abc"], {}),
        ("abc", ["ab", "c"], {}),
        ("abca", ["abc"], {"a": 1}),
        ("aab", ["b"], {"a": 2}),  # `a` is held: it is not announced
        ("a", [], {"a": 1}),
        ("", [], {}),
    ],
)
def test_only_what_differs_is_reported(
    inputs: str, parts: list[str], changes: dict[str, int]
) -> None:
    """Inputs that are not announced by a call of their own are reported."""
    assert +packed(*parts).input_changes(list(inputs)) == changes


def test_numbers_arrive_with_the_messages_of_a_client() -> None:
    """The host counts the tasks of a submission, and those of a second client's again."""
    host = SchedulerAlone()
    try:
        host.add_worker()
        host.submit(["a", "b"], PolicyTerms(), [], "study")
        host.add_client("second")
        host.submit(["b", "c"], PolicyTerms(), [], "study", client="second")
        rows = host.recorder.ledger
        assert dict(zip(rows.keys, rows.columns["inputs"], strict=True)) == {"a": 1, "b": 2, "c": 1}
    finally:
        host.close()


# --- inputs by state ------------------------------------------------------------------------


def test_damaged_rows_are_passed_over() -> None:
    """Rows of other programs, or with other values, change no number."""
    rows: list[dict[str, Any]] = [
        {"total": 4, "inputs": {"a": 2, "b": "many", "c": -1, "d": True}},
        {"total": None, "inputs": ["a"]},
        json.loads('{"total": 1e99, "inputs": {"e": 99999999999999999999}}'),
    ]
    assert RecordedInputs.from_rows(rows) == RecordedInputs({"a": 2}, 4)
