"""The folder of kept results: whole, private, and never a wrong one."""

from __future__ import annotations

import os
import pickle
import stat
import subprocess
import sys
import tempfile
import threading
import tracemalloc
from hashlib import sha256
from pathlib import Path
from zlib import crc32

import numpy as np
import pandas as pd
import pytest

from scalable_nb.cache import result_file
from scalable_nb.cache.lookup import cached_call, look_up
from scalable_nb.cache.store import (
    CorruptResultError,
    ResultStore,
    UnreadableResultError,
    UnsignedResultError,
    UnstorableResultError,
)
from scalable_nb.errors import RunFolderError

ROOT = Path(__file__).parents[2]
KEY, OTHER = sha256(b"one").hexdigest(), sha256(b"other").hexdigest()


@pytest.fixture
def store(tmp_path):
    """An empty store, whose folder does not exist yet."""
    return ResultStore(tmp_path / "cache")


@pytest.mark.parametrize(
    "value",
    [
        None,
        {"a": [1, 2.5, "text", None]},
        b"bytes" * 100_000,
        "text" * 100_000,
        [np.arange(10), np.zeros((300, 400)), np.asfortranarray(np.ones((200, 300)))],
        np.arange(100_000)[::3],
        pd.DataFrame({"a": range(50_000), "b": ["x", None] * 25_000, "c": np.ones(50_000)}),
    ],
    ids=["none", "dict", "bytes", "text", "arrays", "slice", "frame"],
)
@pytest.mark.parametrize("compress", [False, True], ids=["plain", "compressed"])
def test_what_is_put_comes_back(store, value, compress):
    """A result of any kind comes back equal, None as well, whoever reads it."""
    stored = ResultStore(store.folder, compress=compress).put(KEY, value)
    assert store.contains(KEY)
    assert stored.nbytes == stored.path.stat().st_size
    found = store.get(KEY)
    if isinstance(value, pd.DataFrame):
        pd.testing.assert_frame_equal(found, value)
    else:
        np.testing.assert_equal(found, value)


def test_a_result_that_was_never_put_is_a_key_error(store):
    """A miss is told apart from a kept None, with no folder made for it."""
    with pytest.raises(KeyError, match=KEY):
        store.get(KEY)
    assert not store.contains(KEY)
    assert not store.discard(KEY)
    assert list(store.iter_keys()) == []
    assert not store.folder.exists()


def test_compressed_results_take_less_room_and_both_kinds_lie_together(store):
    """What was kept without compression is read with it, and the other way round."""
    value = {"x": np.zeros(100_000), "text": "again " * 10_000}
    small = ResultStore(store.folder, compress=True)
    sizes = [each.put(key, value).nbytes for each, key in ((store, KEY), (small, OTHER))]
    assert sizes[1] < sizes[0] / 50
    for each in (store, small):
        np.testing.assert_equal([each.get(KEY), each.get(OTHER)], [value, value])
    whole = small.path(OTHER).read_bytes()
    small.path(OTHER).write_bytes(whole[:-3] + bytes(3))
    with pytest.raises(CorruptResultError, match="checksum"):
        store.get(OTHER)


@pytest.mark.parametrize("kind", ["array", "frame", "table"])
def test_large_results_are_read_in_one_copy(store, kind):
    """Numpy, pandas and Arrow: the bytes of the file become those of the result."""
    columns = {"a": np.arange(1_000_000), "b": np.ones(1_000_000)}
    value = {
        "array": lambda: columns["a"],
        "frame": lambda: pd.DataFrame(columns),
        "table": lambda: pytest.importorskip("pyarrow").table(columns),
    }[kind]()
    nbytes = store.put(KEY, value).nbytes
    assert nbytes >= 8_000_000
    store.get(KEY)  # whatever is imported for it
    tracemalloc.start()
    try:
        found = store.get(KEY)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(found) == 1_000_000
    assert nbytes <= peak_bytes < 1.1 * nbytes


