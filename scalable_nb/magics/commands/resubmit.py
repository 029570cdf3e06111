"""``resubmit``: run the failed tasks of the session again, and wait for them."""

from __future__ import annotations

import io
import sys
from argparse import Namespace
from contextlib import redirect_stdout
from typing import TYPE_CHECKING

from scalable_nb.magics.candidates import failures
from scalable_nb.magics.progress import WaitInterrupted, wait_for
from scalable_nb.magics.verb import Context, Example, Option, Verb, seconds, whole_number

if TYPE_CHECKING:
    from scalable_nb.futures import FutureList, PartialResult
    from scalable_nb.resubmission import ResubmitPlan


def _run(context: Context, options: Namespace) -> PartialResult | FutureList | ResubmitPlan:
    from scalable_nb.resubmission import resubmit
    from scalable_nb.session import current_session

    session = current_session()
    tasks = session.tasks()
    choice = {
        "only": options.only,
        "retries": options.retries,
        "timeout_s": options.timeout,
    }
    if options.dry_run:
        with redirect_stdout(io.StringIO()):  # it prints the plan, which is our value already
            return resubmit(tasks, **choice, dry_run=True)
    if not tasks.failed:
        context.say(f"None of the session's {len(tasks):,} tasks failed: nothing runs again.")
    resubmit(tasks, **choice)
    if options.no_wait:
        return tasks
    try:
        wait_for(tasks, None if options.quiet else sys.stdout, session.check_alive)
        return tasks.partial()
    except KeyboardInterrupt:
        raise _interrupted(context, tasks, options.out or "resubmitted") from None


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


VERB = Verb(
    name="resubmit",
    summary="run the failed tasks of the session again; succeeded ones stay as they are",
    run=_run,
    options=(
        Option(
            ("--only",),
            "only failures of these classes or categories",
            "CLASS",
            is_repeated=True,
            candidates=failures,
        ),
        Option(("--retries", "-r"), "retries for each of them", "N", whole_number),
        Option(("--timeout", "-t"), "time limit of an attempt, e.g. 90s", "S", seconds),
        Option(("--dry-run", "-n"), "show what would run, run nothing"),
        Option(("--no-wait",), "return the FutureList at once"),
    ),
    examples=(
        Example("resubmit", "run all failed tasks again, give all results in order"),
        Example("resubmit --only timeout KeyError --timeout 10m", "some, with more time"),
        Example("resubmit --dry-run", "what would run"),
    ),
    python="resubmit(session.tasks(), only=['timeout'], timeout_s=600).partial()",
)
