"""Output files of batch jobs: where they are, their last lines, and why a start failed."""

from __future__ import annotations

import logging
import re
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from scalable_nb.manifest import job_options
from scalable_nb.manifest.load import LoadedManifest
from scalable_nb.paths import RunPaths, private_folder
from scalable_nb.trusted_paths import read_last_lines

#: In the order in which they are tried: what names its cause before what only follows from it.
_RULES: Final = (
    (
        r"No module named '?(?P<what>scalable_nb\.[\w.]+)",
        "the Python of the job has another version of scalable_nb, without {what!r}: install the "
        "version of this environment there too (`python:` of the target names the interpreter)",
    ),
    (
        r"No module named '?(?P<what>[\w.]+)",
        "the Python of the job has no package {what!r}: activate the right environment in "
        "`job_script_prologue:`, or name its interpreter with `python:`",
    ),
    (
        r"(?P<what>\S+): (?:command )?not found|(?P<file>\S*python\S*): No such file or directory",
        "{what!r} is not there on the node: load its module or activate the environment in "
        "`job_script_prologue:`",
    ),
    (
        r"(?:cert|key)\.pem|FileNotFoundError.*\.pem",
        "the node cannot read the session's TLS files: the run folder has to lie on a file "
        "system that all nodes share (SCALABLE_RUNS_DIR)",
    ),
    (
        r"'?(?P<what>[\w.-]+)'? is not a valid network interface",
        "the node has no network interface {what!r}: name one that login and compute nodes "
        "have with `interface:`",
    ),
    (
        r"[Tt]imed out|Connection refused|ConnectionRefused|No route to host|"
        r"Network is unreachable",
        "the node cannot reach the scheduler: it listens on an interface that the nodes do not "
        "see (`interface:`), or a firewall is between them",
    ),
    (
        r"Permission denied",
        "a file that the job needs may not be read or run on the node",
    ),
)
_SILENT: Final = (
    "the job has not printed anything: its prologue may still be loading modules, or wait for a "
    "slow file system"
)


logger = logging.getLogger(__name__)

#: A log may be large; its end is enough.
_TAIL_BYTES: Final = 16_384
_TAIL_LINES: Final = 20


def read_tail(logs: Callable[[], Sequence[Path]]) -> list[str]:
    """The last lines of a job's output; none where it cannot be read."""
    lines: deque[str] = deque(maxlen=_TAIL_LINES)
    for path in logs():
        try:
            lines.extend(read_last_lines(path, _TAIL_LINES, _TAIL_BYTES))
        except OSError as error:
            logger.info("cannot read the output of a job: %s", error)
    return list(lines)


def logs_of_job(folder: Path, job_id: str) -> list[Path]:
    """The files with the output of a job.

    Notes
    -----
    Slurm, LSF and HTCondor end the name with ``-ID.out`` (dask-jobqueue 0.9.0 says so), PBS and
    Grid Engine with ``.oID``, where the id of PBS goes without the name of its server. Digits
    within the name of the run are no id.
    """
    number = re.escape(job_id.partition(".")[0])
    is_its = re.compile(rf"([^0-9A-Za-z]|\.[eo]){number}(?![0-9A-Za-z])").search
    return sorted(path for path in folder.glob("*") if is_its(path.name))


def log_folder(loaded: LoadedManifest, paths: RunPaths) -> Path:
    """Where the jobs of a run put their output; made where it is missing."""
    directory = loaded.target.options.get("log_directory")
    directory = directory or job_options.configured(loaded.target, "log_directory")
    if directory is None:
        return private_folder(paths.jobs)
    folder = Path(directory).expanduser().absolute()
    # One that exists may be the site's, for all its users.
    return folder if folder.is_dir() else private_folder(folder)


def likely_cause(lines: Sequence[str]) -> str | None:
    """The most likely cause in words; None where the output fits no rule.

    Parameters
    ----------
    lines : sequence of str
        The end of the job's output.

    Examples
    --------
    >>> likely_cause(["ModuleNotFoundError: No module named 'distributed'"])[:46]
    "the Python of the job has no package 'distribu"
    """
    if not any(line.strip() for line in lines):
        return _SILENT
    text = "\n".join(lines)
    for pattern, cause in _RULES:
        found = re.search(pattern, text)
        if found:
            groups = found.groupdict()
            return cause.format(what=groups.get("what") or groups.get("file"))
    return None