@pytest.mark.parametrize("compress", [False, True], ids=["plain", "compressed"])
def test_arrays_come_back_writable_and_alone(store, compress):
    """A large result can be changed in place, and no other reader sees it."""
    ResultStore(store.folder, compress=compress).put(
        KEY, {"x": np.zeros(100_000), "y": np.zeros(3)}
    )
    first, second = store.get(KEY), store.get(KEY)
    first["x"][:] = 1
    first["y"][:] = 1
    assert second["x"].sum() == second["y"].sum() == store.get(KEY)["x"].sum() == 0


def test_large_arrays_are_written_without_a_copy(store):
    """Keeping an array of 200 MB does not need another 200 MB."""
    code = """
import resource, sys
import numpy as np
from pathlib import Path
from scalable_nb.cache.store import ResultStore
store = ResultStore(Path(sys.argv[1]))
store.put("0" * 64, np.zeros(10_000))
array = np.ones(25_000_000)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
store.put("0" * 64, [array])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    command = [sys.executable, "-c", code, str(store.folder)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
    assert int(done.stdout) < 50_000  # kB
    assert store.get("0" * 64)[0].sum() == 25_000_000


def test_files_and_folders_are_private(store):
    """Nobody else can read a kept result, whatever the umask."""
    old = os.umask(0)
    try:
        stored = store.put(KEY, 1)
    finally:
        os.umask(old)
    assert stat.S_IMODE(stored.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(stored.path.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(store.folder.stat().st_mode) == 0o700


def test_a_later_result_replaces_an_earlier_one(store):
    """Putting again under a key leaves one file with the newer result."""
    store.put(KEY, "old")
    store.put(KEY, "new")
    assert store.get(KEY) == "new"
    assert [file.name for file in store.path(KEY).parent.iterdir()] == [f"{KEY}.result"]


def test_keys_meta_and_discard(store):
    """The folder alone tells which results are kept and what was noted with them."""
    store.put(KEY, 1, meta={"function": "m.f", "label": Path("x")})
    store.put(OTHER, 2)
    assert sorted(store.iter_keys()) == sorted([KEY, OTHER])
    known = store.meta(KEY)
    assert known.meta["function"] == "m.f"
    assert known.meta["label"] == "x"
    assert known.meta["created_at"] > 1.7e9
    assert known.nbytes == store.path(KEY).stat().st_size
    assert store.discard(KEY)
    assert list(store.iter_keys()) == [OTHER]
    with pytest.raises(KeyError):
        store.meta(KEY)


@pytest.mark.parametrize("key", ["", "abc", "../" + "0" * 61, "A" * 64, "0" * 63 + "\n", "0" * 65])
def test_only_keys_are_taken_for_file_names(store, key):
    """What is no key never becomes a path."""
    for use in (store.get, store.contains, store.discard, store.meta):
        with pytest.raises(ValueError, match="expected 64 hex digits"):
            use(key)
    with pytest.raises(ValueError, match="expected 64 hex digits"):
        store.put(key, 1)


def test_a_changed_byte_anywhere_is_noticed(store):
    """Whichever byte of a file is flipped, the result is reported and never returned."""
    stored = store.put(KEY, {"answer": 42, "array": np.arange(3)}, meta={"f": "m"})
    whole = stored.path.read_bytes()
    for position in range(len(whole)):
        for flip in (1 << (position % 8), 0xFF):
            damaged = bytearray(whole)
            damaged[position] ^= flip
            stored.path.write_bytes(damaged)
            stored.path.chmod(0o600)
            with pytest.raises(CorruptResultError, match="is damaged"):
                store.get(KEY)
            assert not store.contains(KEY)
            assert stored.path.with_name(f"{KEY}.result.corrupt").read_bytes() == damaged


def test_a_changed_byte_in_a_large_buffer_is_noticed(store):
    """The checksum covers what lies outside the pickle, too."""
    stored = store.put(KEY, np.zeros(100_000))
    with stored.path.open("r+b") as file:
        file.seek(-4321, os.SEEK_END)
        file.write(b"\x01")
    with pytest.raises(CorruptResultError, match="checksum"):
        store.get(KEY)


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """Switch to the key of another home folder."""

    def switch():
        monkeypatch.setenv("SCALABLE_KEY_FILE", str(tmp_path / "other-key"))

    return switch


class Planted:
    """Runs code when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_a_result_that_another_key_signed_is_not_unpickled(store, tmp_path, elsewhere):
    """It stays, is a miss with a reason, and is read once it was signed."""
    ran = tmp_path / "ran"
    store.put(KEY, Planted(ran), meta={"function": "m.f"})
    elsewhere()
    with store.many() as read:
        for use in (store.get, read):
            with pytest.raises(UnsignedResultError, match="scalable cache trust"):
                use(KEY)
    assert not store.check(KEY)
    assert not store.is_signed(KEY)
    assert store.meta(KEY).meta["function"] == "m.f"
    assert not ran.exists()
    found = look_up(store, KEY)
    assert (found.is_hit, found.is_unsigned) == (False, True)
    created_at = store.meta(KEY).meta["created_at"]
    assert store.trust(KEY)
    assert not store.trust(KEY)
    assert not ran.exists()
    assert store.is_signed(KEY)
    assert store.meta(KEY).meta["created_at"] == created_at
    store.get(KEY)
    assert ran.exists()


