"""FIFOs, devices, links and oversized lines in a run folder are skipped and reported."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import orjson
import pytest
from click.testing import CliRunner

from scalable_nb.cli import main
from scalable_nb.paths import RunPaths
from scalable_nb.telemetry.journal_reader import MAX_LINE_BYTES, JournalTail, read_rows
from scalable_nb.telemetry.run_tables import RunRecords
from scalable_nb.widgets.failure_explorer import FailureExplorer

ROW = orjson.dumps({"task_id": "a", "state": "succeeded", "attempts": 1}) + b"\n"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunPaths:
    """A finished run with one task."""
    monkeypatch.chdir(tmp_path)
    run = RunPaths(tmp_path / ".scalable" / "runs" / "run-20260101T000000Z-demo-00000001")
    run.folder.mkdir(parents=True)
    run.run_json.write_bytes(orjson.dumps({"project": "demo", "ended_at": "2026-01-01T00:00:00Z"}))
    run.tasks.write_bytes(ROW)
    return run


def make_fifo(path: Path) -> None:
    os.mkfifo(path)


def make_device_link(path: Path) -> None:
    path.symlink_to("/dev/zero")


@pytest.mark.timeout(60)
@pytest.mark.parametrize("make", [make_fifo, make_device_link])
@pytest.mark.parametrize(
    "name",
    [
        "run.json",
        "tasks.jsonl",
        "failures.jsonl",
        "workers.jsonl",
        "inputs.jsonl",
        "summary.json",
    ],
)
def test_a_report_skips_what_is_no_file(run: RunPaths, name: str, make: object) -> None:
    """`report` and `runs` do not wait for a FIFO or read a device."""
    path = run.folder / name
    path.unlink(missing_ok=True)
    make(path)  # type: ignore[operator]
    report = CliRunner().invoke(main, ["report", "--last"])
    assert report.exit_code == 0, report.output
    if name != "workers.jsonl":  # a report has no use for it
        assert f"{name}' is " in report.output and "not read" in report.output
    runs = CliRunner().invoke(main, ["runs"])
    assert (runs.exit_code, run.run_id in runs.output) == (0, True)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("make", [make_fifo, make_device_link])
@pytest.mark.parametrize("name", ["run.json", "tasks.jsonl", "failures.jsonl", "workers.jsonl"])
def test_a_diagnosis_skips_what_is_no_file(run: RunPaths, name: str, make: object) -> None:
    """`diagnose` and the failure explorer name a FIFO or device, and use the other files."""
    path = run.folder / name
    path.unlink(missing_ok=True)
    make(path)  # type: ignore[operator]
    text = CliRunner().invoke(main, ["diagnose", "--last"])
    data = CliRunner().invoke(main, ["diagnose", "--last", "--format", "json"])
    explorer = FailureExplorer(run)
    assert (text.exit_code, data.exit_code) == (0, 0), text.output
    if name != "run.json":  # a diagnosis has no use for it
        assert f"{name}' is " in text.output and "not read" in text.output
        assert name in "".join(orjson.loads(data.output)["problems"])
        assert name in head_of(explorer)


def head_of(explorer: FailureExplorer) -> str:
    """The words above the chart."""
    return str(explorer.children[0].children[0].value)


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"\xff\xfe", b'{"started_at": 5}'])
def test_a_diagnosis_needs_no_whole_run_json(run: RunPaths, text: bytes) -> None:
    """A damaged run.json is no reason to read none of the journals."""
    run.run_json.write_bytes(text)
    done = CliRunner().invoke(main, ["diagnose", "--last"])
    assert (done.exit_code, run.run_id in done.output) == (0, True), done.output
    assert len(FailureExplorer(run).frame) == 0


def test_a_diagnosis_counts_a_line_that_is_too_long(run: RunPaths) -> None:
    """`diagnose` reports a line of a gigabyte instead of reading it."""
    with run.failures.open("ab") as file:
        file.truncate(1 << 30)
        file.seek(0, 2)
        file.write(b"\n")
    done = CliRunner().invoke(main, ["diagnose", "--last"])
    assert (done.exit_code, "line too long in 1 line" in done.output) == (0, True), done.output


def test_a_line_that_is_too_long_is_skipped_and_counted(run: RunPaths) -> None:
    """The rows before and after it are read, also while the file grows."""
    tail = JournalTail(run.tasks)
    long = b"x" * (3 * MAX_LINE_BYTES + 17) + b"\n"
    run.tasks.write_bytes(ROW + long + ROW + b"torn")
    assert [len(tail.poll()), tail.skipped] == [2, 1]
    records = RunRecords(run)
    records.poll()
    assert (len(records.tasks), records.unread) == (2, 2)
    with run.tasks.open("ab") as file:
        file.write(b"\n" + ROW)
    records.poll()
    assert (len(records.tasks), records.unread) == (3, 2)
    assert [len(tail.poll()), tail.skipped] == [1, 2]
    found = read_rows(run.tasks)
    assert (len(found.rows), found.skipped) == (3, 2)


def test_a_line_of_a_gigabyte_needs_no_memory(run: RunPaths) -> None:
    """A sparse file of one line is read in a process that cannot hold it."""
    with run.tasks.open("ab") as file:
        file.truncate(1 << 30)
        file.seek(0, 2)
        file.write(b"\n" + ROW)
    code = (
        "import sys; from pathlib import Path; import pandas\n"
        "from scalable_nb.report import build_report; from scalable_nb.paths import RunPaths\n"
        "report = build_report(RunPaths(Path(sys.argv[1]))); print(report.tasks, report.skipped)"
    )

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_DATA, (900 << 20, 900 << 20))

    command = [sys.executable, "-c", code, str(run.folder)]
    done = subprocess.run(command, preexec_fn=limit, capture_output=True, text=True, check=False)
    assert done.stdout == "{'succeeded': 1} 1\n", done.stderr
