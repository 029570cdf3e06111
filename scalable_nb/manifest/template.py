"""The commented ``scalable.yaml`` that ``%scalable init`` writes."""

from __future__ import annotations

import json
import os
from pathlib import Path
from string import Template

from scalable_nb.errors import ManifestError
from scalable_nb.manifest.load import project_name

_TEMPLATE = Template("""\
# What runs where. Everything after a '#' is a comment; lines that begin with '# ' and a
# key show an option with an example value: remove the '# ' to use it.
# `%scalable plan` (or `scalable plan`) shows what a target would ask for, and starts nothing.

version: 1                        # of this format; always 1

project:
  name: $project                  # part of every run's id
  # default_storage: ./outputs    # where output goes: a folder or a URI
  # local_cache: .scalable/cache  # folder of kept results

# Where a session runs: `%scalable start --target slurm`.
targets:
  local:                          # this machine
    provider: local
    max_workers: 2                # workers to start
    threads_per_worker: 1         # tasks that a worker runs at the same time
    processes: true               # false: one worker process with several threads
    containers: none              # workers run in the environment of the notebook
  slurm:                          # a cluster; also pbs, lsf, sge, htcondor, oar, moab
    provider: slurm
    max_workers: 20               # jobs, one worker in each
    queue: batch                  # partition; keys from here on are dask-jobqueue's own
    walltime: "01:00:00"          # longest life of a job; 30 minutes when not given
    overlay: cluster              # changes from `overlays` below that hold on this target
    # account: abc                # project that is charged
    # interface: ib0              # network interface of the workers
    # job_extra_directives: ["--constraint=skylake"]  # further #SBATCH lines
    # log_directory: logs         # where the jobs' output goes
    # adaptive: {minimum: 0, maximum: 20}  # grow and shrink with the work
    # pending_timeout_s: 3600     # then a component's `fallback` is used
    # max_worker_replacements: 50 # lost workers that are replaced; all when not given
    # max_core_hours: 1000        # beyond this running tasks end, and no further ones begin
    # linger_s: 600               # how long an idle session without a notebook stays
    # host: job                   # the session's own process as a job; else auto or here
    # host_job: {memory: 4G, walltime: "24:00:00"}  # that job, with `host: job`

# Kinds of workers: `client.submit(f, x, tag="analysis")`.
components:
  analysis:
    cpus: 1                       # cores of a worker
    memory: 1G                    # memory of a worker; a task that needs more is ended
    # env: {OMP_NUM_THREADS: 1}   # environment variables of the worker
    # tags: [postprocessing]      # further names for tag=
    # image: /containers/x.sif    # container image
    # runtime: apptainer          # program that runs it: apptainer or docker
    # mounts: {/data: /data}      # folder outside: folder inside the container
    # preload_script: setup.py    # loaded by the worker before its first task
    # workers: 4                  # of this kind at the start; an even share when not given
    # max_workers: 10             # of this kind, with `adaptive:`
    # walltime: "12:00:00"        # of its jobs, where it differs from the target's
    # queue: long                 # likewise
    # job_extra_directives: ["--gres=gpu:1"]         # further lines of its job scripts
    # job_script_prologue: [module load cuda]        # shell commands before the worker
    # fallback: small             # component to use where this one cannot be had

# Settings for calls: `client.map(f, range(100), task="run_analysis")`.
tasks:
  run_analysis:
    component: analysis           # kind of worker it runs on
    cache: true                   # keep results; the same call is never computed twice
    retries: 3                    # further attempts after a failed one
    timeout: 300s                 # longest execution of one attempt
    # idempotent: false           # never call the function a second time
    # keep_results: true          # write results to disk before a task counts as done
    # record_args: false          # keep arguments, which may be secret, out of the run folder
    # compress: true              # kept results take less room, and more time at each hit
    # version: 2                  # change it to make earlier kept results unused

# What holds for calls that say nothing themselves.
defaults:
  retries: 0
  backoff: {base_s: 1, factor: 2, max_s: 60, jitter: 0.25}  # pause between attempts, seconds
  max_identical_failures: 20      # pause a batch that only ever fails the same way; 0: never
  # record_args: false            # keep all arguments out of the run folder
  # record_limit: 1G              # size of the recorded arguments of a session

# Changes that a target names with `overlay:`.
overlays:
  cluster:
    components:
      analysis: {cpus: 4, memory: 8G}
""")


def write_template(path: str | os.PathLike[str], *, force: bool = False) -> Path:
    """Write a commented manifest that works as it is.

    Parameters
    ----------
    path : path
        The file to write; its folder names the project.
    force : bool
        Overwrite a file that is there.

    Returns
    -------
    Path
        The file, absolute.

    Raises
    ------
    ManifestError
        When the file is there and ``force`` is not given, or it cannot be written.
    """
    target = Path(path).expanduser().absolute()
    name = project_name(target.parent)
    # Quoted as JSON, which YAML reads: a folder may be called `2024` or `true`.
    text = _TEMPLATE.substitute(project=json.dumps(name))
    try:
        with target.open("w" if force else "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise ManifestError(
            f"{str(target)!r} is there already; `%scalable init --force` overwrites it"
        ) from None
    except OSError as error:
        raise ManifestError(
            f"{str(target)!r} cannot be written: {error.strerror or error}"
        ) from error
    return target
