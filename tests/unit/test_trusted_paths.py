"""A path is trusted only if no other user could change or replace it."""

from __future__ import annotations

import grp
import os
import pwd
from pathlib import Path

import pytest
from users import ALICE, MALLORY, commons, make_for, run_as

from scalable_nb import trusted_paths
from scalable_nb.errors import RunFolderError
from scalable_nb.paths import create_run, private_folder
from scalable_nb.trusted_paths import find_flaw, is_private_group, open_regular, read_regular

__all__ = ["commons"]


def flaw_for(uid: int, path: Path) -> str:
    """Return the path at fault as this user sees it; empty without one."""
    flaw = run_as(uid, find_flaw, path)
    return "" if flaw is None else str(flaw)


def test_every_ancestor_must_be_the_users_or_roots(commons: Path) -> None:
    """The user's own folder below a folder of another user is refused."""
    shared = make_for(MALLORY, commons / "shared", 0o755)
    mine = make_for(ALICE, shared / "project")
    assert flaw_for(ALICE, mine / "runs").startswith(f"{str(shared)!r} belongs to uid {MALLORY}")
    assert flaw_for(MALLORY, shared) == ""
    with pytest.raises(RunFolderError, match=f"belongs to uid {MALLORY}.*SCALABLE_RUNS_DIR"):
        run_as(ALICE, create_run, mine / "runs", "demo")
    assert list(mine.iterdir()) == []


@pytest.mark.parametrize(
    ("mode", "is_trusted"),
    [(0o755, True), (0o775, False), (0o757, False), (0o1777, True), (0o2775, False)],
)
def test_an_ancestor_that_others_write_needs_the_sticky_bit(
    commons: Path, mode: int, is_trusted: bool
) -> None:
    """Without it others could replace the folder below."""
    open_to_all = make_for(ALICE, commons / "open")
    os.chown(open_to_all, 0, 100)
    open_to_all.chmod(mode)
    mine = make_for(ALICE, open_to_all / "mine")
    assert (flaw_for(ALICE, mine) == "") is is_trusted


def test_the_folder_itself_must_not_be_writable_by_others_at_all(commons: Path) -> None:
    """The sticky bit does not keep others from adding files."""
    folder = make_for(ALICE, commons / "runs", 0o1777)
    assert "is writable by others (mode 1777" in flaw_for(ALICE, folder)
    with pytest.raises(RunFolderError, match=f"Run `chmod go-w {folder}`"):
        run_as(ALICE, private_folder, folder)


def test_a_link_needs_an_owner_and_a_target_that_are_trusted(commons: Path) -> None:
    """A link of the user to their own scratch folder is followed; other links are not."""
    home, scratch = make_for(ALICE, commons / "home"), make_for(ALICE, commons / "scratch")
    theirs = make_for(MALLORY, commons / "theirs", 0o755)
    for name, target in (("good", "../scratch"), ("bad", theirs), ("foreign", scratch)):
        (home / name).symlink_to(target)
        os.chown(home / name, ALICE, ALICE, follow_symlinks=False)
    os.chown(home / "foreign", MALLORY, MALLORY, follow_symlinks=False)
    assert flaw_for(ALICE, home / "good" / "runs") == ""
    assert run_as(ALICE, private_folder, home / "good" / "runs") == home / "good" / "runs"
    assert (scratch / "runs").is_dir()
    assert flaw_for(ALICE, home / "bad" / "runs").startswith(f"{str(theirs)!r} belongs to")
    assert "is a link that belongs to" in flaw_for(ALICE, home / "foreign" / "runs")


def test_links_in_a_circle_are_reported(tmp_path: Path) -> None:
    """The walk ends."""
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    assert "circle of links" in str(find_flaw(tmp_path / "a" / "runs"))


def test_missing_levels_are_private(commons: Path) -> None:
    """Each level that is made has mode 0700, whatever the umask is."""
    home = make_for(ALICE, commons / "home")
    run_as(ALICE, private_folder, home / ".scalable" / "runs")
    modes = [(home / name).stat().st_mode & 0o777 for name in (".scalable", ".scalable/runs")]
    assert modes == [0o700, 0o700]


def test_a_group_of_this_user_alone_does_not_count_as_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a group per user, and umask 002, folders are group-writable and private."""
    user = pwd.getpwuid(os.getuid()).pw_name
    members: list[str] = []
    accounts = [pwd.struct_passwd((user, "x", os.getuid(), 4242, "", "", ""))]
    monkeypatch.setattr(grp, "getgrgid", lambda gid: grp.struct_group(("g", "x", gid, members)))
    monkeypatch.setattr(pwd, "getpwall", lambda: accounts)
    monkeypatch.setattr(trusted_paths, "_lists_all_accounts", lambda: True)

    def is_private() -> bool:
        is_private_group.cache_clear()
        return is_private_group(4242)

    try:
        assert is_private()
        members.append("mallory")
        assert not is_private()
        members[:] = [user]
        accounts.append(pwd.struct_passwd(("mallory", "x", 4711, 4242, "", "", "")))
        assert not is_private()
        del accounts[1:]
        # A directory service may have members that it does not list.
        monkeypatch.setattr(trusted_paths, "_lists_all_accounts", lambda: False)
        assert not is_private()
    finally:
        is_private_group.cache_clear()


def test_only_a_regular_file_is_read(tmp_path: Path) -> None:
    """A link, a FIFO and a device are refused without waiting."""
    (tmp_path / "file").write_bytes(b"text")
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "dangling").symlink_to("nothing")
    os.mkfifo(tmp_path / "fifo")
    with open_regular(tmp_path / "file") as file:
        assert file.read() == b"text"
    for name, what in (("link", "symbolic"), ("dangling", "symbolic"), ("fifo", "not a regular")):
        with pytest.raises(RunFolderError, match=what):
            open_regular(tmp_path / name)
    with pytest.raises(RunFolderError, match="not a regular file"):
        open_regular(Path("/dev/null"))
    with pytest.raises(FileNotFoundError):
        open_regular(tmp_path / "missing")
    with pytest.raises(RunFolderError, match="larger than 3 bytes"):
        read_regular(tmp_path / "file", max_bytes=3)
