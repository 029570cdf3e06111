"""The dry run: what would be asked for, in numbers, words and job scripts."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import dask
import dask.system
import distributed.system
import pytest

from scalable_nb.errors import ManifestError
from scalable_nb.manifest import job_options
from scalable_nb.manifest.load import load_manifest
from scalable_nb.manifest.planner import make_plan
from scalable_nb.manifest.schema import PROVIDERS
from scalable_nb.manifest.start_plan import Plan

JOB_QUEUES = [provider for provider in PROVIDERS if provider != "local"]
GiB = 2**30


@pytest.fixture(autouse=True)
def _on_a_known_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(dask.system, "CPU_COUNT", 4)
    monkeypatch.setattr(distributed.system, "MEMORY_LIMIT", 16 * GiB)


def plan_of(target: str, components: str = "analysis: {cpus: 2, memory: 1G}") -> Plan:
    """The plan of a manifest with this one target and these components."""
    Path("scalable.yaml").write_text(
        f"version: 1\nproject: {{name: demo}}\ntargets:\n  it: {{{target}}}\n"
        f"components:\n  {components}\n"
    )
    return make_plan(load_manifest())


def directives(plan: Plan, mark: str) -> list[str]:
    """The lines of the script that the batch system reads."""
    assert plan.script is not None
    return [line for line in plan.script.splitlines() if line.startswith(mark)]


def worker_arguments(plan: Plan) -> list[str]:
    """The words of the command that starts the worker."""
    assert plan.script is not None
    (command,) = [line for line in plan.script.splitlines() if "scalable_nb.worker.command" in line]
    return shlex.split(command)


# --- the local target --------------------------------------------------------------


def test_a_local_plan_has_what_a_host_needs() -> None:
    """Workers, threads and the largest component's memory; no script and no walltime."""
    plan = plan_of(
        "provider: local, max_workers: 2, threads_per_worker: 2",
        "analysis: {memory: 1GiB}\n  large: {memory: 3GiB}",
    )
    assert (plan.workers, plan.threads_per_worker, plan.processes) == (2, 2, True)
    assert (plan.worker_memory_bytes, plan.memory_bytes, plan.cores) == (3 * GiB, 6 * GiB, 4)
    assert (plan.script, plan.walltime, plan.notices) == (None, None, ())
    assert [(c.name, c.memory_bytes) for c in plan.components] == [
        ("analysis", GiB),
        ("large", 3 * GiB),
    ]


def test_without_numbers_the_machine_is_shared_out() -> None:
    """A local target that says nothing gets a worker per core, up to four, and equal memory."""
    plan = plan_of("provider: local", "any: {}")
    assert (plan.workers, plan.threads_per_worker, plan.processes) == (4, 1, True)
    assert plan.worker_memory_bytes == 4 * GiB


def test_without_processes_one_worker_has_all_threads() -> None:
    """`processes: false` plans a single worker with the threads and the memory of all."""
    plan = plan_of(
        "provider: local, max_workers: 2, threads_per_worker: 2, processes: false",
        "any: {memory: 1GiB}",
    )
    assert (plan.workers, plan.threads_per_worker, plan.processes) == (1, 4, False)
    assert (plan.cores, plan.worker_memory_bytes) == (4, 2 * GiB)
    assert [note for note in plan.notices if "one worker process with 4 threads" in note]


def test_asking_for_more_than_the_machine_has_is_said() -> None:
    """Too many workers or too much memory for this machine is a notice, not a surprise."""
    plan = plan_of("provider: local, max_workers: 8", "any: {memory: 4GiB}")
    assert plan.notices == (
        "8 workers with 4.00 GiB each can use more than the 16.00 GiB of this machine",
        "8 tasks at a time share the 4 cores of this machine",
    )
    assert plan.memory_bytes == 16 * GiB


