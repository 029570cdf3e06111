"""Runs of the package `scalable`, whose files people already have, open like our own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from scalable_nb.diagnosis.diagnose import diagnose
from scalable_nb.paths import RunPaths, list_runs
from scalable_nb.report import build_report
from scalable_nb.telemetry.run_tables import RunRecords
from scalable_nb.widgets.failure_explorer.explorer import FailureExplorer

RECORDED = RunPaths(Path(__file__).parents[1] / "data" / "run-20261126T120157Z-other-2a6006fa")
SIBLING = "scalable==2.0.0b6"

MANIFEST = """
version: 1
project: {name: other}
targets:
  local: {provider: local, max_workers: 1, threads_per_worker: 1, processes: false,
          containers: none}
components: {analysis: {cpus: 1, memory: 1G}}
tasks: {run_analysis: {component: analysis}}
"""
# The package notes a task's end in a thread of its own; once the session is closed, that thread
# takes the future for a cancelled one. The script waits for its six notes.
SCRIPT = """
import time
from pathlib import Path

from scalable import ScalableSession

def risky(x):
    if x == 3:
        raise ValueError(f"Unlucky number: {x}")
    return 2 * x

def ends():
    (path,) = Path(".scalable/runs").glob("*/tasks.jsonl")
    return sum(path.read_text().count(f'"state": "{end}"') for end in ("succeeded", "failed"))

if __name__ == "__main__":
    session = ScalableSession.from_yaml("./scalable.yaml", target="local")
    client = session.start(session.plan())
    futures = [client.submit(risky, n, tag="analysis") for n in range(6)]
    for future in futures:
        try:
            future.result()
        except ValueError:
            pass
    while ends() < 6:
        time.sleep(0.05)
    session.close()
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python of its own with the package `scalable`."""
    folder = tmp_path_factory.mktemp("sibling") / "venv"
    uv = [sys.executable, "-m", "uv", "--quiet"]
    python = folder / "bin" / "python"
    for command in (
        [*uv, "venv", "--python", sys.executable, folder],
        [*uv, "pip", "install", "--prerelease=allow", "--python", python, SIBLING],
    ):
        subprocess.run(command, check=True)
    return python


@pytest.mark.timeout(300)
def test_a_run_that_it_produces_now_opens(environment: Path, tmp_path: Path) -> None:
    """A run made by the package itself has a report, a diagnosis and an explorer."""
    (tmp_path / "scalable.yaml").write_text(MANIFEST)
    (tmp_path / "risky.py").write_text(SCRIPT)
    # It keeps its cache in the home folder.
    values = {**os.environ, "HOME": str(tmp_path), "PYTHONPATH": ""}
    run = subprocess.run(
        [environment, "risky.py"], cwd=tmp_path, env=values, capture_output=True, check=False
    )
    assert run.returncode == 0, run.stderr
    (paths,) = list_runs(tmp_path / ".scalable" / "runs")
    opens(paths)


def test_a_recorded_run_opens() -> None:
    """A run that the package recorded once opens without it."""
    opens(RECORDED)


def opens(paths: RunPaths) -> None:
    report = build_report(paths)
    assert report.state == "finished"
    assert report.tasks == {"succeeded": 5, "failed": 1}
    assert [task.label for task in report.failed] == ["risky()"]
    records = RunRecords(paths)
    records.poll()
    assert records.failures["message"].tolist() == ["Unlucky number: 3"]
    assert all(finding.sentence for finding in diagnose(records.failures, tasks=records.tasks))
    explorer = FailureExplorer(paths)
    assert "Unlucky number: 3" in explorer._repr_mimebundle_()["text/html"]
    assert explorer.groups["attempts"].tolist() == [1]
    explorer.close()
