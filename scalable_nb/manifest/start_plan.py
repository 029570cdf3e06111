"""What a plan says, and how it looks in a terminal and in a notebook."""

from __future__ import annotations

import html
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from dask.utils import format_bytes


@dataclass(frozen=True)
class ComponentPlan:
    """One kind of worker.

    Attributes
    ----------
    name : str
    cores : int
        Of one worker (of one job, where a job has several worker processes).
    memory_bytes : int or None
        Likewise; None: what the target has.
    image : str or None
    script : str or None
        Script of a job with such a worker; None on ``local``.
    workers : int or None
        Worker processes of this kind; None on ``local``, where all components share them.
    walltime : str or None
        Of a job, as the batch system reads it; None: unlimited.
    """

    name: str
    cores: int
    memory_bytes: int | None
    image: str | None = None
    script: str | None = None
    workers: int | None = None
    walltime: str | None = None


@dataclass(frozen=True)
class Origin:
    """Where a value comes from: its key, the file, and whether the system's file locks it."""

    key: str
    file: str
    is_locked: bool


@dataclass(frozen=True)
class Plan:
    """What a session of a target would ask for.

    Attributes
    ----------
    project, target, provider : str
    workers : int
        Worker processes asked for, at most.
    threads_per_worker : int
        Tasks that a worker runs at the same time.
    processes : bool
        Whether the workers are separate processes; False: one with several threads.
    worker_memory_bytes : int or None
        Memory limit of a worker; on a job queue that of the largest component.
    cores : int
        Of all workers together, at most.
    memory_bytes : int or None
        Of all workers together, at most; None: unbounded.
    walltime : str or None
        Of a job, as the batch system reads it; None: unlimited.
    components : tuple of ComponentPlan
    script : str or None
        What would be submitted, one script per component, that of the host before them; None
        on ``local``.
    lock : str
        SHA-256 of the resolved manifest.
    manifest : str or None
        The file; None for the embedded default.
    notices : tuple of str
        What a person may not expect.
    origins : tuple of Origin
        Of each value that a file or the embedded default gives for this target.
    host_job : ComponentPlan or None
        The job that the session's host is; None: it runs where the session is started.
    commands : tuple of str
        Commands that the session runs where it is started and where its host runs, with
        placeholders in angle brackets. Workers are started by the host, or by the job script.
    """

    project: str
    target: str
    provider: str
    workers: int
    threads_per_worker: int
    processes: bool
    worker_memory_bytes: int | None
    cores: int
    memory_bytes: int | None
    walltime: str | None
    components: tuple[ComponentPlan, ...]
    script: str | None
    lock: str
    manifest: str | None
    notices: tuple[str, ...]
    origins: tuple[Origin, ...] = ()
    host_job: ComponentPlan | None = None
    commands: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The plan as JSON-able values."""
        plain = asdict(self)
        plain["components"] = list(plain["components"])
        plain["notices"] = list(plain["notices"])
        plain["origins"] = list(plain["origins"])
        plain["commands"] = list(plain["commands"])
        return plain

    def __str__(self) -> str:
        lines = [f"plan for target {self.target!r}"]
        lines += [f"  {name:<10} {value}" for name, value in self.facts()]
        lines += [f"note: {notice}" for notice in self.notices]
        if self.script is not None:
            lines += ["", self.script.rstrip()]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th style='text-align:left'>{html.escape(name)}</th>"
            f"<td style='text-align:left'>{html.escape(value)}</td></tr>"
            for name, value in self.facts()
        )
        notices = "".join(f"<li>{html.escape(notice)}</li>" for notice in self.notices)
        parts = [f"<p>Plan for target <b>{html.escape(self.target)}</b></p><table>{rows}</table>"]
        if notices:
            parts.append(f"<ul>{notices}</ul>")
        if self.script is not None:
            script = html.escape(self.script)
            parts.append(f"<details><summary>Job script</summary><pre>{script}</pre></details>")
        return "".join(parts)

    def facts(self) -> Iterator[tuple[str, str]]:
        """What stands in the plan's lines: name and value; some names come several times."""
        yield "project", self.project
        yield "provider", self.provider
        threads = count(self.threads_per_worker, "thread")
        yield "workers", f"{count(self.workers, 'worker')}, {threads} each"
        yield "cores", str(self.cores)
        yield "memory", _size(self.memory_bytes)
        yield "walltime", self.walltime or "unlimited"
        for component in self.components:
            facts = [component.name, count(component.cores, "core")]
            if component.workers is not None and len(self.components) > 1:
                facts.insert(1, count(component.workers, "worker"))
            if component.memory_bytes is not None:
                facts.append(_size(component.memory_bytes))
            if component.image is not None:
                facts.append(component.image)
            yield "component", ", ".join(facts)
        if self.host_job is not None:
            facts = [count(self.host_job.cores, "core"), _size(self.host_job.memory_bytes)]
            yield "host", ", ".join(["a job of its own", *facts, self._host_walltime()])
        yield "manifest", self.manifest or "embedded default"
        by_file: dict[str, list[str]] = {}
        for origin in self.origins:
            key = f"{origin.key} (locked)" if origin.is_locked else origin.key
            by_file.setdefault(origin.file, []).append(key)
        if len(by_file) > 1:
            for file, keys in by_file.items():
                yield "says", f"{file}: {', '.join(keys)}"
        yield "lock", self.lock
        for command in self.commands:
            yield "runs", command

    def _host_walltime(self) -> str:
        walltime = self.host_job.walltime if self.host_job is not None else None
        return f"walltime {walltime}" if walltime else "no walltime"


def count(number: int, noun: str) -> str:
    """A number with its noun: ``1 core``, ``2 cores``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _size(size_bytes: int | None) -> str:
    return "unbounded" if size_bytes is None else format_bytes(size_bytes)
