"""Run folders: their names, who may write them, and how they are found again."""

from __future__ import annotations

import ast
import os
import re
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from full_disk import files_end_at
from hypothesis import given
from hypothesis import strategies as st
from users import ALICE, MALLORY, commons, make_for, run_as

from scalable_nb import paths as paths_module
from scalable_nb.errors import RunFolderError, ScalableError, UnknownNameError
from scalable_nb.paths import (
    RunPaths,
    create_run,
    find_run,
    list_runs,
    private_folder,
    write_private,
)
from scalable_nb.trusted_paths import owner_text

__all__ = ["commons"]

REMEDY = "Set SCALABLE_RUNS_DIR (or SCALABLE_CACHE_DIR) to a folder that only you can write."
RUN_ID = re.compile(r"run-\d{8}T\d{6}Z-[A-Za-z0-9_.-]{1,64}-[0-9a-f]{8}")


@pytest.fixture
def runs_dir(tmp_path: Path) -> Path:
    """Where runs go; not made yet."""
    return tmp_path / "deep" / "runs"


@pytest.fixture
def umask() -> Iterator[None]:
    """A umask that forbids nothing."""
    before = os.umask(0)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# --- making runs -----------------------------------------------------------------


def test_a_run_has_a_private_folder_of_its_own(runs_dir: Path, umask: None) -> None:
    """Each run gets a new folder, named by its id, that nobody else may enter."""
    first, second = create_run(runs_dir, "demo"), create_run(runs_dir, "demo")
    assert first.folder != second.folder
    for run in (first, second):
        assert run.folder.parent == runs_dir
        assert RUN_ID.fullmatch(run.run_id)
        assert "-demo-" in run.run_id
        assert mode(run.folder) == 0o700
    assert mode(runs_dir) == 0o700


@pytest.mark.parametrize(
    ("project", "safe"),
    [
        ("demo", "demo"),
        ("My project (2)", "My-project-2"),
        ("../../etc", "etc"),
        ("a/b\\c", "a-b-c"),
        ("~/x", "x"),
        ("klima_v1.2", "klima_v1.2"),
        ("Übung", "bung"),
        ("漢字", "project"),
        ("", "project"),
        ("...", "project"),
        ("\n\0", "project"),
        ("x" * 300, "x" * 64),
        ("-rf", "rf"),
    ],
)
def test_a_project_becomes_part_of_a_file_name(runs_dir: Path, project: str, safe: str) -> None:
    """What a file name cannot hold is left out of the run's id."""
    run = create_run(runs_dir, project)
    assert run.run_id.split("-", 2)[2].rsplit("-", 1)[0] == safe


@given(project=st.text())
def test_any_project_gives_a_run_that_is_found_again(
    tmp_path_factory: pytest.TempPathFactory, project: str
) -> None:
    """Whatever the project is called, its run lies in the folder for runs and is listed."""
    runs_dir = tmp_path_factory.mktemp("any") / "runs"
    run = create_run(runs_dir, project)
    assert run.folder.resolve().parent == runs_dir.resolve()
    assert list_runs(runs_dir) == [run]
    assert find_run(runs_dir, run.run_id) == run


def test_every_file_of_a_run_lies_in_its_folder(tmp_path: Path) -> None:
    """No two files of a run share a name, and none lies outside its folder."""
    run = RunPaths(tmp_path / "run")
    names = [name for name, value in vars(RunPaths).items() if isinstance(value, property)]
    files = [getattr(run, name) for name in names if name != "run_id"]
    assert len(set(files)) == len(files) >= 13
    assert {file.parent for file in files} == {run.folder}


# --- whose folder it is ------------------------------------------------------------


def refused(folder: Path) -> str:
    with pytest.raises(RunFolderError) as caught:
        private_folder(folder)
    assert isinstance(caught.value, ScalableError)
    assert isinstance(caught.value, OSError)
    return str(caught.value)


@pytest.mark.parametrize(
    ("bits", "shown"), [(0o777, "0777"), (0o770, "0770"), (0o702, "0702"), (0o1777, "1777")]
)
def test_a_folder_that_others_may_write_is_refused(tmp_path: Path, bits: int, shown: str) -> None:
    """A folder that others can write is not trusted; the error has owner, mode and command."""
    folder = tmp_path / "runs"
    folder.mkdir()
    if bits == 0o770:
        os.chown(folder, -1, 54_321)
    folder.chmod(bits)
    writers = "the group 54321" if bits == 0o770 else "others"
    assert refused(folder) == (
        f"not trusted: {str(folder)!r} is writable by {writers} (mode {shown}, owner "
        f"{owner_text(os.getuid())}). Run `chmod go-w {folder}`, or: {REMEDY}"
    )
    with pytest.raises(RunFolderError, match="writable by"):
        create_run(folder, "demo")
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("bits", [0o700, 0o755, 0o750, 0o711])
def test_a_folder_that_others_may_only_read_is_used(tmp_path: Path, bits: int) -> None:
    """A folder that only its owner may write is taken as it is; its mode is not changed."""
    folder = tmp_path / "runs"
    folder.mkdir()
    folder.chmod(bits)
    assert private_folder(folder) == folder
    assert mode(folder) == bits
    assert mode(create_run(folder, "demo").folder) == 0o700


