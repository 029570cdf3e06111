"""Run what failed or never ran of a run whose host is gone, from its folder alone."""

from __future__ import annotations

import json
import uuid
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

import yaml
from dask.utils import funcname
from distributed import Future

from scalable_nb.client.batch_records import BatchRecord
from scalable_nb.client.call_log import RecordedTask, unsigned_run
from scalable_nb.client.futures import FutureList
from scalable_nb.client.submission import PackedCall, as_submission
from scalable_nb.errors import NoSessionError, RunFolderError
from scalable_nb.manifest.load import LoadedManifest, load_resolved
from scalable_nb.paths import RunPaths, write_private
from scalable_nb.protocol.messages import BatchMessage, LeftOutCalls
from scalable_nb.resubmission.finished_run import FinishedRun
from scalable_nb.resubmission.overrides import Overrides
from scalable_nb.resubmission.recorded_calls import (
    RecordedCalls,
    by_submission,
    left_out,
    new_task_key,
    renewed,
)
from scalable_nb.resubmission.resubmit_plan import ResubmitPlan
from scalable_nb.session.host_launcher import is_manifest_signed
from scalable_nb.session.run_trust import trust_run
from scalable_nb.session.session import ScalableSession, live_sessions
from scalable_nb.session.session_spec import SessionSpec
from scalable_nb.telemetry.rows import TaskState, key_text

#: State of an input that does not run, by that of its `CarriedOutcome`.
_LEFT_OUT_STATES: Final = {
    "cancelled": TaskState.CANCELLED,
    "failed": TaskState.LEFT_OUT,
    "never ran": TaskState.LEFT_OUT,
}


def resubmit_finished(
    paths: RunPaths,
    filters: list[Any] | None,
    overrides: Overrides,
    *,
    dry_run: bool,
    trust: bool,
    on_plan: Callable[[ResubmitPlan], None],
) -> FutureList | ResubmitPlan:
    """Resubmit a run whose host is gone.

    Raises
    ------
    NoSessionError
        If it recorded no calls.
    RunFolderError
        If its records are not signed with the user's key, and neither trusted nor planned only.
    """
    if trust and not dry_run:
        trust_run(paths)
    finished = FinishedRun(paths)
    if not finished.call_log.history.batches:
        raise NoSessionError(f"run {paths.run_id} recorded no calls: there is nothing to run")
    plan = finished.plan(filters, overrides)
    if dry_run:
        return plan
    finished.call_log.require_signed()
    if not is_manifest_signed(paths):  # it names programs that a start runs
        raise RunFolderError(unsigned_run(paths.folder))
    if not plan.total:
        return FutureList()
    on_plan(plan)
    return _Takeover(finished, plan, overrides).run()


