"""What dask-jobqueue knows: its keywords, and the script of a job, without any cluster.

dask-jobqueue is imported when a manifest first names one of its systems, because its
import reads and writes Dask's configuration folder.
"""

from __future__ import annotations

import importlib
import inspect
import shlex
import signal
import sys
import warnings
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

import dask

from scalable_nb.manifest.schema import Component, HostJob, Target
from scalable_nb.settings import load_settings

if TYPE_CHECKING:
    from dask_jobqueue.core import Job, JobQueueCluster


@dataclass(frozen=True)
class BatchSystem:
    """What is specific to a batch system that dask-jobqueue supports.

    Attributes
    ----------
    label : str
        Its name in messages.
    cluster_class : str
        dask-jobqueue's class.
    id_variable : str
        Environment variable with the id of the job that a process is in; empty if none is set.
    status_command : str
        Shows why a job waits; empty if its queue is queried.
    """

    label: str
    cluster_class: str
    id_variable: str = ""
    status_command: str = ""


#: Batch systems by `schema.Provider`.
BATCH_SYSTEMS: Final[dict[str, BatchSystem]] = {
    "slurm": BatchSystem("Slurm", "SLURMCluster", "SLURM_JOB_ID"),
    "pbs": BatchSystem("PBS", "PBSCluster", "PBS_JOBID", "qstat -f"),
    "lsf": BatchSystem("LSF", "LSFCluster", "LSB_JOBID", "bjobs -l"),
    "sge": BatchSystem("Grid Engine", "SGECluster", "JOB_ID", "qstat -j"),
    "htcondor": BatchSystem(
        "HTCondor", "HTCondorCluster", status_command="condor_q -better-analyze"
    ),
    "oar": BatchSystem("OAR", "OARCluster", "OAR_JOB_ID", "oarstat -f -j"),
    "moab": BatchSystem("Moab", "MoabCluster", "MOAB_JOBID", "checkjob -v"),
}

#: Keywords that the session fills in, or that dask-jobqueue itself refuses.
SESSION_OPTIONS: Final = frozenset(
    {
        "asynchronous",
        "dashboard_address",
        "job_cls",
        "loop",
        "n_workers",
        "name",
        "nanny",
        "protocol",
        "scheduler",
        "scheduler_cls",
        "security",
        "worker_command",
    }
)

#: The shell stays until its worker has ended, also when the batch system sends SIGTERM to both.
#: It would die of it, the job would count as ended, and the worker's time to finish be over.
_STAY_FOR_WORKER: Final = "trap : TERM"

#: What a job runs: ``dask worker`` under our nanny; see `scalable_nb.worker.command`.
WORKER_COMMAND: Final = "scalable_nb.worker.command"

#: What the job of a host runs.
HOST_COMMAND: Final = "scalable_nb.host.process"

# dask-jobqueue's default; whoever set another name means it.
_DASKS_JOB_NAME: Final = "dask-worker"

# Stands for the folder of job logs while a script is written: dask-jobqueue would make the
# real one. It exists everywhere, and nobody has it in a manifest.
_ANY_FOLDER: Final = "/./././././././."

#: As `scalable_nb.batch_system.job_queue.session_job` names it.
_SCRIPT: Final = "<run-folder>/job-<random>.sh"


def cluster_class(provider: str) -> type[JobQueueCluster]:
    """dask-jobqueue's cluster class of a provider."""
    cls: type[JobQueueCluster] = getattr(_dask_jobqueue(), BATCH_SYSTEMS[provider].cluster_class)
    return cls


@cache
def _dask_jobqueue() -> ModuleType:
    # Its import replaces the handler of SIGINT (dask-jobqueue 0.9.0, runner.py), after which
    # Ctrl-C would end the interpreter instead of interrupting it.
    handler = signal.getsignal(signal.SIGINT)
    module = importlib.import_module("dask_jobqueue")
    signal.signal(signal.SIGINT, handler)
    return module


def job_class(provider: str) -> type[Job]:
    """dask-jobqueue's job class of a provider."""
    # getattr: dask-jobqueue annotates the class attribute as if it were an instance's.
    cls: type[Job] = getattr(cluster_class(provider), "job_cls")  # noqa: B009
    return cls


