"""Decide whether another user could change or replace a path; open files without following links.

A path is trusted if all its ancestors belong to this user or root and only they can write them.
Then no other user can exchange a file between the check and its use. An ancestor with the sticky
bit may be writable: others cannot replace what does not belong to them.
"""

from __future__ import annotations

import grp
import os
import pwd
import stat
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import BinaryIO, Final

from scalable_nb.errors import RunFolderError

_ROOT_UID: Final = 0
_MAX_LINKS: Final = 40
#: Sources of account names that list all accounts.
_COMPLETE_SOURCES: Final = frozenset({"files", "compat", "systemd", "altfiles"})


@dataclass(frozen=True)
class Flaw:
    """The reason why a path is not trusted.

    Attributes
    ----------
    path : str
        The file, folder or link at fault: the path itself, or one of its ancestors.
    reason : str
        As a clause, with the owner.
    remedy : str
        A command that removes the flaw; empty if only the owner of `path` could.
    """

    path: str
    reason: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.path!r} {self.reason}"


def find_flaw(path: Path) -> Flaw | None:
    """Return why another user could change or replace a path, or None if no other user can.

    Links are followed if this user or root owns them. A missing last part has no flaw of its own.
    """
    pending = list(reversed(path.absolute().parts[1:]))
    current, links = "/", 0
    while True:
        try:
            info = os.lstat(current)
        except OSError:
            return None  # missing, or unreachable: nothing can be read there
        flaw = _find_own_flaw(current, info, pending)
        if flaw is not None:
            return flaw
        if stat.S_ISLNK(info.st_mode):
            links += 1
            if links > _MAX_LINKS:
                return Flaw(current, "is a link in a circle of links", f"rm {current}")
            target = os.readlink(current)  # noqa: PTH115 - a Path drops `.` and doubled slashes
            current = "/" if target.startswith("/") else os.path.dirname(current)  # noqa: PTH120
            pending += [part for part in reversed(target.split("/")) if part not in ("", ".")]
        if not pending:
            return None
        part = pending.pop()
        # No component of `current` is a link, so its parent is the folder in its name.
        current = os.path.dirname(current) if part == ".." else os.path.join(current, part)  # noqa: PTH118, PTH120


def require_trusted(path: Path, remedy: str) -> None:
    """Refuse a path that another user could change or replace.

    Parameters
    ----------
    path : Path
    remedy : str
        What else the user can do, as a sentence.

    Raises
    ------
    RunFolderError
        Names the path at fault, its owner and the remedy.
    """
    flaw = find_flaw(path)
    if flaw is not None:
        raise RunFolderError(refusal(path, flaw, remedy))


def refusal(path: Path, flaw: Flaw, remedy: str) -> str:
    """Return the message of a path that is not used."""
    where = str(flaw) if flaw.path == str(path) else f"{str(path)!r}: {flaw}"
    command = f"Run `{flaw.remedy}`, or: " if flaw.remedy else ""
    return f"not trusted: {where}. {command}{remedy}"


def owner_text(uid: int) -> str:
    """Return an owner by name and number."""
    try:
        return f"{pwd.getpwuid(uid).pw_name} (uid {uid})"
    except KeyError:
        return f"uid {uid}"


def open_regular(path: Path) -> BinaryIO:
    """Open a file of a run for reading; a link, FIFO or device is refused and never waited for.

    Raises
    ------
    FileNotFoundError
        If it does not exist.
    RunFolderError
        If it is not a regular file.
    """
    # Without O_NONBLOCK the open itself would wait for the other end of a FIFO.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags)
    except OSError:
        if path.is_symlink():
            raise RunFolderError(f"{str(path)!r} is a symbolic link: not read") from None
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise RunFolderError(f"{str(path)!r} is not a regular file: not read")
    return os.fdopen(descriptor, "rb", buffering=1 << 18)


def read_regular(path: Path, max_bytes: int = 1 << 26) -> bytes:
    """Return the bytes of a file of a run, which must be a regular one of limited size.

    Raises
    ------
    FileNotFoundError, RunFolderError
        As `open_regular`, or if the file is larger than ``max_bytes``.
    """
    with open_regular(path) as file:
        data = file.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise RunFolderError(f"{str(path)!r} is larger than {max_bytes:,} bytes: not read")
    return data