class _Takeover:
    """A session that takes over the batches of a finished run.

    Parameters
    ----------
    finished : FinishedRun
    plan : ResubmitPlan
        Which inputs run, and which are left out.
    overrides : Overrides
    """

    def __init__(self, finished: FinishedRun, plan: ResubmitPlan, overrides: Overrides) -> None:
        self._finished = finished
        self._log = log = finished.call_log
        self._plan = plan
        self._overrides = overrides
        self._keys = log.with_inputs(dict.fromkeys(log.history.input_keys()))
        chosen = {log.tasks[key].batch.function_name for key in plan.to_run}
        self._replaced = overrides.replaces(chosen)
        self._session = _session_for(finished, overrides)
        self._client = self._session.client
        self._taken = set(self._client.futures) | self._session.mirror.known_keys()
        self._new_key = self._new_keys()
        self._carried = {
            key: finished.carried_outcome(key, reason) for key, reason in plan.left_out.items()
        }

    def run(self) -> FutureList:
        """Record the batches, take stored results, and submit the rest."""
        log, paths = self._log, self._session.paths
        assert paths is not None
        if not self._taken:  # else the session has tasks of another origin, too
            write_private(paths.resumes, self._finished.paths.run_id.encode())
        self._record_batches()
        futures = self._attach_stored()
        for key, reason in self._plan.left_out.items():
            futures[key] = left_out(self._client, self._new_key[key], reason)
        self._report_left_out()
        needed = log.with_inputs(dict.fromkeys(self._plan.to_run))
        runs = [log.tasks[key] for key in needed if key not in futures]
        calls = RecordedCalls(self._client, log, self._overrides, self._new_key, self._replaced)
        futures |= calls.submit(runs, futures)
        self._record_left_out(futures)
        paths.resumes.unlink(missing_ok=True)
        history = log.history
        return FutureList(
            (futures[key] for key in history.input_keys()), batch_ids=tuple(history.batches)
        )

    def _new_keys(self) -> dict[Any, Any]:
        taken, tasks = self._taken, self._log.tasks
        chosen = set(self._plan.to_run)
        new_key = {}
        for key in self._keys:
            is_corrected = key in chosen and tasks[key].batch.function_name in self._replaced
            if is_corrected:
                new_key[key] = new_task_key(funcname(self._overrides.func))
            else:
                new_key[key] = f"{key_text(key)}-{uuid.uuid4().hex[:8]}" if key in taken else key
        return new_key

    def _record_batches(self) -> None:
        """Record the batches of the run, and the outcomes of inputs that do not run."""
        records = []
        for record in self._log.history.batches.values():
            carried = {
                index: self._carried[key]
                for index, key in enumerate(record.keys)
                if key in self._carried
            }
            keys = [self._new_key[key] for key in record.keys]
            generation = record.generation + 1
            records.append(replace(record, keys=keys, generation=generation, carried=carried))
            if not record.is_single:
                self._session.name_batch(record.name, record.name)
        self._client.call_log.log_batches(records)
        # Each task is announced for one input.
        tasks = Counter(key for record in records for key in record.keys)
        self._client.report_inputs({key: number - 1 for key, number in tasks.items()})

    def _attach_stored(self) -> dict[Any, Future[Any]]:
        """Create the futures of tasks whose results are stored."""
        by_folder: dict[tuple[str, str], list[RecordedTask]] = {}
        for key in self._keys:
            if key in self._finished.stored:
                task, folder = self._log.tasks[key], self._finished.stored[key][0]
                by_folder.setdefault((task.batch.batch_id, folder), []).append(task)
        futures = {}
        for (_, folder), group in by_folder.items():
            submission = renewed(as_submission(group[0], store=folder, recompute=False))
            packed = {self._new_key[task.key]: self._finished.stored[task.key][1] for task in group}
            sent = self._client.submit_packed(submission, packed)
            futures.update({task.key: sent[self._new_key[task.key]] for task in group})
        return futures

    def _report_left_out(self) -> None:
        """Report inputs that do not run to the host, so that all views count them."""
        reported: set[Any] = set()
        for record in self._log.history.batches.values():
            keys = (self._carried.keys() & set(record.keys)) - reported
            reported |= keys
            if keys:
                in_order = [key for key in dict.fromkeys(record.keys) if key in keys]
                self._client.report_left_out(self._message(record, in_order))

    def _message(self, record: BatchRecord, keys: list[Any]) -> LeftOutCalls:
        tasks, outcomes = self._log.tasks, [self._carried[key] for key in keys]
        batch = BatchMessage(
            uuid.uuid4().hex, "" if record.is_single else record.name, record.function_name
        )
        previews = {self._new_key[key]: tasks[key].preview if key in tasks else "" for key in keys}
        return LeftOutCalls(
            batch.with_previews(previews),
            states=tuple(_LEFT_OUT_STATES[each.state].label for each in outcomes),
            reasons=tuple(each.reason for each in outcomes),
            errors=tuple(
                str(each.failure.get("failure_class", "")) if each.failure else ""
                for each in outcomes
            ),
        )

    def _record_left_out(self, futures: Mapping[Any, Future[Any]]) -> None:
        """Record calls that are left out: they may be resubmitted from the new run, too."""
        log = self._log
        tasks = [log.tasks[key] for key in self._plan.left_out if key in log.tasks]
        for group in by_submission(log, tasks):
            packed = {}
            for task in group:
                call = log.load_call(task, task.result_key)
                inputs = log.inputs_of(task.key)
                if call is not None and all(key in futures for key in inputs):
                    taken = [futures[key] for key in inputs]
                    packed[self._new_key[task.key]] = PackedCall(call, taken, task.preview)
            if packed:
                self._client.call_log.log_calls(renewed(as_submission(group[0])), packed)


def _session_for(finished: FinishedRun, overrides: Overrides) -> ScalableSession:
    """The live session, or a new one on the run's target."""
    live = [session for session in live_sessions() if session.is_host_alive()]
    if live:
        session = live[-1]
    else:
        for dead in live_sessions():
            dead.close()
        run = json.loads(finished.paths.run_json.read_bytes())
        manifest = _manifest_of(finished.paths, run["target"], overrides.memory_bytes)
        session = ScalableSession(SessionSpec(manifest))
        session.start()
    session.mirror.refresh()
    return session


def _manifest_of(paths: RunPaths, target: str, memory_bytes: int | None) -> LoadedManifest:
    """The run's manifest; with components of at least so much memory."""
    loaded = load_resolved(paths.manifest_yaml, target=target)
    if memory_bytes is None:
        return loaded
    data = yaml.safe_load(loaded.text)
    for name, component in loaded.manifest.components.items():
        if (component.memory_bytes or 0) < memory_bytes:
            data["components"][name]["memory"] = f"{memory_bytes} B"
    larger = paths.manifest_yaml.with_name("manifest-larger.yaml")
    write_private(larger, yaml.safe_dump(data, sort_keys=False).encode())
    return load_resolved(larger, target=target)
