"""Submit recorded calls again: as they were recorded, or with corrected functions."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from distributed import Future

from scalable_nb.client.call_log import CallLog, RecordedBatch, RecordedTask
from scalable_nb.client.call_options import CallOptions
from scalable_nb.client.client import ScalableClient
from scalable_nb.client.submission import (
    PackedCall,
    Prepared,
    SchedulingOptions,
    Submission,
    as_submission,
)
from scalable_nb.errors import LeftOutError, SubmitError
from scalable_nb.faults.decision import PolicyTerms
from scalable_nb.faults.policy import TaskPolicy
from scalable_nb.protocol.annotations import STORAGE_ENTRIES
from scalable_nb.resubmission.overrides import Overrides
from scalable_nb.telemetry.rows import key_text


@dataclass(frozen=True)
class RecordedCalls:
    """Calls of a call log that are submitted again.

    Attributes
    ----------
    client : ScalableClient
        Where they run.
    log : CallLog
    overrides : Overrides
    new_key : mapping
        Key in the call log -> key of the task that takes its place, or the same key.
    replaced : set of str
        Names of the functions in whose place `overrides.func` is called.
    known : collection
        New keys that the ledger has already.
    """

    client: ScalableClient
    log: CallLog
    overrides: Overrides
    new_key: Mapping[Any, Any]
    replaced: set[str]
    known: Collection[Any] = ()

    def submit(
        self, tasks: Iterable[RecordedTask], inputs: Mapping[Any, Future[Any]]
    ) -> dict[Any, Future[Any]]:
        """Submit the calls of tasks.

        Parameters
        ----------
        tasks : iterable of RecordedTask
            In the order of submission: inputs come before what takes them.
        inputs : mapping
            Key of a task -> the future whose result is taken, unless the task is one of
            `tasks` itself.

        Returns
        -------
        dict
            Key in the call log -> the new future.
        """
        futures: dict[Any, Future[Any]] = {}
        for group in by_submission(self.log, tasks):
            known = {**inputs, **futures}
            if group[0].batch.function_name in self.replaced:
                futures |= self._submit_corrected(group, known)
            else:
                futures |= self._submit_recorded(group, known)
        return futures

    def _submit_recorded(
        self, group: list[RecordedTask], inputs: Mapping[Any, Future[Any]]
    ) -> dict[Any, Future[Any]]:
        """Submit calls as they were recorded, but for what is to change in their terms."""
        wire = self.overrides.wire(self.client.context.manifest)
        packed: dict[Any, PackedCall] = {}
        sent: dict[Any, Future[Any]] = {}
        futures: dict[Any, Future[Any]] = {}
        for task in group:
            key = self.new_key[task.key]
            call = self.log.load_call(task, task.result_key)
            if call is None:
                futures[task.key] = left_out(self.client, key, "its recorded arguments are gone")
                continue
            taken = [self._input(inputs, each) for each in task.input_keys]
            packed[key] = PackedCall(call, taken, task.preview)
        for is_known in (False, True):
            part = {key: call for key, call in packed.items() if (key in self.known) is is_known}
            if not part:
                continue
            self.client.reopen_futures(key for key in part if key in self.client.futures)
            submission = renewed(as_submission(group[0], **wire))
            sent |= self.client.submit_packed(submission, part, is_known=is_known)
        if packed:
            futures |= {
                task.key: sent[self.new_key[task.key]] for task in group if task.key not in futures
            }
        return futures

    def _submit_corrected(
        self, group: list[RecordedTask], inputs: Mapping[Any, Future[Any]]
    ) -> dict[Any, Future[Any]]:
        """Call the corrected function with the recorded arguments."""
        func = self.overrides.func
        assert func is not None
        submission = group[0].batch
        calls = {}
        for task in group:
            call = self.log.load_call(task, "")
            if call is None:
                raise SubmitError(f"the recorded arguments of {task.key} are gone or damaged")
            taken = [self._input(inputs, key) for key in task.input_keys]
            calls[self.new_key[task.key]] = Prepared(*call.load_arguments(taken))
        options = _corrected_options(self.client, submission, self.overrides)
        scheduling = SchedulingOptions(**submission.placing)
        sent = self.client.submit_calls(func, options, calls, scheduling, name=submission.name)
        return dict(zip((task.key for task in group), sent, strict=True))

    def _input(self, inputs: Mapping[Any, Future[Any]], key: Any) -> Future[Any]:
        return inputs[self.log.history.current(key)]


def by_submission(log: CallLog, tasks: Iterable[RecordedTask]) -> Iterator[list[RecordedTask]]:
    """Yield the tasks of each submission together, inputs before what takes them."""
    chosen = {task.key: task for task in tasks}
    levels: dict[Any, int] = {}
    for key in log.with_inputs(chosen):
        below = [levels[each] for each in log.inputs_of(key) if each in levels]
        levels[key] = max(below, default=-1) + 1
    groups: dict[tuple[int, str], list[RecordedTask]] = {}
    for task in sorted(chosen.values(), key=lambda task: levels[task.key]):
        groups.setdefault((levels[task.key], task.batch.batch_id), []).append(task)
    yield from groups.values()


def renewed(submission: Submission) -> Submission:
    """Return the submission with a new id; its tasks run to their end."""
    batch = replace(submission.batch, batch_id=uuid.uuid4().hex, runs_to_end=True)
    return replace(submission, batch=batch)


def new_task_key(name: str) -> str:
    """Return a key for a task that takes the place of another one."""
    return f"{name}-{uuid.uuid4().hex}"


def left_out(client: ScalableClient, key: Any, reason: str) -> Future[Any]:
    """Return a failed future of a task that does not run."""
    future: Future[Any] = Future(key, client)
    client.fail_future(key, LeftOutError.of(key_text(key), reason))
    return future


def _corrected_options(
    client: ScalableClient, submission: RecordedBatch, overrides: Overrides
) -> CallOptions:
    """Return the terms of the recorded calls, but for what is to change."""
    assert overrides.func is not None
    manifest = client.context.manifest
    wire = overrides.wire(manifest)
    component = wire.pop("component", submission.component)
    terms = PolicyTerms.from_wire({**submission.wire, **wire})
    options = CallOptions.resolve(
        client.context,
        overrides.func,
        tag=component if component in manifest.components else None,
        task=submission.task if submission.task in manifest.tasks else None,
        policy=TaskPolicy(idempotent=terms.idempotent),
        # What was stored is stored again, though the corrected function may not be `cacheable`.
        is_named="store" in submission.wire,
    )
    unchanged: dict[str, Any] = {
        name: options.wire[name] for name in STORAGE_ENTRIES if name in options.wire
    }
    return replace(options, wire={**unchanged, **terms.to_wire()}, runs_to_end=True)
