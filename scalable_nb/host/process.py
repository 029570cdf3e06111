"""The host: one process that owns a session's scheduler, cluster and journal.

`scalable_nb.session.host_launcher` starts `main` detached; its input is in the run folder. A batch
job runs ``python -m scalable_nb.host.process RUN_FOLDER``.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import shutil
import signal
import sys
from pathlib import Path
from time import time
from typing import Any, Final

import dask
from distributed.security import Security

from scalable_nb.dask_adapter import compatibility
from scalable_nb.dask_adapter.access import (
    certificate_digest,
    confine,
    create_security,
    open_dashboard,
    secret_prefix,
)
from scalable_nb.dask_adapter.cluster import DASK_CONFIG
from scalable_nb.dask_adapter.connection_gate import limit_handshakes, raise_open_files_limit
from scalable_nb.dask_adapter.scratch import node_scratch, private_scratch
from scalable_nb.errors import ScalableError
from scalable_nb.host.allocation import HostAllocation
from scalable_nb.host.composition import HostParts, compose
from scalable_nb.host.tasks.run_recorder import RunRecorder
from scalable_nb.host.workers.demand import desired_at_start
from scalable_nb.host.workers.replacement import ReplacementLimits
from scalable_nb.manifest.load import LoadedManifest, load_resolved
from scalable_nb.manifest.planner import make_plan
from scalable_nb.manifest.start_plan import Plan
from scalable_nb.paths import RunPaths, private_folder, write_private
from scalable_nb.protocol.connection_file import HEARTBEAT_INTERVAL_S, HostState, touch, write_state
from scalable_nb.signing import own_key, take_over_key
from scalable_nb.targets.fleet import Fleet
from scalable_nb.telemetry.rows import utc_iso
from scalable_nb.worker.nanny import ScalableNanny
from scalable_nb.worker.plugin import ScalableWorkerPlugin

logger = logging.getLogger(__name__)

_FLUSH_INTERVAL_S: Final = 0.25
_IDLE_CHECK_S: Final = 0.5


class Host:
    """A running session.

    Parameters
    ----------
    paths : RunPaths
        The run folder, with ``run.json`` and ``manifest.yaml`` in it.
    """

    def __init__(self, paths: RunPaths) -> None:
        self.paths = paths
        self._connection_info: dict[str, Any] = {}
        self.run: dict[str, Any] = json.loads(paths.run_json.read_bytes())
        take_over_key(paths, self.run["key_file"])
        self._write_state(HostState.STARTING)
        if self.run["host"] == "job":  # some batch systems begin a job in the home folder
            os.chdir(self.run["cwd"])
        # The calls of `submit` and `map` are opaque here, but Dask's scheduler unpickles the
        # graphs of collections, and those name functions of the notebook's own modules. At the
        # end of the path: nothing of the user's can stand before what the host itself imports.
        sys.path += [entry for entry in self.run["python_path"] if entry not in sys.path]
        self.loaded: LoadedManifest = load_resolved(paths.manifest_yaml, target=self.run["target"])
        self.plan: Plan = make_plan(self.loaded)
        self.recorder = RunRecorder(paths, self.plan.provider)
        self.end_reason = "stopped"
        self._allocation: HostAllocation | None = None

    def scratch_base(self) -> Path:
        """Return where the scheduler may have its folder for temporary files."""
        is_local = self.plan.provider == "local" and not dask.config.get("temporary-directory")
        return private_folder(self.paths.workspace) if is_local else node_scratch()

    async def live(self) -> None:
        """Serve the session and write the end of the run down, also if the start fails.

        All in one event loop: a late signal must not cut the end short.
        """
        try:
            await self.serve()
        except ScalableError as error:
            # The kernel shows the last lines of this log: no traceback of ours.
            self.end_reason = f"failed: {error}"
            sys.exit(f"{type(error).__name__}: {error}")
        except BaseException as error:
            self.end_reason = f"failed: {error!r}"
            raise
        finally:
            self.finish()

    async def serve(self) -> None:
        """Start everything, report the address to the kernel, and run until the end."""
        compatibility.check()
        prefix = secret_prefix()
        security = create_security(self.paths.tls)
        fleet, notices = await self._start_fleet(security, prefix)
        try:
            await self._open_for_work(fleet, prefix, notices)
        finally:
            self._write_state(HostState.ENDING)
            await fleet.close()

    async def _start_fleet(self, security: Security, prefix: str) -> tuple[Fleet, list[str]]:
        """Start the scheduler of the target, without workers; return notices for the user, too."""
        if self.plan.provider == "local":
            from scalable_nb.targets.local_fleet import start_local

            fleet = await start_local(
                self.plan,
                security=security,
                http_prefix=prefix,
                paths=self.paths,
                nanny_class=ScalableNanny,
            )
            return fleet, []
        from scalable_nb.targets.jobqueue_fleet import start_jobs

        return await start_jobs(
            self.loaded, security=security, http_prefix=prefix, paths=self.paths
        )

    async def _open_for_work(self, fleet: Fleet, prefix: str, notices: list[str]) -> None:
        limit_handshakes(fleet.scheduler)
        confine(fleet.scheduler, prefix)
        if self.run["host"] == "job" and self.plan.provider != "local":
            self._allocation = self._allocation_in(fleet)
        parts = compose(
            fleet,
            self.recorder,
            self.paths.results,
            desired_at_start=desired_at_start(self.loaded, self.plan),
            replacement_limits=ReplacementLimits.of(self.loaded),
            max_identical_failures=self.loaded.manifest.defaults.max_identical_failures,
            host_job=self._allocation.row if self._allocation is not None else dict,
        )
        adapter, scaling = parts.adapter, parts.scaling
        for notice in notices:
            parts.notices.notify(notice)
        run, secret = self.run, own_key().secret
        plugin = ScalableWorkerPlugin(run["cwd"], run["python_path"], prefix, secret)
        await adapter.add_worker_plugin(plugin, plugin.name)
        self._stop_on_signals(parts)
        await scaling.begin()
        self._announce(adapter.address, adapter.http_port, prefix)
        busy = [asyncio.create_task(self._flush_often()), asyncio.create_task(scaling.run())]
        try:
            await open_dashboard(fleet.scheduler, prefix)
            await self._until_the_end(parts)
        finally:
            for task in busy:
                task.cancel()
            await self._flush_results(parts)
            # What the closing workers drop is no part of the run any more.
            adapter.remove_plugin(parts.tracker.name)
            # So that they do not compute for each other.
            parts.leases.release_all()
            logger.info("ending: %s", self.end_reason)

    def _announce(self, address: str, http_port: int, prefix: str) -> None:
        self._connection_info = {
            "address": address,
            "tls": str(self.paths.tls),
            "certificate": certificate_digest(self.paths.tls),
            "dashboard": f"http://127.0.0.1:{http_port}{prefix}/status",
            "target": self.run["target"],
            "started_at": utc_iso(time()),
        }
        self._write_state(HostState.OPEN)

    def _write_state(self, state: HostState) -> None:
        self._state = state
        write_state(self.paths, state, **self._connection_info)

    def _touch(self) -> None:
        try:
            touch(self.paths)
        except FileNotFoundError:  # without the file nobody finds this host
            self._write_state(self._state)

    def _allocation_in(self, fleet: Fleet) -> HostAllocation:
        from scalable_nb.targets.jobqueue_fleet import JobFleet

        assert isinstance(fleet, JobFleet)
        return HostAllocation.of(self.loaded.target, fleet.queue)

    async def _flush_often(self) -> None:
        touched_at = 0.0
        while True:
            await asyncio.sleep(_FLUSH_INTERVAL_S)
            try:
                if time() - touched_at > HEARTBEAT_INTERVAL_S:
                    touched_at = time()
                    self._touch()
                self.recorder.flush()
            except OSError:
                # The rows stay queued; a full disk may have room again later.
                logger.exception("the run folder cannot be written")

    async def _until_the_end(self, parts: HostParts) -> None:
        """Wait for a stop, for `linger_s` without client and without work, or for the walltime."""
        linger_s = self.run["linger_s"]
        quiet_since = time()
        while not parts.stop.is_set():
            if self._allocation is not None and self._allocation.is_nearly_over:
                self._leave_in_time(parts, self._allocation)
                return
            if self._is_in_use(parts):
                quiet_since = time()
            elif time() - quiet_since > linger_s:
                self.end_reason = f"no client and no work for {linger_s:g} s"
                return
            try:
                await asyncio.wait_for(parts.stop.wait(), _IDLE_CHECK_S)
            except TimeoutError:
                continue

    def _is_in_use(self, parts: HostParts) -> bool:
        # Without its folder no kernel can attach to a run or find its results.
        has_use = self.recorder.has_work() and self.paths.folder.exists()
        return parts.adapter.has_clients() or has_use

    def _leave_in_time(self, parts: HostParts, allocation: HostAllocation) -> None:
        self.end_reason = f"the walltime of the host ({allocation}) was nearly over"
        parts.notices.notify(
            f"The walltime of this session's host ({allocation}) is nearly over: the session ends. "
            "Kept results and the records stay; `%scalable resubmit --last` goes on. "
            "`host_job: {walltime: ...}` of the target asks for more."
        )

    async def _flush_results(self, parts: HostParts) -> None:
        """Store what is still wanted, unless the user stopped the host."""
        if self.end_reason == "stopped":
            return
        flush_report = await parts.storage.flush_wanted()
        if flush_report is not None:
            self.end_reason += f"; {flush_report}"

    def _stop_on_signals(self, parts: HostParts) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, self._stop_on_signal, parts, number)

    def _stop_on_signal(self, parts: HostParts, number: signal.Signals) -> None:
        self.end_reason = f"ended by {number.name}"
        parts.stop.set()

    def finish(self) -> None:
        """Write the end of the run down; remove everything but the records."""
        ended_at = utc_iso(time())
        summary = {
            **self.recorder.summary(),
            "started_at": self.run["started_at"],
            "ended_at": ended_at,
            "end_reason": self.end_reason,
        }
        self.recorder.close()
        write_private(self.paths.summary_json, json.dumps(summary, indent=1).encode())
        run = {**self.run, "ended_at": ended_at}
        write_private(self.paths.run_json, json.dumps(run, indent=1).encode())
        shutil.rmtree(self.paths.tls, ignore_errors=True)
        shutil.rmtree(self.paths.workspace, ignore_errors=True)
        self.paths.session_json.unlink(missing_ok=True)  # last: its owner has ended


def main() -> None:
    """Run a host in this process."""
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s"
    )
    raise_open_files_limit()
    host = Host(RunPaths(Path(sys.argv[1])))
    with (
        private_scratch(host.scratch_base()) as scratch,
        dask.config.set({**DASK_CONFIG, "temporary-directory": str(scratch)}),
    ):
        asyncio.run(host.live())


if __name__ == "__main__":
    main()
