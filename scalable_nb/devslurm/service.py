"""Starts, asks and stops an instance."""

from __future__ import annotations

import json
import os
import platform
import pwd
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import psutil

from scalable_nb.devslurm.daemons import Daemon, end_processes, stop_all, wait_until
from scalable_nb.devslurm.slurm_conf import (
    MAX_FOLDER_LENGTH,
    Instance,
    Layout,
    slurm_conf,
    slurmdbd_conf,
)
from scalable_nb.errors import ScalableError, SettingsError, StartError
from scalable_nb.paths import private_folder, write_private

_READY_WITHIN_S: Final = 60.0
_JOBS_END_WITHIN_S: Final = 20.0
_POLL_S: Final = 0.1
#: Below the ports that the kernel hands out by itself.
_PORTS: Final = range(20_000, 32_000)

_PACKAGE_OF: Final = {
    "munged": "munge",
    "slurmctld": "slurmctld",
    "slurmd": "slurmd",
    "sinfo": "slurm-client",
}
_PACKAGE_OF_ACCOUNTING: Final = {
    "slurmdbd": "slurmdbd",
    "mariadbd": "mariadb-server",
    "mariadb-install-db": "mariadb-server",
}
_MYSQL_PLUGIN: Final = "slurm-wlm-mysql-plugin"


def default_folder() -> Path:
    """Where an instance lies when nobody says otherwise: one per user."""
    return Path("/tmp") / f"devslurm-{os.getuid()}"


def missing_packages(*, accounting: bool) -> list[str]:
    """Debian packages that are not installed, as far as their programs show it."""
    needed = {**_PACKAGE_OF, **(_PACKAGE_OF_ACCOUNTING if accounting else {})}
    missing = {package for program, package in needed.items() if not _which(program)}
    if accounting and not list(Path("/usr/lib").glob("*/slurm*/accounting_storage_mysql.so")):
        missing.add(_MYSQL_PLUGIN)
    return sorted(missing)