@cache
def job_option_names(provider: str) -> frozenset[str]:
    """Keywords of one job: what stands in its script."""
    return _keywords(job_class(provider)) - SESSION_OPTIONS


@cache
def option_names(provider: str) -> frozenset[str]:
    """All keywords that a target of this provider may have, those of the cluster included."""
    return job_option_names(provider) | _keywords(cluster_class(provider)) - SESSION_OPTIONS


def is_list_option(provider: str, name: str) -> bool:
    """Whether dask-jobqueue wants a list, so that a bare text would be read by letters."""
    cluster_class(provider)
    default = dask.config.get(f"jobqueue.{provider}.{name.replace('_', '-')}", None)
    return isinstance(default, list)


def configured(target: Target, name: str) -> Any:
    """A keyword as Dask's configuration (``jobqueue.<system>``) has it, or None."""
    cluster_class(target.provider)
    section = target.options.get("config_name") or target.provider
    return dask.config.get(f"jobqueue.{section}.{name.replace('_', '-')}", None)


def job_keywords(target: Target, component: Component, name: str) -> dict[str, Any]:
    """Keywords of dask-jobqueue's job class for one worker of a component.

    The component goes before the target's keywords, and these before Dask's
    configuration. ``scheduler``, ``name`` and ``security`` are the session's and absent.

    Parameters
    ----------
    target : Target
    component : Component
    name : str
        The component's, by which tasks find its workers.

    Raises
    ------
    ValueError
        When neither of them says how much memory a worker needs, or a keyword means nothing
        to the batch system.
    """
    known = job_option_names(target.provider)
    keywords = {key: value for key, value in target.options.items() if key in known}

    def option(name: str) -> Any:
        value = keywords.get(name)
        return configured(target, name) if value is None else value

    for key in ("queue", "walltime"):
        value = getattr(component, key)
        if value is not None and key not in known:
            raise ValueError(f"`{key}: {value}` means nothing to {target.provider}; remove it")
        if value is not None:
            keywords[key] = value
    keywords["cores"] = component.cpus or option("cores") or 1
    keywords["memory"] = component.memory or option("memory")
    # A component describes a worker, so one job is one worker unless somebody says
    # otherwise; dask-jobqueue's own default would cut 16 cores into four.
    keywords["processes"] = target.processes or configured(target, "processes") or 1
    if keywords["memory"] is None:
        raise ValueError("no memory given; add e.g. `memory: 4G` to the component")
    if target.interface is not None:
        keywords["interface"] = target.interface
    directives = [*(option("job_extra_directives") or []), *component.job_extra_directives]
    if target.provider == "slurm":
        # A job that is requeued would overwrite the log of what happened to it before.
        directives.append("--open-mode=append")
    keywords["job_extra_directives"] = directives
    exports = [f"export {key}={shlex.quote(value)}" for key, value in component.env.items()]
    prologue = option("job_script_prologue") or []
    keywords["job_script_prologue"] = [
        _STAY_FOR_WORKER,
        *prologue,
        *component.job_script_prologue,
        *exports,
    ]
    keywords["job_name"] = job_name(target, "<run>")
    keywords["worker_command"] = WORKER_COMMAND
    # -P: a file of the user's beside the notebook must not shadow what the worker imports.
    keywords["python"] = f"{_python(target, component, option('python'))} -P"
    keywords["worker_extra_args"] = [
        *(option("worker_extra_args") or []),
        *_worker_arguments(target, component, keywords["processes"], name),
    ]
    return keywords


def host_keywords(target: Target, folder: str = "<run-folder>") -> dict[str, Any]:
    """Keywords of dask-jobqueue's job class for the job of a host.

    Parameters
    ----------
    target : Target
    folder : str
        The run's; stands where a worker has the address of its scheduler. The options of a
        worker that dask-jobqueue adds after it mean nothing to a host.

    Raises
    ------
    ValueError
        When a keyword means nothing to the batch system.
    """
    host = target.host_job or HostJob()
    keywords = job_keywords(target, Component(**host.model_dump()), "host")
    if target.provider == "slurm":
        # The run of a host that has died goes on as another run, never in the same folder.
        keywords["job_extra_directives"].append("--no-requeue")
    log = shlex.quote(f"{folder}/host.log")
    return keywords | {
        "scheduler": shlex.quote(folder),
        "name": "host",
        "processes": 1,
        "interface": None,
        "worker_command": HOST_COMMAND,
        "worker_extra_args": [f">>{log}", "2>&1"],
    }


