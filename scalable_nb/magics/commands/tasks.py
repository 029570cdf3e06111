"""``tasks``: the table of all tasks of a session or of a finished run."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING

from scalable_nb.magics.run_selection import LAST, RUN, live_session, named_run, newest_run
from scalable_nb.magics.subcommand import Context, Example, Subcommand, Text

if TYPE_CHECKING:
    from scalable_nb.paths import RunPaths
    from scalable_nb.widgets.task_table.widget import TaskTable


def _run(context: Context, options: Namespace) -> TaskTable | Text:
    run = named_run(options)
    if context.variables is None:
        return _as_text(run or newest_run())
    session = live_session(context)
    if run is None or (session is not None and session.run_id == run.run_id):
        from scalable_nb.session.session import current_session
        from scalable_nb.widgets.display import run_table

        session = session or current_session()  # which says that there is none
        session.check_alive()
        return run_table(session)
    from scalable_nb.telemetry.journal_replay import ledger_of_run
    from scalable_nb.widgets.task_table.actions import RunControls
    from scalable_nb.widgets.task_table.widget import TaskTable

    return TaskTable.of_ledger(ledger_of_run(run), title=run.run_id, controls=RunControls(run))


def _as_text(run: RunPaths) -> Text:
    import time

    from scalable_nb.telemetry.journal_replay import ledger_of_run
    from scalable_nb.widgets.task_table.summary import summarize_table, summary_text

    ledger = ledger_of_run(run)
    summary = summarize_table(ledger, title=run.run_id, status="finished", at=time.time())
    return Text(summary_text(summary))


SUBCOMMAND = Subcommand(
    name="tasks",
    summary="show the table of all tasks: live of the session, or of a finished run",
    run=_run,
    options=(RUN, LAST),
    examples=(
        Example("tasks", "state, attempt, worker and duration of each task of the session"),
        Example("tasks --last", "of the newest run, also when its session is gone"),
    ),
    python="from scalable_nb.widgets import run_table; run_table(session)",
    on_command_line=True,
)