def test_damage_is_found_whoever_signed(store, elsewhere):
    """Files that another key signed are checked, too, and a damaged file is never signed."""
    store.put(KEY, np.zeros(100_000))
    elsewhere()
    with store.path(KEY).open("r+b") as file:
        file.seek(-4321, os.SEEK_END)
        file.write(b"\x01")
    with pytest.raises(CorruptResultError, match="checksum"):
        store.trust(KEY)


def test_a_signature_of_other_bytes_is_damage(store):
    """A file whose checksums fit, but not its signature, is set aside."""
    stored = store.put(KEY, 1, meta={"f": "m"})
    whole = bytearray(stored.path.read_bytes())
    head = result_file._HEADER.size
    changed = whole.replace(b'"m"', b'"n"')
    rest = changed[head + result_file._SEAL.size :]
    rest = rest[: rest.index(b"}") + 1]
    changed[head : head + 4] = crc32(rest, crc32(changed[:head])).to_bytes(4, "little")
    stored.path.write_bytes(changed)
    with pytest.raises(CorruptResultError, match="signature"):
        store.get(KEY)


def test_a_torn_or_longer_file_is_noticed(store):
    """A file cut off at any byte, or with one too many, is reported and never returned."""
    stored = store.put(KEY, [1, 2, 3])
    whole = stored.path.read_bytes()
    for damaged in [*(whole[:length] for length in range(len(whole))), whole + b"\0"]:
        stored.path.write_bytes(damaged)
        with pytest.raises(CorruptResultError):
            store.get(KEY)
        assert not store.contains(KEY)


def test_a_file_under_another_key_is_noticed(store):
    """A result that was moved to another key is not that key's result."""
    store.put(KEY, 1)
    store.put(OTHER, 2)
    store.path(KEY).replace(store.path(OTHER))
    with pytest.raises(CorruptResultError, match=f"holds the result of {KEY}"):
        store.get(OTHER)


def test_a_damaged_header_is_noticed_without_reading_the_result(store):
    """Asking what a file holds reports damage of what it says of itself."""
    stored = store.put(KEY, 1, meta={"function": "m.f"})
    stored.path.write_bytes(stored.path.read_bytes().replace(b"m.f", b"m.g"))
    with pytest.raises(CorruptResultError):
        store.meta(KEY)


def test_a_file_that_others_may_write_is_not_unpickled(store):
    """What another user could have put there is refused, and so is a link."""
    stored = store.put(KEY, 1)
    stored.path.chmod(0o666)
    with pytest.raises(PermissionError, match="0666"):
        store.get(KEY)
    stored.path.chmod(0o600)
    real = stored.path.rename(stored.path.with_name("real"))
    stored.path.symlink_to(real)
    with pytest.raises(OSError, match="symbolic links"):
        store.get(KEY)


