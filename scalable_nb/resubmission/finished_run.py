"""Read the folder of a finished run: its calls, their outcomes and stored results."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any

from scalable_nb.client.batch_records import CarriedOutcome
from scalable_nb.client.call_log import RecordedTask, read_call_log, unsigned_run
from scalable_nb.client.submission import find_stored
from scalable_nb.paths import RunPaths
from scalable_nb.resubmission.changed_functions import changed_functions
from scalable_nb.resubmission.overrides import Overrides
from scalable_nb.resubmission.resubmit_plan import (
    CARRIED_STATES,
    OUTCOMES_OF_CARRIED,
    RecordedOutcome,
    ResubmitPlan,
    TaskOutcome,
    cores_of_a_slot,
    durations_by_function,
    find_last_failures,
    plan_resubmission,
    with_estimate,
)
from scalable_nb.telemetry.journal_reader import read_rows
from scalable_nb.telemetry.rows import RELEASED, TaskState, key_text


class FinishedRun:
    """A finished run, as its folder records it.

    Parameters
    ----------
    paths : RunPaths

    Attributes
    ----------
    call_log : CallLog
    last_failures : dict
        Key as text -> row of the last failed attempt.
    stored : dict
        Key -> (folder, call with the key of the result), of the results that are stored.
    """

    def __init__(self, paths: RunPaths) -> None:
        self.paths = paths
        self.call_log = log = read_call_log(paths.calls)
        failures, endings = read_rows(paths.failures).rows, read_rows(paths.tasks).rows
        last = {str(row.get("task_id")): row for row in endings if "state" in row}
        self._states = {key: str(row["state"]) for key, row in last.items()}
        self._released = {key for key, row in last.items() if row.get("reason") == RELEASED}
        self._attempted = {str(row.get("task_id")) for row in failures}
        self._durations_s = durations_by_function((*failures, *endings))
        self._carried = log.history.carried()
        self.last_failures = find_last_failures(self._carried, failures)
        self.stored = find_stored(log, log.tasks.values(), paths.results, self._is_of_run)

    def plan(self, filters: list[Any] | None, overrides: Overrides) -> ResubmitPlan:
        """Return the plan of a resubmission, with its cost and with notices for the user."""
        log = self.call_log
        keys = log.history.input_keys()
        outcomes = [self._describe(key) for key in log.with_inputs(dict.fromkeys(keys))]
        plan = plan_resubmission(keys, outcomes, self.last_failures, filters)
        names = {key: log.tasks[key].batch.function_name for key in plan.to_run}
        cores = cores_of_a_slot(self.paths)
        plan = with_estimate(plan, lambda key: names[key], self._durations_s, cores)
        notices = self._notices(plan, overrides.replaces(names.values()))
        return replace(plan, notices=tuple(notices))

    def _notices(self, plan: ResubmitPlan, replaced: Collection[str]) -> list[str]:
        """Return notices for the user: changed functions, damaged or unsigned records."""
        tasks = [self.call_log.tasks[key] for key in dict.fromkeys(plan.to_run)]
        # To compare a function with the recorded one, that is unpickled.
        changed = {} if self.call_log.unsigned else changed_functions(tasks)
        notices = [text for name, text in changed.items() if name not in replaced]
        if self.call_log.unsigned:
            notices.append(unsigned_run(self.paths.folder))
        if self.call_log.torn:
            notices.append(
                "the call record is damaged or its end is torn: calls that were recorded there "
                "are lost"
            )
        return notices

    def carried_outcome(self, key: Any, reason: str) -> CarriedOutcome:
        """Return the outcome to record in the next run for an input that does not run."""
        state = CARRIED_STATES[self._outcome_of(key)]
        return CarriedOutcome(state, reason, self.last_failures.get(key_text(key)))

    def _describe(self, key: Any) -> RecordedOutcome:
        task = self.call_log.tasks.get(key)
        outcome = self._outcome_of(key)
        if task is None:
            # An earlier run may have left it out because its arguments were not recorded.
            is_damaged = key not in self._carried
            return RecordedOutcome(key, outcome, has_call=False, is_damaged=is_damaged)
        must_be_called = outcome.has_no_result and task.has_call
        return RecordedOutcome(
            key,
            outcome,
            is_idempotent=task.batch.wire.get("idempotent", True),
            has_call=task.has_call,
            input_keys=self.call_log.inputs_of(key),
            is_damaged=must_be_called and self.call_log.load_call(task, "") is None,
        )

    def _outcome_of(self, key: Any) -> TaskOutcome:
        text = key_text(key)
        if key in self.stored:
            return TaskOutcome.STORED
        if key in self._carried:
            return OUTCOMES_OF_CARRIED[self._carried[key].state]
        state = self._states.get(text)
        if text in self._released:
            return TaskOutcome.NEVER_RAN
        if state == TaskState.CANCELLED.label:
            return TaskOutcome.CANCELLED
        was_attempted = state is not None or text in self._attempted
        return TaskOutcome.ATTEMPTED if was_attempted else TaskOutcome.NEVER_RAN

    def _is_of_run(self, task: RecordedTask) -> bool:
        is_replaced = task.batch.wire.get("recompute")
        return not is_replaced or self._states.get(key_text(task.key)) == "succeeded"
