"""What a worker process was executing can be read while it runs, and after its death."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scalable_nb.protocol.call import REGISTERED_NAME_BYTES, registered_name
from scalable_nb.worker import attempt_registry
from scalable_nb.worker.attempt_registry import (
    REGISTRY_VARIABLE,
    AttemptRegistry,
    Owner,
    create_registry,
    own_registry,
    read_ended,
    read_executing,
    read_owner,
    write_owner,
)

WORKER = """
import os, sys, time
from pathlib import Path
from scalable_nb.worker.attempt_registry import Owner, AttemptRegistry, write_owner
path = Path(sys.argv[1])
write_owner(path, Owner(os.getpid(), "tcp://127.0.0.1:4321"))
registry = AttemptRegistry(path)
with registry.register("ended-before", 5.0):
    pass
with registry.register("simulate-é", 2.5), registry.register("('block', 1)", None):
    print("running", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """An empty registry."""
    path = tmp_path / "attempts-1-abc"
    create_registry(path)
    return path


def keys(path: Path) -> list[str]:
    return sorted(attempt.name for attempt in read_executing(path))


def test_an_attempt_is_noted_exactly_while_it_runs(path: Path) -> None:
    """From the first line of the block to its end, and no longer, the attempt runs."""
    registry = AttemptRegistry(path)
    assert read_executing(path) == []
    before = time.time()
    with registry.register("key-1", 2.5) as entry:
        entry.restart_clock()
        (attempt,) = read_executing(path)
        assert before <= attempt.started_at <= time.time()
        assert (attempt.name, attempt.timeout_s, attempt.serial) == ("key-1", 2.5, 1)
    assert read_executing(path) == []


def test_the_limit_counts_from_the_call_of_the_function(path: Path) -> None:
    """A call that is still loaded, with all its imports, has time of its own."""
    registry = AttemptRegistry(path)
    with registry.register("key-1", 2.5) as entry:
        (loading,) = read_executing(path)
        entry.restart_clock()
        (called,) = read_executing(path)
    assert (loading.timeout_s, called.timeout_s) == (2.5 + attempt_registry.LOADING_S, 2.5)
    assert called.started_at > loading.started_at
    with registry.register("key-2", None) as entry:
        entry.restart_clock()
        assert [attempt.timeout_s for attempt in read_executing(path)] == [None]


def test_an_attempt_that_fails_is_noted_no_longer(path: Path) -> None:
    """An exception ends the note as a return does, also one that ends the thread."""
    registry = AttemptRegistry(path)
    for error in (ValueError, SystemExit):
        with pytest.raises(error), registry.register("key-1", None):
            raise error
        assert read_executing(path) == []


def test_an_end_is_noted_until_the_outcome_is_known(path: Path) -> None:
    """A worker may die before its message is out: what had ended can be told from what ran."""
    registry = AttemptRegistry(path)
    with registry.register("key-1", None, run_id=41) as entry:
        assert read_ended(path) == []
    with registry.register("key-2", None, run_id=42):
        (ended,) = read_ended(path)
        assert (ended.name, ended.run_id) == ("key-1", 41)
        assert ended.started_at <= ended.ended_at <= time.time()
    entry.remove()
    assert [attempt.name for attempt in read_ended(path)] == ["key-2"]


def test_a_note_of_another_attempt_is_not_taken_away(path: Path) -> None:
    """An outcome that is delivered late finds its slot used again, and leaves it alone."""
    registry = AttemptRegistry(path)
    with registry.register("key-0", None) as entry:
        pass
    for number in range(attempt_registry._ENTRY_COUNT):
        with registry.register(f"key-{number + 1}", None):
            pass
    entry.remove()
    ended = {attempt.name for attempt in read_ended(path)}
    assert ended == {f"key-{number + 1}" for number in range(attempt_registry._ENTRY_COUNT)}


def test_threads_note_their_attempts_side_by_side(path: Path) -> None:
    """What each of several threads executes is read by another one, whoever ends first."""
    registry = AttemptRegistry(path)
    begun = threading.Barrier(5)
    ends = [threading.Event() for _ in range(4)]

    def work(number: int) -> None:
        with registry.register(f"key-{number}", float(number)) as entry:
            entry.restart_clock()
            begun.wait()
            ends[number].wait()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    begun.wait()
    assert keys(path) == ["key-0", "key-1", "key-2", "key-3"]
    assert {a.name: a.timeout_s for a in read_executing(path)}["key-3"] == 3.0
    for number in (2, 0, 3, 1):
        assert f"key-{number}" in keys(path)
        ends[number].set()
        threads[number].join()
        assert f"key-{number}" not in keys(path)


def test_two_attempts_of_one_key_are_told_apart(path: Path) -> None:
    """A second attempt in the same process has another number than the first."""
    registry = AttemptRegistry(path)
    serials = []
    for _ in range(2):
        with registry.register("key-1", None):
            serials += [attempt.serial for attempt in read_executing(path)]
    assert len(set(serials)) == 2


KEYS = st.one_of(
    st.text(alphabet=st.characters(), max_size=2000),
    st.tuples(st.text(max_size=1000), st.integers()),
)


@given(keys=st.lists(KEYS, max_size=5, unique=True))
def test_any_key_fits_a_slot(tmp_path_factory: pytest.TempPathFactory, keys: list[Any]) -> None:
    """However long, and whatever its type, a key is recognised and touches no other slot."""
    path = tmp_path_factory.mktemp("slots") / "slots"
    create_registry(path)
    registry = AttemptRegistry(path)
    with ExitStack() as stack:
        for key in keys:
            stack.enter_context(registry.register(registered_name(key), None))
        found = {attempt.serial: attempt.name for attempt in read_executing(path)}
        assert found == {number: registered_name(key) for number, key in enumerate(keys, start=1)}
    assert read_executing(path) == []


@pytest.mark.parametrize("end", ["", "é"])
def test_long_keys_keep_apart(end: str) -> None:
    """A key that fits is noted as it is; longer ones differ although they begin alike."""
    fitting = "k" * (REGISTERED_NAME_BYTES - len(end.encode())) + end
    assert registered_name(fitting) == fitting
    assert registered_name(("block", 1)) == "('block', 1)"
    longer = {registered_name(fitting + more) for more in ("a", "b", "ab")}
    assert len(longer) == 3
    assert all(len(name.encode()) <= REGISTERED_NAME_BYTES for name in longer)


def test_a_short_key_in_the_slot_of_a_long_one(path: Path) -> None:
    """A slot that is used again shows nothing of what it held before."""
    registry = AttemptRegistry(path)
    with registry.register("a-very-long-key-of-a-task", None):
        pass
    with registry.register("b", None):
        assert keys(path) == ["b"]


def test_more_attempts_than_slots_run_unwatched(path: Path) -> None:
    """Where all slots are taken an attempt runs all the same, and the others stay readable."""
    registry = AttemptRegistry(path)
    with ExitStack() as stack:
        for number in range(attempt_registry._ENTRY_COUNT):
            stack.enter_context(registry.register(f"key-{number}", None))
        with registry.register("one too many", None):
            found = keys(path)
            assert len(found) == attempt_registry._ENTRY_COUNT
            assert "one too many" not in found
        assert keys(path) == found
    assert read_executing(path) == []
    with registry.register("after", None):
        assert keys(path) == ["after"]


def test_a_slot_that_is_being_written_is_no_attempt(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until a slot is complete, and from the moment its block ends, a reader passes over it."""
    registry = AttemptRegistry(path)
    with registry.register("former attempt in the same slot", None):
        pass
    seen: list[list[str]] = []

    def clock() -> float:
        seen.append(keys(path))  # all but the start is written by now
        return 1.7e9

    monkeypatch.setattr(attempt_registry, "time", SimpleNamespace(time=clock))
    with registry.register("next", None):
        assert seen == [[]]
        assert [a[:3] for a in read_executing(path)] == [("next", 1.7e9, None)]


@pytest.mark.parametrize("length", [0, 1, 1023, 1024, 1025, 1500, 2047, 2048, 3000])
def test_a_file_that_was_cut_short_is_read_as_far_as_it_goes(path: Path, length: int) -> None:
    """Half a file yields whole slots or nothing, and is no error."""
    registry = AttemptRegistry(path)
    with ExitStack() as stack:
        for number in range(attempt_registry._ENTRY_COUNT):
            stack.enter_context(registry.register(f"key-{number}", 1.0))
        data = path.read_bytes()
    cut = path.with_name("cut")
    cut.write_bytes(data[:length])
    whole = max(0, length // 1024 - 1)
    assert len(read_executing(cut)) == whole
    assert set(keys(cut)) <= {f"key-{number}" for number in range(attempt_registry._ENTRY_COUNT)}


def test_a_missing_file_has_no_attempts(tmp_path: Path) -> None:
    """A worker that has not come up yet executes nothing and belongs to nobody."""
    assert read_executing(tmp_path / "nothing") == []
    assert read_owner(tmp_path / "nothing") is None


def test_a_new_file_forgets_the_former_worker(path: Path) -> None:
    """The next worker process of a nanny begins with an empty, private file without owner."""
    registry = AttemptRegistry(path)
    write_owner(path, Owner(123, "tls://10.0.0.1:8786"))
    with registry.register("key-1", None):
        create_registry(path)
        assert (read_executing(path), read_owner(path)) == ([], None)
    assert path.stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_the_owner_is_named_beside_the_attempts(path: Path) -> None:
    """Process and address of the worker are read back, and the attempts stay what they are."""
    registry = AttemptRegistry(path)
    owner = Owner(2**31, "tls://[fe80::1%eth0]:40123")
    with registry.register("key-1", None):
        write_owner(path, owner)
        assert read_owner(path) == owner
        assert keys(path) == ["key-1"]
    assert read_owner(path) == owner


def test_a_killed_process_leaves_what_it_was_executing(path: Path) -> None:
    """After SIGKILL another process reads exactly the attempts that were running."""
    process = subprocess.Popen(
        [sys.executable, "-c", WORKER, str(path)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "running\n"
        alive = read_executing(path)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert read_executing(path) == alive
    assert sorted((a.name, a.timeout_s) for a in alive) == [
        ("('block', 1)", None),
        ("simulate-é", 2.5 + attempt_registry.LOADING_S),
    ]
    assert read_owner(path) == Owner(process.pid, "tcp://127.0.0.1:4321")


def test_threads_that_begin_at_once_share_the_slots(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first attempts of a worker process have a slot each, however close they begin."""
    names = [f"attempt-{number}" for number in range(8)]

    def noted_at_once(path: Path) -> list[str]:
        begin, noted = threading.Barrier(len(names)), threading.Barrier(len(names))

        def run(name: str) -> list[str]:
            begin.wait()
            registry = own_registry()
            assert registry is not None
            with registry.register(name, None):
                noted.wait()
                found = keys(path)
                noted.wait()
            return found

        with ThreadPoolExecutor(len(names)) as threads:
            (found, *_) = threads.map(run, names)
        return found

    for turn in range(50):
        path = tmp_path / f"attempts-{turn}"
        create_registry(path)
        monkeypatch.setenv(REGISTRY_VARIABLE, str(path))
        attempt_registry._open_own_registry.cache_clear()  # as in a new process
        assert noted_at_once(path) == names
    attempt_registry._open_own_registry.cache_clear()
