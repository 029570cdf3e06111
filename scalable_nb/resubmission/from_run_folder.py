"""Run what failed or never ran of a run whose host is gone, from its folder alone."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import yaml
from distributed import Future

from scalable_nb.client.call_log import CallLog, RecordedTask, read_call_log
from scalable_nb.client.client import ScalableClient
from scalable_nb.client.futures import FutureList
from scalable_nb.client.submission import PackedCall, Submission, as_submission, find_stored
from scalable_nb.errors import NoSessionError, TaskError
from scalable_nb.manifest.load import LoadedManifest, load_resolved
from scalable_nb.paths import RunPaths, write_private
from scalable_nb.resubmission.corrected_calls import changed_functions, submit_corrected
from scalable_nb.resubmission.overrides import Overrides
from scalable_nb.resubmission.resubmit_plan import (
    RecordedOutcome,
    ResubmitPlan,
    TaskOutcome,
    cores_of_a_slot,
    durations_by_function,
    plan_recorded,
    with_estimate,
)
from scalable_nb.session.session import ScalableSession, live_sessions
from scalable_nb.session.session_spec import SessionSpec
from scalable_nb.telemetry.journal_reader import read_rows
from scalable_nb.telemetry.rows import key_text


class LeftOutError(TaskError):
    """A task of an earlier run was not resubmitted; the message says why."""


def resubmit_finished(
    paths: RunPaths, filters: list[Any] | None, overrides: Overrides, *, dry_run: bool
) -> FutureList | ResubmitPlan:
    """Resubmit a run whose host is gone."""
    finished = FinishedRun.read(paths)
    if not finished.call_log.tasks:
        raise NoSessionError(f"run {paths.run_id} recorded no calls: there is nothing to run")
    plan = finished.plan(filters, overrides)
    return plan if dry_run else _run(finished, plan, overrides)


def _run(finished: FinishedRun, plan: ResubmitPlan, overrides: Overrides) -> FutureList:
    call_log = finished.call_log
    session = _session_for(finished, overrides)
    client = session.client
    wire = overrides.wire(session.manifest.manifest) if overrides.func is None else {}
    taken = set(client.futures) | session.mirror.known_keys()
    assert session.paths is not None
    if not taken:  # else it is a run of its own, too
        write_private(session.paths.resumes, finished.paths.run_id.encode())
    new_key = {
        key: f"{key_text(key)}-{uuid.uuid4().hex[:8]}" if key in taken else key
        for key in call_log.tasks
    }
    replaced = overrides.replaces(call_log.tasks[key].batch.function_name for key in plan.to_run)
    futures: dict[Any, Future[Any]] = {}
    for group in _by_batch(call_log.tasks.values()):
        stored = [task for task in group if task.key in finished.stored]
        left_out = [task for task in group if task.key in plan.left_out]
        settled = {task.key for task in (*stored, *left_out)}
        runs = [task for task in group if task.key not in settled]
        corrected = [task for task in runs if task.batch.function_name in replaced]
        as_recorded = [task for task in runs if task.batch.function_name not in replaced]
        futures |= _attach_stored(client, finished, stored, new_key)
        futures |= _submit(client, call_log, as_recorded, new_key, futures, wire)
        if corrected:
            futures |= submit_corrected(client, call_log, corrected, overrides, futures)
        for task in left_out:
            futures[task.key] = _left_out(client, new_key[task.key], plan.left_out[task.key])
        _record(client, call_log, left_out, new_key, futures)
    for name, keys in call_log.members.items():
        known = [futures[key].key for key in keys if key in futures]
        client.log_members(session.name_batch(name, name), known)
    session.paths.resumes.unlink(missing_ok=True)
    return FutureList(futures[key] for key in call_log.tasks)


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


def _by_batch(tasks: Iterable[RecordedTask]) -> list[list[RecordedTask]]:
    groups: dict[str, list[RecordedTask]] = {}
    for task in tasks:
        groups.setdefault(task.batch.batch_id, []).append(task)
    return list(groups.values())


def _attach_stored(
    client: ScalableClient,
    finished: FinishedRun,
    tasks: list[RecordedTask],
    new_key: Mapping[Any, Any],
) -> dict[Any, Future[Any]]:
    """Create the futures of tasks whose results are stored."""
    by_folder: dict[str, list[RecordedTask]] = {}
    for task in tasks:
        by_folder.setdefault(finished.stored[task.key][0], []).append(task)
    futures = {}
    for folder, group in by_folder.items():
        submission = _renewed(as_submission(group[0], store=folder, recompute=False))
        packed = {new_key[task.key]: finished.stored[task.key][1] for task in group}
        sent = client.submit_packed(submission, packed)
        futures.update({task.key: sent[new_key[task.key]] for task in group})
    return futures


def _submit(
    client: ScalableClient,
    call_log: CallLog,
    tasks: list[RecordedTask],
    new_key: Mapping[Any, Any],
    futures: Mapping[Any, Future[Any]],
    wire: Mapping[str, Any],
) -> dict[Any, Future[Any]]:
    """Run calls as they were recorded, but for what is to change in their terms."""
    if not tasks:
        return {}
    submission = _renewed(as_submission(tasks[0], **wire))
    sent: dict[Any, Future[Any]] = {}
    packed: dict[Any, PackedCall] = {}
    for task in tasks:
        call = call_log.load_call(task, task.result_key)
        if call is None:
            sent[task.key] = _left_out(client, new_key[task.key], "its recorded arguments are gone")
            continue
        inputs = [futures[key] for key in task.input_keys]
        packed[new_key[task.key]] = PackedCall(call, inputs, task.preview)
    if packed:
        found = client.submit_packed(submission, packed)
        sent.update({task.key: found[new_key[task.key]] for task in tasks if task.key not in sent})
    return sent


def _record(
    client: ScalableClient,
    call_log: CallLog,
    tasks: list[RecordedTask],
    new_key: Mapping[Any, Any],
    futures: Mapping[Any, Future[Any]],
) -> None:
    """Write calls down that are left out: they may be resubmitted from the new run, too."""
    packed = {}
    for task in tasks:
        call = call_log.load_call(task, task.result_key)
        if call is not None and all(key in futures for key in task.input_keys):
            inputs = [futures[key] for key in task.input_keys]
            packed[new_key[task.key]] = PackedCall(call, inputs, task.preview)
    if packed:
        client.log_calls(_renewed(as_submission(tasks[0])), packed)


def _renewed(submission: Submission) -> Submission:
    batch = replace(submission.batch, batch_id=uuid.uuid4().hex)
    return replace(submission, batch=batch)


def _left_out(client: ScalableClient, key: Any, reason: str) -> Future[Any]:
    future: Future[Any] = Future(key, client)
    client.fail_future(key, LeftOutError(f"{key_text(key)} was left out: {reason}"))
    return future


@dataclass
class FinishedRun:
    """A run that is over, as far as its folder tells."""

    paths: RunPaths
    call_log: CallLog
    states: dict[str, str]
    last_failures: dict[str, Any]
    durations_s: dict[str, tuple[float, int]]
    stored: dict[Any, tuple[str, PackedCall]]

    @classmethod
    def read(cls, paths: RunPaths) -> FinishedRun:
        """Read the folder of a run."""
        call_log = read_call_log(paths.calls)
        failures, tasks = read_rows(paths.failures).rows, read_rows(paths.tasks).rows
        states = {str(row.get("task_id")): str(row["state"]) for row in tasks if "state" in row}
        durations_s = durations_by_function((*failures, *tasks))
        last_failures = {str(row.get("task_id")): row for row in failures}
        found = cls(paths, call_log, states, last_failures, durations_s, {})
        found.stored = find_stored(
            call_log, call_log.tasks.values(), paths.results, found._is_of_run
        )
        return found

    def plan(self, filters: list[Any] | None, overrides: Overrides) -> ResubmitPlan:
        """What a resubmission does, what it costs, and what a person may not expect."""
        tasks = self.call_log.tasks
        plan = plan_recorded(
            (self._outcome_of(task) for task in tasks.values()), self.last_failures, filters
        )
        plan = with_estimate(
            plan,
            lambda key: tasks[key].batch.function_name,
            self.durations_s,
            cores_of_a_slot(self.paths),
        )
        replaced = overrides.replaces(tasks[key].batch.function_name for key in plan.to_run)
        notices = changed_functions(tasks[key] for key in plan.to_run)
        all_notices = tuple(text for name, text in notices.items() if name not in replaced)
        if self.call_log.torn:
            all_notices += (
                "the end of the call record is torn: calls sent just before the end are lost",
            )
        return replace(plan, notices=all_notices)

    def _outcome_of(self, task: RecordedTask) -> RecordedOutcome:
        text = key_text(task.key)
        if task.key in self.stored:
            outcome = TaskOutcome.STORED
        elif self.states.get(text) == "cancelled":
            outcome = TaskOutcome.CANCELLED
        else:
            was_attempted = text in self.states or text in self.last_failures
            outcome = TaskOutcome.ATTEMPTED if was_attempted else TaskOutcome.NEVER_RAN
        is_idempotent = task.batch.wire.get("idempotent", True)
        return RecordedOutcome(task.key, outcome, is_idempotent, task.has_call, task.input_keys)

    def _is_of_run(self, task: RecordedTask) -> bool:
        is_replaced = task.batch.wire.get("recompute")
        return not is_replaced or self.states.get(key_text(task.key)) == "succeeded"
