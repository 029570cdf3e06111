"""What is left of a run whose host is gone: recorded calls, journal, kept results."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from scalable_nb.client.call_log import CallRecord, RecordedTask, read_call_record
from scalable_nb.client.submission import PackedCall
from scalable_nb.paths import RunPaths
from scalable_nb.resubmission.code_changes import changed_functions
from scalable_nb.resubmission.estimate import cores_of_a_slot, durations_by_function
from scalable_nb.resubmission.overrides import Changes
from scalable_nb.resubmission.resubmit_plan import (
    Fate,
    Remains,
    ResubmitPlan,
    plan_recorded,
    with_estimate,
)
from scalable_nb.session.batches import find_kept
from scalable_nb.telemetry.journal_reader import read_rows
from scalable_nb.telemetry.ledger import key_text


@dataclass
class PastRun:
    """A run that is over, as far as its folder tells."""

    paths: RunPaths
    record: CallRecord
    states: dict[str, str]
    last_failures: dict[str, Any]
    durations_s: dict[str, tuple[float, int]]
    kept: dict[Any, tuple[str, PackedCall]]

    @classmethod
    def read(cls, paths: RunPaths) -> PastRun:
        """Read the folder of a run."""
        record = read_call_record(paths.calls)
        failures, tasks = read_rows(paths.failures).rows, read_rows(paths.tasks).rows
        states = {str(row.get("task_id")): str(row["state"]) for row in tasks if "state" in row}
        durations_s = durations_by_function((*failures, *tasks))
        last_failures = {str(row.get("task_id")): row for row in failures}
        found = cls(paths, record, states, last_failures, durations_s, {})
        found.kept = find_kept(record, record.tasks.values(), paths.results, found._is_of_run)
        return found

    def plan(self, choices: list[Any] | None, changes: Changes) -> ResubmitPlan:
        """What a resubmission does, what it costs, and what a person may not expect."""
        tasks = self.record.tasks
        plan = plan_recorded(
            (self._remains(task) for task in tasks.values()), self.last_failures, choices
        )
        plan = with_estimate(
            plan,
            lambda key: tasks[key].batch.function_name,
            self.durations_s,
            cores_of_a_slot(self.paths),
        )
        replaced = changes.replaces(tasks[key].batch.function_name for key in plan.to_run)
        notices = changed_functions(tasks[key] for key in plan.to_run)
        told = tuple(text for name, text in notices.items() if name not in replaced)
        if self.record.torn:
            told += ("the end of the call record is torn: calls sent just before the end are lost",)
        return replace(plan, notices=told)

    def _remains(self, task: RecordedTask) -> Remains:
        text = key_text(task.key)
        if task.key in self.kept:
            fate = Fate.KEPT
        elif self.states.get(text) == "cancelled":
            fate = Fate.CANCELLED
        else:
            is_tried = text in self.states or text in self.last_failures
            fate = Fate.TRIED if is_tried else Fate.UNTRIED
        is_idempotent = task.batch.wire.get("idempotent", True)
        return Remains(task.key, fate, is_idempotent, task.has_call, task.input_keys)

    def _is_of_run(self, task: RecordedTask) -> bool:
        is_replaced = task.batch.wire.get("recompute")
        return not is_replaced or self.states.get(key_text(task.key)) == "succeeded"
