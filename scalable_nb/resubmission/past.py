"""What is left of a run whose host is gone: recorded calls, journal, kept results."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from scalable_nb.batches import find_kept
from scalable_nb.cache.function import CacheableFunction
from scalable_nb.cache.identity import identity_of
from scalable_nb.cache.writers import NotEncodableError
from scalable_nb.callrecord import CallRecord, RecordedTask, read_call_record
from scalable_nb.paths import RunPaths
from scalable_nb.resubmission.changes import Changes
from scalable_nb.resubmission.plan import (
    Fate,
    Remains,
    ResubmitPlan,
    plan_recorded,
    with_estimate,
)
from scalable_nb.submission import PackedCall
from scalable_nb.telemetry.ledger import key_text
from scalable_nb.telemetry.reader import read_rows


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
        states: dict[str, str] = {}
        durations_s: dict[str, tuple[float, int]] = {}
        failures = read_rows(paths.failures).rows
        for row in (*failures, *read_rows(paths.tasks).rows):
            name, duration_s = row.get("function_name"), row.get("duration_s")
            if isinstance(name, str) and isinstance(duration_s, float) and duration_s > 0:
                total_s, count = durations_s.get(name, (0.0, 0))
                durations_s[name] = total_s + duration_s, count + 1
            if "state" in row:
                states[str(row.get("task_id"))] = str(row["state"])
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
            plan, lambda key: tasks[key].batch.function_name, self.durations_s, self._cores()
        )
        replaced = changes.replaces(tasks[key].batch.function_name for key in plan.to_run)
        notices = _changed_functions(tasks[key] for key in plan.to_run)
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

    def _cores(self) -> float:
        """Of one slot."""
        try:
            plan = json.loads(self.paths.plan_json.read_bytes())
            return float(plan["cores"] / (plan["workers"] * plan["threads_per_worker"]))
        except (OSError, ValueError, KeyError, ZeroDivisionError):
            return 1.0


# --- functions that changed since -----------------------------------------------------


def _changed_functions(tasks: Iterable[RecordedTask]) -> dict[str, str]:
    """Name of a function -> what to say, where it is not what was recorded any more."""
    told: dict[str, str] = {}
    for task in tasks:
        batch = task.batch
        name = batch.function_name
        if name in told or not batch.identity:
            continue
        now = _identity_now(name)
        if now and now != batch.identity:
            told[name] = (
                f"{name}() has changed since: the recorded code runs; func={name} runs the new one"
            )
    return told


def _identity_now(name: str) -> str:
    """Digest of the function that has this name in the notebook; empty where there is none."""
    function = vars(sys.modules["__main__"]).get(name)
    if isinstance(function, CacheableFunction):
        return function.call_keys().identity.hex()
    if not callable(function):
        return ""
    try:
        return identity_of(function).hex()
    except (NotEncodableError, OSError):
        return ""
