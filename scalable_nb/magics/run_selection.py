"""Which run, and which session, a subcommand is about."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from scalable_nb.magics.completion import run_ids
from scalable_nb.magics.subcommand import Context, InvalidUsageError, Option

if TYPE_CHECKING:
    from scalable_nb.paths import RunPaths
    from scalable_nb.session.session import ScalableSession

RUN = Option(("--run", "--run-id", "-r"), "the run with this id", "ID", candidates=run_ids)
LAST = Option(("--last", "--latest", "-l"), "the newest run of the runs folder")


def live_session(context: Context) -> ScalableSession | None:
    """The notebook's session; None without one, and in a shell."""
    if context.variables is None:
        return None
    from scalable_nb.errors import NoSessionError
    from scalable_nb.session.session import current_session

    try:
        return current_session()
    except NoSessionError:
        return None


def reach_session(context: Context, run_id: str | None) -> ScalableSession:
    """The live session of a run: one of this notebook, or in a shell one to join.

    Raises
    ------
    NoSessionError
        When nothing is live.
    UnknownNameError
        When no session of this notebook has the id, or no run.
    """
    from scalable_nb.errors import UnknownNameError
    from scalable_nb.session.session import ScalableSession, current_session, live_sessions

    if context.variables is None:
        return ScalableSession.attach(run_id)
    if run_id is None:
        return current_session()
    by_id = {session.run_id: session for session in live_sessions()}
    if run_id not in by_id:
        raise UnknownNameError("live session of this notebook", run_id, by_id)
    return by_id[run_id]


@contextmanager
def visited_session(context: Context, run_id: str | None) -> Iterator[ScalableSession]:
    """The session that `reach_session` finds; one joined from a shell goes on afterwards."""
    session = reach_session(context, run_id)
    try:
        yield session
    finally:
        if context.variables is None:
            session.client.close()


def named_run(options: Namespace) -> RunPaths | None:
    """The run that ``--run`` or ``--last`` names; None where neither is given.

    Raises
    ------
    InvalidUsageError
        When both are given.
    UnknownNameError
        When there is no such run.
    """
    if options.run is not None and options.last:
        raise InvalidUsageError(f"--run {options.run} and --last name two runs: give one of them.")
    return newest_run(options.run) if options.run is not None or options.last else None


def newest_run(run_id: str | None = None) -> RunPaths:
    """The run with this id, or the newest one."""
    from scalable_nb.paths import find_run
    from scalable_nb.settings import load_settings

    return find_run(load_settings().runs_dir, run_id or "last")


def chosen_run(context: Context, options: Namespace) -> RunPaths:
    """The run that is named, else the notebook's own, else the newest."""
    named = named_run(options)
    if named is not None:
        return named
    session = live_session(context)
    return session.paths if session is not None and session.paths else newest_run()


def catch_up(context: Context, run: RunPaths) -> None:
    """Have the notebook's own host write what it has not written yet of this run."""
    session = live_session(context)
    if session is not None and session.run_id == run.run_id:
        session.failures()
