"""Reading a run folder from elsewhere runs no code, connects to nothing and cancels no job."""

from __future__ import annotations

import json
import os
import pickle
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from click.testing import CliRunner
from recorded import framed
from users import ALICE, MALLORY, commons, make_for, run_as

from scalable_nb import ScalableSession, cli, resubmit
from scalable_nb.cache.store import ResultStore
from scalable_nb.errors import RunFolderError, SettingsError
from scalable_nb.paths import RunPaths, user_key_file
from scalable_nb.protocol.version import ProtocolVersion
from scalable_nb.resubmission.find_call import call_of_run
from scalable_nb.resubmission.resubmit_plan import ResubmitPlan
from scalable_nb.session import live_session
from scalable_nb.session.run_trust import trust_run
from scalable_nb.signing import own_key

__all__ = ["commons"]

MANIFEST = """
version: 1
project: {name: gift}
targets: {local: {provider: local}}
components: {analysis: {cpus: 1, memory: 1G}}
"""
RUN_ID = "run-20260101T000000Z-gift-0123abcd"


class Planted:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.fixture
def ran(tmp_path: Path) -> Path:
    """The file that code of the run makes."""
    return tmp_path / "ran"


@pytest.fixture
def gift(tmp_path: Path, ran: Path, monkeypatch: pytest.MonkeyPatch) -> RunPaths:
    """A run folder whose author planted code wherever a reader could run it."""
    monkeypatch.chdir(tmp_path)
    run = RunPaths(tmp_path / ".scalable" / "runs" / RUN_ID)
    run.calls.mkdir(parents=True, mode=0o700)
    code = pickle.dumps(Planted(ran))
    values = {"batch_id": "b", "name": "sweep", "function_name": "f", "identity": "ab" * 32}
    entries: list[Any] = [
        Planted(ran),
        {"kind": "function", "digest": "d", "function": code, "about": code},
        {"kind": "batch", "values": {**values, "wire": {"retry_on": code}}, "function": "d"},
        {
            "kind": "calls", "batch": "b", "keys": ["k"], "arguments": [code],
            "result_keys": ["ab" * 32], "input_keys": [()], "previews": ["x=1"],
        },
        {"kind": "members", "name": "sweep", "keys": ["k"], "at": 1.0},
    ]  # fmt: skip
    (run.calls / "client-1.calls").write_bytes(b"".join(map(framed, entries)))
    run.run_json.write_text(json.dumps({"run_id": RUN_ID, "provider": "local", "target": "local"}))
    for path in (run.tasks, run.failures, run.workers, run.cache):
        path.touch()
    run.manifest_yaml.write_text(MANIFEST)
    return run


@pytest.fixture
def claim_to_live(
    gift: RunPaths, ran: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], None]:
    """Writes a `session.json` like that of a live host; to connect to it counts as running code."""

    def connect(*args: Any, **options: Any) -> None:
        ran.touch()
        raise OSError("connected")

    monkeypatch.setattr(live_session, "ScalableClient", connect)
    monkeypatch.setattr(live_session, "load_security", lambda *args: None)
    process = psutil.Process()

    def write(host: str) -> None:
        info = {
            "state": "open", "run_id": RUN_ID, "host": host, "address": "tls://attacker:1",
            "pid": process.pid, "pid_started_at": process.create_time(), "target": "local",
            "tls": "tls", "certificate": "", "started_at": "", "written_at": time.time(),
            "signature": "00" * 16, **ProtocolVersion.own().to_wire(),
        }  # fmt: skip
        gift.session_json.write_text(json.dumps(info))

    return write