def test_what_has_no_effect_is_said() -> None:
    """Container settings and per-component settings that local workers ignore are named."""
    plan = plan_of(
        "provider: local, max_workers: 1",
        "a: {memory: 1G, runtime: apptainer, image: x.sif}\n  b: {env: {A: 1}}",
    )
    assert plan.notices == (
        "component 'a': image, runtime are not used, workers run without a container",
        "component 'b': env is not used, components share the local workers",
    )


def test_the_embedded_default_is_said() -> None:
    """A plan without a manifest says so and names the command that writes one."""
    plan = make_plan(load_manifest())
    assert plan.manifest is None
    assert plan.notices[0].startswith("there is no scalable.yaml: built-in defaults; ")


# --- job queues --------------------------------------------------------------------


def test_a_slurm_plan_shows_the_sbatch_text() -> None:
    """Every number of the plan stands in the script that sbatch would get."""
    plan = plan_of(
        "provider: slurm, max_workers: 20, queue: batch, account: abc, interface: ib0, "
        'walltime: "02:00:00", job_extra_directives: ["--gres=gpu:1"]',
        "analysis: {cpus: 4, memory: 8GiB}",
    )
    assert directives(plan, "#SBATCH") == [
        "#SBATCH -J scalable-<run>",
        "#SBATCH -e <run-folder>/jobs/scalable-<run>-%J.err",
        "#SBATCH -o <run-folder>/jobs/scalable-<run>-%J.out",
        "#SBATCH -p batch",
        "#SBATCH -A abc",
        "#SBATCH -n 1",
        "#SBATCH --cpus-per-task=4",
        "#SBATCH --mem=8G",
        "#SBATCH -t 02:00:00",
        "#SBATCH --gres=gpu:1",
        "#SBATCH --open-mode=append",
    ]
    words = worker_arguments(plan)
    assert words[words.index("--interface") + 1] == "ib0"
    assert words[words.index("--nthreads") + 1] == "4"
    assert "--nworkers" not in words
    assert (plan.workers, plan.cores, plan.memory_bytes) == (20, 80, 160 * GiB)
    assert (plan.threads_per_worker, plan.worker_memory_bytes) == (4, 8 * GiB)
    assert (plan.walltime, plan.notices) == ("02:00:00", ())


def test_a_plan_shows_its_manifest_and_all_commands() -> None:
    """The file that was read and the commands of host, submission, queries and cancelling."""
    plan = plan_of("provider: slurm", "small: {memory: 1G}\n  large: {memory: 2G}")
    lines = [line.split(maxsplit=1) for line in str(plan).splitlines() if line.startswith("  ")]
    assert ["manifest", str(Path("scalable.yaml").absolute())] in lines
    commands = [line[1] for line in lines if line[0] == "runs"]
    assert commands == list(plan.commands)
    assert [shlex.split(command)[0] for command in commands] == [
        sys.executable, "squeue", "sacct", "scontrol", "sbatch", "scancel",
    ]  # fmt: skip
    assert "sbatch <run-folder>/job-<random>.sh" in commands
    assert "runs" in plan._repr_html_() and "scancel &lt;job-id&gt;" in plan._repr_html_()


def test_a_plan_for_a_host_that_is_a_job_starts_no_process() -> None:
    """The host is submitted like the workers."""
    plan = plan_of("provider: slurm, host: job")
    assert not [command for command in plan.commands if command.startswith(sys.executable)]
    assert "sbatch <run-folder>/job-<random>.sh" in plan.commands


def test_a_local_plan_shows_the_command_of_the_host() -> None:
    """Nothing but the host is started; it starts the workers."""
    plan = plan_of("provider: local")
    (command,) = plan.commands
    assert shlex.split(command)[:3] == [sys.executable, "-P", "-c"]
    assert "scalable_nb.host.process" in command


@pytest.mark.parametrize("provider", JOB_QUEUES)
def test_every_submit_command_is_shown(provider: str) -> None:
    """The command is the one of dask-jobqueue."""
    disk = ", disk: 1GB" if provider == "htcondor" else ""
    plan = plan_of(f"provider: {provider}{disk}")
    command = job_options.job_class(provider).submit_command
    assert len([shown for shown in plan.commands if shown.startswith(f"{command} ")]) == 1


