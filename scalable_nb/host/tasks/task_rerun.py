"""Failed tasks that run again because the user, or a new submission, asks for it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from scalable_nb.dask_adapter.scheduler import SchedulerAdapter
from scalable_nb.faults.decision import PolicyTerms
from scalable_nb.host.tasks.attempt_failures import AtMostOnceGuard
from scalable_nb.host.tasks.placement import TaskPlacement
from scalable_nb.host.tasks.run_recorder import RunRecorder
from scalable_nb.host.tasks.task_registry import TaskRegistry
from scalable_nb.protocol.annotations import ANNOTATION, STORAGE_ENTRIES
from scalable_nb.protocol.messages import ReopenedTasks, ResubmitReply, ResubmitRequest


class TaskRerun:
    """Runs failed tasks again under their own keys.

    Parameters
    ----------
    registry : TaskRegistry
    recorder : RunRecorder
    adapter : SchedulerAdapter
    at_most_once : AtMostOnceGuard
    placement : TaskPlacement
    """

    def __init__(
        self,
        registry: TaskRegistry,
        recorder: RunRecorder,
        adapter: SchedulerAdapter,
        at_most_once: AtMostOnceGuard,
        placement: TaskPlacement,
    ) -> None:
        self._registry = registry
        self._recorder = recorder
        self._adapter = adapter
        self._at_most_once = at_most_once
        self._placement = placement

    def reopen(self, client: str, message: ReopenedTasks) -> None:
        """Run calls again that a client resubmitted while it holds their failed futures."""
        failed = filter(self.is_failed, message.keys)
        self.run_again(dict.fromkeys(failed, message.annotation))

    def resubmit(self, request: ResubmitRequest) -> ResubmitReply:
        """Run failed tasks again under their own keys, with changed terms, to their end.

        Tasks that are not idempotent are left out unless they are named.
        """
        failed = [(key, self._registry[key].terms) for key in request.keys if self.is_failed(key)]
        chosen = {key: terms for key, terms in failed if terms.idempotent or key in request.named}
        if not request.dry_run:
            changes = request.changes
            for key in chosen:
                self._registry[key].runs_to_end = True
            self.run_again({key: {**terms.to_wire(), **changes} for key, terms in chosen.items()})
        left_out = tuple(key for key, _ in failed if key not in chosen)
        return ResubmitReply(tuple(chosen), left_out)

    def is_failed(self, key: Any) -> bool:
        """Return whether a task failed (after all retries)."""
        ts = self._adapter.tasks.get(key)
        return key in self._registry and ts is not None and ts.state == "erred"

    def run_again(self, wires: Mapping[Any, dict[str, Any] | None]) -> None:
        """Run failed tasks and their failed inputs again; None keeps a task's terms."""
        again = self._with_failed_inputs(wires)
        for key in again:
            tracked, ts = self._registry[key], self._adapter.tasks[key]
            terms, wire = tracked.terms, wires.get(key)
            if wire is not None and not tracked.is_native:
                terms = PolicyTerms.from_wire(wire)
                if wire.get("component"):
                    self._recorder.move(tracked, wire["component"])
                    self._placement.forget(key)
                annotations = ts.annotations or {}
                before = annotations.get(ANNOTATION, {})
                unchanged = {name: before[name] for name in STORAGE_ENTRIES if name in before}
                ts.annotations = {**annotations, ANNOTATION: {**unchanged, **wire}}
            self._recorder.reopen(tracked, terms)
            self._at_most_once.reset(key)
            self._adapter.forget_losses(ts)
        if wires:
            self._adapter.rerun(again)

    def _with_failed_inputs(self, keys: Iterable[Any]) -> list[Any]:
        # Dask retries the failed inputs of a task with it.
        found: dict[Any, None] = {}
        stack = list(keys)
        while stack:
            key = stack.pop()
            if key not in found and self.is_failed(key):
                found[key] = None
                stack += [dts.key for dts in self._adapter.tasks[key].dependencies]
        return list(found)
