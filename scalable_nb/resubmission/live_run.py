"""Run failed tasks of a live session again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from distributed import Future

from scalable_nb.client.call_log import CallLog, read_call_log
from scalable_nb.client.client import ScalableClient
from scalable_nb.client.futures import FutureList
from scalable_nb.errors import SubmitError
from scalable_nb.resubmission.corrected_calls import changed_functions, submit_corrected
from scalable_nb.resubmission.overrides import Overrides
from scalable_nb.resubmission.resubmit_plan import (
    NOT_IDEMPOTENT,
    ResubmitPlan,
    cores_of_a_slot,
    durations_by_function,
    plan_resubmission,
    with_estimate,
)


def plan_live(
    client: ScalableClient, futures: FutureList, filters: list[Any] | None
) -> ResubmitPlan:
    """What a resubmission of these futures does."""
    last_failures = {row["task_id"]: row for row in client.session.failures() if "task_id" in row}
    statuses = {future.key: str(future.status) for future in futures}
    plan = plan_resubmission(statuses, last_failures, filters)
    return _without_unsafe(client, plan, named_keys(filters))


def preview_plan(client: ScalableClient, plan: ResubmitPlan, overrides: Overrides) -> ResubmitPlan:
    """The plan with what it costs, and with what a person may not expect: changed functions."""
    paths = client.session.paths
    assert paths is not None
    recorded = read_call_log(paths.calls).tasks
    tasks = [recorded[key] for key in plan.to_run if key in recorded]
    names = {task.key: task.batch.function_name for task in tasks}
    durations_s = durations_by_function(row for rows in client.session.journals() for row in rows)
    plan = with_estimate(plan, lambda key: names.get(key, ""), durations_s, cores_of_a_slot(paths))
    replaced = overrides.replaces(names.values())
    notices = changed_functions(task for task in tasks if names[task.key] not in replaced)
    return replace(plan, notices=tuple(notices.values()))


def resubmit_in_place(
    client: ScalableClient, plan: ResubmitPlan, wire: dict[str, Any], named: list[str]
) -> None:
    """Run tasks again under their own keys."""
    # Before the host is asked: its answer may overtake us with a task that is done.
    client.reopen_futures(plan.to_run)
    client.host_api.resubmit(plan.to_run, wire, named, dry_run=False)


def resubmit_corrected(
    client: ScalableClient, futures: FutureList, plan: ResubmitPlan, overrides: Overrides
) -> FutureList:
    """Run failed calls again with other code, as new tasks in the places of the old ones."""
    paths = client.session.paths
    assert paths is not None
    call_log = read_call_log(paths.calls)
    _check_recorded(call_log, plan.to_run)
    tasks = [call_log.tasks[key] for key in plan.to_run]
    replaced = overrides.replaces(task.batch.function_name for task in tasks)
    corrected = [task for task in tasks if task.batch.function_name in replaced]
    inputs: dict[Any, Future[Any]] = {
        key: Future(key, client) for task in corrected for key in task.input_keys
    }
    new = submit_corrected(client, call_log, corrected, overrides, inputs)
    rest = [task.key for task in tasks if task.batch.function_name not in replaced]
    if rest:
        wire = overrides.wire(client.context.manifest)
        resubmit_in_place(client, replace(plan, to_run=rest), wire, [])
    return _joined(futures, new)


def named_keys(filters: list[Any] | None) -> list[str]:
    """The words among the choices: keys of tasks among them are meant."""
    return [filter_ for filter_ in filters or () if isinstance(filter_, str)]


def _joined(futures: FutureList, new: Mapping[Any, Future[Any]]) -> FutureList:
    return FutureList((new.get(each.key, each) for each in futures), name=futures.name)


def _check_recorded(call_log: CallLog, keys: list[Any]) -> None:
    for key in keys:
        task = call_log.tasks.get(key)
        if task is None or not task.has_call:
            raise SubmitError(
                f"func= needs the arguments of {key}, which were not recorded (`record_args:` or "
                "`record_limit:` of scalable.yaml). Map the corrected function over them instead."
            )


def _without_unsafe(client: ScalableClient, plan: ResubmitPlan, named: list[str]) -> ResubmitPlan:
    """Leave out what the host would: tasks that are not idempotent, unless named."""
    if not plan.to_run:
        return plan
    reply = client.host_api.resubmit(plan.to_run, {}, named, dry_run=True)
    left_out = {**plan.left_out, **dict.fromkeys(reply.left_out, NOT_IDEMPOTENT)}
    return replace(plan, to_run=list(reply.chosen), left_out=left_out)
