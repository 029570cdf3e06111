"""The user's key: private, made once, and signatures that hold in one place only."""

from __future__ import annotations

import pickle
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from users import ALICE, MALLORY, commons, make_for, run_as

from scalable_nb import signing
from scalable_nb.errors import SettingsError
from scalable_nb.paths import RunPaths
from scalable_nb.signing import Kind, SigningKey, hand_over_key, own_key, take_over_key

__all__ = ["commons"]

ROOT = Path(__file__).parents[2]


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty configuration folder."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path / "config"


@pytest.fixture
def no_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A configuration folder that cannot be made, and a process that adopted no key."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(signing, "_session_keys", [])


def test_key_is_made_on_first_use(config: Path) -> None:
    """The file is private, and the next process has the same key."""
    key = own_key()
    path = config / "scalable_nb" / "key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [each.name for each in path.parent.iterdir()] == ["key"]
    code = "from scalable_nb.signing import own_key; print(own_key().key_id.hex())"
    other = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True)
    assert other.stdout.decode().strip() == key.key_id.hex()
    assert key.is_lasting


def test_processes_that_start_together_have_one_key(config: Path) -> None:
    """The second process takes the key of the first."""
    code = "from scalable_nb.signing import own_key; print(own_key().key_id.hex())"
    command = [sys.executable, "-c", code]
    started = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) for _ in range(4)]
    assert len({process.communicate()[0] for process in started}) == 1
    assert own_key().is_lasting


def test_key_file_is_named_by_a_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another file has another key, and a file that cannot be made is an error."""
    before = own_key()
    monkeypatch.setenv("SCALABLE_KEY_FILE", str(tmp_path / "mine"))
    assert own_key().key_id != before.key_id
    assert (tmp_path / "mine").is_file()
    monkeypatch.setenv("SCALABLE_KEY_FILE", str(tmp_path / "mine" / "below"))
    with pytest.raises(SettingsError, match=r"SCALABLE_KEY_FILE=.*below.* cannot be used"):
        own_key()


def test_key_that_others_can_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error names the mode and the command."""
    path = tmp_path / "key"
    path.write_text("ab" * 32)
    path.chmod(0o640)
    monkeypatch.setenv("SCALABLE_KEY_FILE", str(path))
    with pytest.raises(SettingsError, match=rf"mode 0640.*rm {path}"):
        own_key()


@pytest.mark.parametrize("text", ["", "ab" * 31, "no hex digits"])
def test_file_without_a_key_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    """The error names the file and what was expected."""
    path = tmp_path / "key"
    path.write_text(text)
    path.chmod(0o600)
    monkeypatch.setenv("SCALABLE_KEY_FILE", str(path))
    with pytest.raises(SettingsError, match="expected 64 hex digits"):
        own_key()


def test_key_of_another_user_is_refused(commons: Path) -> None:
    """A file that another user owns, or could replace, gives no key."""
    path = make_for(MALLORY, commons / "theirs", 0o755) / "key"
    path.write_text("ab" * 32)
    path.chmod(0o644)
    with pytest.raises(SettingsError, match="not trusted"):
        run_as(ALICE, signing._load, path)
    own = commons / "key"
    own.write_text("ab" * 32)
    own.chmod(0o644)
    with pytest.raises(SettingsError, match="belongs to root"):
        run_as(ALICE, signing._load, own)


def test_key_without_a_home_lasts_for_the_session(
    no_home: None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is reported once, and the host gets the same key through the run folder."""
    key = own_key()
    assert own_key() is key
    assert not key.is_lasting
    (record,) = caplog.records
    assert "SCALABLE_KEY_FILE" in record.getMessage()
    paths = RunPaths(tmp_path)
    key_file = hand_over_key(paths)
    assert stat.S_IMODE(paths.handed_over_key.stat().st_mode) == 0o600
    take_over_key(paths, key_file)
    assert own_key().secret == key.secret
    assert not paths.handed_over_key.exists()
    with pytest.raises(SettingsError, match="cannot be read on this machine"):
        take_over_key(paths, key_file)


def test_host_reads_the_key_file_of_its_kernel(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is left in the run folder, and the environment of the host does not matter."""
    paths, key = RunPaths(tmp_path), own_key()
    key_file = hand_over_key(paths)
    assert not paths.handed_over_key.exists()
    monkeypatch.setattr(signing, "_session_keys", [])
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "of-the-batch-system"))
    take_over_key(paths, key_file)
    assert own_key().secret == key.secret


def test_signature_holds_for_one_place() -> None:
    """Other bytes, another name, another boundary between them or another key fail."""
    key, other = SigningKey(b"a" * 32), SigningKey(b"b" * 32)
    signature = key.sign(Kind.RESULT, b"name", b"data")
    assert key.has_signed(signature, Kind.RESULT, b"name", b"data")
    assert not key.has_signed(signature, Kind.RESULT, b"name", b"date")
    assert not key.has_signed(signature, Kind.RESULT, b"named", b"ata")
    assert not other.has_signed(signature, Kind.RESULT, b"name", b"data")
    assert key.key_id != other.key_id


def test_key_is_not_pickled() -> None:
    """It reaches no file and no connection by accident."""
    with pytest.raises(TypeError, match="pickle"):
        pickle.dumps(SigningKey(b"a" * 32))