def read_last_lines(path: Path, count: int, max_bytes: int = 1 << 20) -> list[str]:
    """Return the last lines of a log, from its last ``max_bytes`` at most.

    Raises
    ------
    FileNotFoundError, RunFolderError
        As `open_regular`.
    """
    with open_regular(path) as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - max_bytes))
        text = file.read(max_bytes).decode(errors="replace")
    return text.splitlines()[-count:] if count else []


def is_own_folder(info: os.stat_result) -> bool:
    """Return whether this is the `lstat` of a folder, not a link, of this user or root."""
    return stat.S_ISDIR(info.st_mode) and info.st_uid in (os.getuid(), _ROOT_UID)


# --- decisions about one component ---------------------------------------------------


def _find_own_flaw(path: str, info: os.stat_result, pending: list[str]) -> Flaw | None:
    if info.st_uid not in (os.getuid(), _ROOT_UID) and not _is_above_mount(path, info, pending):
        what = "is a link that belongs" if stat.S_ISLNK(info.st_mode) else "belongs"
        return Flaw(path, f"{what} to {owner_text(info.st_uid)}, who could replace its contents")
    if stat.S_ISLNK(info.st_mode):
        return None  # the mode of a link has no meaning
    if pending and info.st_mode & stat.S_ISVTX:
        return None
    writers = _other_writers(path, info)
    if writers is None:
        return None
    mode, owner = stat.S_IMODE(info.st_mode), owner_text(info.st_uid)
    reason = f"is writable by {writers} (mode {mode:04o}, owner {owner})"
    return Flaw(path, reason, f"chmod go-w {path}" if info.st_uid == os.getuid() else "")


def _other_writers(path: str, info: os.stat_result) -> str | None:
    if info.st_mode & stat.S_IWOTH:
        return "others"
    if not info.st_mode & stat.S_IWGRP:
        return None
    if is_private_group(info.st_gid) and not _has_acl(path):
        return None
    try:
        return f"the group {grp.getgrgid(info.st_gid).gr_name}"
    except KeyError:
        return f"the group {info.st_gid}"


def _has_acl(path: str) -> bool:
    # With an access control list the group bits are its mask, and other users may be in it.
    try:
        return bool(os.getxattr(path, "system.posix_acl_access"))
    except (OSError, AttributeError):  # none, or a system without them
        return False


@cache
def is_private_group(gid: int) -> bool:
    """Return whether a group has no members except this user and root."""
    try:
        group, user = grp.getgrgid(gid), pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return gid == _ROOT_UID
    if not set(group.gr_mem) <= {user, "root"}:
        return False
    if gid == _ROOT_UID or group.gr_name == user:
        return True  # many systems give each user a group of the same name
    # A directory service need not list its accounts, so others may have it as their first group.
    return _lists_all_accounts() and all(
        account.pw_name in (user, "root") for account in pwd.getpwall() if account.pw_gid == gid
    )


def _lists_all_accounts(conf: Path = Path("/etc/nsswitch.conf")) -> bool:
    try:
        lines = conf.read_text(errors="replace").splitlines()
    except OSError:
        return True  # the C library reads /etc/passwd only
    words = [word for line in lines if line.split(":")[0].strip() in ("passwd", "group")
             for word in line.partition("#")[0].partition(":")[2].split()]  # fmt: skip
    return set(words) <= _COMPLETE_SOURCES


def _is_above_mount(path: str, info: os.stat_result, pending: list[str]) -> bool:
    """Return whether an owner is unmapped in this container, and a mount point is further down.

    The kernel shows all users of the machine that a container does not map, root included, as one
    user. That user cannot replace a mount point as seen from the container.
    """
    if info.st_uid != _overflow_uid() or _is_mapped(info.st_uid):
        return False
    below = path
    for part in reversed(pending):
        below = os.path.join(below, part)  # noqa: PTH118
        if below in _mount_points():
            return True
    return False


@cache
def _overflow_uid() -> int:
    try:
        return int(Path("/proc/sys/kernel/overflowuid").read_text())
    except (OSError, ValueError):
        return -1


@cache
def _is_mapped(uid: int) -> bool:
    try:
        lines = Path("/proc/self/uid_map").read_text().splitlines()
    except OSError:
        return True
    ranges = [tuple(map(int, line.split())) for line in lines]
    return any(first <= uid < first + count for first, _, count in ranges)


def _mount_points() -> frozenset[str]:
    try:
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return frozenset()
    return frozenset(line.split()[4] for line in lines)
