"""A folder whose sessions and hosts end with the test, and resubmissions of its last run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kernels import kill_host, runs
from sessions import MANIFEST, processes_of
from waiting import until

from scalable_nb import FutureList, ScalableSession, resubmit
from scalable_nb.protocol.connection_file import is_alive, read_state
from scalable_nb.resubmission.resubmit_plan import ResubmitPlan
from scalable_nb.session.session import live_sessions

#: One worker starts sooner than two.
ONE_WORKER = MANIFEST.replace(
    "max_workers: 2, threads_per_worker: 1", "max_workers: 1, threads_per_worker: 2"
).replace("tasks:\n", "tasks:\n  secret: {record_args: false}\n")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory of the test's own; all its sessions and hosts end with the test."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "scalable.yaml").write_text(ONE_WORKER)
    shared = live_sessions()
    yield tmp_path
    for session in live_sessions():
        if session not in shared:
            session.close()
    for paths in runs():
        if is_alive(read_state(paths.session_json)):
            kill_host(paths)
    until(lambda: processes_of(tmp_path) == [])


def resubmitted(**options: Any) -> FutureList:
    """Resubmit the last run."""
    futures = resubmit(run="last", **options)
    assert isinstance(futures, FutureList)
    return futures


def planned(**options: Any) -> ResubmitPlan:
    """Plan the resubmission of the last run."""
    plan = resubmit(run="last", dry_run=True, **options)
    assert isinstance(plan, ResubmitPlan)
    return plan


def all_batches(session: ScalableSession) -> list[FutureList]:
    """Return all batches of a run."""
    return [session.batches[each] for each in session.batches]
