"""Questions about all kept results: how much, whether whole, and why a call is not among them."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from scalable_nb import cacheable
from scalable_nb.cache.function import CacheWarning
from scalable_nb.cache.index import STALE_AFTER_S, FileLock, IndexBusyError, ResultIndex
from scalable_nb.cache.maintenance import (
    cache_info,
    clear_cache,
    explain_miss,
    trust_cache,
    verify_cache,
)
from scalable_nb.cache.store import OversizedResultError, ResultStore

FACTOR = 2


def helper(x: int) -> int:
    return x * FACTOR


def other(x: int) -> int:
    return x + FACTOR


@pytest.fixture
def store(tmp_path: Path) -> ResultStore:
    return ResultStore(tmp_path / "cache")


def test_how_much_is_kept_and_of_what(store: ResultStore) -> None:
    """Counts and sizes by function, with an index that follows what others wrote."""
    double = cacheable(store=store)(helper)
    plus = cacheable(store=store)(other)
    for number in range(3):
        double(number)
    assert cache_info(store).count == 3
    plus(1)
    info = cache_info(store)
    assert {name.rpartition(".")[2]: count for name, (count, _) in info.by_function.items()} == {
        "helper": 3,
        "other": 1,
    }
    assert info.nbytes == sum(path.stat().st_size for path in store.folder.rglob("*.result"))
    with ResultIndex(store):  # somebody else has the index: the files tell
        assert cache_info(store).count == 4
    assert clear_cache(store, "helper").count == 3
    assert cache_info(store).count == 1
    assert clear_cache(store).count == 1
    assert "0 kept results" in str(cache_info(store))


def test_damage_is_found_and_set_aside(store: ResultStore) -> None:
    """Verifying reads every file; a damaged one is named and never used."""
    double = cacheable(store=store)(helper)
    keys = [double.key(number) for number in range(3)]
    for number in range(3):
        double(number)
    path = store.path(keys[1])
    path.write_bytes(path.read_bytes()[:-1])
    found = verify_cache(store)
    assert (found.whole, len(found.damaged)) == (2, 1)
    assert str(path) in found.damaged[0]
    assert not path.exists()
    assert verify_cache(store).damaged == ()


def test_unsigned_results_are_counted_and_signed(
    store: ResultStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Results of another key are intact but not used until `cache trust` signs them."""
    double = cacheable(store=store)(helper)
    for number in range(2):
        double(number)
    monkeypatch.setenv("SCALABLE_KEY_FILE", str(tmp_path / "another"))
    found = verify_cache(store)
    assert (found.whole, found.unsigned) == (2, 2)
    assert "2 are not signed with your key" in str(found)
    assert "not signed with your key" in explain_miss(double, 1)
    with pytest.warns(CacheWarning, match="scalable cache trust"):
        assert double(1) == 2
    trusted = str(trust_cache(store))
    assert f"signed: 1 result, {store.path(double.key(0)).stat().st_size} B" in trusted
    assert "(owner: " in trusted
    assert "with your rights" in trusted
    assert verify_cache(store).unsigned == 0
    assert "is kept: " in explain_miss(double, 0)
    assert "all results" in str(trust_cache(store))


def test_why_a_call_is_not_kept(store: ResultStore) -> None:
    """The nearest kept call is compared: arguments, version, source of helpers."""

    def part(x: int) -> int:
        return x + 1

    def whole(x: int, y: int = 0) -> int:
        return part(x) + y

    kept = cacheable(store=store)(whole)
    assert "no result of" in explain_miss(kept, 1)
    kept(1, y=5)
    assert "is kept: " in explain_miss(kept, 1, 5)
    assert explain_miss(kept, 1, 6).endswith("Of the nearest one differ: argument 'y'")
    newer = cacheable(store=store, version=2)(whole)
    assert "the version (None was kept, 2 is asked)" in explain_miss(newer, 1, 5)

    def part(x: int) -> int:  # type: ignore[no-redef]  # noqa: F811 - corrected
        return x + 100

    changed = cacheable(store=store)(whole)
    assert "the source of `" in explain_miss(changed, 1, 5)
    assert "part`" in explain_miss(changed, 1, 5)


def test_why_names_values_that_changed(store: ResultStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A changed global is named with its old and new value."""
    double = cacheable(store=store)(helper)
    double(1)
    monkeypatch.setitem(globals(), "FACTOR", 3)
    assert explain_miss(double, 1).endswith(
        "Of the nearest one differ: `test_cache_maintenance.FACTOR` (2 -> 3)"
    )


def test_why_explains_a_call_that_is_not_cached(store: ResultStore) -> None:
    """A call without a key is explained by the path to the object."""
    streams = {"out": (each for each in ())}

    def run(x: int) -> object:
        return streams

    assert "streams['out']: generator" in explain_miss(cacheable(store=store)(run), 1)


def test_results_under_earlier_keys_are_stale(store: ResultStore) -> None:
    """Entries of another key format are counted and kept, and named by `why`."""
    double = cacheable(store=store)(helper)
    meta = {**double.call_keys().describe((1,)), "key_format": 1}
    store.put("ab" * 32, 2, meta=meta)
    info = cache_info(store)
    assert (info.count, info.stale) == (1, 1)
    assert "1 of them are stale" in str(info)
    assert "1 are stale, under keys of an earlier version" in explain_miss(double, 1)


def test_a_limit_keeps_large_results_out(store: ResultStore) -> None:
    """What is larger than was agreed is refused with both sizes, and nothing is written."""
    with pytest.raises(OversizedResultError, match=r"2 MB is not kept: the limit is 1\.05 MB"):
        store.put("ab" * 32, bytes(2_000_000), limit_bytes=1 << 20)
    assert list(store.iter_keys()) == []


def test_an_owner_elsewhere_is_believed_while_its_heart_beats(tmp_path: Path) -> None:
    """A machine of the same name whose locks do not reach here is told by its boot id."""
    path = tmp_path / "owner.lock"
    owner = {"pid": 7, "host": "twin", "boot_id": "another", "alive_at": time.time()}
    path.write_text(json.dumps(owner))
    with pytest.raises(IndexBusyError, match=r'"pid": 7, "host": "twin".*alive 0 s ago'):
        FileLock(path)
    path.write_text(json.dumps({**owner, "alive_at": time.time() - STALE_AFTER_S - 1}))
    lock = FileLock(path)
    assert json.loads(path.read_text())["pid"] == os.getpid()
    lock.close()
    lock.close()
    FileLock(path).close()
