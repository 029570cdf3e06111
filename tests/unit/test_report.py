"""The report of a run, from its folder alone."""

from __future__ import annotations

import json
import os
import platform
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import given
from journal_rows import RUN_ID, attempts, failure, task, tutorial_failures, tutorial_tasks
from journal_rows import write_run as write
from test_journal_reader import ANY_ROWS

from scalable_nb.paths import RunPaths
from scalable_nb.protocol.connection_file import SILENT_S
from scalable_nb.report import build_report
from scalable_nb.report.run_overview import RunLine
from scalable_nb.report.run_report import format_duration

ABOUT = {
    "run_id": RUN_ID,
    "project": "demo",
    "target": "local",
    "hostname": platform.node(),
    "started_at": "2026-03-01T12:00:00.000+00:00",
}
ENDED = {**ABOUT, "ended_at": "2026-03-01T12:05:00.000+00:00"}

STEP_5 = """\
Failures (3 of 100 tasks):

1. run_simulation(scenario_id=47)
   Error: MemoryError — unable to allocate 4.2GB
   Worker: worker-3
   Duration before failure: 180s
   Retries attempted: 3 (all failed)

2. run_simulation(scenario_id=92)
   Error: TimeoutError — exceeded 300s limit
   Worker: worker-1
   Duration before failure: 300s

3. run_simulation(scenario_id=13)
   Error: ValueError — invalid input data
   Worker: worker-2
   Duration before failure: 0.1s (fast fail — permanent error)"""


def test_the_failure_list_is_that_of_the_tutorial(tmp_path: Path) -> None:
    """The list of failures has, word for word, the form that the tutorial shows."""
    run = write(tmp_path, tutorial_failures(), tutorial_tasks(), run=ENDED)
    assert build_report(run).to_text(failures=True) == STEP_5


def test_the_summary_counts_tasks_attempts_and_retries(tmp_path: Path) -> None:
    """The summary says how many tasks ended how, what retries did, and where the files lie."""
    run = write(tmp_path, tutorial_failures(), tutorial_tasks(), run=ENDED)
    report = build_report(run)
    assert report.tasks == {"succeeded": 93, "cached": 4, "failed": 3}
    # 91 at once, 2 and 3 attempts of the two that a retry mended, 4 + 1 + 1 of the failed.
    assert (report.attempts, report.retries, report.retries_helped) == (102, 6, 2)
    text = report.to_text()
    assert "Tasks:           100 (93 succeeded, 4 cached, 3 failed)" in text
    assert "Retries:         6 (2 tasks succeeded in a retry)" in text
    assert "From cache:      4" in text
    assert "Failed attempts: 9 (MemoryError 4, ConnectionError 3, TimeoutError 1, " in text
    assert "took 300s" in text
    assert str(run.folder) in text
    assert f"scalable report --run-id {RUN_ID} --failures" in text


def test_the_summary_file_knows_tasks_that_never_ended(tmp_path: Path) -> None:
    """Where the host wrote its sums, they count also the tasks without a row."""
    sums = {
        "counts": {"pending": 7, "succeeded": 2, "failed": 0},
        "attempts": 2,
        "retries": 0,
        "ended_at": ENDED["ended_at"],
        "end_reason": "no client and no work for 600 s",
    }
    report = build_report(write(tmp_path, (), [task(1), task(2)], run=ABOUT, summary=sums))
    assert report.state == "finished"
    assert report.tasks == {"pending": 7, "succeeded": 2}
    assert "no client and no work for 600 s" in report.to_text()
    assert report.to_text(failures=True) == "No failures: none of 9 tasks failed for good."


def test_inputs_that_share_a_task_count_each(tmp_path: Path) -> None:
    """The summary counts inputs and attempts of tasks, and marks a shared failure."""
    rows = [task(1), task(2, state="failed")]
    shared = [{"total": 3, "inputs": {"run_simulation-2": 2}}]
    run = write(tmp_path, [failure(2)], rows, inputs=shared, run=ENDED)
    report = build_report(run)
    assert report.tasks == {"succeeded": 1, "failed": 2}
    assert report.attempts == 2
    assert RunLine.of(report).tasks == 3
    assert RunLine.of(report).failed == 2
    text = report.to_text(failures=True)
    assert text.startswith("Failures (2 of 3 tasks):\n\n1. run_simulation(scenario_id=2)")
    assert "Inputs with this call: 2" in text
    assert "\n2. " not in text