@pytest.mark.parametrize("provider", JOB_QUEUES)
def test_every_job_queue_has_a_script(provider: str) -> None:
    """Each system that dask-jobqueue knows gets a script with worker, cores and memory."""
    disk = ", disk: 1GB" if provider == "htcondor" else ""
    plan = plan_of(f"provider: {provider}, max_workers: 3{disk}")
    assert plan.script is not None
    (command,) = [line for line in plan.script.splitlines() if "scalable_nb.worker.command" in line]
    for words in (" -P -m ", "tls://<scheduler-address>", "--nthreads 2", "--component analysis"):
        assert words in command
    assert (plan.workers, plan.cores, plan.memory_bytes) == (3, 6, 3 * 10**9)


@pytest.mark.parametrize("provider", JOB_QUEUES)
def test_every_option_is_a_keyword_of_dask_jobqueue(provider: str) -> None:
    """The options of a provider are exactly what its classes take, without the session's own."""
    names = job_options.option_names(provider)
    assert {"cores", "memory", "job_extra_directives", "log_directory"} <= names
    assert not names & job_options.SESSION_OPTIONS
    assert not names & {"self", "job_kwargs", "base_class_kwargs", "kwargs"}
    assert ("walltime" in names) == (provider != "htcondor")


def test_a_default_walltime_is_said() -> None:
    """Jobs that end after a time nobody asked for are announced, with the key that changes it."""
    with dask.config.set({"jobqueue.slurm.walltime": "00:30:00"}):
        plan = plan_of("provider: slurm, max_workers: 1")
    assert plan.walltime == "00:30:00"
    assert plan.notices == (
        "walltime is not given: jobs end after 00:30:00 (Dask's configuration); "
        "set targets.it.walltime",
    )


def test_dasks_configuration_is_respected() -> None:
    """What the manifest leaves open comes from `jobqueue.<system>`; what it says wins."""
    job_options.cluster_class("slurm")
    site = {
        "jobqueue.slurm.queue": "site",
        "jobqueue.slurm.account": "site",
        "jobqueue.slurm.memory": "4GiB",
        "jobqueue.slurm.cores": 8,
        "jobqueue.slurm.processes": 2,
        "jobqueue.slurm.worker-extra-args": ["--resources", "GPU=1"],
    }
    with dask.config.set(site):
        plan = plan_of(
            "provider: slurm, max_workers: 4, account: mine, threads_per_worker: 1",
            "any: {}",
        )
    assert "#SBATCH -p site" in directives(plan, "#SBATCH")
    assert "#SBATCH -A mine" in directives(plan, "#SBATCH")
    assert "#SBATCH --cpus-per-task=8" in directives(plan, "#SBATCH")
    words = worker_arguments(plan)
    assert words[words.index("--nworkers") + 1] == "2"
    assert "GPU=1" in words
    # Two worker processes in each of two jobs.
    assert (plan.workers, plan.cores, plan.memory_bytes) == (4, 16, 8 * GiB)
    assert (plan.worker_memory_bytes, plan.threads_per_worker) == (2 * GiB, 1)


def test_a_components_environment_reaches_its_job() -> None:
    """Variables are exported as they are written, whatever they hold, and preloads are named."""
    plan = plan_of(
        "provider: slurm, max_workers: 1, job_script_prologue: [module load python]",
        'any: {memory: 1G, env: {GREETING: "it\'s; $HOME"}, preload_script: my setup.py}',
    )
    assert plan.script is not None
    prologue = plan.script.splitlines()
    exported = next(line for line in prologue if line.startswith("export "))
    assert prologue.index("module load python") < prologue.index(exported)
    shell = subprocess.run(
        ["sh", "-c", f'{exported}; printf %s "$GREETING"'],
        capture_output=True,
        text=True,
        check=True,
    )
    assert shell.stdout == "it's; $HOME"
    words = worker_arguments(plan)
    assert words[words.index("--preload") + 1] == "my setup.py"


