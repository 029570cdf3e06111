"""The text that the daemons of a private Slurm are configured with, and errors without any."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from scalable_nb.devslurm import service
from scalable_nb.devslurm.__main__ import main
from scalable_nb.devslurm.slurm_conf import Instance, Layout, slurm_conf, slurmdbd_conf

LAYOUT = Layout(Path("/private/slurm"))
INSTANCE = Instance(
    host="laptop",
    user="ada",
    control_port=20001,
    database_port=20002,
    node_ports=(20003, 20004),
    cpus=4,
    memory_mb=4000,
    has_accounting=True,
    enforces_memory=False,
)


def options(text: str) -> dict[str, str]:
    """The lines ``Name=value`` of a configuration, without those of nodes and partitions."""
    return dict(line.split("=", 1) for line in text.splitlines() if " " not in line)


def test_every_path_lies_in_the_private_folder() -> None:
    """Key, sockets, state, spool and logs of an instance are all in its own folder."""
    conf = slurm_conf(INSTANCE, LAYOUT)
    for name in ("StateSaveLocation", "SlurmdSpoolDir", "SlurmctldPidFile", "SlurmdPidFile"):
        assert options(conf)[name].startswith("/private/slurm/")
    assert "socket=/private/slurm/munge.socket" in options(conf)["AuthInfo"]
    assert (
        "socket=/private/slurm/munge.socket" in options(slurmdbd_conf(INSTANCE, LAYOUT))["AuthInfo"]
    )


def test_nodes_have_ports_of_their_own_on_one_host() -> None:
    """Each node is a line with its name, its port and what it declares to have."""
    nodes = [x for x in slurm_conf(INSTANCE, LAYOUT).splitlines() if x.startswith("NodeName=")]
    assert nodes == [
        f"NodeName={name} NodeHostname=laptop NodeAddr=127.0.0.1 Port={port} CPUs=4 "
        "RealMemory=4000 State=UNKNOWN"
        for name, port in (("n1", 20003), ("n2", 20004))
    ]


def test_the_urgent_partition_evicts_from_the_default_one() -> None:
    """Two partitions share the nodes; the one of the higher tier takes them from the other."""
    conf = slurm_conf(INSTANCE, LAYOUT)
    assert options(conf)["PreemptType"] == "preempt/partition_prio"
    assert options(conf)["PreemptMode"] == "REQUEUE"
    assert "PartitionName=batch Nodes=ALL Default=YES PriorityTier=1 State=UP" in conf
    assert "PartitionName=urgent Nodes=ALL PriorityTier=10 State=UP" in conf


def test_accounting_and_memory_limits_are_as_asked_for() -> None:
    """Without accounting slurmctld is told of no database; memory is enforced when wanted."""
    assert options(slurm_conf(INSTANCE, LAYOUT))["AccountingStoragePort"] == "20002"
    other = slurm_conf(replace(INSTANCE, has_accounting=False, enforces_memory=True), LAYOUT)
    assert "AccountingStorage" not in other
    assert options(other)["JobAcctGatherParams"] == "UsePss,OverMemoryKill"


def test_an_instance_survives_its_file() -> None:
    """What is written down about an instance is read back as it was."""
    assert Instance.from_json(INSTANCE.to_json()) == INSTANCE


def test_missing_packages_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Slurm's programs the error says which packages to install."""
    monkeypatch.setattr(service, "_which", lambda program: None)
    run = CliRunner().invoke(main, ["up", "--folder", str(tmp_path), "--no-accounting"])
    assert run.exit_code == 1
    assert "apt-get install munge slurm-client slurmctld slurmd`" in run.output


def test_a_path_too_long_for_sockets_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder in which no socket can be made is refused before anything starts."""
    monkeypatch.setattr(service, "missing_packages", lambda accounting: [])
    run = CliRunner().invoke(main, ["up", "--folder", str(tmp_path / ("x" * 90))])
    assert run.exit_code == 1
    assert "Name a shorter one with `--folder`" in run.output


def test_the_status_of_nothing_is_an_error(tmp_path: Path) -> None:
    """`status` where no instance was started ends with exit code 1 and says so."""
    run = CliRunner().invoke(main, ["status", "--folder", str(tmp_path)])
    assert run.exit_code == 1
    assert f"no complete instance runs in {tmp_path}" in run.output


def test_daemons_listen_on_loopback_where_the_host_name_leads_there() -> None:
    """Otherwise Slurm has no option for it."""
    local = replace(INSTANCE, loopback="127.0.1.1")
    texts = [slurm_conf(local, LAYOUT), slurmdbd_conf(local, LAYOUT)]
    assert options(texts[0])["CommunicationParameters"] == "NoCtldInAddrAny,NoInAddrAny"
    assert options(texts[1])["CommunicationParameters"] == "NoInAddrAny"
    assert "127.0.0.1" not in "".join(texts)
    assert "CommunicationParameters" not in slurm_conf(INSTANCE, LAYOUT)
