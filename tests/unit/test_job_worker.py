"""The command of a batch job, and the interface through which it talks."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path
from typing import Any

import psutil
import pytest
from distributed.security import Security

from scalable_nb.batch_system.job_logs import log_folder
from scalable_nb.batch_system.job_queue import session_job
from scalable_nb.dask_adapter.access import create_security, load_security
from scalable_nb.errors import StartError, UnknownNameError
from scalable_nb.manifest.load import load_manifest
from scalable_nb.paths import RunPaths
from scalable_nb.targets.jobqueue_fleet import listening_address
from scalable_nb.worker.command import nanny_arguments

SCHEDULER = "tls://127.0.0.1:8786"


def test_a_job_has_one_nanny_with_what_the_script_says() -> None:
    """Name, threads, memory and component arrive; nothing is shown on HTTP."""
    (values,) = nanny_arguments(
        [SCHEDULER, "--name", "big-0", "--nthreads", "4", "--memory-limit", "2GiB",
         "--component", "big", "--death-timeout", "60", "--resources", "GPU=1"]
    )  # fmt: skip
    assert (values["name"], values["nthreads"], values["memory_limit"]) == ("big-0", 4, "2GiB")
    assert values["resources"]["slots"] == 4
    assert values["resources"]["GPU"] == 1
    assert "component:big" in values["resources"]
    assert (values["dashboard"], values["dashboard_address"]) == (False, "127.0.0.1:0")
    assert values["security"]["require_encryption"]
    assert values["death_timeout"] == "60"


def test_a_worker_listens_on_the_way_to_its_scheduler_only() -> None:
    """Without an interface it takes the address through which the scheduler is reached."""
    (values,) = nanny_arguments([SCHEDULER, "--name", "a-0"])
    assert values["host"] == "127.0.0.1"
    (values,) = nanny_arguments([SCHEDULER, "--name", "a-0", "--interface", "lo"])
    assert (values["host"], values["interface"]) == (None, "lo")


def test_several_workers_of_a_job_share_its_ports() -> None:
    """With `processes: 2` there are two nannies, each with a name and a port of its own."""
    words = [SCHEDULER, "--name", "a-0", "--nworkers", "2", "--worker-port", "3000:3001"]
    first, second = nanny_arguments(words)
    assert (first["name"], second["name"]) == ("a-0-0", "a-0-1")
    assert {first["worker_port"], second["worker_port"]} == {3000, 3001}


def test_an_unknown_interface_is_told_with_those_that_exist() -> None:
    """A mistyped name is answered with the names of this machine."""
    with pytest.raises(UnknownNameError) as caught:
        listening_address("lo0")
    assert "no network interface named 'lo0'. Did you mean 'lo'?" in str(caught.value)
    assert "`interface:`" in str(caught.value)


def test_the_interface_that_was_chosen_is_said() -> None:
    """With a name its address is taken; without, the one that leads to other machines."""
    assert listening_address("lo")[0] == "127.0.0.1"
    address, notice = listening_address(None)
    own = [entry.address for entries in psutil.net_if_addrs().values() for entry in entries]
    assert address in own
    assert address in notice


def test_where_no_slurm_answers_the_embedded_one_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    """Without a manifest and without Slurm's commands there is one clear error."""
    monkeypatch.chdir(str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(StartError) as caught:
        load_manifest(target="slurm")
    for words in ("no Slurm answers here", "scontrol show partition", "scalable_nb.devslurm up"):
        assert words in str(caught.value)


def test_without_a_manifest_dasks_configuration_is_enough(
    monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    """A site that configured `jobqueue.pbs` needs no file of ours."""
    import dask

    from scalable_nb.manifest.planner import make_plan

    monkeypatch.chdir(str(tmp_path))
    with pytest.raises(StartError, match=r"jobqueue\.pbs\.memory"):
        load_manifest(target="pbs")
    site = {"jobqueue.pbs.memory": "4GiB", "jobqueue.pbs.cores": 2, "jobqueue.pbs.queue": "long"}
    with dask.config.set(site):
        plan = make_plan(load_manifest(target="pbs"))
    assert (plan.workers, plan.cores) == (4, 8)
    assert "#PBS -q long" in (plan.script or "")
    assert "2 cores and 4GiB each" in plan.notices[0]


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """The private folder of a session's certificate."""
    create_security(tmp_path / "tls")
    return tmp_path / "tls"


def test_a_certificate_is_read_once(certificate: Path) -> None:
    """Replacing the files changes no connection of a running session."""
    words = ["--tls-ca-file", "cert.pem", "--tls-cert", "cert.pem", "--tls-key", "key.pem"]
    words = [str(certificate / word) if word.endswith(".pem") else word for word in words]
    (values,) = nanny_arguments([SCHEDULER, "--name", "a-0", *words])
    client = load_security(certificate)
    shutil.rmtree(certificate)
    for security in (Security(**values["security"]), client):
        assert security.get_connection_args("worker")["ssl_context"]


def test_a_job_script_is_private(tmp_path: Path) -> None:
    """The environment of a component is in the script, which no other user can read."""
    job_class: Any = session_job("slurm")
    job = job_class(
        "tls://scheduler", "a-0", cores=1, memory="1GB", script_folder=tmp_path,
        job_script_prologue=["export TOKEN=hunter2"],
    )  # fmt: skip
    with job.job_file() as name:
        path = Path(name)
        assert path.parent == tmp_path
        assert path.stat().st_mode & 0o777 == 0o600
        assert "TOKEN=hunter2" in path.read_text()
    assert list(tmp_path.iterdir()) == []


def test_the_path_of_a_script_with_a_space_is_one_word_for_lsf(tmp_path: Path) -> None:
    """dask-jobqueue makes `bsub < PATH` of it, for a shell."""
    folder = tmp_path / "my runs"
    folder.mkdir()
    job_class: Any = session_job("lsf")
    job = job_class(
        "tls://scheduler", "a-0", cores=1, memory="1GB", script_folder=folder, use_stdin=True
    )
    with job.job_file() as name:
        assert [Path(word).parent for word in shlex.split(name)] == [folder]


def test_a_folder_for_logs_that_is_missing_is_made_private(tmp_path: Path) -> None:
    """A new folder for the output of jobs is private; an existing one is left as it is."""
    (tmp_path / "scalable.yaml").write_text(
        "version: 1\nproject: {name: demo}\ncomponents: {a: {cpus: 1, memory: 1G}}\n"
        f"targets: {{slurm: {{provider: slurm, log_directory: {tmp_path}/a/logs}}}}"
    )
    loaded = load_manifest(tmp_path / "scalable.yaml")
    folder = log_folder(loaded, RunPaths(tmp_path / "run"))
    assert folder == tmp_path / "a" / "logs"
    assert {path.stat().st_mode & 0o777 for path in (folder, folder.parent)} == {0o700}
    folder.chmod(0o755)
    assert log_folder(loaded, RunPaths(tmp_path / "run")).stat().st_mode & 0o777 == 0o755