def test_subcommands_that_read_run_nothing(
    gift: RunPaths,
    ran: Path,
    claim_to_live: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each ends without code of the run or of its results, and connects to nothing."""
    claim_to_live(platform.node())
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv("SCALABLE_KEY_FILE", str(gift.folder.parent.parent / "their-key"))
        for folder in (gift.results, gift.folder.parent.parent / "cache"):
            ResultStore(folder).put("ab" * 32, Planted(ran))
    lines = (
        "runs", "report --last", "diagnose --last", "logs --last", "tasks --last",
        "cache info", "cache verify", "failures --last", "status",
    )  # fmt: skip
    for line in lines:
        CliRunner().invoke(cli.main, line.split())
        assert not ran.exists(), line


def test_dry_run_unpickles_nothing_and_says_why_it_would_be_refused(
    gift: RunPaths, ran: Path
) -> None:
    """The plan is that of any run, with the reason and the option in a notice."""
    plan = resubmit(run=RUN_ID, dry_run=True)
    assert isinstance(plan, ResubmitPlan)
    assert plan.to_run == ["k"]
    assert any(f"resubmit --run {RUN_ID} --trust" in notice for notice in plan.notices)
    assert not ran.exists()


def test_unsigned_calls_are_neither_resubmitted_nor_reproduced(gift: RunPaths, ran: Path) -> None:
    """Both are refused with the reason before anything starts."""
    for use in (lambda: resubmit(run=RUN_ID), lambda: call_of_run(gift, "k")):
        with pytest.raises(RunFolderError, match=f"resubmit --run {RUN_ID} --trust"):
            use()
    assert not ran.exists()


def test_own_calls_with_another_manifest_are_not_resubmitted(gift: RunPaths) -> None:
    """A manifest names programs, so it must be the one that was signed with the run."""
    trust_run(gift)
    text = gift.manifest_yaml.read_text()
    gift.manifest_yaml.write_text(text.replace("cpus: 1", "cpus: 2"))
    with pytest.raises(RunFolderError, match="is not signed with your key"):
        resubmit(run=RUN_ID)


@pytest.mark.parametrize("host", ["another-node", platform.node()])
def test_planted_address_is_not_connected_to(
    gift: RunPaths, ran: Path, claim_to_live: Callable[[str], None], host: str
) -> None:
    """A `session.json` that looks like that of a live host is refused by all who would connect."""
    claim_to_live(host)
    for use in (
        lambda: ScalableSession.attach(RUN_ID),
        ScalableSession.attach,
        lambda: resubmit(run=RUN_ID, dry_run=True),
        lambda: resubmit(run="last"),
    ):
        with pytest.raises(RunFolderError, match=f"attach {RUN_ID} --trust"):
            use()
    result = CliRunner().invoke(cli.main, ["status"])
    assert result.exit_code == 1
    assert "not signed with your key" in result.stderr
    assert not ran.exists()


def _key_of(home: Path) -> str:
    os.environ["XDG_CONFIG_HOME"] = str(home / ".config")
    return own_key().key_id.hex()


def _secret_in(path: Path) -> bytes:
    return path.read_bytes()


def test_two_users_have_keys_of_their_own(commons: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No user reads the key of another one, or is given one by another user's folder."""
    homes = {uid: make_for(uid, commons / str(uid), 0o755) for uid in (ALICE, MALLORY)}
    keys = {uid: run_as(uid, _key_of, home) for uid, home in homes.items()}
    assert keys[ALICE] == run_as(ALICE, _key_of, homes[ALICE])
    assert keys[ALICE] != keys[MALLORY]
    monkeypatch.setenv("XDG_CONFIG_HOME", str(homes[ALICE] / ".config"))
    with pytest.raises(PermissionError):
        run_as(MALLORY, _secret_in, user_key_file())
    # A key in a folder that Mallory could replace is not used.
    (homes[ALICE] / ".config").chmod(0o777)
    with pytest.raises(SettingsError, match="not trusted"):
        run_as(ALICE, _key_of, homes[ALICE])


def test_result_of_another_user_is_a_miss_after_a_copy(
    commons: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unpacking makes a file Alice's; the signature still tells that Mallory wrote it."""
    homes = {uid: make_for(uid, commons / str(uid), 0o755) for uid in (ALICE, MALLORY)}
    key, ran = "ab" * 32, homes[ALICE] / "ran"

    def store(home: Path) -> bytes:
        _key_of(home)
        return ResultStore(home / "cache").put(key, Planted(ran)).path.read_bytes()

    def read(home: Path, data: bytes) -> str:
        _key_of(home)
        path = ResultStore(home / "cache").path(key)
        path.parent.mkdir(parents=True, mode=0o700)
        path.write_bytes(data)
        path.chmod(0o600)
        try:
            ResultStore(home / "cache").get(key)
        except Exception as error:
            return type(error).__name__
        return "read"

    data = run_as(MALLORY, store, homes[MALLORY])
    assert run_as(ALICE, read, homes[ALICE], data) == "UnsignedResultError"
    assert not ran.exists()
