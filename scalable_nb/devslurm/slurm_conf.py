"""What the daemons are told: configuration as text, made of plain values (Slurm 22.05)."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

#: Unix domain sockets have paths of at most 107 bytes; the longest name in the folder has 20.
MAX_FOLDER_LENGTH: Final = 87

_CREDENTIAL_LIFE_S: Final = 5


@dataclass(frozen=True)
class Layout:
    """Where everything of one instance lies.

    Parameters
    ----------
    folder : Path
        Absolute, private.
    """

    folder: Path

    @property
    def instance_json(self) -> Path:
        """What the instance was started with."""
        return self.folder / "instance.json"

    @property
    def slurm_conf(self) -> Path:
        """What ``SLURM_CONF`` has to name."""
        return self.folder / "slurm.conf"

    @property
    def slurmdbd_conf(self) -> Path:
        """Beside ``slurm.conf``, where slurmdbd looks for it."""
        return self.folder / "slurmdbd.conf"

    @property
    def munge_key(self) -> Path:
        """The secret by which the daemons and commands of this instance know each other."""
        return self.folder / "munge.key"

    @property
    def munge_socket(self) -> Path:
        """Where munged answers."""
        return self.folder / "munge.socket"

    @property
    def database(self) -> Path:
        """MariaDB's files."""
        return self.folder / "database"

    @property
    def database_socket(self) -> Path:
        """Where MariaDB answers; it has no port."""
        return self.folder / "database.socket"

    @property
    def pids(self) -> Path:
        """One file per running daemon."""
        return self.folder / "pids"

    @property
    def logs(self) -> Path:
        """One file per daemon."""
        return self.folder / "log"

    @property
    def state(self) -> Path:
        """What slurmctld remembers."""
        return self.folder / "state"

    @property
    def spool(self) -> Path:
        """One folder per node."""
        return self.folder / "spool"


@dataclass(frozen=True)
class Instance:
    """What an instance consists of.

    Attributes
    ----------
    host : str
        Short name of this machine.
    user : str
        Who runs the daemons, and may use them.
    control_port, database_port : int
        Of slurmctld and slurmdbd.
    node_ports : tuple of int
        One per node; the nodes are called n1, n2, ...
    cpus, memory_mb : int
        Of each node, whatever the machine has.
    has_accounting : bool
        Whether ``sacct`` answers.
    enforces_memory : bool
        Whether Slurm kills a job that uses more memory than it asked for.
    loopback : str
        The address of loopback that `host` resolves to, on which the daemons then listen. Empty if
        it resolves to another: Slurm's daemons listen on that of the host name, or on all.
    """

    host: str
    user: str
    control_port: int
    database_port: int
    node_ports: tuple[int, ...]
    cpus: int
    memory_mb: int
    has_accounting: bool
    enforces_memory: bool
    loopback: str = ""

    @property
    def address(self) -> str:
        """The address at which the daemons reach each other."""
        return self.loopback or "127.0.0.1"

    @property
    def nodes(self) -> list[str]:
        """Names of the nodes."""
        return [f"n{number}" for number in range(1, len(self.node_ports) + 1)]

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Instance:
        """From what `to_json` gave."""
        return cls(**{**values, "node_ports": tuple(values["node_ports"])})


def slurm_conf(instance: Instance, layout: Layout) -> str:
    """The text of ``slurm.conf``: two partitions, of which the second evicts from the first."""
    memory = "UsePss,OverMemoryKill" if instance.enforces_memory else "UsePss"
    lines = [
        "ClusterName=devslurm",
        # The name decides whether slurmctld thinks it is on its own machine.
        f"SlurmctldHost={instance.host}({instance.address})",
        f"SlurmctldPort={instance.control_port}",
        *(["CommunicationParameters=NoCtldInAddrAny,NoInAddrAny"] if instance.loopback else []),
        f"SlurmUser={instance.user}",
        f"SlurmdUser={instance.user}",
        "AuthType=auth/munge",
        # A requeued job waits until its old credential has expired.
        f"AuthInfo=socket={layout.munge_socket},cred_expire={_CREDENTIAL_LIFE_S}",
        "CredType=cred/munge",
        f"StateSaveLocation={layout.state}",
        f"SlurmdSpoolDir={layout.spool}/%n",
        f"SlurmctldPidFile={layout.folder}/slurmctld.pid",
        f"SlurmdPidFile={layout.folder}/slurmd.%n.pid",
        # Neither systemd nor cgroups nor root.
        "ProctrackType=proctrack/linuxproc",
        "TaskPlugin=task/none",
        "SwitchType=switch/none",
        "MpiDefault=none",
        "MailProg=/bin/true",
        "PropagateResourceLimits=NONE",
        "SelectType=select/cons_tres",
        "SelectTypeParameters=CR_CPU_Memory",
        "JobAcctGatherType=jobacct_gather/linux",
        "JobAcctGatherFrequency=task=1",
        f"JobAcctGatherParams={memory}",
        "JobCompType=jobcomp/filetxt",
        f"JobCompLoc={layout.logs}/jobcomp.log",
        "ReturnToService=2",
        "KillWait=3",
        "MinJobAge=3600",
        # Nobody waits here for a person's patience with a busy machine.
        "SchedulerType=sched/backfill",
        "SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1,"
        "sched_min_interval=0",
        "PreemptType=preempt/partition_prio",
        "PreemptMode=REQUEUE",
        "JobRequeue=1",
        *_accounting(instance, layout),
        # The nodes declare more than the machine has.
        "SlurmdParameters=config_overrides",
        *(
            f"NodeName={name} NodeHostname={instance.host} NodeAddr={instance.address} Port={port} "
            f"CPUs={instance.cpus} RealMemory={instance.memory_mb} State=UNKNOWN"
            for name, port in zip(instance.nodes, instance.node_ports, strict=True)
        ),
        "PartitionName=batch Nodes=ALL Default=YES PriorityTier=1 State=UP",
        "PartitionName=urgent Nodes=ALL PriorityTier=10 State=UP",
    ]
    return "\n".join(lines) + "\n"


def _accounting(instance: Instance, layout: Layout) -> list[str]:
    if not instance.has_accounting:
        return []
    return [
        "AccountingStorageType=accounting_storage/slurmdbd",
        f"AccountingStorageHost={instance.address}",
        f"AccountingStoragePort={instance.database_port}",
        # Without it slurmctld asks the machine's own munged, and ends for want of any TRES.
        f"AccountingStoragePass={layout.munge_socket}",
    ]


def slurmdbd_conf(instance: Instance, layout: Layout) -> str:
    """The text of ``slurmdbd.conf``; its database knows the user by the socket's peer."""
    lines = [
        "DbdHost=localhost",
        f"DbdAddr={instance.address}",
        *(["CommunicationParameters=NoInAddrAny"] if instance.loopback else []),
        f"DbdPort={instance.database_port}",
        f"SlurmUser={instance.user}",
        "AuthType=auth/munge",
        f"AuthInfo=socket={layout.munge_socket}",
        f"PidFile={layout.folder}/slurmdbd.pid",
        "StorageType=accounting_storage/mysql",
        "StorageHost=localhost",
        f"StorageUser={instance.user}",
        "StorageLoc=slurm_acct_db",
    ]
    return "\n".join(lines) + "\n"
