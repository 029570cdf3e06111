"""Asks Slurm about jobs: always one command for all of them, never in the way of the host."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final

from scalable_nb.batch_system.job_state import JobFacts
from scalable_nb.errors import BatchCommandError
from scalable_nb.manifest.session_commands import (
    SACCT_FIELDS,
    SCONTROL,
    SQUEUE_FORMAT,
    sacct,
    squeue,
)

_SQUEUE_FIELDS: Final = SQUEUE_FORMAT.count("|") + 1
_SACCT_FIELDS: Final = SACCT_FIELDS.count(",") + 1
_UNITS: Final = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40, "P": 2**50}
_NOTHING: Final = frozenset({"", "None", "N/A", "n/a", "Unknown", "None assigned", "(null)"})
_ENDED: Final = re.compile(
    r"\*\*\* JOB (?P<job>\S+) ON (?P<node>\S+) CANCELLED AT (?P<at>[\dT:-]+)"
    r"(?: DUE TO (?P<why>[A-Z ]+[A-Z]).*?)? \*\*\*"
)
_EXCEEDED: Final = re.compile(r"exceeded memory limit \((\d+) > (\d+)\)")
_OOM_KILL: Final = re.compile(r"Detected \d+ oom.kill event")
#: Stands where a signal would; there is none of this number.
_OUT_OF_MEMORY_MARK: Final = 125
_STATE_OF: Final = {
    "JOB REQUEUE": "REQUEUED",
    "NODE FAILURE": "NODE_FAIL",
    "PREEMPTION": "PREEMPTED",
    "TIME LIMIT": "TIMEOUT",
}


_TIMEOUT_S: Final = 30.0

#: What `sacct` says where nothing is written down.
_NO_ACCOUNTING: Final = "accounting storage is disabled"


async def run_command(*command: str) -> str:
    """The output of a command of the batch system.

    Raises
    ------
    BatchCommandError
        When it cannot be run, fails, or does not end.
    """
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            env={**os.environ, "SLURM_TIME_FORMAT": "%s"},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
    except OSError as error:
        raise BatchCommandError(command, None, "", str(error)) from error
    try:
        out, err = await asyncio.wait_for(process.communicate(), _TIMEOUT_S)
    except BaseException as error:
        process.kill()
        await process.wait()
        if isinstance(error, TimeoutError):
            silence = f"no answer within {_TIMEOUT_S:g} s"
            raise BatchCommandError(command, None, "", silence) from error
        raise
    stdout, stderr = out.decode(errors="replace"), err.decode(errors="replace")
    if process.returncode:
        raise BatchCommandError(command, process.returncode, stdout, stderr)
    return stdout


class SlurmQuery:
    """Slurm's commands, in what they say of the jobs of one name.

    Parameters
    ----------
    job_name : str
    """

    def __init__(self, job_name: str) -> None:
        self._job_name = job_name
        self._has_accounting = True

    async def jobs(self) -> dict[str, JobFacts]:
        """Jobs that wait, run or ended a short while ago, by id.

        Raises
        ------
        BatchCommandError
        """
        return parse_squeue(await run_command(*squeue(self._job_name)))

    async def runs(self, job_ids: Collection[str]) -> dict[str, list[JobFacts]] | None:
        """All runs of these jobs as they were written down; None where nothing is.

        Raises
        ------
        BatchCommandError
        """
        if not self._has_accounting:
            return None
        try:
            text = await run_command(*sacct(job_ids))
        except BatchCommandError as error:
            is_absent = isinstance(error.__cause__, FileNotFoundError)
            if not is_absent and _NO_ACCOUNTING not in error.stderr:
                raise
            self._has_accounting = False
            return None
        return parse_sacct(text)

    async def last_runs(self) -> dict[str, JobFacts]:
        """What the controller remembers of each job's last run, by id.

        Raises
        ------
        BatchCommandError
        """
        return parse_scontrol(await run_command(*SCONTROL))


def parse_squeue(text: str) -> dict[str, JobFacts]:
    """Facts by job id, from ``squeue --noheader --format=SQUEUE_FORMAT``."""
    found = {}
    for line in text.splitlines():
        fields = line.split("|")
        if len(fields) != _SQUEUE_FIELDS:
            continue  # a centre's own greeting, or a warning
        job_id, state, reason, start, node, used, end = fields
        is_pending = state == "PENDING"
        found[job_id] = JobFacts(
            job_id,
            state,
            reason=_text(reason),
            estimated_start_at=_time(start) if is_pending else None,
            started_at=None if is_pending else _time(start),
            node=_text(node),
            elapsed_s=_duration_s(used),
            source="squeue",
            ends_at=_time(end) if state == "RUNNING" else None,
        )
    return found


def parse_sacct(text: str) -> dict[str, list[JobFacts]]:
    """Facts by job id, one for each run of the job in their order.

    From ``sacct --duplicates --noheader --parsable2 --format=SACCT_FIELDS``. Memory and the
    script's exit code stand on the step ``batch``, the job's state and times on the job.
    """
    found: dict[str, list[JobFacts]] = {}
    for line in text.splitlines():
        fields = line.split("|")
        if len(fields) != _SACCT_FIELDS:
            continue
        name, state, exit_code, elapsed, max_rss, nodes, start, end = fields
        job_id, _, step = name.partition(".")
        code, signal = _exit_code(exit_code)
        runs = found.setdefault(job_id, [])
        if step:
            if step == "batch" and runs:
                runs[-1] = replace(
                    runs[-1],
                    exit_code=runs[-1].exit_code or code,
                    signal=runs[-1].signal or signal,
                    max_rss_bytes=_size_bytes(max_rss),
                    node=_text(nodes),
                )
            continue
        # "CANCELLED by 1000"
        state = state.partition(" ")[0]
        runs.append(
            JobFacts(
                job_id,
                state,
                started_at=_time(start),
                ended_at=_time(end),
                exit_code=code,
                signal=signal,
                node=_text(nodes),
                elapsed_s=float(elapsed) if elapsed else None,
                is_out_of_memory=state == "OUT_OF_MEMORY",
                source="sacct",
            )
        )
    return found


def parse_scontrol(text: str) -> dict[str, JobFacts]:
    """Facts by job id, from ``scontrol show job --oneliner``."""
    found = {}
    for line in text.splitlines():
        values = dict(pair.split("=", 1) for pair in line.split() if "=" in pair)
        if "JobId" in values:
            facts = _of_scontrol(values)
            found[facts.job_id] = facts
    return found


def _of_scontrol(values: Mapping[str, str]) -> JobFacts:
    state = values.get("JobState", "")
    is_pending = state == "PENDING"
    start = _time(values.get("StartTime", ""))
    code, signal = _exit_code(values.get("ExitCode", ""))
    return JobFacts(
        values["JobId"],
        state,
        reason=_text(values.get("Reason", "")),
        estimated_start_at=start if is_pending else None,
        started_at=None if is_pending else start,
        ended_at=_time(values.get("EndTime", "")),
        exit_code=code,
        signal=signal,
        node=_text(values.get("BatchHost", "")),
        elapsed_s=_duration_s(values.get("RunTime", "")),
        is_out_of_memory=state == "OUT_OF_MEMORY",
        source="scontrol",
    )


def parse_log(lines: Sequence[str], job_id: str, since: float) -> JobFacts:
    """What the last lines of a job's output say of its end; an empty state where nothing.

    Parameters
    ----------
    lines : sequence of str
    job_id : str
    since : float
        When the worker in question connected; the end of an earlier run does not count.
    """
    facts = JobFacts(job_id, "", log_tail=tuple(lines), source="log")
    for line in lines:
        exceeded = _EXCEEDED.search(line)
        if exceeded:
            used, limit = map(int, exceeded.groups())
            facts = replace(
                facts, is_out_of_memory=True, max_rss_bytes=used, memory_limit_bytes=limit
            )
        ended = _ENDED.search(line)
        if ended is None or ended["job"] != job_id:
            continue
        at = _local_time(ended["at"])
        if at is None:
            continue
        if at + 1 < since:
            facts = JobFacts(job_id, "", log_tail=tuple(lines), source="log")
        else:
            state = _STATE_OF.get((ended["why"] or "").partition(",")[0], "CANCELLED")
            facts = replace(facts, state=state, node=ended["node"], ended_at=at)
    # Also said at the end of a job that the kernel took a process from hours ago, and that was
    # ended for another reason.
    if not facts.state and any(map(_OOM_KILL.search, lines)):
        facts = replace(facts, is_out_of_memory=True)
    return facts


def _text(value: str) -> str | None:
    return None if value in _NOTHING else value


def _time(value: str) -> float | None:
    return float(value) if value.isdigit() else None


def _local_time(value: str) -> float | None:
    """A time without a zone: the node's, which on a cluster is everybody's."""
    try:
        return datetime.fromisoformat(value).timestamp()
    except ValueError:
        return None


def _exit_code(value: str) -> tuple[int | None, int | None]:
    """``code:signal``; a script that a signal has ended has no code."""
    code, _, signal = value.partition(":")
    if not (code.isdigit() and signal.isdigit()):
        return None, None
    if int(signal) == 0:
        return int(code), None
    return None, int(signal) if int(signal) != _OUT_OF_MEMORY_MARK else None


def _duration_s(value: str) -> float | None:
    match = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", value)
    if match is None:
        return None
    days, hours, minutes, seconds = (float(group or 0) for group in match.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


def _size_bytes(value: str) -> int | None:
    match = re.fullmatch(r"([\d.]+)([KMGTP]?)", value)
    return int(float(match[1]) * _UNITS[match[2]]) if match else None