def test_a_folder_of_another_user_is_refused(commons: Path) -> None:
    """A folder of another user, and of root, is not used, nor by a link."""
    folder = make_for(MALLORY, commons / "runs")
    link = commons / "link"
    link.symlink_to(folder)
    for path in (folder, link):
        with pytest.raises(RunFolderError, match=f"runs' belongs to uid {MALLORY}, who could"):
            run_as(ALICE, private_folder, path)
    with pytest.raises(RunFolderError, match=r"belongs to root \(uid 0\), not to you"):
        run_as(ALICE, private_folder, commons)


def test_a_folder_without_write_permission_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder of one's own that one may not write is named together with the command."""
    folder = tmp_path / "runs"
    folder.mkdir(mode=0o500)
    # Root may write everywhere, so the answer of the system is given here.
    monkeypatch.setattr(paths_module.os, "access", lambda path, bits: False)
    assert refused(folder) == (
        f"the folder {str(folder)!r} is not writable (mode 0500): run `chmod u+wx {folder}`, or "
        "set SCALABLE_RUNS_DIR (or SCALABLE_CACHE_DIR) to another folder."
    )


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    """The message names the folder, what the system said and what to set."""
    file = tmp_path / "runs"
    file.write_text("mine")
    for folder, reason in ((file, "File exists"), (file / "below", "Not a directory")):
        assert refused(folder) == (
            f"cannot make the folder {str(folder)!r}: {reason}. Set SCALABLE_RUNS_DIR (or "
            "SCALABLE_CACHE_DIR) to a folder you may write."
        )
    assert file.read_text() == "mine"


# --- finding runs --------------------------------------------------------------------


def make_runs(runs_dir: Path, *names: str) -> list[str]:
    for name in names:
        (runs_dir / name).mkdir(parents=True)
    return list(names)


OLD, NEW = "run-20250301T120000Z-demo-00000001", "run-20260301T120000Z-demo-00000000"


def test_runs_are_listed_by_age(runs_dir: Path) -> None:
    """Runs come oldest first, and whatever else lies there is no run."""
    assert list_runs(runs_dir) == []
    make_runs(runs_dir, NEW, OLD, "notes", "run-x", f"{OLD}.bak", "run-20250301T120000Z--00000001")
    assert [run.run_id for run in list_runs(runs_dir)] == [OLD, NEW]


def test_the_last_run_is_the_newest(runs_dir: Path) -> None:
    """`last` means the newest run, an id means that one."""
    make_runs(runs_dir, NEW, OLD)
    assert find_run(runs_dir).run_id == find_run(runs_dir, "last").run_id == NEW
    assert find_run(runs_dir, OLD) == RunPaths(runs_dir / OLD)


@pytest.mark.parametrize(
    "run",
    ["../secret", "../runs/" + OLD, "/etc", ".", "", "notes", OLD[:-1], f"{OLD}/", f"{OLD}\0"],
)
def test_an_id_is_never_a_path(runs_dir: Path, run: str) -> None:
    """Only what is listed is found; an id that looks like a path leads nowhere."""
    make_runs(runs_dir, OLD, "notes", "../secret")
    with pytest.raises(UnknownNameError) as caught:
        find_run(runs_dir, run)
    assert f"no run named {run!r}." in str(caught.value)
    assert f"Known: {OLD}. Looked in {runs_dir}; `%scalable start` begins a run." in str(
        caught.value
    )


def test_a_mistyped_id_is_answered_with_the_closest(runs_dir: Path) -> None:
    """Of several runs the one that was probably meant is named."""
    make_runs(runs_dir, OLD, NEW)
    with pytest.raises(UnknownNameError, match=f"Did you mean '{NEW}'"):
        find_run(runs_dir, NEW.replace("demo", "dmo"))


