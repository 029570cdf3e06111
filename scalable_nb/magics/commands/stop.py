"""``stop``: end the session, its host and its jobs."""

from __future__ import annotations

from argparse import Namespace

from scalable_nb.magics.run_selection import RUN, reach_session
from scalable_nb.magics.subcommand import Context, Example, Subcommand, Text


def _run(context: Context, options: Namespace) -> Text:
    from scalable_nb.report import build_report

    session = reach_session(context, options.run)
    session.close()
    assert session.paths is not None  # it was live
    return Text(build_report(session.paths).to_text())


SUBCOMMAND = Subcommand(
    name="stop",
    summary="end the session, its host and its jobs, and tell what became of the run",
    run=_run,
    options=(RUN,),
    examples=(Example("stop", "tasks that are not done are cancelled; the run's files stay"),),
    python="session.close()",
    on_command_line=True,
)
