"""Text from outside does not act on a terminal."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path

import orjson
import pytest
from click.testing import CliRunner

from scalable_nb.cli import main
from scalable_nb.errors import ManifestError
from scalable_nb.magics.subcommand import Text
from scalable_nb.manifest.load import load_manifest
from scalable_nb.session.live_session import _show_notice

RUN = "run-20260101T000000Z-demo-00000001"
EVIL = "\x1b]0;owned\x07\x1b[2Jcls\x9b31m\u202egnp.exe"
_ACTS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run whose files contain escape sequences wherever they contain text."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / ".scalable" / "runs" / RUN
    (folder / "logs").mkdir(parents=True)
    about = dict.fromkeys(("project", "target", "started_at", "hostname", "user", "cwd"), EVIL)
    (folder / "run.json").write_bytes(orjson.dumps(about))
    (folder / "host.log").write_text(EVIL)
    (folder / "logs" / "worker-0.log").write_text(f"before\n{EVIL}\n")
    row = dict.fromkeys(("task_id", "function_name", "args_preview", "message", "worker"), EVIL)
    failed = {**row, "failure_class": "ValueError", "attempt": 1, "is_final": True}
    (folder / "failures.jsonl").write_bytes(orjson.dumps(failed) + b"\n")
    (folder / "tasks.jsonl").write_bytes(orjson.dumps({**row, "state": "failed"}) + b"\n")
    return folder


@pytest.mark.parametrize(
    "words",
    [
        ["runs"],
        ["logs", "host"],
        ["logs", "worker-0"],
        ["report", "--last"],
        ["report", "--last", "--failures"],
        ["report", "--last", "--format", "json"],
        ["runs", "--format", "json"],
        ["diagnose", "--last"],
        ["logs", EVIL],
        ["report", "--run", EVIL],
        [EVIL],
    ],
    ids=repr,
)
def test_no_subcommand_prints_what_acts(run: Path, words: list[str]) -> None:
    """Output and errors show control characters by their numbers, in JSON too."""
    result = CliRunner().invoke(main, words)
    assert result.exception is None or isinstance(result.exception, SystemExit)
    assert result.output
    assert _ACTS.findall(result.output) == []
    if "json" in words:
        json.loads(result.stdout)


def test_keys_of_a_manifest_are_plain_in_errors(tmp_path: Path) -> None:
    """Python code, which shows the message as it is, gets plain text, too."""
    path = tmp_path / "scalable.yaml"
    path.write_text('version: 1\n"ev\\eil\\u202e]0;x\\a": 1\n')
    with pytest.raises(ManifestError) as caught:
        load_manifest(path)
    assert "\\u202e" in str(caught.value)
    assert _ACTS.findall(str(caught.value)) == []


def test_notices_of_the_host_are_plain(caplog: pytest.LogCaptureFixture) -> None:
    """A notice may quote what a job printed."""
    with caplog.at_level(logging.WARNING):
        _show_notice((0.0, f"a job said {EVIL} 100%"))
    (message,) = [record.getMessage() for record in caplog.records]
    assert message.startswith("a job said cls")
    assert _ACTS.findall(message) == []


def test_text_keeps_its_lines(run: Path) -> None:
    """Only what acts is replaced, however long the text is."""
    long = "line\twith é\n" * 10_000
    assert Text(long) == long
    assert Text("a\u202eb") == "a\\u202eb"
