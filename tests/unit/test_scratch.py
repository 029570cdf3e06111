"""The scratch folder is private, has an unpredictable name, and is removed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import dask
import pytest
from distributed import Scheduler
from users import ALICE, MALLORY, commons, make_for, run_as

from scalable_nb.dask_adapter.scratch import node_scratch, private_scratch
from scalable_nb.errors import RunFolderError
from scalable_nb.worker.nanny import restart_pause_s

__all__ = ["commons"]


def test_scratch_is_private_and_removed(tmp_path: Path) -> None:
    """Each block has a new folder of mode 0700 that is removed afterwards."""
    with private_scratch(tmp_path / "base") as first, private_scratch(tmp_path / "base") as second:
        assert first != second
        assert {path.stat().st_mode & 0o777 for path in (first, second)} == {0o700}
        (first / "spilled").write_text("data")
    assert list((tmp_path / "base").iterdir()) == []


def test_scratch_of_a_killed_process_is_removed_by_the_next(tmp_path: Path) -> None:
    """Only a folder with a free lock is removed; links and other folders stay."""
    code = (
        "import os, sys; from pathlib import Path\n"
        "from scalable_nb.dask_adapter.scratch import private_scratch\n"
        "with private_scratch(Path(sys.argv[1])) as folder:\n"
        "    print(folder.name, flush=True); input()"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        name = other.stdout.readline().strip()
        with private_scratch(tmp_path):
            assert (tmp_path / name).exists()
        other.kill()
    (tmp_path / f"{name}x").mkdir()
    (tmp_path / f"{name}y").symlink_to(tmp_path / f"{name}x")
    assert (tmp_path / name).exists()
    with private_scratch(tmp_path):
        assert not (tmp_path / name).exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{name}x", f"{name}y"]


def use_scratch(base: Path) -> int:
    with private_scratch(base) as folder:
        return folder.stat().st_mode & 0o7777


def test_scratch_in_a_folder_of_all_users(commons: Path) -> None:
    """Below a folder like /tmp it is made; where another user could exchange it, it is not."""
    sticky, open_to_all = make_for(0, commons / "tmp"), make_for(0, commons / "open")
    sticky.chmod(0o1777)
    open_to_all.chmod(0o777)
    assert run_as(ALICE, use_scratch, sticky) == 0o700
    theirs = make_for(MALLORY, commons / "theirs", 0o1777)
    for base in (open_to_all, theirs, theirs / "below"):
        with pytest.raises(RunFolderError, match="`local_directory` of the target"):
            run_as(ALICE, use_scratch, base)


def test_a_planted_lock_in_the_shared_scratch_folder_is_not_opened(
    commons: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dask empties the target of `global.lock`; in a private folder no other user can plant it."""
    victims_file = commons / "thesis.tex"
    victims_file.write_text("years of work")
    shared = make_for(MALLORY, commons / "dask-scratch-space", 0o777)
    (shared / "global.lock").symlink_to(victims_file)
    commons.chmod(0o1777)
    monkeypatch.setattr("tempfile.tempdir", str(commons))
    with (
        private_scratch(node_scratch()) as scratch,
        dask.config.set({"temporary-directory": str(scratch)}),
    ):
        scheduler = Scheduler(dashboard=False)
        assert Path(scheduler.local_directory).is_relative_to(scratch)
    assert victims_file.read_text() == "years of work"
    assert os.listdir(shared) == ["global.lock"]  # noqa: PTH208


def test_a_worker_that_cannot_start_is_restarted_with_pauses() -> None:
    """The first failures cost no time; then the pauses double up to a minute."""
    pauses = [restart_pause_s(count) for count in range(12)]
    assert pauses[:7] == [0, 0, 0, 0, 1, 2, 4]
    assert pauses[-1] == 60