class DevSlurm:
    """One instance, running or not.

    Parameters
    ----------
    folder : Path
        Private; made where it is missing.
    """

    def __init__(self, folder: Path) -> None:
        self.layout = Layout(folder.absolute())

    # --- what a person asks ------------------------------------------------------

    def up(
        self, *, nodes: int, cpus: int, memory_mb: int, accounting: bool, enforce_memory: bool
    ) -> None:
        """Start the daemons and wait until all nodes are idle.

        Raises
        ------
        StartError
            When packages are missing, the instance runs already, or a daemon does not start.
        SettingsError
            When the folder's path is too long.
        """
        missing = missing_packages(accounting=accounting)
        if missing:
            raise StartError(
                f"Debian packages are missing: {' '.join(missing)}. "
                f"Install them with `apt-get install {' '.join(missing)}`"
                + (", or leave accounting out." if accounting else ".")
            )
        if any(daemon.process() for daemon in self.daemons()):
            raise StartError(
                f"an instance runs in {self.layout.folder} already; "
                "`down` stops it, `--folder` names another place."
            )
        ports = _free_ports(nodes + 2)
        instance = Instance(
            host=platform.node().partition(".")[0],
            user=_user(),
            control_port=ports[0],
            database_port=ports[1],
            node_ports=tuple(ports[2:]),
            cpus=cpus,
            memory_mb=memory_mb,
            has_accounting=accounting,
            enforces_memory=enforce_memory,
            loopback=_loopback_of(platform.node()),
        )
        self._write(instance)
        try:
            self._start(instance)
        except BaseException:
            stop_all(self.daemons())
            raise

    def down(self, *, remove: bool = False) -> None:
        """Cancel all jobs, stop the daemons, and leave no process behind.

        Parameters
        ----------
        remove : bool
            Whether the folder goes too.
        """
        if self._daemon("slurmctld").process():
            self._cancel_jobs()
        # slurmctld has to tell slurmdbd of the last jobs, and that its database.
        for names in (("slurmctld", "slurmd-"), ("slurmdbd",), ("mariadbd",), ("munged",)):
            stop_all(daemon for daemon in self.daemons() if daemon.name.startswith(names))
        end_processes(self._processes_of_jobs())
        if remove and self.layout.instance_json.exists():
            shutil.rmtree(self.layout.folder)

    def states(self) -> dict[str, bool]:
        """Which of the instance's daemons run, by name."""
        return {daemon.name: daemon.process() is not None for daemon in self.daemons()}

    def instance(self) -> Instance | None:
        """What it was started with; None when it never was."""
        try:
            return Instance.from_json(json.loads(self.layout.instance_json.read_text()))
        except FileNotFoundError:
            return None

    def daemons(self) -> list[Daemon]:
        """In the order in which they start."""
        instance = self.instance()
        if instance is None:
            return []
        names = ["munged"]
        if instance.has_accounting:
            names += ["mariadbd", "slurmdbd"]
        names += ["slurmctld", *(f"slurmd-{node}" for node in instance.nodes)]
        return [self._daemon(name) for name in names]

    def run_client(self, *command: str) -> str:
        """What a Slurm command of this instance prints.

        Raises
        ------
        ScalableError
            With command, exit code and output, when it fails.
        """
        run = subprocess.run(
            command, env=self._environment(), capture_output=True, text=True, check=False
        )
        if run.returncode:
            raise ScalableError(
                f"`{' '.join(command)}` ended with exit code {run.returncode}:\n"
                f"{run.stdout}{run.stderr}"
            )
        return run.stdout

    # --- how it is done ----------------------------------------------------------

    def _write(self, instance: Instance) -> None:
        layout = self.layout
        length = len(os.fsencode(layout.folder))
        if length > MAX_FOLDER_LENGTH:
            raise SettingsError(
                f"the path of the folder {str(layout.folder)!r} has {length} bytes; sockets in it "
                f"need one of at most {MAX_FOLDER_LENGTH}. Name a shorter one with `--folder`."
            )
        for folder in (layout.folder, layout.pids, layout.logs, layout.state, layout.spool):
            private_folder(folder)
        for node in instance.nodes:
            private_folder(layout.spool / node)
        if not layout.munge_key.exists():
            write_private(layout.munge_key, secrets.token_bytes(128))
        write_private(layout.slurm_conf, slurm_conf(instance, layout).encode())
        if instance.has_accounting:
            write_private(layout.slurmdbd_conf, slurmdbd_conf(instance, layout).encode())
        write_private(layout.instance_json, json.dumps(instance.to_json(), indent=1).encode())

    def _start(self, instance: Instance) -> None:
        layout = self.layout
        self._run(
            "munged",
            "--foreground",
            # Only this user needs the socket, so it may lie in a folder closed to all others.
            "--force",
            f"--key-file={layout.munge_key}",
            f"--socket={layout.munge_socket}",
            f"--pid-file={layout.folder}/munged.pid",
            f"--seed-file={layout.folder}/munge.seed",
        )
        self._wait_for_socket("munged", layout.munge_socket)
        if instance.has_accounting:
            self._start_accounting(instance)
        self._run("slurmctld", "-D", "-i", "-f", str(layout.slurm_conf))
        for node in instance.nodes:
            self._run(f"slurmd-{node}", "-D", "-N", node, "-f", str(layout.slurm_conf))
        wait_until(self._is_ready, self.daemons(), "Slurm's nodes", _READY_WITHIN_S)

    def _start_accounting(self, instance: Instance) -> None:
        layout = self.layout
        as_user = [f"--user={instance.user}"]
        if not layout.database.exists():
            self._install_database(instance)
        grants = layout.folder / "grants.sql"
        write_private(grants, b"CREATE DATABASE IF NOT EXISTS slurm_acct_db;\n")
        self._run(
            "mariadbd",
            "--no-defaults",
            f"--datadir={layout.database}",
            f"--socket={layout.database_socket}",
            f"--pid-file={layout.folder}/mariadbd.pid",
            f"--init-file={grants}",
            "--skip-networking",
            "--innodb-buffer-pool-size=64M",
            "--innodb-flush-log-at-trx-commit=0",
            *as_user,
        )
        self._wait_for_socket("mariadbd", layout.database_socket)
        # The one way to tell slurmdbd of a database without a port.
        self._run("slurmdbd", "-D", MYSQL_UNIX_PORT=str(layout.database_socket))
        wait_until(
            lambda: _is_listening(instance.address, instance.database_port),
            [self._daemon("slurmdbd"), self._daemon("mariadbd")],
            "Slurm's accounting",
            _READY_WITHIN_S,
        )

    def _install_database(self, instance: Instance) -> None:
        fresh = self.layout.folder / "database.new"
        shutil.rmtree(fresh, ignore_errors=True)
        self.run_client(
            "mariadb-install-db",
            "--no-defaults",
            f"--datadir={fresh}",
            "--auth-root-authentication-method=socket",
            f"--auth-root-socket-user={instance.user}",
            "--skip-test-db",
            f"--user={instance.user}",
        )
        fresh.rename(self.layout.database)

    def _run(self, name: str, *arguments: str, **environment: str) -> None:
        program = _which(name.partition("-")[0])
        assert program  # else it had been missed in `up`
        self._daemon(name).start([program, *arguments], {**self._environment(), **environment})

    def _daemon(self, name: str) -> Daemon:
        return Daemon(name, self.layout.pids, self.layout.logs)

    def _environment(self) -> dict[str, str]:
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("SLURM")}
        return {
            **inherited,
            "PATH": f"{inherited.get('PATH', os.defpath)}:/usr/sbin:/sbin",
            "SLURM_CONF": str(self.layout.slurm_conf),
        }

    def _wait_for_socket(self, name: str, path: Path) -> None:
        wait_until(
            lambda: _is_accepting(path), [self._daemon(name)], f"the socket {path}", _READY_WITHIN_S
        )

    def _is_ready(self) -> bool:
        instance = self.instance()
        assert instance
        try:
            idle = self.run_client(
                "sinfo", "-h", "-N", "-p", "batch", "-t", "idle", "-o", "%N"
            ).split()
        except ScalableError:
            return False  # slurmctld does not answer yet
        return set(idle) == set(instance.nodes)

    def _cancel_jobs(self) -> None:
        try:
            self.run_client("scancel", "--user", _user())
            deadline = time.monotonic() + _JOBS_END_WITHIN_S
            while self.run_client("squeue", "-h", "-o", "%i") and time.monotonic() < deadline:
                time.sleep(_POLL_S)
        except ScalableError:
            # It does not answer any more; what its jobs left is ended below.
            return

    def _processes_of_jobs(self) -> Iterator[psutil.Process]:
        conf = str(self.layout.slurm_conf)
        for process in psutil.process_iter():
            try:
                environment = process.environ()
            except psutil.Error:
                continue  # it ended, or is somebody else's
            is_step = process.name().startswith("slurmstepd")
            if environment.get("SLURM_CONF") == conf and (is_step or "SLURM_JOB_ID" in environment):
                yield process


def _user() -> str:
    # Not getpass: the environment may name somebody else after `su` or `sudo`.
    return pwd.getpwuid(os.getuid()).pw_name


def _which(program: str) -> str | None:
    return shutil.which(program, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")


def _free_ports(count: int) -> list[int]:
    ports: list[int] = []
    while len(ports) < count:
        port = secrets.choice(_PORTS)
        with socket.socket() as probe:
            try:
                probe.bind(("0.0.0.0", port))
            except OSError:
                continue
        if port not in ports:
            ports.append(port)
    return ports


def _loopback_of(host: str) -> str:
    """Return the address of a host name if it is one of loopback, as on most laptops."""
    try:
        # Bytes: the codec for international names need not be readable for this user.
        address = socket.gethostbyname(host.encode())  # type: ignore[arg-type]
    except OSError:
        return ""
    return address if address.startswith("127.") else ""


def _is_listening(address: str, port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((address, port)) == 0


def _is_accepting(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0
