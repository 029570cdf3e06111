"""Whatever ails the store of kept results: the task succeeds, and the person is told once."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from counting import calls, mark
from waiting import until

from scalable_nb import File, ScalableSession, cacheable
from scalable_nb.signing import own_key


def test_a_store_that_cannot_be_written_is_told_once(
    shared_session: ScalableSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Results come all the same, from every task, and one notice says what is wrong."""
    (tmp_path / "in-the-way").write_text("a file where the folder should be")
    monkeypatch.setenv("SCALABLE_CACHE_DIR", str(tmp_path / "in-the-way"))

    @cacheable
    def double(x: int) -> int:
        mark(tmp_path, f"double-{x}")
        return 2 * x

    futures = shared_session.client.map(double, range(20))
    assert futures.results() == list(range(0, 40, 2))
    (notice,) = [each for each in shared_session.status().notices if "double(x=" in each]
    assert "in-the-way" in notice
    assert [calls(tmp_path, f"double-{x}") for x in range(20)] == [1] * 20


def test_what_cannot_be_pickled_is_told_and_stays_where_it_is(
    shared_session: ScalableSession,
) -> None:
    """A result that no file can hold is still there for the tasks that take it."""

    @cacheable
    def lock(x: int) -> Any:
        return threading.Lock()

    def is_free(held: Any) -> bool:
        return bool(held.acquire(blocking=False))

    held = shared_session.client.submit(lock, 1)
    assert shared_session.client.submit(is_free, held).result() is True
    (notice,) = [each for each in shared_session.status().notices if "lock(x=" in each]
    assert "a result of type _thread.lock cannot be kept" in notice


def test_unsigned_results_are_computed_again_with_one_notice(
    shared_session: ScalableSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Results that another key signed run no code, and one notice names the command."""
    monkeypatch.setenv("SCALABLE_CACHE_DIR", str(tmp_path / "cache"))

    @cacheable
    def triple(x: int) -> int:
        mark(tmp_path, f"triple-{x}")
        return 3 * x

    @cacheable
    def fourfold(x: int) -> int:
        mark(tmp_path, f"fourfold-{x}")
        return 4 * x

    with monkeypatch.context() as elsewhere:
        elsewhere.setenv("SCALABLE_KEY_FILE", str(tmp_path / "another-key"))
        assert [each(x) for each in (triple, fourfold) for x in range(3)] == [0, 3, 6, 0, 4, 8]
    client = shared_session.client
    assert client.map(triple, range(3)).results() == [0, 3, 6]
    assert client.map(fourfold, range(3)).results() == [0, 4, 8]
    notices = shared_session.status().notices
    assert len([each for each in notices if "scalable cache trust" in each]) == 1
    assert client.map(triple, range(3), pure=False).results() == [0, 3, 6]
    names = [f"{name}-{x}" for name in ("triple", "fourfold") for x in range(3)]
    assert [calls(tmp_path, name) for name in names] == [2] * 6


def test_session_without_a_home_signs_with_one_key(
    start: Callable[..., ScalableSession],
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Kernel, host and workers have the key of the session, which is in none of their files."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "file"))

    @cacheable
    def double(x: int) -> int:
        mark(tmp_path, f"twice-{x}")
        return 2 * x

    session = start()
    assert session.paths is not None
    secret = own_key().secret
    assert not session.paths.handed_over_key.exists()
    assert session.client.map(double, range(3)).results() == [0, 2, 4]
    assert session.client.map(double, range(3), pure=False).results() == [0, 2, 4]
    assert double(1) == 2
    assert [calls(tmp_path, f"twice-{x}") for x in range(3)] == [1] * 3
    files = [path for path in folder.rglob("*") if path.is_file()]
    written = b"".join(path.read_bytes() for path in files)
    assert secret not in written
    assert secret.hex().encode() not in written


def test_removed_output_file_is_written_again(
    shared_session: ScalableSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cached results whose files are gone or different are computed again, with one notice."""
    monkeypatch.setenv("SCALABLE_CACHE_DIR", str(tmp_path / "cache"))

    @cacheable
    def write(x: int) -> Any:
        path = tmp_path / f"{x}.txt"
        path.write_text(f"{x}")
        mark(tmp_path, f"write-{x}")
        return File(path)

    @cacheable
    def name(x: int) -> str:
        path = tmp_path / f"name-{x}.txt"
        path.write_text(f"{x}")
        return str(path)

    def held(prefix: str) -> list[str]:
        return [key for key in map(str, client.futures) if key.startswith(prefix)]

    client = shared_session.client
    files = [File(tmp_path / f"{x}.txt") for x in range(4)]
    assert client.map(write, range(4)).results() == files
    until(lambda: gc.collect() >= 0 and not held("write"))  # else the same futures are returned
    (tmp_path / "1.txt").unlink()
    (tmp_path / "2.txt").write_text("changed")
    assert client.map(write, range(4)).results() == files
    assert [path.path.read_text() for path in files] == ["0", "1", "2", "3"]
    assert [calls(tmp_path, f"write-{x}") for x in range(4)] == [1, 2, 2, 1]
    assert client.map(name, range(3)).results() == [f"{tmp_path}/name-{x}.txt" for x in range(3)]
    notices = shared_session.status().notices
    assert len([each for each in notices if "the call runs again" in each]) == 1
    assert len([each for each in notices if "return File(" in each]) == 1