@pytest.mark.parametrize("redact", [False, True])
def test_replaced_tasks_are_history(tmp_path: Path, redact: bool) -> None:
    """A failed task whose input was given corrected code counts as no failure."""
    rows = [task(1), task(2, state="failed"), task(3), task(4, state="failed")]
    replaced = [{"total": 3, "inputs": {"run_simulation-2": 0}}]
    run = write(tmp_path, [failure(2), failure(4)], rows, inputs=replaced, run=ENDED)
    report = build_report(run, redact=redact)
    assert report.tasks == {"succeeded": 2, "failed": 1}
    assert len(report.failed) == report.failed_inputs == 1
    assert report.failures_by_class == {"ValueError": 2}


def test_interrupted_run_counts_inputs_that_never_ran(tmp_path: Path) -> None:
    """Without a summary, inputs without an ending either had an attempt or never ran."""
    rows = [task(1), task(2)]
    known = [{"total": 4, "inputs": {}}, {"total": 9, "inputs": {"run_simulation-3": 2}}]
    between = failure(3, is_final=False, will_retry=True)
    gone = {"pid": 2**22 + 1, "host": platform.node()}
    run = write(tmp_path, [between], rows, inputs=known, run=ABOUT, session=gone)
    report = build_report(run)
    assert report.state == "interrupted"
    assert report.tasks == {"succeeded": 2, "retrying": 2, "never ran": 5}
    assert "none of 9 tasks failed" in report.to_text(failures=True)


def test_running_run_counts_unfinished_inputs(tmp_path: Path) -> None:
    """While the host is alive, inputs without an ending are unfinished."""
    session = {
        "pid": os.getpid(),
        "pid_started_at": psutil.Process().create_time(),
        "host": platform.node(),
    }
    known = [{"total": 3, "inputs": {}}]
    run = write(tmp_path, (), [task(1)], inputs=known, run=ABOUT, session=session)
    assert build_report(run).tasks == {"succeeded": 1, "unfinished": 2}


def test_a_resubmitted_task_that_succeeded_is_no_failure(tmp_path: Path) -> None:
    """The last row of a task counts: what a person mended is not listed, nor as a retry's help."""
    rows = [*attempts(1, 4), *attempts(2, 2)]
    again = [task(1, state="failed", attempts=4), task(2, state="failed", attempts=2), task(1)]
    report = build_report(write(tmp_path, rows, again, run=ENDED))
    assert [failed.label for failed in report.failed] == ["run_simulation(scenario_id=2)"]
    assert report.retries_helped == 0


def test_retries_begin_anew_with_a_resubmission(tmp_path: Path) -> None:
    """A task that failed, was resubmitted and failed again shows the retries of the second time."""
    second = [failure(1, attempt=5, is_final=False, will_retry=True), failure(1, attempt=6)]
    report = build_report(write(tmp_path, attempts(1, 4) + second, run=ENDED))
    assert [failed.retries for failed in report.failed] == [1]


def test_a_task_without_a_failure_row_is_listed(tmp_path: Path) -> None:
    """A failed task whose attempt has no readable row is listed from its own row."""
    run = write(tmp_path, (), [task(8, state="failed", failure_class="OSError")], run=ENDED)
    assert "1. run_simulation(scenario_id=8)\n   Error: OSError\n" in build_report(run).to_text(
        True
    )


def test_what_could_not_be_read_is_told(tmp_path: Path) -> None:
    """Torn and damaged lines are named with their number."""
    run = write(tmp_path, [failure(1)], [task(1, state="failed")], run=ENDED)
    with run.failures.open("ab") as file:
        file.write(b'\xff\n{"torn')
    report = build_report(run)
    assert len(report.failed) == 1
    assert "Of the journal 2 lines could not be read" in report.to_text()


def test_a_run_that_goes_on_says_so(tmp_path: Path) -> None:
    """While the host lives, the report says that its numbers are those of now."""
    session = {
        "pid": os.getpid(),
        "pid_started_at": psutil.Process().create_time(),
        "host": platform.node(),
    }
    run = write(tmp_path, [failure(1)], [task(1, state="failed")], run=ABOUT, session=session)
    report = build_report(run)
    assert report.state == "running"
    assert report.to_text().startswith(f"Run {RUN_ID}: running")
    assert "Failures (1 of 1 tasks that ended so far):" in report.to_text(failures=True)
    assert "still going on" in report.to_text(failures=True)


@pytest.mark.parametrize(
    "session",
    [
        {"pid": 2**22 + 1, "host": platform.node()},
        {"pid": os.getpid(), "pid_started_at": 1.0, "host": platform.node()},
        {"pid": "none"},
    ],
)
def test_a_run_whose_host_is_gone_is_interrupted(tmp_path: Path, session: dict[str, Any]) -> None:
    """A dead pid, or one that another process got since, means that the run was interrupted."""
    report = build_report(write(tmp_path, run=ABOUT, session=session))
    assert report.state == "interrupted"
    assert "interrupted" in report.to_text()