def test_many_are_read_as_each_alone(store):
    """Small and large ones come back; what is missing, damaged or open to others does not."""
    values = {sha256(b"%d" % n).hexdigest(): n * [0.5] for n in (1, 3, 400, 10_000)}
    values[KEY] = np.arange(1000)
    for key, value in values.items():
        store.put(key, value)
    store.put(OTHER, "open to others")
    torn, *whole = values
    os.truncate(store.path(torn), 20)
    store.path(OTHER).parent.chmod(0o755)
    store.path(OTHER).chmod(0o666)
    with store.many() as read:
        for key in whole:
            assert pickle.dumps(read(key)) == pickle.dumps(values[key])
        with pytest.raises(KeyError):
            read("0" * 64)
        with pytest.raises(KeyError):
            read(KEY[:2] + "0" * 62)
        with pytest.raises(CorruptResultError, match="was set aside"):
            read(torn)
        with pytest.raises(PermissionError, match="is not trusted"):
            read(OTHER)
        with pytest.raises(ValueError, match="is no key of a result"):
            read("../" + "0" * 61)


def test_a_folder_that_others_may_write_is_refused(store):
    """Results are not kept where another user could replace them."""
    store.folder.mkdir()
    store.folder.chmod(0o777)
    with pytest.raises(RunFolderError, match="chmod go-w"):
        store.put(KEY, 1)


def test_a_result_that_cannot_be_pickled_names_its_type(store):
    """A generator or lock is refused with its type, and nothing is written."""
    with pytest.raises(UnstorableResultError, match=r"type _thread\.lock cannot be kept"):
        store.put(KEY, threading.Lock())
    assert not store.contains(KEY)


def test_a_result_of_a_class_that_is_not_there_is_no_damage(store, monkeypatch):
    """A file that this process cannot read stays for those that can."""
    module = type(sys)("only_here")
    exec("class Thing: pass", module.__dict__)
    monkeypatch.setitem(sys.modules, "only_here", module)
    store.put(KEY, module.Thing())
    monkeypatch.delitem(sys.modules, "only_here")
    with pytest.raises(UnreadableResultError, match="only_here"):
        store.get(KEY)
    assert store.contains(KEY)


def test_a_class_of_the_notebook_travels_with_its_results(store):
    """An instance of a class defined in a notebook can be read by another process."""
    code = """
import sys
from pathlib import Path
from scalable_nb.cache.store import ResultStore
class Thing:
    def size(self): return 7
ResultStore(Path(sys.argv[1])).put("0" * 64, Thing())
"""
    command = [sys.executable, "-c", code, str(store.folder)]
    subprocess.run(command, check=True, cwd=ROOT)
    assert store.get("0" * 64).size() == 7


LIMITED = """
import resource, sys
from pathlib import Path
import numpy as np
from scalable_nb.cache.lookup import cached_call
from scalable_nb.cache.store import ResultStore
store = ResultStore(Path(sys.argv[1]))
store.put("0" * 64, "old")
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
outcome = cached_call(store, "0" * 64, lambda: np.ones(1_000_000), recompute=True)
assert outcome.value.sum() == 1_000_000 and not outcome.was_hit and outcome.stored is None
assert "File too large" in outcome.problem, outcome.problem
assert store.get("0" * 64) == "old"
"""


def test_a_disk_that_is_full_leaves_nothing_behind(store):
    """A write that fails half-way keeps the old result, leaves no part, and fails no call."""
    command = [sys.executable, "-c", LIMITED, str(store.folder)]
    subprocess.run(command, check=True, cwd=ROOT)
    files = [file.name for file in store.folder.rglob("*") if file.is_file()]
    assert files == ["0" * 64 + ".result"]


def test_the_folder_may_vanish_between_two_results(store):
    """Somebody who clears the cache by hand does not break those who use it."""
    store.put(KEY, 1)
    for file in sorted(store.folder.rglob("*"), reverse=True):
        file.rmdir() if file.is_dir() else file.unlink()
    store.folder.rmdir()
    store.put(KEY, 2)
    assert store.get(KEY) == 2
    assert stat.S_IMODE(store.folder.stat().st_mode) == 0o700


WRITER = """
import sys
from pathlib import Path
import numpy as np
from scalable_nb.cache.store import ResultStore
store, number = ResultStore(Path(sys.argv[1])), int(sys.argv[2])
for turn in range(150):
    store.put("0" * 64, (number, np.full(20_000, number)))
"""


