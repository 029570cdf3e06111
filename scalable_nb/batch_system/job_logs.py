"""Output files of batch jobs: where they are, and their last lines."""

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

logger = logging.getLogger(__name__)

#: A log may be large; its end is enough.
_TAIL_BYTES: Final = 16_384
_TAIL_LINES: Final = 20


def read_tail(logs: Callable[[], Sequence[Path]]) -> list[str]:
    """The last lines of a job's output; none where it cannot be read."""
    lines: deque[str] = deque(maxlen=_TAIL_LINES)
    for path in logs():
        try:
            with path.open("rb") as file:
                size = file.seek(0, 2)
                file.seek(max(0, size - _TAIL_BYTES))
                lines.extend(file.read().decode(errors="replace").splitlines())
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
    folder.mkdir(parents=True, exist_ok=True)
    return folder
