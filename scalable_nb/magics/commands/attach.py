"""``attach``: join a live run from another kernel."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING

from scalable_nb.magics.commands.start import publish
from scalable_nb.magics.completion import run_ids
from scalable_nb.magics.subcommand import (
    Argument,
    Context,
    Example,
    InvalidUsageError,
    Option,
    Subcommand,
)

if TYPE_CHECKING:
    from scalable_nb.session.session import ScalableSession


def _run(context: Context, options: Namespace) -> ScalableSession:
    from scalable_nb.session.session import ScalableSession, live_sessions

    run_id = options.run
    if options.trust and run_id is None:
        raise InvalidUsageError("--trust signs the records of one run: `attach RUN --trust`.")
    session = next(
        (
            each
            for each in live_sessions()
            if each.is_host_alive() and run_id in (None, each.run_id)
        ),
        None,
    )
    if session is None:
        session = ScalableSession.attach(run_id, trust=options.trust)
        context.echo(f"Joined run {session.run_id} on target {session.target_name!r}.")
    else:
        context.echo(f"Run {session.run_id} is this notebook's session already.")
    publish(context, session)
    batches = session.batches
    for name, about in batches.descriptions().items():
        context.echo(f"`session.batches[{name!r}]`: {about}")
    if not batches:
        context.echo("It has called nothing yet.")
    return session


SUBCOMMAND = Subcommand(
    name="attach",
    summary="join a live run: after a kernel was restarted, or from a second notebook",
    run=_run,
    arguments=(Argument("run", "RUN", "the run with this id; else the newest live one", run_ids),),
    options=(Option(("--trust",), "sign a run from elsewhere, whose code runs with your rights"),),
    examples=(
        Example("attach", "the newest live run: `session`, `client`, `session.batches`"),
        Example("attach run-20260101T120000Z-demo-0123abcd", "this one"),
    ),
    python="from scalable_nb import ScalableSession; session = ScalableSession.attach()",
)
