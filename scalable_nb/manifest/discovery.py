"""A target of a batch system where there is no manifest: from Dask's configuration, or Slurm's.

Slurm is asked for its default partition; that is the one question a manifest would answer.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from typing import Any, Final

import dask

from scalable_nb.errors import StartError
from scalable_nb.manifest import job_options

_COMMAND_TIMEOUT_S: Final = 10.0
_WORKERS: Final = 4
_WALLTIME: Final = "01:00:00"
_WALLTIME_S: Final = 3600
_EMBEDDED: Final = "`python -m scalable_nb.devslurm up` starts a Slurm on this machine to try with."


@dataclass(frozen=True)
class DiscoveredTarget:
    """A target as a manifest would have it, and what was chosen, in words."""

    target: dict[str, Any]
    notice: str


def discover(provider: str) -> DiscoveredTarget:
    """A target of a provider that somebody asked for without a manifest.

    Raises
    ------
    StartError
        When nothing says how large a job should be; says what to do.
    """
    job_options.cluster_class(provider)  # loads dask-jobqueue's own defaults into the configuration
    size = {key: dask.config.get(f"jobqueue.{provider}.{key}", None) for key in ("cores", "memory")}
    if size["memory"] is not None:
        return DiscoveredTarget(
            {"provider": provider, "max_workers": _WORKERS},
            f"Dask's configuration jobqueue.{provider}: {_WORKERS} workers with "
            f"{size['cores'] or 1} cores and {size['memory']} each",
        )
    if provider != "slurm":
        raise StartError(
            f"there is no scalable.yaml, and Dask's configuration does not say how much memory a "
            f"job needs (jobqueue.{provider}.memory). `%scalable init` writes a scalable.yaml to "
            "edit."
        )
    return _of_partition(_default_partition())


def _of_partition(partition: dict[str, str]) -> DiscoveredTarget:
    name = partition["PartitionName"]
    cores = int(partition.get("TotalCPUs", "1"))
    memory_mb = _memory_of_a_core_mb(name)
    target: dict[str, Any] = {
        "provider": "slurm",
        "queue": name,
        "max_workers": min(_WORKERS, cores),
        "memory": f"{memory_mb}MiB",
    }
    target["walltime"] = _walltime(partition.get("MaxTime", "UNLIMITED"))
    return DiscoveredTarget(
        target,
        f"Slurm's default partition {name!r}: {target['max_workers']} workers with 1 core and "
        f"{memory_mb} MiB each, for {target['walltime']}",
    )


def _walltime(longest: str) -> str:
    """An hour, or the partition's limit where that is shorter; as Slurm writes it."""
    days, _, clock = longest.rpartition("-")
    parts = clock.split(":")
    if days or len(parts) != 3 or not all(part.isdigit() for part in parts):
        return _WALLTIME
    hours, minutes, seconds = map(int, parts)
    return longest if hours * 3600 + minutes * 60 + seconds < _WALLTIME_S else _WALLTIME


def _default_partition() -> dict[str, str]:
    lines = _run_slurm("scontrol", "show", "partition", "--oneliner").splitlines()
    partitions = [
        {key: value for key, _, value in (word.partition("=") for word in line.split())}
        for line in lines
        if line.startswith("PartitionName=")
    ]
    for partition in partitions:
        if partition.get("Default") == "YES":
            return partition
    raise StartError(
        "there is no scalable.yaml, and Slurm has no default partition among "
        f"{', '.join(p['PartitionName'] for p in partitions) or 'none'}: `%scalable init` writes "
        "a scalable.yaml; name one there (`queue:`)."
    )


def _memory_of_a_core_mb(partition: str) -> int:
    """The memory of the smallest node of a partition, shared by its cores."""
    rows = _run_slurm("sinfo", "--noheader", "--Node", f"--partition={partition}", "--format=%c %m")
    shares = [
        int(memory.rstrip("+")) // int(cpus.rstrip("+"))
        for cpus, memory in (row.split() for row in rows.splitlines())
    ]
    return min(shares, default=1024)


def _run_slurm(*command: str) -> str:
    try:
        answer = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=_COMMAND_TIMEOUT_S
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _unavailable(command, str(error)) from error
    if answer.returncode:
        raise _unavailable(command, f"exit code {answer.returncode}: {answer.stderr.strip()}")
    return answer.stdout


def _unavailable(command: tuple[str, ...], output: str) -> StartError:
    return StartError(
        "there is no scalable.yaml, and no Slurm answers here. "
        f"`{' '.join(command)}` said: {output}. Where Slurm's commands work, this starts without a "
        f"file; `%scalable start` without a target uses this machine; {_EMBEDDED}"
    )
