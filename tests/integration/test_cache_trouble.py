"""Whatever ails the store of kept results: the task succeeds, and the person is told once."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from counting import calls, mark

from scalable_nb import ScalableSession, cacheable


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