def test_threads_per_worker_limits_a_worker_on_a_job_queue_too() -> None:
    """A worker with 16 cores can be told to run one task at a time."""
    plan = plan_of(
        "provider: slurm, max_workers: 1, threads_per_worker: 1", "any: {cpus: 16, memory: 1G}"
    )
    words = worker_arguments(plan)
    last = len(words) - 1 - words[::-1].index("--nthreads")
    assert words[last + 1] == "1"
    assert plan.threads_per_worker == 1
    assert "#SBATCH --cpus-per-task=16" in directives(plan, "#SBATCH")


def test_a_plan_touches_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the folder of job logs nor any process comes into being."""

    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError(f"a plan started or wrote something: {args}")

    for name in ("makedirs", "mkdir", "fork", "posix_spawn"):
        monkeypatch.setattr(os, name, refuse)
    monkeypatch.setattr(subprocess, "Popen", refuse)
    plan = plan_of("provider: slurm, max_workers: 1, log_directory: logs/of/jobs")
    assert "#SBATCH -o logs/of/jobs/scalable-<run>-%J.out" in directives(plan, "#SBATCH")
    with dask.config.set({"jobqueue.pbs.log-directory": "site/logs"}):
        plan = plan_of("provider: pbs, max_workers: 1")
    assert "#PBS -e site/logs/" in directives(plan, "#PBS")
    assert [path.name for path in Path.cwd().iterdir()] == ["scalable.yaml"]


def test_every_component_has_its_own_script() -> None:
    """Components differ in size, so each has its script, and the plan shows all of them."""
    plan = plan_of(
        "provider: slurm, max_workers: 2",
        "small: {cpus: 1, memory: 1GiB}\n  large: {cpus: 8, memory: 32GiB}",
    )
    scripts = {c.name: c.script or "" for c in plan.components}
    assert "#SBATCH --mem=1G" in scripts["small"]
    assert "#SBATCH --mem=32G" in scripts["large"]
    assert plan.script is not None
    assert all(script in plan.script for script in scripts.values())
    assert plan.script.index("component small") < plan.script.index("component large")
    assert [(c.workers, c.cores) for c in plan.components] == [(1, 1), (1, 8)]
    assert (plan.workers, plan.cores, plan.memory_bytes) == (2, 9, 33 * GiB)


def test_components_share_the_workers_of_a_target() -> None:
    """What the others leave is shared evenly by components that say no number; one at least."""
    plan = plan_of(
        "provider: slurm, max_workers: 10",
        "a: {memory: 1G}\n  b: {memory: 1G, workers: 3}\n  c: {memory: 1G, workers: 0}\n"
        "  d: {memory: 1G}",
    )
    assert {c.name: c.workers for c in plan.components} == {"a": 4, "b": 3, "c": 0, "d": 3}
    assert "a, 4 workers, 1 core" in str(plan)
    crowded = plan_of("provider: slurm, max_workers: 1", "a: {memory: 1G}\n  b: {memory: 1G}")
    assert crowded.workers == 2


def test_a_component_may_differ_from_its_target() -> None:
    """Queue, walltime, directives and shell commands of a component stand in its own script."""
    plan = plan_of(
        "provider: slurm, max_workers: 2, queue: batch, walltime: '10', "
        "job_extra_directives: [--exclusive], job_script_prologue: [module load gcc]",
        "plain: {memory: 1G}\n  gpu: {memory: 1G, queue: gpu, walltime: '1-0', "
        "job_extra_directives: ['--gres=gpu:1'], job_script_prologue: [module load cuda]}",
    )
    plain, gpu = (c.script or "" for c in plan.components)
    for words in ("-p gpu\n", "-t 1-0\n", "--exclusive\n", "--gres=gpu:1\n", "module load cuda"):
        assert words in gpu
    assert gpu.index("module load gcc") < gpu.index("module load cuda") < gpu.index("-m scalable")
    for words in ("-p batch\n", "-t 10\n", "--exclusive\n", "module load gcc\n"):
        assert words in plain
    assert "gres" not in plain
    assert [c.walltime for c in plan.components] == ["10", "1-0"]


@pytest.mark.parametrize("provider", JOB_QUEUES)
def test_a_host_that_is_a_job_has_a_script_of_its_own(provider: str) -> None:
    """It begins the host of the run and prints into the run's log; it has nothing of a worker's."""
    disk = ", disk: 1G" if provider == "htcondor" else ""
    plan = plan_of(f"provider: {provider}, host: job, max_workers: 1, processes: 2{disk}")
    assert plan.host_job is not None
    assert (plan.host_job.cores, plan.host_job.memory_bytes) == (1, 2_000_000_000)
    assert plan.script is not None
    script = plan.host_job.script or ""
    assert plan.script.startswith(f"# --- host ---\n{script}")
    assert "-P -m scalable_nb.host.process" in script
    assert "<run-folder>/host.log" in script
    assert "2>&1" in script
    for words in ("host.worker", "--component", "--nworkers"):
        assert words not in script
    assert "host       a job of its own, 1 core, 1.86 GiB, " in str(plan)


def test_the_job_of_a_host_asks_for_what_it_was_told() -> None:
    """`host_job:` goes before the target's own words; a run is never begun a second time."""
    plan = plan_of(
        "provider: slurm, max_workers: 1, walltime: '10', queue: batch, host: job, host_job: "
        "{cpus: 2, memory: 4G, walltime: 1-0, queue: long, job_script_prologue: [module load x]}"
    )
    assert plan.host_job is not None
    lines = (plan.host_job.script or "").splitlines()
    asked = {"#SBATCH -p long", "#SBATCH -t 1-0", "#SBATCH --cpus-per-task=2",
             "#SBATCH --mem=4G", "#SBATCH --no-requeue", "module load x"}  # fmt: skip
    assert asked <= set(lines)
    assert "#SBATCH -p batch" in (plan.components[0].script or "")
    assert "--no-requeue" not in (plan.components[0].script or "")
    assert plan_of("provider: slurm, max_workers: 1").host_job is None