def test_writers_of_one_key_do_not_disturb_each_other(store):
    """While three processes write one key, every reader gets one of their whole results."""
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(store.folder), str(number)], cwd=ROOT)
        for number in range(3)
    ]
    reads = 0
    while any(writer.poll() is None for writer in writers):
        if store.contains("0" * 64):
            number, array = store.get("0" * 64)
            assert (array == number).all()
            reads += 1
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    assert reads > 10
    files = [file.name for file in store.folder.rglob("*") if file.is_file()]
    assert files == ["0" * 64 + ".result"]


# --- cached_call -------------------------------------------------------------------------------


def test_a_call_is_made_once(store):
    """The second call of a key is answered from its file, None included."""
    calls = []
    first = cached_call(store, KEY, lambda: calls.append(1), meta=lambda: {"label": "x"})
    second = cached_call(store, KEY, lambda: calls.append(2))
    assert calls == [1]
    assert (first.value, first.was_hit, first.problem) == (None, False, None)
    assert first.stored is not None and first.stored.meta["label"] == "x"
    assert (second.value, second.was_hit, second.stored) == (None, True, None)


def test_recompute_calls_and_replaces(store):
    """A recomputation passes over what is kept, and is kept itself."""
    store.put(KEY, "old")
    outcome = cached_call(store, KEY, lambda: "new", recompute=True)
    assert (outcome.value, outcome.was_hit) == ("new", False)
    assert store.get(KEY) == "new"


def test_a_call_that_fails_keeps_nothing(store):
    """The exception of the call comes through unchanged, and no result is written."""
    with pytest.raises(ZeroDivisionError):
        cached_call(store, KEY, lambda: 1 / 0)
    assert not store.contains(KEY)


def test_a_damaged_result_is_computed_again_and_reported(store):
    """Damage is told as a problem, and mended by the new result."""
    path = store.put(KEY, "right").path
    path.write_bytes(path.read_bytes()[:-1])
    outcome = cached_call(store, KEY, lambda: "right")
    assert (outcome.value, outcome.was_hit) == ("right", False)
    assert outcome.problem is not None and "is damaged" in outcome.problem
    assert cached_call(store, KEY, lambda: "wrong").value == "right"


def test_trouble_with_the_store_never_fails_the_call(store):
    """Unpicklable results and unusable folders are told, and the result is returned."""
    lock = threading.Lock()
    outcome = cached_call(store, KEY, lambda: lock)
    assert outcome.value is lock
    assert outcome.problem is not None and "cannot be pickled" in outcome.problem
    store.folder.mkdir(exist_ok=True)
    store.folder.chmod(0o777)
    outcome = cached_call(ResultStore(store.folder), OTHER, lambda: 5)
    assert outcome.value == 5
    assert outcome.problem is not None and "writable by others" in outcome.problem
    (store.folder.parent / "file").write_text("")
    outcome = cached_call(ResultStore(store.folder.parent / "file"), OTHER, lambda: 6)
    assert outcome.value == 6
    assert outcome.problem is not None and "not a directory" in outcome.problem.lower()


READ_ONLY = """
import os, sys
from pathlib import Path
from scalable_nb.cache.lookup import cached_call
from scalable_nb.cache.store import ResultStore
if os.getuid() == 0:  # whom no mode stops
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
outcome = cached_call(ResultStore(Path(sys.argv[1])), "0" * 64, lambda: 5)
assert outcome.value == 5 and outcome.stored is None
assert "is not writable" in outcome.problem, outcome.problem
"""


def test_a_folder_that_cannot_be_written_never_fails_the_call():
    """In a read-only folder results are computed, and the reason is told."""
    folder = Path(tempfile.mkdtemp())  # not below a folder that only root may enter
    folder.chmod(0o500)
    try:
        if os.getuid() == 0:
            os.chown(folder, 65534, 65534)
        subprocess.run([sys.executable, "-c", READ_ONLY, str(folder)], check=True, cwd=ROOT)
    finally:
        folder.rmdir()


def test_a_stored_result_can_be_sent(store):
    """What a worker reports of a kept result can be pickled."""
    stored = store.put(KEY, 1)
    assert pickle.loads(pickle.dumps(stored)) == stored
