"""How a kernel joins a run that is live."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from recorded import framed

from scalable_nb import errors, session
from scalable_nb.dask_adapter import compatibility
from scalable_nb.dask_adapter.access import certificate_digest, create_security, load_security
from scalable_nb.paths import RunPaths, create_run
from scalable_nb.protocol.connection_file import SILENT_S, HostState, write_state
from scalable_nb.protocol.version import PROTOCOL_VERSION
from scalable_nb.session import live_session
from scalable_nb.session.host_launcher import prepare_run
from scalable_nb.session.session import ScalableSession
from scalable_nb.session.session_spec import SessionSpec
from scalable_nb.signing import Kind, own_key
from scalable_nb.trusted_paths import owner_text

LiveRun = Callable[..., RunPaths]


@pytest.fixture
def live_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LiveRun:
    """Make a run whose host, which is this process, has some version."""
    monkeypatch.setenv("SCALABLE_RUNS_DIR", str(tmp_path / "runs"))
    monkeypatch.chdir(tmp_path)

    def make(name: str, *, protocol: int = PROTOCOL_VERSION) -> RunPaths:
        made = create_run(tmp_path / "runs", name)
        paths = RunPaths(made.folder.rename(made.folder.with_name(f"run-{name}-0000000a")))
        prepare_run(paths, SessionSpec.from_yaml(target="local"))
        about = {"address": "", "dashboard": "", "started_at": "", "tls": str(paths.tls)}
        about["certificate"] = ""
        write_state(paths, HostState.OPEN, target="local", protocol_version=protocol, **about)
        return paths

    return make


@pytest.fixture
def joined(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Ids of the runs that are connected to; no host is there."""
    runs: list[str] = []

    def connect(spec: SessionSpec, paths: RunPaths, *args: Any, **kwargs: Any) -> Any:
        runs.append(paths.run_id)
        return SimpleNamespace(is_open=False)

    monkeypatch.setattr(live_session, "open_connection", connect)
    monkeypatch.setattr("scalable_nb.session.session._live", [])
    return runs


EARLIER, LATER = "20260101T000000Z-a", "20260102T000000Z-b"


def test_a_newer_host_of_another_version_does_not_hide_an_older_one(
    live_run: LiveRun, joined: list[str]
) -> None:
    """Without a run, the newest live one that can be joined is."""
    compatible = live_run(EARLIER)
    live_run(LATER, protocol=PROTOCOL_VERSION + 1)
    ScalableSession.attach()
    assert joined == [compatible.run_id]


def test_a_host_of_another_version_is_named_where_there_is_no_other(
    live_run: LiveRun, joined: list[str]
) -> None:
    """Without a run, the error is about the newest of the live ones."""
    live_run(EARLIER, protocol=PROTOCOL_VERSION + 1)
    newest = live_run(LATER, protocol=PROTOCOL_VERSION + 1)
    with pytest.raises(errors.ProtocolVersionError, match=newest.run_id):
        ScalableSession.attach()
    assert joined == []


def test_the_version_is_checked_before_anything_else_is_read(
    live_run: LiveRun, joined: list[str]
) -> None:
    """A manifest that only the other version understands is not what is complained about."""
    paths = live_run(EARLIER, protocol=PROTOCOL_VERSION + 1)
    live_run(LATER)
    paths.manifest_yaml.write_text("version: 99\n")
    with pytest.raises(errors.ProtocolVersionError, match=paths.run_id):
        ScalableSession.attach(paths.run_id)
    assert joined == []


