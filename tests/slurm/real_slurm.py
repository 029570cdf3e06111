"""What tests ask of a real Slurm and do to it."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest
from waiting import until

from scalable_nb.devslurm.service import DevSlurm, missing_packages

#: Options of a job that has all nodes for itself.
EVERYWHERE = ("--nodes=4", "--exclusive")

#: Notes that it was called, and does what the program does.
_NOTING = """#!/bin/sh
echo "$(date +%s.%N) $*" >> {notes}
exec {program} "$@"
"""


@dataclass(frozen=True)
class Calls:
    """How a command of Slurm was called: when, in seconds since the epoch, and with which words."""

    at: list[float]
    words: list[str]

    @property
    def gaps_s(self) -> list[float]:
        """Seconds between one call and the next."""
        return [after - before for before, after in pairwise(self.at)]


class RealSlurm:
    """A running Slurm, whose ``squeue`` and ``sacct`` are noted.

    Parameters
    ----------
    instance : DevSlurm
    """

    def __init__(self, instance: DevSlurm) -> None:
        self.instance = instance
        self._bin = instance.layout.folder / "bin"
        self._bin.mkdir()
        for name in ("squeue", "sacct"):
            program = shutil.which(name)
            assert program is not None
            notes = shlex.quote(str(self._notes(name)))
            (self._bin / name).write_text(_NOTING.format(notes=notes, program=program))
            (self._bin / name).chmod(0o700)
            self._notes(name).touch()

    def use(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """From now on this is the Slurm of every command."""
        monkeypatch.setenv("SLURM_CONF", str(self.instance.layout.slurm_conf))
        monkeypatch.setenv("PATH", str(self._bin), prepend=os.pathsep)

    def in_use(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[RealSlurm]:
        """While it lasts, this is the Slurm of every command; afterwards it is as at first."""
        self.use(monkeypatch)
        yield self
        self.clear()

    def calls(self, name: str, *words: str) -> Calls:
        """The calls of ``squeue`` or ``sacct`` that had one of these words in them."""
        lines = [line.split(maxsplit=1) for line in self._notes(name).read_text().splitlines()]
        found = [(float(at), said) for at, said in lines if any(word in said for word in words)]
        return Calls([at for at, _ in found], [said for _, said in found])

    def _notes(self, name: str) -> Path:
        return self._bin / f"{name}.notes"

    def scontrol(self, *words: str) -> str:
        """What ``scontrol`` prints."""
        return self.instance.run_client("scontrol", *words)

    def squeue(self, fields: str = "%i %T") -> list[str]:
        """One line per job that is not over."""
        return self.instance.run_client("squeue", "-h", "-o", fields).splitlines()

    def state(self, job_id: str) -> str:
        """The state of a job, in Slurm's capitals; also after its end."""
        words = self.scontrol("show", "job", job_id, "-o").split()
        return next(word for word in words if word.startswith("JobState=")).partition("=")[2]

    def sbatch(self, script: str, log: Path, *options: str) -> str:
        """Submit a shell script, and return the id of its job."""
        printed = self.instance.run_client(
            "sbatch", "--parsable", f"--output={log}", *options, "--wrap", script
        )
        return printed.strip().partition(";")[0]

    def until_state(self, job_id: str, *states: str, timeout_s: float = 60) -> None:
        """Wait until a job has one of these states."""
        until(lambda: self.state(job_id) in states, timeout_s=timeout_s)

    def resume(self) -> None:
        """Bring all nodes back that have not come by themselves."""
        down = self.instance.run_client(
            "sinfo", "-h", "-N", "-p", "batch", "-t", "down", "-o", "%N"
        )
        for node in down.split():
            self.scontrol("update", f"NodeName={node}", "State=RESUME")

    def clear(self) -> None:
        """End all jobs and bring all nodes back."""
        self.instance.run_client("scancel", "--user", str(self._user()))
        # A job on a node that is down cannot end, and a node may go down late.
        until(lambda: self.resume() or not self.squeue(), timeout_s=120)

    def _user(self) -> str:
        instance = self.instance.instance()
        assert instance is not None
        return instance.user


def started_slurm(
    factory: pytest.TempPathFactory,
    *,
    accounting: bool,
    enforce_memory: bool = False,
    nodes: int = 4,
) -> Iterator[RealSlurm]:
    """A Slurm while it is in use; without the packages the test is skipped."""
    missing = missing_packages(accounting=accounting)
    if missing:
        pytest.skip(f"Debian packages are missing: apt-get install {' '.join(missing)}")
    instance = DevSlurm(factory.mktemp("slurm"))
    instance.up(
        nodes=nodes, cpus=4, memory_mb=4000, accounting=accounting, enforce_memory=enforce_memory
    )
    yield RealSlurm(instance)
    instance.down(remove=True)
