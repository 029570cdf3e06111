"""The index over kept results: rebuilt from the files, owned by one process."""

from __future__ import annotations

import pickle
import socket
import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

import diskcache
import pytest

from scalable_nb.cache.index import IndexBusyError, ResultIndex, Totals
from scalable_nb.cache.store import ResultStore

ROOT = Path(__file__).parents[2]
KEYS = [sha256(str(number).encode()).hexdigest() for number in range(5)]


@pytest.fixture
def store(tmp_path):
    """A store with three results."""
    store = ResultStore(tmp_path / "cache")
    for number, key in enumerate(KEYS[:3]):
        store.put(key, number, meta={"label": f"run({number})"})
    return store


def test_a_new_index_knows_what_the_files_say(store):
    """Opened for the first time, the index has every kept result with its size and label."""
    with ResultIndex(store) as index:
        entries = {entry.key: entry for entry in index.entries()}
        assert set(entries) == set(KEYS[:3])
        assert entries[KEYS[1]] == store.meta(KEYS[1])
        assert index.total() == Totals(
            3, sum(entry.path.stat().st_size for entry in entries.values())
        )


def test_what_is_recorded_is_there_the_next_time(store):
    """Results noted and forgotten stay so when the index is opened again."""
    with ResultIndex(store) as index:
        index.record(store.put(KEYS[3], "more"))
        index.record(store.put(KEYS[0], "another one"))
        index.forget(KEYS[1])
        index.forget("unknown")
    with ResultIndex(store) as index:
        found = index.find(KEYS[3])
        assert found is not None and found.path == store.path(KEYS[3])
        assert index.find(KEYS[1]) is None
        assert index.total().count == 3


def test_rebuilding_follows_the_files(store):
    """What other machines wrote or removed is known after a rebuild; damage is left out."""
    with ResultIndex(store) as index:
        store.put(KEYS[4], "from elsewhere")
        store.discard(KEYS[0])
        store.path(KEYS[1]).write_bytes(b"torn")
        assert index.rebuild() == 2
        assert {entry.key for entry in index.entries()} == {KEYS[2], KEYS[4]}


def test_nothing_is_evicted(store):
    """Many more results than diskcache's own limit allows stay in the index."""
    with ResultIndex(store) as index:
        settings = index._cache
        assert settings.eviction_policy == "none"
        assert settings.cull_limit == 0
        assert settings.size_limit > 1 << 60


def test_one_process_has_the_index_at_a_time(store):
    """A second opener is told who has it, and gets it when that one is gone."""
    code = """
import sys
from pathlib import Path
from scalable_nb.cache.index import ResultIndex
from scalable_nb.cache.store import ResultStore
index = ResultIndex(ResultStore(Path(sys.argv[1])))
print("open", flush=True)
sys.stdin.read()
"""
    command = [sys.executable, "-c", code, str(store.folder)]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "open\n"
        with pytest.raises(IndexBusyError, match=f'"pid": {owner.pid}'):
            ResultIndex(store)
        assert store.get(KEYS[0]) == 0  # the results themselves need no index
        owner.kill()
        owner.wait()
    with ResultIndex(store) as index:
        assert index.total().count == 3
        with pytest.raises(IndexBusyError):
            ResultIndex(store)


def test_a_damaged_index_is_made_anew(store):
    """An index that SQLite refuses is thrown away and built from the files."""
    with ResultIndex(store) as index:
        folder = index.folder
    (folder / "sqlite-json" / "cache.db").write_bytes(b"no database" * 1000)
    with ResultIndex(store) as index:
        assert index.total().count == 3


def test_another_machine_has_an_index_of_its_own(store, monkeypatch):
    """Two machines that share a folder never open the same database."""
    with ResultIndex(store) as here:
        monkeypatch.setattr(socket, "gethostname", lambda: "../other machine")
        with ResultIndex(store) as there:
            assert there.folder != here.folder
            assert there.folder.parent == here.folder.parent
            assert there.total() == here.total()
    assert sorted(store.iter_keys()) == sorted(KEYS[:3])


class Bomb:
    """Leaves a mark when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("column", ["value", "key"])
@pytest.mark.parametrize("folder", ["sqlite", "sqlite-json"])
def test_no_row_of_an_index_is_unpickled(tmp_path: Path, folder: str, column: str) -> None:
    """An index of an earlier version, or with rows of another kind, is rebuilt."""
    store, mark = ResultStore(tmp_path / "cache"), tmp_path / "mark"
    store.put("a" * 64, 1)
    with ResultIndex(store) as index:
        where = index.folder / folder
    with diskcache.Cache(str(where)) as planted:
        key, value = ("b" * 64, Bomb(mark)) if column == "value" else (("k", 1), 1)
        planted.set(key, value)
        if column == "key":
            pickled = pickle.dumps(Bomb(mark))
            planted._sql("UPDATE Cache SET key = ? WHERE raw = 0", (pickled,))
    with ResultIndex(store) as index:
        assert [entry.key for entry in index.entries()] == ["a" * 64]
        assert index.total().count == 1
    assert not mark.exists()