def test_attaching_checks_dask_first(
    live_run: LiveRun, joined: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kernel whose Dask lacks something says so before it connects."""
    paths = live_run(EARLIER)

    def refuse() -> None:
        raise errors.DaskVersionError("something is missing")

    monkeypatch.setattr(compatibility, "check", refuse)
    with pytest.raises(errors.DaskVersionError):
        ScalableSession.attach(paths.run_id)
    assert joined == []


def _change(paths: RunPaths, **changes: Any) -> None:
    """Change `session.json` as it is, without signing it again."""
    info = json.loads(paths.session_json.read_bytes())
    paths.session_json.write_text(json.dumps({**info, **changes}))


@pytest.mark.parametrize(
    "changes",
    [
        {"signature": ""},
        {"signature": None},
        {"signature": "00" * 16},
        {"address": "tls://attacker:1"},
        {"host": "another-node"},
        {"certificate": "00" * 32},
    ],
)
def test_address_that_is_not_signed_is_not_used(
    live_run: LiveRun, joined: list[str], changes: dict[str, Any]
) -> None:
    """The error names the option that signs, and nothing is connected to."""
    paths = live_run(EARLIER)
    _change(paths, **changes)
    for run in (paths.run_id, None):
        with pytest.raises(errors.RunFolderError, match=f"attach {paths.run_id} --trust"):
            ScalableSession.attach(run)
    assert joined == []


def test_address_that_was_signed_at_no_plausible_time_is_not_used(
    live_run: LiveRun, joined: list[str]
) -> None:
    """A file that is older than its content, or comes from the future, is refused."""
    paths = live_run(EARLIER)
    long_ago = time.time() - 10 * SILENT_S
    os.utime(paths.session_json, (long_ago, long_ago))
    with pytest.raises(errors.RunFolderError, match="not signed"):
        ScalableSession.attach(paths.run_id)
    later = time.time() + 10 * SILENT_S
    info = json.loads(paths.session_json.read_bytes())
    info = own_key().signed(Kind.STATE, paths.run_id, {**info, "written_at": later})
    paths.session_json.write_text(json.dumps(info))
    with pytest.raises(errors.RunFolderError, match="not signed"):
        ScalableSession.attach(paths.run_id)
    assert joined == []


def test_address_of_another_run_or_key_is_not_used(
    live_run: LiveRun, joined: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signed file fails in another run folder, and with the key of another home folder."""
    paths, other = live_run(EARLIER), live_run(LATER)
    info = json.loads(paths.session_json.read_bytes())
    other.session_json.write_text(json.dumps({**info, "run_id": other.run_id}))
    with pytest.raises(errors.RunFolderError, match="not signed"):
        ScalableSession.attach(other.run_id)
    monkeypatch.setenv("SCALABLE_KEY_FILE", str(tmp_path / "another-key"))
    with pytest.raises(errors.RunFolderError, match="not signed"):
        ScalableSession.attach(paths.run_id)
    assert joined == []


def test_unsigned_run_does_not_hide_a_signed_one(live_run: LiveRun, joined: list[str]) -> None:
    """Without a run, the newest live one that is signed is joined."""
    signed = live_run(EARLIER)
    _change(live_run(LATER), signature="")
    ScalableSession.attach()
    assert joined == [signed.run_id]


def test_trust_signs_a_run_after_describing_it(
    live_run: LiveRun, joined: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    """The warning has path, owner, date and number of calls, and the run is joined then."""
    paths = live_run(EARLIER)
    _change(paths, signature="")
    with pytest.raises(errors.SessionError, match="trust=True needs a run"):
        ScalableSession.attach(trust=True)
    ScalableSession.attach(paths.run_id, trust=True)
    assert joined == [paths.run_id]
    (record,) = [each for each in caplog.records if "signed with your key" in each.getMessage()]
    text = record.getMessage()
    assert str(paths.folder) in text
    assert f"(owner: {owner_text(os.getuid())})" in text
    assert re.search(r"started 20\d\d-\d\d-\d\dT.*, 0 calls\. .*with your rights$", text)


def test_trust_leaves_the_call_log_of_a_live_run_alone(
    live_run: LiveRun, joined: list[str]
) -> None:
    """Another kernel has the file open: what it appends must not be lost."""
    paths = live_run(EARLIER)
    paths.calls.mkdir(mode=0o700)
    log = paths.calls / "client-1.calls"
    log.write_bytes(framed({"kind": "members", "name": "x", "keys": ["k"], "at": 1.0}))
    before = log.stat()
    ScalableSession.attach(paths.run_id, trust=True)
    assert (log.stat().st_ino, log.stat().st_size) == (before.st_ino, before.st_size)


def test_connection_needs_the_certificate_that_was_signed(tmp_path: Path) -> None:
    """A certificate that was put into the folder later is not used."""
    create_security(tmp_path / "tls")
    digest = certificate_digest(tmp_path / "tls")
    assert load_security(tmp_path / "tls", digest).require_encryption
    create_security(tmp_path / "tls")
    with pytest.raises(errors.RunFolderError, match="not that of the session's host"):
        load_security(tmp_path / "tls", digest)


def test_the_package_has_the_functions_that_find_sessions() -> None:
    """`scalable_nb.session` gives what its module has."""
    from scalable_nb.session import session as module

    assert session.live_sessions is module.live_sessions
    assert session.current_session is module.current_session


# --- a connection that does not come about ------------------------------------------------


class FakeClient:
    """Connects to nothing."""

    status = "running"

    def __init__(self, address: str, **options: Any) -> None:
        self.options = options
        self.host_api = self.cached_futures = None
        self.futures: dict[Any, Any] = {}
        self.has_closed = False

    def subscribe_topic(self, topic: str, handler: Any) -> None:
        """Accept it."""

    def close(self, timeout: float) -> None:
        """Note it."""
        self.has_closed = True


def _open(paths: RunPaths) -> live_session.LiveSession:
    info = json.loads(paths.session_json.read_bytes())
    spec = SessionSpec.of_run(paths, "local")
    return live_session.open_connection(spec, paths, info, None, handle=Any)  # type: ignore[arg-type]


def test_a_client_is_closed_if_what_follows_its_connection_fails(
    live_run: LiveRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever fails after the client has connected, no client is left behind."""
    clients: list[FakeClient] = []

    class FailingClient(FakeClient):
        def subscribe_topic(self, topic: str, handler: Any) -> None:
            clients.append(self)
            raise RuntimeError("no such topic")

    monkeypatch.setattr(live_session, "ScalableClient", FailingClient)
    monkeypatch.setattr(live_session, "load_security", lambda *args: None)
    with pytest.raises(RuntimeError, match="no such topic"):
        _open(live_run(EARLIER))
    assert [client.has_closed for client in clients] == [True]


def test_a_host_that_dies_while_the_client_connects_ends_the_mirror(
    live_run: LiveRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loss of a host is not forgotten because there was no mirror yet."""

    class LosingClient(FakeClient):
        def __init__(self, address: str, **options: Any) -> None:
            super().__init__(address, **options)
            options["on_host_lost"]()

    monkeypatch.setattr(live_session, "ScalableClient", LosingClient)
    monkeypatch.setattr(live_session, "load_security", lambda *args: None)
    assert _open(live_run(EARLIER)).mirror.status == "lost"