def test_a_container_wraps_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """`image` with `runtime: apptainer` runs the worker inside, with its folders and the run's."""
    monkeypatch.setenv("SCALABLE_RUNS_DIR", "/scratch/me/runs")
    plan = plan_of(
        "provider: slurm, max_workers: 1, walltime: '10'",
        "any: {memory: 1G, image: /img/my model.sif, runtime: apptainer, mounts: {/data: /in}}",
    )
    words = worker_arguments(plan)
    here = str(Path.cwd())
    assert words[: words.index("-P")] == [
        "apptainer", "exec", "--bind", f"{here}:{here}",
        "--bind", "/scratch/me/runs:/scratch/me/runs", "--bind", "/data:/in",
        "/img/my model.sif", "python",
    ]  # fmt: skip
    assert plan.notices == ()
    by_target = plan_of(
        "provider: slurm, max_workers: 1, walltime: '10', containers: apptainer, python: python3",
        "any: {memory: 1G, image: x.sif}",
    )
    assert "x.sif python3 -P -m scalable_nb.worker.command" in (by_target.script or "")


def test_adaptive_scaling_plans_its_maximum() -> None:
    """With `adaptive:` the plan shows the most that may be asked for."""
    assert plan_of("provider: slurm, adaptive: {maximum: 7}").workers == 7
    assert plan_of("provider: slurm, adaptive: {minimum: 1}, max_workers: 3").workers == 3
    nothing_said = plan_of("provider: slurm")
    assert nothing_said.workers == 1
    assert nothing_said.notices[0].startswith("max_workers is not given: one worker; ")