@pytest.mark.parametrize(
    ("run", "what"),
    [("last", "there is no run yet."), (OLD, f"no run named {OLD!r}. Known: none is defined.")],
)
def test_no_run_at_all(runs_dir: Path, run: str, what: str) -> None:
    """Before the first start the message says where was looked and what to type."""
    with pytest.raises(UnknownNameError) as caught:
        find_run(runs_dir, run)
    assert str(caught.value) == (f"{what} Looked in {runs_dir}; `%scalable start` begins a run.")


# --- writing -------------------------------------------------------------------------


def test_a_private_file_is_whole_and_private(tmp_path: Path, umask: None) -> None:
    """The file has mode 0600 and the new contents, and nothing else is left in the folder."""
    path = tmp_path / "run.json"
    for data in (b"first and long", b"second", b""):
        write_private(path, data)
        assert (path.read_bytes(), mode(path)) == (data, 0o600)
    assert [entry.name for entry in tmp_path.iterdir()] == ["run.json"]


def test_a_reader_sees_the_old_file_or_the_new_one(tmp_path: Path) -> None:
    """While a file is written over and over, another process never reads a part of it."""
    path = tmp_path / "run.json"
    contents = [bytes([byte]) * 50_000 for byte in b"ab"]
    write_private(path, contents[0])
    code = (
        "import sys; from pathlib import Path; path, seen = Path(sys.argv[1]), set()\n"
        "print('reading', flush=True)\n"
        "while b'end' not in seen: seen.add(path.read_bytes())\n"
        "print({(len(data), len(set(data))) for data in seen})\n"
    )
    command = [sys.executable, "-c", code, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as reader:
        assert reader.stdout is not None
        reader.stdout.readline()
        for number in range(400):
            write_private(path, contents[number % 2])
        write_private(path, b"end")
        seen = ast.literal_eval(reader.stdout.read())
    assert (3, 3) in seen
    assert seen <= {(3, 3), (50_000, 1)}


def test_a_write_that_fails_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    """On a full disk the former contents stay, and once there is room the file is written."""
    path = tmp_path / "run.json"
    write_private(path, b"former")
    with files_end_at(3), pytest.raises(OSError, match="File too large"):
        write_private(path, b"newer")
    assert path.read_bytes() == b"former"
    write_private(path, b"new")
    assert path.read_bytes() == b"new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["run.json"]


def test_a_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    """A link in the place of the file writes nothing elsewhere."""
    mine = tmp_path / "mine"
    mine.write_text("mine")
    path = tmp_path / "run.json"
    path.symlink_to(mine)
    write_private(path, b"new")
    assert (mine.read_text(), path.is_symlink()) == ("mine", False)


def test_a_run_folder_that_is_a_link_is_no_run(tmp_path: Path) -> None:
    """It is not listed, and an error reports what is in its place."""
    make_runs(tmp_path, NEW)
    (tmp_path / OLD).symlink_to(tmp_path / NEW)
    assert [run.run_id for run in list_runs(tmp_path)] == [NEW]
    with pytest.raises(RunFolderError, match=f"{OLD}' .* is not a folder, but a link"):
        find_run(tmp_path, OLD)


def test_a_run_folder_of_another_user_is_no_run(commons: Path) -> None:
    """It is not listed, and an error names its owner and how to read it."""
    runs_dir = make_for(ALICE, commons / "runs")
    make_for(MALLORY, runs_dir / OLD)
    assert run_as(ALICE, list_runs, runs_dir) == []
    with pytest.raises(RunFolderError, match=f"belongs to uid {MALLORY}: not used.*cp -r"):
        run_as(ALICE, find_run, runs_dir, OLD)


def test_logs_are_not_read_through_links(tmp_path: Path) -> None:
    """A log and the folder of logs must not be links."""
    run = RunPaths(tmp_path / OLD)
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    (secrets / "worker-0.log").write_text("private")
    run.folder.mkdir()
    run.logs.symlink_to(secrets)
    run.jobs.mkdir()
    (run.jobs / "job.out").symlink_to(secrets / "worker-0.log")
    run.host_log.symlink_to(secrets / "worker-0.log")
    assert run.log_files() == {}
    assert run.worker_log("worker-0") is None


def test_a_workers_log_is_found_by_its_name_alone(tmp_path: Path) -> None:
    """A name that is none, or that would lead out of the folder, finds nothing."""
    run = RunPaths(tmp_path / "run-1")
    assert run.worker_log("worker-0") is None
    run.logs.mkdir(parents=True)
    (run.logs / "worker-0.log").touch()
    (run.folder / "host.log").touch()
    assert run.worker_log("worker-0") == run.logs / "worker-0.log"
    assert [run.worker_log(name) for name in ("", "worker-1", "../host", "*")] == [None] * 4
