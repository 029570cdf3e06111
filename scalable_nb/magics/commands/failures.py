"""``failures``: the explorer of failed attempts."""

from __future__ import annotations

from argparse import Namespace
from functools import partial
from typing import TYPE_CHECKING

from scalable_nb.magics.run_selection import LAST, RUN, catch_up, chosen_run, live_session
from scalable_nb.magics.subcommand import Context, Example, Subcommand

if TYPE_CHECKING:
    from scalable_nb.session.session import ScalableSession
    from scalable_nb.widgets.failure_explorer.explorer import FailureExplorer


def _run(context: Context, options: Namespace) -> FailureExplorer:
    from scalable_nb.widgets.failure_explorer.explorer import FailureExplorer

    run = chosen_run(context, options)
    catch_up(context, run)
    session = live_session(context)
    is_ours = session is not None and session.run_id == run.run_id
    return FailureExplorer(
        run,
        title=run.run_id,
        is_running=partial(_is_running, session) if session is not None and is_ours else None,
    )


def _is_running(session: ScalableSession) -> bool:
    return session.is_live and session.is_host_alive()


SUBCOMMAND = Subcommand(
    name="failures",
    summary="explore failed attempts: classes, durations, kinds, tracebacks",
    run=_run,
    options=(RUN, LAST),
    examples=(
        Example("failures", "of the session; without one, of the newest run"),
        Example("failures --last", "of the newest run, also when its session is gone"),
    ),
    python="from scalable_nb.widgets.failure_explorer import FailureExplorer; "
    "FailureExplorer(session)",
)
