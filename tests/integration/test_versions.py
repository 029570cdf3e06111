"""Processes of different versions of scalable_nb do not work together, and the user learns why."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from waiting import until

from scalable_nb import ScalableSession, errors
from scalable_nb.protocol import version

Start = Callable[..., ScalableSession]

#: Read by every Python that starts; changes only the worker processes, which a nanny spawns.
_PRETENDING = """
import sys
if any("spawn_main" in word for word in sys.orig_argv):
    from scalable_nb.protocol import version
    version.PROTOCOL_VERSION = 99
    version.__version__ = "9.9"
"""


def test_a_host_of_another_version_is_not_joined(
    shared_session: ScalableSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`attach` names both versions and the next command; the session is unaffected."""
    run_id = shared_session.run_id
    monkeypatch.setattr(version, "PROTOCOL_VERSION", 99)
    with pytest.raises(errors.ProtocolVersionError) as caught:
        ScalableSession.attach(run_id)
    assert f"the host of session {run_id} has protocol version 1 " in str(caught.value)
    assert "this notebook has protocol version 99" in str(caught.value)
    assert "`%scalable stop`" in str(caught.value)
    monkeypatch.undo()
    assert shared_session.client.submit(abs, -1).result(timeout=60) == 1


def test_a_host_of_an_earlier_release_is_not_joined(shared_session: ScalableSession) -> None:
    """A connection file without a version belongs to an earlier release."""
    assert shared_session.paths is not None
    path = shared_session.paths.session_json
    whole = path.read_bytes()
    info = json.loads(whole)
    del info["protocol_version"], info["package_version"]
    path.write_text(json.dumps(info))
    try:
        with pytest.raises(errors.ProtocolVersionError, match="protocol version before 1, and"):
            ScalableSession.attach(shared_session.run_id)
    finally:
        path.write_bytes(whole)


def test_workers_of_another_version_are_closed_and_not_replaced(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A notice names both versions; tasks wait, and no further workers are started."""
    (tmp_path / "sitecustomize.py").write_text(_PRETENDING)
    paths = [str(tmp_path), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
    session = start()
    future = session.client.submit(abs, -1)
    until(lambda: session.status().notices)
    until(lambda: not session.status().workers)
    (notice,) = session.status().notices
    assert "the workers have protocol version 99 (scalable_nb 9.9)" in notice
    assert str(version.ProtocolVersion.own()) in notice
    assert future.status == "pending"
    assert session.paths is not None
    session.client.host_api.flush()
    rows = [json.loads(line) for line in session.paths.workers.read_text().splitlines()]
    arrived = [row["worker"] for row in rows if row["event_type"] == "worker-connected"]
    assert 1 <= len(arrived) <= session.plan().workers
