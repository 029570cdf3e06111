"""Run failed inputs of a live session again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any, Final

from dask.utils import funcname
from distributed import Future

from scalable_nb.client.batch_records import changed_keys
from scalable_nb.client.call_log import RecordedTask
from scalable_nb.client.futures import FutureList
from scalable_nb.errors import SubmitError
from scalable_nb.resubmission.changed_functions import changed_functions
from scalable_nb.resubmission.overrides import Overrides
from scalable_nb.resubmission.recorded_calls import RecordedCalls, new_task_key
from scalable_nb.resubmission.resubmit_plan import (
    OUTCOMES_OF_CARRIED,
    RecordedOutcome,
    ResubmitPlan,
    TaskOutcome,
    cores_of_a_slot,
    durations_by_function,
    find_last_failures,
    named_keys,
    plan_resubmission,
    with_estimate,
)
from scalable_nb.session.session import ScalableSession
from scalable_nb.telemetry.rows import TaskState, key_text

_OUTCOMES: Final = {
    TaskState.SUCCEEDED: TaskOutcome.SUCCEEDED,
    TaskState.CACHED: TaskOutcome.SUCCEEDED,
    TaskState.FAILED: TaskOutcome.ATTEMPTED,
    TaskState.CANCELLED: TaskOutcome.CANCELLED,
    TaskState.LEFT_OUT: TaskOutcome.ATTEMPTED,
    TaskState.NEVER_RAN: TaskOutcome.NEVER_RAN,
}
_OUTCOMES_OF_FUTURES: Final = {
    "finished": TaskOutcome.SUCCEEDED,
    "pending": TaskOutcome.UNFINISHED,
    "error": TaskOutcome.ATTEMPTED,
    "lost": TaskOutcome.ATTEMPTED,
    "cancelled": TaskOutcome.CANCELLED,
}


class LiveInputs:
    """Inputs of a live session that may be resubmitted, with their recorded outcomes.

    Creating an instance has no effect on any task.

    Parameters
    ----------
    session : ScalableSession
    futures : FutureList
        Of the inputs; tasks of corrected calls may have taken the places of some tasks.
    filters : list, optional
        Which failures are meant; see `resubmit_plan.as_filters`.

    Attributes
    ----------
    plan : ResubmitPlan
    """

    def __init__(
        self, session: ScalableSession, futures: FutureList, filters: list[Any] | None
    ) -> None:
        self._session = session
        self._client = session.client
        self._futures = futures
        self._log = session.batches.log()
        self._named = named_keys(filters)
        history, meant = self._log.history, futures.batch_ids
        self._keys = [history.current_in(meant, future.key) for future in futures]
        self._failures, self._endings = session.journals()
        outcomes = self._outcomes()
        self._at_host = self._failed_at_host(outcomes)
        tasks = [self._describe(key, outcomes[key]) for key in outcomes]
        last_failures = find_last_failures(self._log.history.carried(), self._failures)
        self._tasks = {task.key: task for task in tasks}
        self.plan = plan_resubmission(self._keys, tasks, last_failures, filters)

    def preview(self, overrides: Overrides) -> ResubmitPlan:
        """Return the plan with its cost and with notices about changed functions."""
        paths = self._session.paths
        assert paths is not None
        names = {task.key: task.batch.function_name for task in self._recorded()}
        durations_s = durations_by_function((*self._failures, *self._endings))
        cores = cores_of_a_slot(paths)
        plan = with_estimate(self.plan, lambda key: names.get(key, ""), durations_s, cores)
        replaced = overrides.replaces(names.values())
        as_recorded = (task for task in self._recorded() if names[task.key] not in replaced)
        # To compare a function with the recorded one, that is unpickled.
        changed = {} if self._log.unsigned else changed_functions(as_recorded)
        return replace(plan, notices=tuple(changed.values()))

    def resubmit(self, overrides: Overrides) -> FutureList:
        """Run the chosen inputs again; return the futures of all inputs, in order."""
        wire = overrides.wire(self._client.context.manifest)
        replaced = overrides.replaces(task.batch.function_name for task in self._recorded())
        new_key, again = self._divide(overrides, replaced)
        self._check_recorded(new_key)
        inputs = self._inputs_of(new_key)
        self._record_generations({**{key: key for key in again}, **new_key})
        new: dict[Any, Future[Any]] = {}
        if new_key:
            known = {key for key, new in new_key.items() if key == new}
            calls = RecordedCalls(self._client, self._log, overrides, new_key, replaced, known)
            new = calls.submit((self._log.tasks[key] for key in new_key), inputs)
        if again:
            # First: a task may finish before the host's reply arrives.
            self._client.reopen_futures(key for key in again if key in self._client.futures)
            self._client.host_api.resubmit(again, wire, self._named, dry_run=False)
            self._client.forget_terms(again)
        return self.joined(new)

    def joined(self, new: Mapping[Any, Future[Any]]) -> FutureList:
        """Return the futures of all inputs, in order, with new ones in their places."""
        listed = self._futures
        if not new and all(
            key == future.key for key, future in zip(self._keys, listed, strict=True)
        ):
            return listed
        missing = [
            key
            for key, future in zip(self._keys, listed, strict=True)
            if key != future.key and key not in new
        ]
        others = dict(zip(missing, self._session.batches.futures(missing), strict=True))
        found = (
            new.get(key) or others.get(key) or future
            for key, future in zip(self._keys, listed, strict=True)
        )
        return FutureList(found, name=listed.name, batch_ids=listed.batch_ids)

    # --- outcomes ------------------------------------------------------------------------

    def _outcomes(self) -> dict[Any, TaskOutcome]:
        """Return the outcomes of all tasks and of those they need, inputs first."""
        self._session.mirror.refresh()
        carried = self._log.history.carried()
        given = {future.key: str(future.status) for future in self._futures}
        found: dict[Any, TaskOutcome] = {}
        with self._session.mirror.lock:
            ledger = self._session.mirror.ledger
            for key in self._log.with_inputs(dict.fromkeys(self._keys)):
                if key in carried:
                    found[key] = OUTCOMES_OF_CARRIED[carried[key].state]
                    continue
                row = ledger.row_of.get(key_text(key))
                if row is None:
                    is_native = key in given and key not in self._log.tasks
                    found[key] = (
                        _OUTCOMES_OF_FUTURES[given[key]] if is_native else TaskOutcome.NEVER_RAN
                    )
                    continue
                state = TaskState(ledger.columns["state"][row])
                found[key] = _OUTCOMES.get(state, TaskOutcome.UNFINISHED)
        return found

    def _failed_at_host(self, outcomes: Mapping[Any, TaskOutcome]) -> dict[Any, bool]:
        """Return the tasks that the host can run again, and whether it may: key -> bool."""
        failed = [key for key, outcome in outcomes.items() if outcome.has_no_result]
        if not failed:
            return {}
        reply = self._client.host_api.resubmit(failed, {}, self._named, dry_run=True)
        return {**dict.fromkeys(reply.chosen, True), **dict.fromkeys(reply.left_out, False)}

    def _describe(self, key: Any, outcome: TaskOutcome) -> RecordedOutcome:
        task = self._log.tasks.get(key)
        is_idempotent = task is None or task.batch.wire.get("idempotent", True)
        return RecordedOutcome(
            key,
            outcome,
            is_idempotent=self._at_host.get(key, is_idempotent),
            has_call=key in self._at_host or (task is not None and task.has_call),
            input_keys=tuple(each for each in self._log.inputs_of(key) if each in self._log.tasks),
        )

    def _recorded(self) -> list[RecordedTask]:
        tasks = self._log.tasks
        return [tasks[key] for key in dict.fromkeys(self.plan.to_run) if key in tasks]

    # --- what runs -----------------------------------------------------------------------

    def _divide(
        self, overrides: Overrides, replaced: Collection[str]
    ) -> tuple[dict[Any, Any], list[Any]]:
        """Return the new keys of tasks that are submitted again, and the tasks that keep theirs."""
        chosen = set(self.plan.to_run)
        new_key: dict[Any, Any] = {}
        again = []
        for key in self._log.with_inputs(chosen):
            if not (key in self._tasks and self._tasks[key].outcome.has_no_result):
                continue
            task = self._log.tasks.get(key)
            if task is None:  # of Dask's own
                again.append(key)
                continue
            name = task.batch.function_name
            inputs = self._log.inputs_of(key)
            if key in chosen and name in replaced:
                new_key[key] = new_task_key(funcname(overrides.func))
            elif inputs != task.input_keys or any(new_key.get(k, k) != k for k in inputs):
                new_key[key] = new_task_key(name)
            elif key not in self._at_host:
                new_key[key] = key
            else:
                again.append(key)
        return new_key, again

    def _check_recorded(self, keys: Collection[Any]) -> None:
        for key in keys:
            if not self._log.tasks[key].has_call:
                raise SubmitError(
                    f"{key_text(key)} cannot be submitted with other code or inputs: its "
                    "arguments were not recorded (`record_args:` or `record_limit:` of "
                    "scalable.yaml). Map the corrected function over them instead."
                )

    def _inputs_of(self, new_key: Mapping[Any, Any]) -> dict[Any, Future[Any]]:
        taken = {each for key in new_key for each in self._log.inputs_of(key)}
        keys = [key for key in taken if key not in new_key]
        return dict(zip(keys, self._session.batches.futures(keys), strict=True))

    def _record_generations(self, new: Mapping[Any, Any]) -> None:
        history = self._log.history
        # Each new task is announced for one input.
        changes = Counter({key: -1 for before, key in new.items() if before != key})
        for record, keys in changed_keys(history, self._futures.batch_ids, new):
            number = record.generation + 1
            self._client.call_log.log_generation(record.batch_id, number, keys)
            changes.update(keys.values())
            changes.subtract(record.keys[index] for index in keys)
        self._client.report_inputs(changes)
