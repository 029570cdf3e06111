"""A redacted report contains nothing that was computed with."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest
from click.testing import CliRunner

from scalable_nb.cli import main
from scalable_nb.paths import RunPaths
from scalable_nb.telemetry.redaction import NOTICE, redact_traceback
from scalable_nb.telemetry.run_tables import RunRecords
from scalable_nb.widgets.failure_explorer.export import export
from scalable_nb.widgets.failure_explorer.view_model import FailureView

RUN = "run-20260101T000000Z-demo-00000001"


class Planter:
    """Gives secrets that no other text contains."""

    def __init__(self) -> None:
        self.planted: list[str] = []

    def __call__(self, form: str = "{}") -> str:
        self.planted.append(f"hunter{len(self.planted)}SECRET")
        return form.format(self.planted[-1])


def failure(secret: Planter, number: int) -> dict[str, object]:
    """Return a failed attempt with a secret in each field that may contain a value."""
    traceback = (
        "Traceback (most recent call last):\n"
        f'  File "/home/{secret()}/model.py", line 3, in run\n'
        f"    connect(password='{secret()}')\n"
        f"    ^^^^^^^^^^^^^^^^{secret()}\n"
        f"ValueError: cannot log in\n    as {secret()}\n"
        f'  File "/tmp/{secret()}.py", line 1, in {secret()}\n'
        f"{secret()}\n"
    )
    return {
        "run_id": RUN,
        "event_type": "failure",
        "failure_class": "ValueError",
        "function_name": "simulate",
        "task_id": secret("simulate-{}"),
        "task_name": secret("a task of {}"),
        "args_preview": secret("password='{}', 47"),
        "message": secret("login with\n    password='{}' failed"),
        "traceback": traceback,
        "details": {"env": {"TOKEN": secret()}, secret(): [secret()]},
        "stdout": secret(),
        "environment": {"TOKEN": secret()},
        "batch": secret("sweep of {}"),
        "component": secret("key={}"),
        "tag": secret("/home/{}"),
        "reason": secret(),
        "worker": "worker-0",
        "host": "node7",
        "timestamp": secret("2026-01-01 {}"),
        "exit_code": secret(),
        "attempt": 1,
        "attempts": 1,
        "is_final": True,
        "duration_s": 1.5 + number,
        secret(): secret(),
    }


@pytest.fixture
def secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Planter]:
    """A run with secrets in all its records; a file name in the traceback is no secret."""
    monkeypatch.chdir(tmp_path)
    plant = Planter()
    run = RunPaths(tmp_path / ".scalable" / "runs" / RUN)
    run.folder.mkdir(parents=True)
    about = {
        "project": "demo",
        "target": plant("the {}"),
        "user": plant(),
        "cwd": plant("/home/{}"),
    }
    run.run_json.write_bytes(orjson.dumps(about))
    sums = {"ended_at": "2026-01-01T00:00:00Z", "end_reason": plant("failed: {}"), "x": plant()}
    run.summary_json.write_bytes(orjson.dumps(sums))
    rows = [failure(plant, number) for number in range(2)]
    run.failures.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    done = [
        {**row, "state": state, "task_id": plant(), "args_preview": plant("token='{}'")}
        for state, row in zip(("failed", "succeeded"), rows, strict=True)
    ]
    run.tasks.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in done))
    worker = {
        "event_type": "worker-lost",
        "worker": "worker-0",
        "log": plant(),
        "host": plant("/{}"),
    }
    run.workers.write_bytes(orjson.dumps(worker) + b"\n")
    yield plant
    assert len(plant.planted) >= 50


def found(text: str) -> list[str]:
    return re.findall(r"hunter\d+SECRET", text)


@pytest.mark.parametrize(
    "words", [[], ["--failures"], ["--format", "json"], ["-F", "html", "-f", "-O", "page.html"]]
)
def test_no_secret_is_in_a_redacted_report(
    secret: Planter, tmp_path: Path, words: list[str]
) -> None:
    """Only names, places in code, times and counts remain in text, JSON and HTML."""
    result = CliRunner().invoke(main, ["report", "--last", "--redact", *words])
    assert result.exit_code == 0, result.output
    page = tmp_path / "page.html"
    text = page.read_text() if page.exists() else result.stdout
    assert found(text) == []
    assert str(tmp_path) not in text
    assert "What remains: names of project" in text
    assert "simulate" in text
    if words[-1:] == ["json"]:
        assert json.loads(text)["redacted"] == NOTICE


@pytest.mark.parametrize("suffix", ["html", "csv"])
def test_no_secret_is_in_a_redacted_export(secret: Planter, tmp_path: Path, suffix: str) -> None:
    """The explorer's export is redacted in the same way."""
    records = RunRecords(RunPaths(tmp_path / ".scalable" / "runs" / RUN))
    records.poll()
    path = export(FailureView(records), tmp_path / f"out.{suffix}", "Failures", redact=True)
    text = path.read_text()
    assert found(text) == []
    assert "ValueError" in text


def test_without_the_option_values_are_shown(secret: Planter) -> None:
    """The test finds secrets where they are."""
    assert found(CliRunner().invoke(main, ["report", "--last", "--failures"]).stdout)


def test_frames_of_a_traceback_remain_without_their_folders() -> None:
    """A frame in a message is no frame."""
    text = (
        'Traceback (most recent call last):\n  File "/home/ada/model.py", line 3, in run\n'
        '    f(1)\nValueError: x\n  File "evil.py", line 9, in secret\n'
    )
    assert redact_traceback(text) == (
        'Traceback (most recent call last):\n  File "model.py", line 3, in run\n…'
    )
    assert redact_traceback("ValueError: text") == ""


def test_a_comparison_cannot_be_redacted(secret: Planter) -> None:
    """It tells calls apart by their arguments."""
    result = CliRunner().invoke(main, ["report", "--last", "--redact", "--compare", RUN])
    assert result.exit_code == 2
    assert "leave out --redact" in result.output
