"""``status``: how the session is."""

from __future__ import annotations

import os
from argparse import Namespace

from scalable_nb.magics.run_selection import RUN, visited_session
from scalable_nb.magics.subcommand import Context, Example, Subcommand, Text


def _run(context: Context, options: Namespace) -> object:
    from scalable_nb.session.stale_runs import remove_stale_runs
    from scalable_nb.settings import load_settings

    remove_stale_runs(load_settings().runs_dir)
    with visited_session(context, options.run) as session:
        status = session.status()
    # A shell has no `session` to ask for the link, and keeps nothing. What a cell runs as
    # `!scalable status` prints into the notebook; jupyter_client marks kernels by the variable.
    if context.variables is None and "JPY_PARENT_PID" not in os.environ:
        return Text(status.text(status.dashboard_link))
    return status


SUBCOMMAND = Subcommand(
    name="status",
    summary="show the session: target, workers, tasks by state, dashboard",
    run=_run,
    options=(RUN,),
    examples=(Example("status", "of the live session"),),
    python="session.status()",
    on_command_line=True,
)