def test_a_run_without_session_file_is_interrupted_when_it_is_old(tmp_path: Path) -> None:
    """A run that another package has just begun may go on; an old one does not."""
    run = write(tmp_path, run=ABOUT)
    assert build_report(run).state == "running"
    run.host_log.touch()  # a run of our own keeps its session file while it lives
    assert build_report(run).state == "interrupted"
    run.host_log.unlink()
    for file in run.folder.iterdir():
        os.utime(file, (1, 1))
    assert build_report(run).state == "interrupted"


def test_a_host_on_another_machine_is_known_by_its_sign_of_life(tmp_path: Path) -> None:
    """While it touches its file it lives; without any sign the report does not claim to know."""
    run = write(tmp_path, run=ABOUT, session={"pid": 1, "host": "login-7"})
    assert build_report(run).state == "running"
    silent_at = time.time() - SILENT_S - 1
    os.utime(run.session_json, (silent_at, silent_at))
    assert build_report(run).state == "interrupted"
    run.session_json.unlink()
    run.run_json.write_bytes(json.dumps({**ABOUT, "hostname": "login-7"}).encode())
    report = build_report(run)
    assert report.state == "unknown"
    assert "'login-7'" in report.to_text()


def test_a_run_of_the_package_scalable_opens(tmp_path: Path) -> None:
    """Its several rows per task, its names and its failures without a task are understood."""

    def event(number: int, state: str) -> dict[str, Any]:
        return {"task_id": f"t-{number}", "function_name": "f", "state": state}

    tasks = [event(1, s) for s in ("submitted", "running", "succeeded")]
    tasks += [event(2, s) for s in ("submitted", "running", "failed")]
    failures = [
        {"failure_class": "KeyError", "message": "'y'", "task_id": "t-2", "details": {}},
        {"failure_class": "RuntimeError", "message": "no cluster", "task_id": None},
    ]
    run = write(
        tmp_path,
        failures,
        tasks,
        run={"project_name": "old", "target_name": "hpc", "finished_at": "2026-01-01T00:00:00Z"},
        summary={"counts": {"task_events": 6, "tasks_failed": 1}},
    )
    report = build_report(run)
    assert (report.project, report.target, report.state) == ("old", "hpc", "finished")
    assert report.tasks == {"succeeded": 1, "failed": 1}
    assert [failed.label for failed in report.failed] == ["f()", "a failure outside of any task"]


def test_error_text_does_not_act_on_the_terminal(tmp_path: Path) -> None:
    """Colours, directional marks, line breaks and megabytes of a message stay text on one line."""
    message = "\x1b]0;title\x07\x1b[2Jgone \u202ecod.exe\n2. forged()\n" + "x" * 1_000_000
    run = write(tmp_path, [failure(1, message=message, args_preview="a='\x1b[8m'")], run=ENDED)
    text = build_report(run).to_text(failures=True)
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "Error: ValueError — gone \\u202ecod.exe 2. forged() xxx" in text
    assert "\n2." not in text
    assert len(text) < 2_000


def test_an_empty_folder_is_a_run_without_anything(tmp_path: Path) -> None:
    """A folder without a single file gives a report with zeros."""
    folder = tmp_path / RUN_ID
    folder.mkdir()
    report = build_report(RunPaths(folder))
    assert report.tasks == {}
    assert "Tasks:           0" in report.to_text()


def test_the_report_is_json(tmp_path: Path) -> None:
    """`to_dict` holds everything, as values that JSON knows."""
    run = write(tmp_path, tutorial_failures(), tutorial_tasks(), run=ENDED)
    value = json.loads(json.dumps(build_report(run).to_dict()))
    assert value["failed"][0]["args_preview"] == "scenario_id=47"
    assert value["failed"][0]["retries"] == 3
    assert value["failures_by_class"]["MemoryError"] == 4


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0, "<0.1s"), (0.1, "0.1s"), (9.96, "10s"), (4.23, "4.2s"), (180.2, "180s"),
     (300.04, "300s"), (3599.0, "3599s"), (7500.0, "2h 05min")],
)  # fmt: skip
def test_durations_read_like_the_tutorial(seconds: float, text: str) -> None:
    """Durations have the tutorial's form, hours from one hour on."""
    assert format_duration(seconds) == text


@given(failures=ANY_ROWS, tasks=ANY_ROWS)
def test_no_row_is_fatal_to_the_report(
    failures: list[dict[str, Any]],
    tasks: list[dict[str, Any]],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Any JSON objects in a run folder give a report that can be printed."""
    run = write(tmp_path_factory.mktemp("run"), failures, tasks, run=ENDED)
    report = build_report(run)
    assert report.to_text(failures=True).encode()
    assert report.to_text().encode()
    assert json.dumps(report.to_dict())
