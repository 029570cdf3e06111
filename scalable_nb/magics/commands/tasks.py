"""``tasks``: the live table of all tasks of the session."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING

from scalable_nb.magics.verb import Context, Example, Verb

if TYPE_CHECKING:
    from scalable_nb.widgets.task_table import TaskTable


def _run(context: Context, options: Namespace) -> TaskTable:
    from scalable_nb.session import current_session

    session = current_session()
    session.check_alive()
    session.mirror.refresh()
    from scalable_nb.widgets.task_table import TaskTable

    return TaskTable(
        session.mirror,
        title=session.run_id,
        attempts=lambda key: [row for row in session.failures() if row.get("task_id") == key],
        batches=session,
    )


VERB = Verb(
    name="tasks",
    summary="show the live table of all tasks of the session",
    run=_run,
    examples=(Example("tasks", "state, attempt, worker and duration of each task"),),
    python="TaskTable(session.mirror)",
)
