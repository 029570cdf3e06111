"""Run failed tasks again: the public `resubmit`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any

from distributed import Future

from scalable_nb.client.futures import FutureList
from scalable_nb.errors import NoSessionError, SubmitError, UnknownNameError
from scalable_nb.faults.backoff import RetryPolicy
from scalable_nb.paths import RunPaths, find_run, list_runs
from scalable_nb.protocol.connection_file import is_alive, read_state
from scalable_nb.resubmission.from_run_folder import resubmit_finished
from scalable_nb.resubmission.live_run import LiveInputs
from scalable_nb.resubmission.overrides import Overrides
from scalable_nb.resubmission.resubmit_plan import FailureFilter, ResubmitPlan, as_filters
from scalable_nb.session.session import ScalableSession, live_sessions
from scalable_nb.settings import load_settings

logger = logging.getLogger(__name__)


def resubmit(
    futures: Iterable[Future[Any]] | None = None,
    *,
    run: str | None = None,
    only: FailureFilter | Iterable[FailureFilter] | None = None,
    func: Callable[..., Any] | None = None,
    retries: int | RetryPolicy | None = None,
    timeout_s: float | None = None,
    memory: str | int | None = None,
    tag: str | None = None,
    dry_run: bool = False,
    trust: bool = False,
) -> FutureList | ResubmitPlan:
    """Run failed tasks again; everything else stays as it is.

    Of a live session, tasks keep their keys, so the futures given here are pending again and
    tasks that take their results recover too. Budgets begin anew; attempts go on counting.
    With ``func=`` they are new tasks, in the places of the old ones.

    Of a run whose host is gone, functions and arguments are read from its folder: stored results
    are taken, and what failed, was lost or never ran runs in the live session, or in a new one
    on the run's target (``FutureList.session``), with the code as it was recorded.

    Parameters
    ----------
    futures : iterable of Future, optional
        Failed or not.
    run : str, optional
        Instead: the id of a run, or ``"last"`` for the newest one that called anything.
    only : str, row, callable or iterable of them, optional
        Class name (``"ValueError"``), category (``"transient"``), fingerprint or key of the
        failures to run again, their rows, or a function of the row of the last failed attempt.
    func : callable, optional
        Corrected code, for the tasks to run that called a function of its name, or whichever
        they all called.
    retries : int or RetryPolicy, optional
        Instead of those the tasks were submitted with.
    timeout_s : float, optional
        Likewise, seconds.
    memory : str or int, optional
        Run them on a component with that much memory, e.g. ``"8G"``; where a session is
        started for them, with that much.
    tag : str, optional
        Run them on this component.
    dry_run : bool
        Print and return the plan; run nothing.
    trust : bool
        Sign the records of the run with your key first, with a warning that describes it: they
        are from elsewhere or an earlier version, and their code runs with your rights.

    Returns
    -------
    FutureList or ResubmitPlan
        All futures, in input order.
    """
    overrides = Overrides(func, retries, timeout_s, memory, tag)
    return resubmit_with(
        futures, run, only, overrides, dry_run=dry_run, trust=trust, on_plan=_log_notices
    )


def resubmit_with(
    futures: Iterable[Future[Any]] | None,
    run: str | None,
    only: FailureFilter | Iterable[FailureFilter] | None,
    overrides: Overrides,
    *,
    dry_run: bool,
    trust: bool = False,
    on_plan: Callable[[ResubmitPlan], None],
) -> FutureList | ResubmitPlan:
    """Run failed tasks again; ``on_plan`` is called with the plan before anything runs.

    With ``dry_run`` the plan is printed and returned, as by `resubmit`.
    """
    if (futures is None) == (run is None):
        raise SubmitError(
            "resubmit takes futures or run=, one of them: resubmit(futures), or "
            "resubmit(run='last') when kernel and host are gone"
        )
    if trust and run is None:
        raise SubmitError(
            "trust=True signs the records of a run: resubmit(run='run-…', trust=True)"
        )
    filters = as_filters(only)
    if run is not None:
        paths = _find(run)
        live = _live_session(paths)
        if live is None:
            return _shown(
                resubmit_finished(
                    paths, filters, overrides, dry_run=dry_run, trust=trust, on_plan=on_plan
                )
            )
        futures = live.batches.list_inputs()
    listed = futures if isinstance(futures, FutureList) else FutureList(futures or ())
    if not listed:
        empty = ResubmitPlan(0, 0, [], {})
        if dry_run:
            return empty
        on_plan(empty)
        return listed
    if len(listed.sessions) > 1:
        run_ids = " and ".join(each.paths.run_id for each in listed.sessions if each.paths)
        raise SubmitError(
            f"the futures belong to several sessions, of the runs {run_ids}; resubmit those of "
            "each session separately"
        )
    session = listed.session
    assert isinstance(session, ScalableSession)
    session.check_alive()
    listed.check_may_wait("resubmit()", "`await client.retry(futures)`")
    overrides.wire(session.manifest.manifest)  # refuse unknown names before anything else
    inputs = LiveInputs(session, listed, filters)
    plan = inputs.preview(overrides)
    if dry_run:
        return _shown(plan)
    on_plan(plan)
    return inputs.resubmit(overrides) if plan.to_run else inputs.joined({})


def _log_notices(plan: ResubmitPlan) -> None:
    for notice in plan.notices:
        logger.warning("%s", notice)


def _find(run: str) -> RunPaths:
    """Find a run by its id, or the newest that called anything for ``"last"``."""
    runs_dir = load_settings().runs_dir
    if run != "last":
        return find_run(runs_dir, run)
    for paths in reversed(list_runs(runs_dir)):
        if any(paths.calls.glob("*.calls")):
            # Ended while it was taking over an earlier run: that one still has all the calls.
            is_torn = paths.resumes.exists() and not is_alive(read_state(paths.session_json))
            return find_run(runs_dir, paths.resumes.read_text()) if is_torn else paths
    raise UnknownNameError("run", run, (), f"No run in {runs_dir} has called anything yet.")


def _live_session(paths: RunPaths) -> ScalableSession | None:
    for session in live_sessions():
        if session.run_id == paths.run_id and session.is_host_alive():
            return session
    try:
        return ScalableSession.attach(paths.run_id)
    except NoSessionError:
        return None


def _shown(found: FutureList | ResubmitPlan) -> FutureList | ResubmitPlan:
    if isinstance(found, ResubmitPlan):
        print(found)  # noqa: T201 - a person asked for it
    return found
