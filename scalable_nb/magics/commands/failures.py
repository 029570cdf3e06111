"""``failures``: the explorer of failed attempts."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING, Any

from scalable_nb.magics.runs import LAST, RUN, catch_up, chosen_run
from scalable_nb.magics.verb import Context, Example, Verb

if TYPE_CHECKING:
    from scalable_nb.widgets.failure_explorer import FailureExplorer


def _run(context: Context, options: Namespace) -> FailureExplorer:
    from scalable_nb.telemetry.reader import read_rows, with_given_up
    from scalable_nb.widgets.failure_explorer import FailureExplorer

    run = chosen_run(context, options)

    def rows() -> list[dict[str, Any]]:
        catch_up(context, run)
        return with_given_up(read_rows(run.failures).rows, read_rows(run.tasks).rows)

    return FailureExplorer(
        rows(), title=run.run_id, source=rows, tasks=lambda: read_rows(run.tasks).rows
    )


VERB = Verb(
    name="failures",
    summary="explore failed attempts: classes, durations, kinds, tracebacks",
    run=_run,
    options=(RUN, LAST),
    examples=(
        Example("failures", "of the session; without one, of the newest run"),
        Example("failures --last", "of the newest run, also when its session is gone"),
    ),
    python="FailureExplorer(session.failures(), source=session.failures)",
)
