"""Fixtures: sessions on a target, in a folder of their own."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from waiting import until

from scalable_nb import ScalableSession
from scalable_nb.session.session import live_sessions

MANIFEST = """
version: 1
project: {name: contract}
targets:
  local: {provider: local, max_workers: 2, threads_per_worker: 1}
components:
  analysis: {cpus: 1, memory: 400M}
tasks:
  run_analysis: {component: analysis}
  kept: {component: analysis, cache: true}
defaults: {backoff: {base_s: 0.05, factor: 2, max_s: 1, jitter: 0.25}}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory of the test's own, with a manifest."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "scalable.yaml").write_text(textwrap.dedent(MANIFEST))
    return tmp_path


@pytest.fixture
def start(folder: Path) -> Iterator[Callable[..., ScalableSession]]:
    """Starts sessions and closes them at the end, with a look at what stays behind."""

    def start(target: str = "local") -> ScalableSession:
        session = ScalableSession.from_yaml(target=target)
        session.start()
        return session

    shared = live_sessions()
    yield start
    for session in live_sessions():
        if session not in shared:
            session.close()
    until(lambda: processes_of(folder) == [], timeout_s=30)


def processes_of(folder: Path) -> list[str]:
    """Command lines of the processes that work for a run below this folder."""
    found = []
    for process in psutil.process_iter(["pid", "cmdline", "cwd"]):
        words = process.info["cmdline"] or []
        is_ours = any(str(folder) in word for word in words) or (
            process.info["cwd"] == str(folder) and "multiprocessing" in " ".join(words)
        )
        if is_ours and process.status() != psutil.STATUS_ZOMBIE:
            found.append(" ".join(words))
    return found


@pytest.fixture(scope="module")
def shared_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ScalableSession]:
    """One session for all tests of a module that leave it as it was."""
    folder = tmp_path_factory.mktemp("shared")
    (folder / "scalable.yaml").write_text(textwrap.dedent(MANIFEST))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        with ScalableSession.from_yaml(target="local") as session:
            yield session
