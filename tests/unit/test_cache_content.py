"""`File` and `Directory`: arguments that are what lies at a path."""

from __future__ import annotations

import os
import pickle

import pytest

from scalable_nb.cache import content
from scalable_nb.cache.content import Directory, File
from scalable_nb.cache.keys import call_key
from scalable_nb.errors import SubmitError


def read(data):
    with open(data) as file:  # noqa: PTH123 - what a person writes
        return file.read()


def key(value):
    return call_key(read, (value,), {})


@pytest.fixture
def tree(tmp_path):
    """A folder with two files, one of them deeper."""
    (tmp_path / "tree" / "deep").mkdir(parents=True)
    (tmp_path / "tree" / "a.txt").write_text("one")
    (tmp_path / "tree" / "deep" / "b.txt").write_text("two")
    return tmp_path / "tree"


def test_a_file_counts_by_content(tmp_path):
    """A copied or moved file is the same argument, an edited one is another."""
    one, other = tmp_path / "one.csv", tmp_path / "other.dat"
    one.write_text("text")
    other.write_text("text")
    before = key(File(one))
    assert key(File(other)) == before
    assert key(File(str(one))) == before
    assert key(one) != before
    other.write_text("texT")
    assert key(File(other)) != before
    assert key([File(one)]) != before


def test_a_file_is_usable_as_a_path(tmp_path, monkeypatch):
    """The function opens the argument as it would a path, wherever it runs."""
    (tmp_path / "data.txt").write_text("content")
    monkeypatch.chdir(tmp_path)
    data = File("data.txt")
    monkeypatch.chdir("/")
    assert read(data) == "content"
    assert os.fspath(data) == str(tmp_path / "data.txt")
    assert data.path.suffix == ".txt"
    assert pickle.loads(pickle.dumps(data)) == data
    assert str(data) == os.fspath(data)
    assert repr(data) == f"File({os.fspath(data)!r})"
    assert data != Directory(data.path)
    assert len({data, File(data.path)}) == 1


def test_a_change_is_noticed_although_size_and_time_stay(tmp_path):
    """A file written twice within one tick of the clock is read twice."""
    file = tmp_path / "a"
    file.write_text("aaa")
    before = key(File(file))
    info = file.stat()
    file.write_text("bbb")
    os.utime(file, ns=(info.st_atime_ns, info.st_mtime_ns))
    assert key(File(file)) != before


def test_a_settled_file_is_read_once(tmp_path, monkeypatch):
    """Ten thousand calls with one large file do not read it ten thousand times."""
    file = tmp_path / "a"
    file.write_text("content")
    monkeypatch.setattr(content, "_SETTLED_AFTER_S", -1.0)
    reads = []
    original = content.hashlib.file_digest

    def counted(handle, name):
        reads.append(handle.name)
        return original(handle, name)

    monkeypatch.setattr(content.hashlib, "file_digest", counted)
    assert len({key(File(file)) for _ in range(10)}) == 1
    assert len(reads) == 1
    before = key(File(file))
    file.write_text("Content")
    assert key(File(file)) != before


def test_a_directory_counts_by_names_and_contents(tree, tmp_path):
    """Any added, removed, renamed, moved or edited file makes another argument."""
    before = key(Directory(tree))
    tree.rename(tmp_path / "moved")
    tree = tmp_path / "moved"
    assert key(Directory(tree)) == before
    edits = [
        lambda: (tree / "c.txt").write_text(""),
        lambda: (tree / ".hidden").write_text("x"),
        (tree / "empty").mkdir,
        lambda: (tree / "a.txt").write_text("onE"),
        lambda: (tree / "a.txt").rename(tree / "z.txt"),
        lambda: (tree / "z.txt").rename(tree / "deep" / "z.txt"),
        lambda: (tree / "link").symlink_to("nowhere"),
        (tree / "deep" / "b.txt").unlink,
    ]
    keys = [before]
    for edit in edits:
        edit()
        keys.append(key(Directory(tree)))
    assert len(set(keys)) == len(edits) + 1


def test_what_links_point_to_counts(tree, tmp_path):
    """A linked file or folder is followed; a folder linked into itself is refused."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "file").write_text("1")
    (tree / "linked").symlink_to(tmp_path / "outside")
    before = key(Directory(tree))
    (tmp_path / "outside" / "file").write_text("2")
    assert key(Directory(tree)) != before
    (tree / "deep" / "up").symlink_to(tree)
    with pytest.raises(SubmitError, match="a link to a folder that contains it"):
        key(Directory(tree))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda tree: File(tree / "none"), "'data' cannot be read: the file '.*none' does not"),
        (lambda tree: Directory(tree / "none"), "'data' cannot be read: .*none'.* does not exist"),
        (File, r"is a folder: use Directory\('.*'\)"),
        (lambda tree: Directory(tree / "a.txt"), r"is a file: use File\('.*'\)"),
        (lambda tree: File("/dev/null"), "'/dev/null' is not a regular file"),
    ],
    ids=["no file", "no folder", "folder", "file", "device"],
)
def test_what_cannot_be_read_is_refused_by_name(tree, make, message):
    """A missing path, or the wrong kind of one, names argument and path."""
    with pytest.raises(SubmitError, match=message):
        key(make(tree))


def test_a_pipe_does_not_hang(tree):
    """A named pipe is refused instead of being waited for."""
    os.mkfifo(tree / "pipe")
    with pytest.raises(SubmitError, match="not a regular file"):
        key(File(tree / "pipe"))
    with pytest.raises(SubmitError, match="not a regular file"):
        key(Directory(tree))
