"""The only place that knows what files are called and where they lie."""

from __future__ import annotations

import os
import re
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from scalable_nb.errors import NoRunError, RunFolderError, UnknownNameError
from scalable_nb.trusted_paths import is_own_folder, owner_text, require_trusted

MANIFEST_NAME: Final = "scalable.yaml"
_OTHER_FOLDER: Final = (
    "Set SCALABLE_RUNS_DIR (or SCALABLE_CACHE_DIR) to a folder that only you can write."
)
_SYSTEM_FOLDER: Final = Path("/etc/scalable_nb")
_RUN_ID: Final = re.compile(r"run-\d{8}T\d{6}Z-[A-Za-z0-9_.-]{1,64}-[0-9a-f]{8}")


@dataclass(frozen=True)
class RunPaths:
    """Where the files of one run lie.

    Parameters
    ----------
    folder : Path
        The run folder, named by the run's id.
    """

    folder: Path

    @property
    def run_id(self) -> str:
        """The folder's name."""
        return self.folder.name

    @property
    def run_json(self) -> Path:
        """Who started what, where and when."""
        return self.folder / "run.json"

    @property
    def manifest_yaml(self) -> Path:
        """The manifest as it was used, overlays applied."""
        return self.folder / "manifest.yaml"

    @property
    def manifest_lock(self) -> Path:
        """SHA-256 of the manifest."""
        return self.folder / "manifest.lock"

    @property
    def plan_json(self) -> Path:
        """What the start asked for."""
        return self.folder / "plan.json"

    @property
    def session_json(self) -> Path:
        """How to reach the host, and its heartbeat; see `protocol.connection_file`."""
        return self.folder / "session.json"

    @property
    def host_job_json(self) -> Path:
        """Which batch job the host is, where it is one."""
        return self.folder / "host-job.json"

    @property
    def tasks(self) -> Path:
        """One row per finished task."""
        return self.folder / "tasks.jsonl"

    @property
    def failures(self) -> Path:
        """One row per failed attempt."""
        return self.folder / "failures.jsonl"

    @property
    def workers(self) -> Path:
        """Workers that came and went."""
        return self.folder / "workers.jsonl"

    @property
    def cache(self) -> Path:
        """Results stored and results found."""
        return self.folder / "cache.jsonl"

    @property
    def inputs(self) -> Path:
        """How many inputs of batches the tasks compute."""
        return self.folder / "inputs.jsonl"

    @property
    def summary_json(self) -> Path:
        """Counts at the end of the run."""
        return self.folder / "summary.json"

    @property
    def host_log(self) -> Path:
        """What the host and its scheduler logged."""
        return self.folder / "host.log"

    @property
    def logs(self) -> Path:
        """Private folder of what the workers on this machine printed and logged, a file each."""
        return self.folder / "logs"

    def worker_log(self, worker: str) -> Path | None:
        """The log of a worker on this machine, by its name; None where there is none."""
        # Compared, never used as a path: the name may come from a journal.
        logs = _files(self.logs) if worker else []
        return next((path for path in logs if path.name == f"{worker}.log"), None)

    def log_files(self) -> dict[str, Path]:
        """All logs by name: ``host``, workers on this machine, jobs by their files' names."""
        found = {path.stem: path for path in _files(self.folder) if path == self.host_log}
        for folder in (self.logs, self.jobs):
            found |= {path.stem: path for path in _files(folder)}
        return found

    @property
    def tls(self) -> Path:
        """Private folder of the session's certificate and key."""
        return self.folder / "tls"

    @property
    def results(self) -> Path:
        """Results of tasks that must not be called twice."""
        return self.folder / "results"

    @property
    def calls(self) -> Path:
        """What the tasks call: functions and arguments, written before they run."""
        return self.folder / "calls"

    @property
    def resumes(self) -> Path:
        """Id of the run whose calls are being submitted again; gone when all of them are here."""
        return self.folder / "resumes"

    @property
    def handed_over_key(self) -> Path:
        """A key for signatures that lasts as long as the session; the host removes it."""
        return self.folder / "key"

    @property
    def jobs(self) -> Path:
        """Private folder of what batch jobs write."""
        return self.folder / "jobs"

    @property
    def workspace(self) -> Path:
        """Local directory of workers on this machine."""
        return self.folder / "workspace"


def _files(folder: Path) -> list[Path]:
    """Return the regular files of a folder of a run by name; none if it is a link."""
    try:
        if not is_own_folder(folder.lstat()):
            return []
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries if entry.is_file(follow_symlinks=False))
    except FileNotFoundError:
        return []
    return [folder / name for name in names]


def user_manifest() -> Path:
    """The manifest that holds for all projects of this user; it need not exist."""
    return _user_folder() / MANIFEST_NAME


def user_key_file() -> Path:
    """Return where the user's key for signatures is; it need not exist."""
    given = os.environ.get("SCALABLE_KEY_FILE")
    return Path(given).expanduser().absolute() if given else _user_folder() / "key"


def _user_folder() -> Path:
    base = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(base).expanduser().absolute() / "scalable_nb"


