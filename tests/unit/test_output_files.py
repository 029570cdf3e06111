"""A cached result that refers to files is valid as long as the files are."""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from scalable_nb import Directory, File, cacheable
from scalable_nb.cache.function import CacheWarning
from scalable_nb.cache.output_files import find_changed_output, find_written_path
from scalable_nb.cache.store import ChangedOutputError, ResultStore, UnstorableResultError

KEY = "ab" * 32


@dataclass
class Answer:
    table: File
    size: int


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory of one test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SCALABLE_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path


@pytest.fixture
def executions() -> list[str]:
    """A name for each execution; the functions below have no other trace."""
    return []


def warnings_of(call: Callable[[], object]) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    return [str(each.message) for each in caught if each.category is CacheWarning]


def write_file() -> Path:
    path = Path("out.txt")
    path.write_text("result")
    return path


def as_file() -> Any:
    return File(write_file())


def in_a_list() -> Any:
    return [1, {"table": File(write_file())}]


def in_a_dataclass() -> Any:
    return Answer(File(write_file()), 6)


def as_directory() -> Any:
    Path("tree").mkdir(exist_ok=True)
    (Path("tree") / "part.txt").write_text("part")
    return Directory("tree")


def remove() -> None:
    Path("out.txt").unlink(missing_ok=True)
    shutil.rmtree("tree", ignore_errors=True)


def change() -> None:
    for path in (Path("out.txt"), Path("tree/part.txt")):
        if path.exists():
            path.write_text("other!")


def change_name() -> None:
    for path in (Path("out.txt"), Path("tree/part.txt")):
        if path.exists():
            path.rename(path.with_name("renamed.txt"))


@pytest.mark.parametrize("spoil", [remove, change, change_name])
@pytest.mark.parametrize("write", [as_file, in_a_list, in_a_dataclass, as_directory])
def test_call_runs_again_if_its_file_is_not_what_it_was(
    write: Callable[[], Any], spoil: Callable[[], None], executions: list[str]
) -> None:
    """A missing or different file is a miss with a warning that names it, and then stored again."""

    @cacheable(ignore=["note"])
    def run(note: Callable[[], Any]) -> Any:
        return note()

    def noting() -> Any:
        executions.append("run")
        return write()

    first = run(noting)
    assert warnings_of(lambda: run(noting)) == []
    spoil()
    (message,) = warnings_of(lambda: run(noting))
    assert str(File("out.txt" if write is not as_directory else "tree").path) in message
    assert executions == ["run", "run"]
    assert run(noting) == first
    assert executions == ["run", "run"]


def test_file_that_does_not_exist_is_not_stored() -> None:
    """A result that contains a `File` without a file cannot be a hit later."""
    store = ResultStore(Path("cache").absolute())
    with pytest.raises(UnstorableResultError, match=r"missing\.txt"):
        store.put(KEY, File("missing.txt"), tracks_files=True)


def test_results_that_track_no_files_stay() -> None:
    """The stored result of a task is returned although a file in it was removed."""
    store = ResultStore(Path("cache").absolute())
    written = File(write_file())
    store.put(KEY, written)
    remove()
    assert store.get(KEY) == written


def test_reading_many_checks_too() -> None:
    """The fast path of a kernel compares files like any other."""
    store = ResultStore(Path("cache").absolute())
    store.put(KEY, File(write_file()), tracks_files=True)
    with store.many() as read:
        assert read(KEY) == File("out.txt")
        remove()
        with pytest.raises(ChangedOutputError, match="which no longer exists"):
            read(KEY)


def test_meta_without_files_costs_no_parsing() -> None:
    """The meta of a result without files is not parsed."""
    assert find_changed_output(b"{") == ""


def returned_text() -> Any:
    return str(write_file())


def returned_path() -> Any:
    return write_file().absolute()


def returned_list() -> Any:
    return ["unrelated", write_file()]


def returned_dict() -> Any:
    return {"out": str(write_file())}


@pytest.mark.parametrize("write", [returned_text, returned_path, returned_list, returned_dict])
def test_returned_path_of_a_written_file_is_reported_once(write: Callable[[], Any]) -> None:
    """One warning per function says to return `File`."""

    @cacheable(recompute=True)
    def run(x: int) -> Any:
        return write()

    (message,) = warnings_of(lambda: (run(1), run(2)))
    assert "return File('" in message and "out.txt" in message


def test_other_paths_are_not_reported() -> None:
    """A file that was there before, a folder, a text and an allowed path cause no warning."""
    old = write_file()
    os.utime(old, (1e9, 1e9))

    @cacheable(allow=["new.txt"])
    def run(kind: str) -> Any:
        Path("new.txt").write_text("new")
        return {"old": "out.txt", "folder": "./cache", "text": "no path", "new": "new.txt"}[kind]

    assert warnings_of(lambda: [run(kind) for kind in ("old", "folder", "text", "new")]) == []


def test_few_results_are_looked_at() -> None:
    """Numbers, long dicts and nested containers cost no system call."""
    write_file()
    assert find_written_path(7, 0.0) == ""
    assert find_written_path(dict.fromkeys(range(101), "out.txt"), 0.0) == ""
    assert find_written_path([["out.txt"]], 0.0) == ""
    assert find_written_path(["out.txt"], 0.0) == "out.txt"
