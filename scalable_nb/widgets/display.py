"""What a notebook shows for futures, sessions and clients."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast
from weakref import WeakValueDictionary

if TYPE_CHECKING:
    from scalable_nb.client.client import ScalableClient
    from scalable_nb.client.futures import FutureList
    from scalable_nb.session.session import ScalableSession
    from scalable_nb.session.status import SessionStatus
    from scalable_nb.widgets.task_table.widget import TaskTable

# Showing a list again shows the same table: one stream, however many outputs. A table keeps its
# mirror, so the mirror's id is nobody else's while the table is here.
_Shown = tuple[int, tuple[str, ...] | None, str]  # mirror, keys (None for all), form
_tables: WeakValueDictionary[_Shown, TaskTable] = WeakValueDictionary()


def install() -> None:
    """Let `FutureList`, sessions and clients draw themselves; calling it again is harmless."""
    from IPython.core.getipython import get_ipython

    from scalable_nb.client.futures import FutureList, set_view

    set_view(view)
    shell = get_ipython()
    if shell is None or shell.display_formatter is None:
        return
    formatter = shell.display_formatter
    bundles = formatter.mimebundle_formatter
    bundles.for_type_by_name("scalable_nb.session.session", "ScalableSession", _session_bundle)
    bundles.for_type_by_name("scalable_nb.session.status", "SessionStatus", _status_bundle)
    bundles.for_type_by_name("scalable_nb.client.client", "ScalableClient", _client_bundle)
    if hasattr(shell, "kernel"):
        # Not through `_repr_mimebundle_` alone: only an output that is displayed under a name
        # can be brought up to date when the work is over.
        formatter.ipython_display_formatter.for_type(FutureList, show)
        shell.events.register("pre_run_cell", _begin_cell)
        shell.events.register("post_run_cell", _finish_outputs)


def show(futures: FutureList) -> None:
    """Show the live table of some futures below the cell; as text where no kernel is.

    Parameters
    ----------
    futures : FutureList
    """
    from IPython.display import display

    from scalable_nb.widgets.task_table.saved_output import in_notebook

    if in_notebook() and is_of_one_session(futures):
        display(table(futures))
    else:
        display(view(futures), raw=True)


def table(futures: FutureList, *, form: str = "table") -> TaskTable:
    """The live table of some futures, in their order; ``form="line"`` for its head alone.

    Raises
    ------
    SessionError
        When they do not belong to a session.
    """
    return _table(_session_of(futures), tuple(futures.keys), futures.name, form)


def run_table(session: ScalableSession) -> TaskTable:
    """The live table of all tasks of a session's run."""
    return _table(session, None, session.run_id, "table")


def _table(
    session: ScalableSession, keys: tuple[str, ...] | None, title: str, form: str
) -> TaskTable:
    from scalable_nb.widgets.task_table.actions import SessionControls
    from scalable_nb.widgets.task_table.widget import TaskTable

    name = (id(session.mirror), keys, form)
    known = _tables.get(name)
    if known is not None and known.is_open:
        return known
    _refresh(session)
    made = _tables[name] = TaskTable(
        session.mirror,
        keys=keys,
        title=title,
        controls=SessionControls(session, session.client.host_api),
        form=form,
    )
    return made


def view(futures: FutureList) -> dict[str, Any]:
    """How a `FutureList` draws itself: MIME type to data."""
    from scalable_nb.widgets.task_table.saved_output import in_notebook
    from scalable_nb.widgets.task_table.summary import summarize_table, summary_text

    if not is_of_one_session(futures):
        return {"text/plain": repr(futures)}
    if in_notebook():
        return table(futures).mimebundle()
    session = _session_of(futures)
    _refresh(session)
    mirror = session.mirror
    with mirror.lock:
        rows = [mirror.ledger.row_of.get(key, -1) for key in futures.keys]
        summary = summarize_table(
            mirror.ledger, rows, title=futures.name, status=mirror.status, at=time.time()
        )
    return {"text/plain": summary_text(summary)}


def is_of_one_session(futures: FutureList) -> bool:
    """Return whether one session runs all tasks, so that a table can show them."""
    from scalable_nb.errors import SessionError

    try:
        _ = futures.session
    except SessionError:
        return False
    return True


def _session_of(futures: FutureList) -> ScalableSession:
    return cast("ScalableSession", futures.session)


def _refresh(session: ScalableSession) -> None:
    # A host that cannot be reached: the last known state is shown, and the mirror says the rest.
    with suppress(OSError):
        session.mirror.refresh()


def card_bundle(
    status: SessionStatus, refresh: Callable[[], SessionStatus] | None = None
) -> dict[str, Any]:
    """The card in all its forms; of these only a terminal's, which is not kept, has the link.

    Parameters
    ----------
    status : SessionStatus
        What it says.
    refresh : callable, optional
        Gives the status of a later time, see `LiveCard`.
    """
    from scalable_nb.widgets.session_card import card_html, card_text
    from scalable_nb.widgets.task_table.saved_output import in_notebook

    if not in_notebook():
        return {"text/plain": card_text(status, status.dashboard_link)}
    from scalable_nb.widgets.live_card import LiveCard

    return {
        "text/plain": card_text(status),
        "text/html": card_html(status),
        **LiveCard(status, refresh).view(),
    }


def _session_bundle(session: ScalableSession) -> dict[str, Any]:
    from scalable_nb.errors import SessionError

    if not session.is_live:
        return {"text/plain": repr(session)}
    try:
        return card_bundle(session.status(), session.status)
    except SessionError as error:  # its host died: that is what there is to show
        return {"text/plain": f"{session!r}\n{error}"}


def _client_bundle(client: ScalableClient) -> dict[str, Any]:
    return _session_bundle(cast("ScalableSession", client.session))


def _status_bundle(status: SessionStatus) -> dict[str, Any]:
    return card_bundle(status)


def _begin_cell(info: Any) -> None:
    module = sys.modules.get("scalable_nb.widgets.task_table.widget")
    if module is not None:
        module.begin_cell()


def _finish_outputs(result: Any) -> None:
    module = sys.modules.get("scalable_nb.widgets.task_table.widget")
    if module is not None:
        module.finish_outputs()
