"""``resubmit``: run what failed again, and wait for it; also of a run that is over."""

from __future__ import annotations

import io
import sys
from argparse import Namespace
from contextlib import redirect_stdout
from functools import partial
from typing import TYPE_CHECKING, Any

from scalable_nb.magics.commands.start import publish
from scalable_nb.magics.completion import failures, run_ids
from scalable_nb.magics.run_selection import LAST
from scalable_nb.magics.subcommand import (
    Context,
    Example,
    InvalidUsageError,
    Option,
    Subcommand,
    seconds,
    whole_number,
)
from scalable_nb.magics.wait import WaitInterrupted, wait_for

if TYPE_CHECKING:
    from scalable_nb.client.futures import FutureList, PartialResult
    from scalable_nb.resubmission.resubmit_plan import ResubmitPlan
    from scalable_nb.session.session import ScalableSession


def _run(context: Context, options: Namespace) -> PartialResult | FutureList | ResubmitPlan:
    from scalable_nb.resubmission.api import resubmit_with
    from scalable_nb.resubmission.overrides import Overrides
    from scalable_nb.session.session import current_session

    if options.run is not None and options.last:
        raise InvalidUsageError(f"--run {options.run} and --last name two runs: give one of them.")
    run = options.run or ("last" if options.last else None)
    if options.trust and run is None:
        raise InvalidUsageError("--trust signs the records of a run: `resubmit --run ID --trust`.")
    overrides = Overrides(
        func=_function(context, options.func),
        retries=options.retries,
        timeout_s=options.timeout,
        memory=options.memory,
        tag=options.tag,
    )
    tasks = None if run is not None else _all_tasks(current_session())

    def on_plan(plan: ResubmitPlan) -> None:
        if tasks is not None and not plan.to_run:
            context.echo(f"None of the session's {plan.total:,} tasks failed: nothing runs again.")
        for notice in plan.notices:
            context.echo(notice)

    submit = partial(
        resubmit_with, tasks, run, options.only, overrides, trust=options.trust, on_plan=on_plan
    )
    if options.dry_run:
        with redirect_stdout(io.StringIO()):  # it prints the plan, which is our value already
            return submit(dry_run=True)
    futures: Any = submit(dry_run=False)
    if not futures:
        return futures  # type: ignore[no-any-return]
    if run is not None:
        publish(context, futures.session)
    return _awaited(context, futures, options)


def _all_tasks(session: ScalableSession) -> FutureList:
    """Return the inputs of all batches, and tasks of Dask's own that this kernel holds."""
    from scalable_nb.telemetry.rows import key_text

    listed = session.batches.list_inputs()
    keys = set(listed.keys)
    others = [future for future in session.tasks() if key_text(future.key) not in keys]
    return listed + others


def _awaited(
    context: Context, futures: FutureList, options: Namespace
) -> PartialResult | FutureList:
    if options.no_wait:
        return futures

    def check() -> None:
        futures.session.check_alive()
        futures.client.check_progress(futures)

    try:
        wait_for(futures, None if options.quiet else sys.stdout, check)
        return futures.partial()
    except KeyboardInterrupt:
        raise _interrupted(context, futures, options.out or "resubmitted") from None


def _function(context: Context, name: str | None) -> Any:
    """The notebook's function of this name."""
    if name is None:
        return None
    function = (context.variables or {}).get(name)
    if not callable(function):
        raise InvalidUsageError(f"--func {name}: the notebook has no function of this name.")
    return function


def _interrupted(context: Context, futures: FutureList, name: str) -> WaitInterrupted:
    """Keep the futures, so that what runs is not released, and say where they are."""
    if context.variables is not None:
        context.variables[name] = futures
    running = sum(not future.done() for future in futures)
    return WaitInterrupted(
        f"stopped waiting; {running:,} of {len(futures):,} tasks are not done and go on. "
        f"`{context.surface.prompt} tasks` shows them; `{name}` holds their FutureList, "
        f"`{name}.partial()` waits for them."
    )


SUBCOMMAND = Subcommand(
    name="resubmit",
    summary="run what failed again, and join it with what is there; also of a run that is over",
    run=_run,
    options=(
        Option(
            ("--only",),
            "only failures of these classes or categories",
            "CLASS",
            is_repeated=True,
            candidates=failures,
        ),
        Option(("--run", "--run-id"), "of the run with this id", "ID", candidates=run_ids),
        LAST,
        Option(("--func", "-f"), "corrected code: this function of the notebook", "NAME"),
        Option(("--retries", "-r"), "retries for each of them", "N", whole_number),
        Option(("--timeout", "-t"), "time limit of an attempt, e.g. 90s", "S", seconds),
        Option(("--memory", "-m"), "on workers with that much memory, e.g. 8G", "SIZE"),
        Option(("--tag",), "on workers of this component", "NAME"),
        Option(("--dry-run", "-n"), "show what would run, run nothing"),
        Option(("--no-wait",), "return the FutureList at once"),
        Option(("--trust",), "sign a run from elsewhere, whose code runs with your rights"),
    ),
    examples=(
        Example("resubmit", "run all failed tasks again, give all results in order"),
        Example("resubmit --only timeout KeyError --timeout 10m", "some, with more time"),
        Example("resubmit --func simulate", "with the corrected function"),
        Example("resubmit --last", "kernel and host are gone: go on from the run's folder"),
        Example("resubmit --dry-run", "what would run"),
    ),
    python="from scalable_nb import resubmit; "
    "resubmit(session.tasks(), only=['timeout'], timeout_s=600).partial()",
)
