"""The models of ``scalable.yaml``, version 1.

A key with nothing behind it (``preload_script: null``, ``tasks:``) counts as not given,
so no field here accepts None from a file; None only ever means "not given".
Checks that need more than one value (references, provider options) are in `check`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

from dask.utils import parse_bytes, parse_timedelta
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

Provider = Literal["local", "slurm", "pbs", "lsf", "sge", "htcondor", "oar", "moab"]
PROVIDERS: tuple[str, ...] = get_args(Provider)

#: Less than this is a forgotten unit (``memory: 8``), not a size for a Python process.
_MIN_MEMORY_BYTES = 1_000_000


def refuse(reason: str) -> PydanticCustomError:
    """A problem in words that continue the value: ``'1 Gigs'`` + ``is not ...``."""
    return PydanticCustomError("refused", "{reason}", {"reason": reason})


def _whole_number_to_text(value: Any) -> Any:
    # `OMP_NUM_THREADS: 4` is what everybody writes. Floats stay an error: 1.10 would
    # silently become "1.1".
    return str(value) if type(value) is int else value


def _memory(text: str) -> str:
    try:
        size = int(parse_bytes(text))
    except (ValueError, OverflowError):
        raise refuse("is not a memory size; expected e.g. '1G'") from None
    if size < _MIN_MEMORY_BYTES:
        raise refuse(f"means {size} bytes, too little for a worker; expected e.g. '1G'")
    return text


def _duration(text: str) -> str:
    try:
        seconds = float(parse_timedelta(text))
    except (ValueError, KeyError, IndexError, OverflowError):
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise refuse("is not a duration; expected e.g. '300s', '5m' or '2h'")
    return text


def _name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_.-]+", text):
        raise refuse("is not a name; expected letters, digits, '_', '-' and '.' only")
    return text


def _variable(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", text):
        raise refuse("is not the name of an environment variable; expected e.g. 'OMP_NUM_THREADS'")
    return text


Text = Annotated[str, BeforeValidator(_whole_number_to_text)]
Name = Annotated[str, AfterValidator(_name)]
Variable = Annotated[str, AfterValidator(_variable)]
MemorySize = Annotated[Text, AfterValidator(_memory)]
Duration = Annotated[Text, AfterValidator(_duration)]
Count = Annotated[int, Field(ge=0)]
PositiveCount = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(ge=0)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _nothing_is_not_given(cls, data: Any) -> Any:
        if isinstance(data, Mapping):
            return {key: value for key, value in data.items() if value is not None}
        return data


class Project(_Section):
    """What the work is called and where it keeps things.

    Attributes
    ----------
    name : str
        Part of every run's id.
    default_storage : str or None
        Where output goes: a folder or a URI.
    local_cache : str or None
        Folder of stored results; ``SCALABLE_CACHE_DIR`` overrides it.
    """

    name: Annotated[str, Field(min_length=1)]
    default_storage: str | None = None
    local_cache: str | None = None


class Adaptive(_Section):
    """Grow and shrink with the work instead of a fixed number of workers.

    Attributes
    ----------
    minimum, maximum : int
        Number of workers; ``maximum`` None: the target's ``max_workers``.
    """

    minimum: Count = 0
    maximum: PositiveCount | None = None


class HostJob(_Section):
    """The batch job that a session's host is, with ``host: job``.

    Attributes
    ----------
    cpus : int
        Cores; the host uses one, and a second while results are read.
    memory : str
        E.g. ``2G``; a million tasks take about that.
    walltime, queue : str or None
        Where they differ from the target's. A session ends with its host.
    job_extra_directives, job_script_prologue : tuple of str
        Lines of its script, after the target's.
    """

    cpus: PositiveCount = 1
    memory: MemorySize = "2G"
    walltime: Text | None = None
    queue: Text | None = None
    job_extra_directives: Annotated[tuple[str, ...], Field(strict=False)] = ()
    job_script_prologue: Annotated[tuple[str, ...], Field(strict=False)] = ()


class Target(_Section):
    """A place where a session runs.

    Keys that are not listed here are keywords of dask-jobqueue and end up in
    `options`; on ``provider: local`` there are none.

    Attributes
    ----------
    provider : str
        ``local`` or a system that dask-jobqueue knows.
    max_workers : int or None
        Number of workers a session asks for.
    threads_per_worker : int or None
        Tasks that a worker runs at the same time. None: 1 on ``local``, else the
        cores of a worker.
    processes : bool, int or None
        On ``local``: whether workers are processes (None: True). Else dask-jobqueue's
        keyword, the number of worker processes in one job.
    containers : str
        Container runtime of the workers.
    interface : str or None
        Network interface, e.g. ``ib0``.
    overlay : str or None
        Overlay that is merged into the manifest when this target is used.
    adaptive : Adaptive or None
        Limits of adaptive scaling; None: a fixed number of workers.
    pending_timeout_s : float or None
        How long a component may be unavailable before its ``fallback`` is used, seconds.
    max_worker_replacements : int or None
        How many lost workers are replaced; None: all.
    max_core_hours : float or None
        Budget after which no worker is added and the others end with the tasks they run.
    linger_s : float or None
        How long a host without client and work stays, seconds; None: the setting.
    host : str
        Where the host process runs: ``here``, ``auto`` (here, and what may end it is said) or
        ``job`` (as a batch job of its own).
    host_job : HostJob or None
        That job; None: what a host needs at least, for the target's ``walltime``.
    """

    model_config = ConfigDict(extra="allow")

    provider: Provider
    max_workers: PositiveCount | None = None
    threads_per_worker: PositiveCount | None = None
    processes: bool | int | None = None
    containers: Literal["none", "apptainer", "docker"] = "none"
    interface: str | None = None
    overlay: str | None = None
    adaptive: Adaptive | None = None
    pending_timeout_s: Seconds | None = None
    max_worker_replacements: Count | None = None
    max_core_hours: Annotated[float, Field(gt=0)] | None = None
    linger_s: Seconds | None = None
    host: Literal["auto", "here", "job"] = "auto"
    host_job: HostJob | None = None

    @field_validator("processes", mode="plain")
    @classmethod
    def _processes_of_the_provider(cls, value: Any, info: ValidationInfo) -> Any:
        provider = info.data.get("provider")
        if provider == "local" and not isinstance(value, bool):
            raise refuse("is neither true nor false; expected true or false")
        if provider not in (None, "local") and (type(value) is not int or value < 1):
            raise refuse(f"is not a number of processes per {provider} job; expected e.g. 1")
        return value

    @property
    def options(self) -> dict[str, Any]:
        """Keywords for dask-jobqueue, as written in the manifest."""
        return dict(self.model_extra or {})


class Component(_Section):
    """A kind of worker.

    Attributes
    ----------
    cpus : int or None
        Cores of a worker; None: what the target or Dask's configuration says, else 1.
    memory : str or None
        Memory of a worker, e.g. ``1G``.
    image, runtime : str or None
        Container image and the program that runs it.
    mounts : dict
        Folder outside -> folder inside the container.
    env : dict
        Environment variables of the worker.
    tags : tuple of str
        Further names under which ``tag=`` finds this component.
    preload_script : str or None
        Script that the Dask worker loads first (``--preload``).
    workers : int or None
        Workers to start with; None: an even share of the target's ``max_workers``.
    max_workers : int or None
        Most workers that adaptive scaling asks for.
    walltime, queue : str or None
        Of its jobs, where they differ from the target's.
    job_extra_directives, job_script_prologue : tuple of str
        Lines of its job scripts, after the target's: directives for the batch system, and
        shell commands before the worker (``module load ...``).
    fallback : str or None
        Component to use where this one cannot be had.
    """

    cpus: PositiveCount | None = None
    memory: MemorySize | None = None
    image: str | None = None
    runtime: Literal["apptainer", "docker"] | None = None
    mounts: dict[str, str] = {}
    env: dict[Variable, Text] = {}
    tags: Annotated[tuple[str, ...], Field(strict=False)] = ()
    preload_script: str | None = None
    workers: Count | None = None
    max_workers: PositiveCount | None = None
    walltime: Text | None = None
    queue: Text | None = None
    job_extra_directives: Annotated[tuple[str, ...], Field(strict=False)] = ()
    job_script_prologue: Annotated[tuple[str, ...], Field(strict=False)] = ()
    fallback: str | None = None

    @property
    def memory_bytes(self) -> int | None:
        """`memory` in bytes."""
        return None if self.memory is None else int(parse_bytes(self.memory))


class Task(_Section):
    """What holds for every call submitted with ``task=`` this name.

    Attributes
    ----------
    component : str or None
        Kind of worker it runs on; None: any.
    cache : bool
        Whether results are stored and found again by their arguments.
    retries : int or None
        Further attempts after a failed one; None: the manifest's default.
    timeout : str or None
        Longest execution of one attempt, e.g. ``300s``.
    idempotent : bool
        Whether the function may be called again for the same arguments.
    keep_results : bool
        Whether results are written to disk before the task counts as done.
    compress : bool
        Whether results that are written to disk are compressed.
    version : str or None
        Changing it makes stored results of earlier versions unused.
    record_args : bool
        Whether functions and arguments are written into the run folder, so that the task can
        run again when kernel and host are gone; false where they are secret.
    """

    component: str | None = None
    cache: bool = False
    retries: Count | None = None
    timeout: Duration | None = None
    idempotent: bool = True
    keep_results: bool = False
    compress: bool = False
    version: Text | None = None
    record_args: bool = True

    @property
    def timeout_s(self) -> float | None:
        """`timeout` in seconds."""
        return None if self.timeout is None else float(parse_timedelta(self.timeout))


class Backoff(_Section):
    """The pause before retry n: ``min(max_s, base_s * factor**(n - 1))``, with jitter.

    Attributes
    ----------
    base_s, max_s : float
        Seconds.
    factor : float
        At least 1.
    jitter : float
        Share of the pause that is random, 0 to 1.
    """

    base_s: Seconds = 1.0
    factor: Annotated[float, Field(ge=1)] = 2.0
    max_s: Seconds = 60.0
    jitter: Annotated[float, Field(ge=0, le=1)] = 0.25


class Defaults(_Section):
    """What holds for calls and tasks that say nothing themselves.

    Attributes
    ----------
    retries : int
        Further attempts after a failed one.
    backoff : Backoff
        Pause between attempts.
    max_identical_failures : int
        So many tasks of one ``map`` in a row that fail in the same way, after all retries,
        pause the others; 0 switches this off. If a task has succeeded, the failures since then
        must also exceed a quarter of the batch.
    record_args : bool
        As of a task; false: for no call.
    record_limit : str
        Size that the recorded arguments of a session may have together, e.g. ``1G``.
    """

    retries: Count = 0
    backoff: Backoff = Backoff()
    max_identical_failures: Count = 20
    record_args: bool = True
    record_limit: MemorySize = "1G"

    @property
    def record_limit_bytes(self) -> int:
        """`record_limit` in bytes."""
        return int(parse_bytes(self.record_limit))


class Manifest(_Section):
    """A whole ``scalable.yaml``.

    Attributes
    ----------
    version : int
        Always 1.
    project : Project
    targets, components, tasks : dict
        By name.
    defaults : Defaults
    overlays : dict
        By name: changes to the rest, as written in the file.
    """

    version: Literal[1]
    project: Project
    targets: Annotated[dict[Name, Target], Field(min_length=1)]
    components: Annotated[dict[Name, Component], Field(min_length=1)]
    tasks: dict[Name, Task] = {}
    defaults: Defaults = Defaults()
    overlays: dict[Name, dict[str, Any]] = {}

    @field_validator("targets", "components", "tasks", "overlays", mode="before")
    @classmethod
    def _empty_entries(cls, value: Any) -> Any:
        if isinstance(value, Mapping):
            return {name: {} if body is None else body for name, body in value.items()}
        return value