def test_what_dask_jobqueue_deprecates_is_said() -> None:
    """A warning of dask-jobqueue becomes a notice, once, however many components there are."""
    plan = plan_of(
        "provider: slurm, max_workers: 1, walltime: '1', project: abc",
        "a: {memory: 1G}\n  b: {memory: 1G}",
    )
    (notice,) = plan.notices
    assert notice.startswith("project has been renamed to account")


@pytest.mark.parametrize(
    ("target", "components", "expected"),
    [
        (
            "provider: slurm",
            "any: {cpus: 1}",
            "scalable.yaml: components.any: no memory given; "
            "add e.g. `memory: 4G` to the component",
        ),
        (
            "provider: htcondor",
            "any: {memory: 1G}",
            "scalable.yaml: targets.it: dask-jobqueue refuses these options: ValueError: You must "
            "specify how much disk to use per job like ``disk='1 GB'``",
        ),
        (
            "provider: slurm, memory: lots",
            "any: {}",
            "scalable.yaml: targets.it: dask-jobqueue refuses these options: ValueError: "
            "Could not interpret 'lots' as a byte unit",
        ),
        (
            "provider: slurm, config_name: elsewhere",
            "any: {memory: 1G}",
            "scalable.yaml: targets.it: dask-jobqueue refuses these options: ValueError: "
            "Dask's configuration has no section 'jobqueue.elsewhere'",
        ),
        (
            "provider: htcondor, disk: 1GB",
            "any: {memory: 1G, queue: long}",
            "scalable.yaml: components.any: `queue: long` means nothing to htcondor; remove it",
        ),
        (
            "provider: slurm",
            "any: {memory: 1G, image: x, runtime: docker}",
            "scalable.yaml: components.any: `runtime: docker` does not run in a batch job; "
            "expected `runtime: apptainer`",
        ),
    ],
)
def test_a_script_that_cannot_be_written_says_why(
    target: str, components: str, expected: str
) -> None:
    """What dask-jobqueue has against the options is told with the target or component."""
    with pytest.raises(ManifestError) as caught:
        plan_of(target, components)
    assert str(caught.value) == expected


# --- how it is shown ---------------------------------------------------------------


def test_a_plan_reads_well_in_a_terminal() -> None:
    """The printed plan has each fact on a line of its own, then notices, then the script."""
    plan = plan_of("provider: local, max_workers: 8", "any: {memory: 1GiB}")
    assert str(plan).splitlines() == [
        "plan for target 'it'",
        "  project    demo",
        "  provider   local",
        "  workers    8 workers, 1 thread each",
        "  cores      8",
        "  memory     8.00 GiB",
        "  walltime   unlimited",
        "  component  any, 1 core, 1.00 GiB",
        f"  manifest   {Path('scalable.yaml').absolute()}",
        f"  lock       {plan.lock}",
        f"  runs       {plan.commands[0]}",
        "note: 8 tasks at a time share the 4 cores of this machine",
    ]
    jobs = str(plan_of("provider: slurm, max_workers: 1"))
    assert jobs.index("note: walltime is not given") < jobs.index("#SBATCH -n 1")


def test_a_plan_in_a_notebook_is_data_not_markup() -> None:
    """Text of the manifest is escaped in the HTML form."""
    plan = plan_of(
        'provider: slurm, max_workers: 1, queue: "</pre><script>alert(1)</script>"',
        'any: {memory: 1G, image: "<img src=x onerror=alert(2)>"}',
    )
    shown = plan._repr_html_()
    assert "<script" not in shown
    assert "<img" not in shown
    assert "&lt;script&gt;alert(1)" in shown
    assert shown.count("<details>") == 1


def test_a_plan_is_json() -> None:
    """The dictionary form survives JSON, lock and scripts included."""
    plan = plan_of("provider: slurm, max_workers: 2")
    data = plan.to_dict()
    assert json.loads(json.dumps(data)) == data
    assert data["lock"] == load_manifest().sha256
    assert data["components"][0]["script"] == plan.script