def _worker_arguments(target: Target, component: Component, processes: int, name: str) -> list[str]:
    arguments = ["--component", name]
    if processes > 1:
        arguments += ["--nworkers", str(processes)]
    if target.threads_per_worker is not None:
        arguments += ["--nthreads", str(target.threads_per_worker)]
    if component.preload_script is not None:
        arguments += ["--preload", shlex.quote(component.preload_script)]
    return arguments


def runtime(target: Target, component: Component) -> str | None:
    """The container runtime of a component's workers; None where they need none.

    ``containers:`` of the target holds for components that say no ``runtime:`` themselves.
    """
    if component.image is None:
        return None
    return component.runtime or (None if target.containers == "none" else target.containers)


def _python(target: Target, component: Component, python: str | None) -> str:
    program = runtime(target, component)
    if program is None:
        return python or shlex.quote(sys.executable)
    if program != "apptainer":
        raise ValueError(
            f"`runtime: {program}` does not run in a batch job; expected `runtime: apptainer`"
        )
    # The run folder with the session's certificate must be seen inside as it is outside.
    folders = {str(Path.cwd()): str(Path.cwd())}
    if not load_settings().runs_dir.is_relative_to(Path.cwd()):
        folders[str(load_settings().runs_dir)] = str(load_settings().runs_dir)
    binds = [f"--bind {shlex.quote(f'{outside}:{inside}')}"
             for outside, inside in {**folders, **component.mounts}.items()]  # fmt: skip
    assert component.image is not None
    image = shlex.quote(component.image)
    return " ".join([program, "exec", *binds, image, python or "python"])


def job_name(target: Target, run: str) -> str:
    """The name of all jobs of a run: as somebody said it, else our own with the run's digits.

    It has 15 characters with the last six of a run's id, which is what PBS takes.
    """
    given = target.options.get("job_name")
    site = configured(target, "name")
    return given or (site if site != _DASKS_JOB_NAME else None) or f"scalable-{run}"


@dataclass(frozen=True)
class JobText:
    """A job as dask-jobqueue would submit it.

    Attributes
    ----------
    script : str
    submit, cancel : str
        The commands, with placeholders for script and id.
    warnings : list of str
        Of dask-jobqueue, about its keywords.
    """

    script: str
    submit: str
    cancel: str
    warnings: list[str]


def job_text(provider: str, keywords: dict[str, Any]) -> JobText:
    """Return the script that a job is submitted with, and the commands about it.

    Nothing is submitted, started or written. The scheduler's address, the worker's name and
    what else a session fills in are placeholders.

    Raises
    ------
    ValueError, TypeError, KeyError
        Whatever dask-jobqueue has against the keywords.
    """
    cls: Any = job_class(provider)  # its methods have no types
    section = keywords.get("config_name") or cls.default_config_name()
    site = dask.config.get(f"jobqueue.{section}", None)
    if site is None:
        raise ValueError(f"Dask's configuration has no section 'jobqueue.{section}'")
    folder = keywords.get("log_directory") or site.get("log-directory") or "<run-folder>/jobs"
    keywords = keywords | {"log_directory": _ANY_FOLDER}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        job = cls(**{"scheduler": "tls://<scheduler-address>", "name": "<worker-name>"} | keywords)
    script: str = job.job_script()
    # LSF and HTCondor name a folder more than once; all of them are the placeholder.
    script = script.replace(_ANY_FOLDER, str(folder))
    redirection = "< " if getattr(job, "use_stdin", False) else ""
    return JobText(
        script.strip() + "\n",
        f"{job.submit_command.strip()} {redirection}{_SCRIPT}",
        f"{job.cancel_command.strip()} <job-id>",
        [str(warning.message) for warning in caught],
    )


def _keywords(cls: type) -> frozenset[str]:
    names: set[str] = set()
    for ancestor in cls.__mro__:
        constructor = vars(ancestor).get("__init__")
        if constructor is not None and ancestor.__module__.startswith("dask_jobqueue."):
            for name, parameter in inspect.signature(constructor).parameters.items():
                if parameter.kind is not parameter.VAR_KEYWORD:
                    names.add(name)
    return frozenset(names - {"self"})