def system_manifest() -> Path:
    """The manifest of the machine, which its administrators write; it need not exist."""
    return _SYSTEM_FOLDER / MANIFEST_NAME


def create_run(runs_dir: Path, project: str) -> RunPaths:
    """Make a new, private run folder.

    Raises
    ------
    RunFolderError
        When the folder cannot be made, or lies in one that others may write.
    """
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    safe = re.sub(r"[^A-Za-z0-9_.-]+", "-", project)[:64].strip("-.") or "project"
    private_folder(runs_dir)
    folder = runs_dir / f"run-{stamp}-{safe}-{secrets.token_hex(4)}"
    return RunPaths(private_folder(folder))


def list_runs(runs_dir: Path) -> list[RunPaths]:
    """Return all runs below ``runs_dir``, oldest first; skip links and folders of other users.

    Raises
    ------
    RunFolderError
        If other users could exchange the runs.
    """
    require_trusted(runs_dir, _OTHER_FOLDER)
    try:
        with os.scandir(runs_dir) as entries:
            names = sorted(
                entry.name
                for entry in entries
                if _RUN_ID.fullmatch(entry.name)
                and is_own_folder(entry.stat(follow_symlinks=False))
            )
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [RunPaths(runs_dir / name) for name in names]


def find_run(runs_dir: Path, run: str = "last") -> RunPaths:
    """Return the run with this id, or the newest one for ``"last"``.

    Raises
    ------
    RunFolderError
        If other users could exchange the run, or its folder is a link or another user's.
    UnknownNameError
        When there is none. Ids are compared, never used as paths.
    """
    runs = list_runs(runs_dir)
    if run == "last" and runs:
        return runs[-1]
    for paths in runs:
        if paths.run_id == run:
            return paths
    if _RUN_ID.fullmatch(run) and os.path.lexists(runs_dir / run):
        raise RunFolderError(_why_no_run(runs_dir / run))
    hint = f"Looked in {runs_dir}; `%scalable start` begins a run."
    if run == "last":
        raise NoRunError("run", run, (), hint)
    raise UnknownNameError("run", run, [paths.run_id for paths in runs], hint)


def _why_no_run(folder: Path) -> str:
    info = folder.lstat()
    if stat.S_ISDIR(info.st_mode):
        return (
            f"the run folder {str(folder)!r} belongs to {owner_text(info.st_uid)}: not used. "
            f"Copy it into a folder of yours (`cp -r`), and set SCALABLE_RUNS_DIR to that."
        )
    return (
        f"{str(folder)!r} (owner {owner_text(info.st_uid)}) is not a folder, but a link or a file: "
        "not used. Move the run folder itself there, or set SCALABLE_RUNS_DIR to where it lies."
    )


def check_folder(folder: Path) -> Path:
    """Return a folder that need not exist, or refuse it if other users could exchange its contents.

    Raises
    ------
    RunFolderError
        Names the path at fault, its owner and the remedy.
    """
    require_trusted(folder, _OTHER_FOLDER)
    return folder


def private_folder(folder: Path) -> Path:
    """Make ``folder`` (mode 0700, as all missing levels) and refuse it if others could replace it.

    Raises
    ------
    RunFolderError
        Names the path at fault, its owner and the remedy.
    """
    require_trusted(folder, _OTHER_FOLDER)
    try:
        for level in (*reversed(folder.parents), folder):
            if not os.path.lexists(level):
                level.mkdir(mode=0o700, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)  # a file there is an error
        info = folder.stat()
    except OSError as error:
        raise RunFolderError(
            f"cannot make the folder {str(folder)!r}: {error.strerror or error}. "
            "Set SCALABLE_RUNS_DIR (or SCALABLE_CACHE_DIR) to a folder you may write."
        ) from error
    require_trusted(folder, _OTHER_FOLDER)  # another user may have made a level at the same time
    if info.st_uid != os.getuid():
        raise RunFolderError(
            f"the folder {str(folder)!r} belongs to {owner_text(info.st_uid)}, not to you: not "
            f"used. {_OTHER_FOLDER}"
        )
    if not os.access(folder, os.W_OK | os.X_OK):
        raise RunFolderError(
            f"the folder {str(folder)!r} is not writable (mode "
            f"{stat.S_IMODE(info.st_mode):04o}): run `chmod u+wx {folder}`, or set "
            "SCALABLE_RUNS_DIR (or SCALABLE_CACHE_DIR) to another folder."
        )
    return folder


@contextmanager
def appending(descriptor: int) -> Iterator[Callable[[bytes], None]]:
    """Give a function that appends to a file; what the block appends is there whole, or not at all.

    Raises
    ------
    OSError
        When the disk refuses; the file is as it was before.
    """

    def append(data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]

    start = os.lseek(descriptor, 0, os.SEEK_END)
    try:
        yield append
    except OSError:
        os.ftruncate(descriptor, start)
        raise


def write_private(path: Path, data: bytes) -> None:
    """Write a file of mode 0600 so that a reader sees all of it or nothing of it."""
    part = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.part")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with os.fdopen(os.open(part, flags, 0o600), "wb") as file:
            file.write(data)
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
