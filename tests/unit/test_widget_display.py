"""How futures, sessions and clients come to draw themselves."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fake_mirror import FakeMirror
from IPython.core.interactiveshell import InteractiveShell
from waiting import until

from scalable_nb.client import futures
from scalable_nb.client.futures import FutureList, set_view
from scalable_nb.errors import HostDiedError
from scalable_nb.magics.extension import install_when_shown
from scalable_nb.session.status import SessionStatus
from scalable_nb.telemetry.rows import TaskState
from scalable_nb.widgets import display
from scalable_nb.widgets.live_card import LiveCard

STATUS = SessionStatus(
    run_id="run-1",
    target="local",
    state="running",
    host_pid=1,
    workers=[],
    counts={"failed": 2},
    dashboard_link="http://127.0.0.1:1/x/status",
    folder=Path("/runs/run-1"),
    started_at="2026-03-01T12:00:00+00:00",
)


@pytest.fixture
def shell() -> Iterator[InteractiveShell]:
    yield InteractiveShell.instance()
    InteractiveShell.clear_instance()
    set_view(None)


def bundle_of(shell: InteractiveShell, value: Any) -> dict[str, Any]:
    bundle, _ = shell.display_formatter.format(value)  # type: ignore[union-attr]
    return bundle


def test_importing_the_widgets_loads_no_widget_library() -> None:
    """Loading the front end costs nothing before something is shown."""
    heavy = ("anywidget", "ipywidgets", "IPython", "numpy", "plotly")
    code = f"import scalable_nb.widgets, sys; print([n for n in {heavy} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_status_is_shown_as_a_card(shell: InteractiveShell) -> None:
    """After `install`, however often, a session's status is a card; a terminal's has the link."""
    display.install()
    display.install()
    bundle = bundle_of(shell, STATUS)
    assert "Session on target 'local': running" in bundle["text/plain"]
    assert STATUS.dashboard_link in bundle["text/plain"]


def test_a_card_in_a_notebook_gives_its_link_to_who_asks_alone(shell: InteractiveShell) -> None:
    """No form of it nor the state of its widget has the secret link: the page asks for it."""
    shell.kernel = object()  # type: ignore[attr-defined]
    display.install()
    bundle = bundle_of(shell, STATUS)
    assert "<table" in bundle["text/html"]
    assert "application/vnd.jupyter.widget-view+json" in bundle
    card = LiveCard(STATUS)
    assert card.facts["dashboard"] == "`session.dashboard_link`"
    assert STATUS.dashboard_link not in f"{bundle} {card.get_state()}"

    sent: list[Any] = []
    card.send = sent.append  # type: ignore[assignment]
    card._handle_custom_msg({"type": "dashboard"}, [])
    assert sent == [{"type": "dashboard", "way": "", "link": STATUS.dashboard_link}]
    card.close()


def test_a_card_tells_what_happens_to_its_session() -> None:
    """When asked, it looks again, until the session has ended; then it says why."""
    looks: list[SessionStatus | Exception] = [
        replace(STATUS, counts={"failed": 2, "running": 1}),
        ConnectionResetError("for a moment"),
        HostDiedError("its last words"),
    ]

    def look() -> SessionStatus:
        found = looks.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    card = LiveCard(STATUS, look)
    sent: list[Any] = []
    card.send = sent.append  # type: ignore[assignment]
    reported = []
    for count in (1, 2, 3):
        card._handle_custom_msg({"type": "look"}, [])
        until(lambda count=count: sent == [{"type": "looked"}] * count)
        reported.append((card.title.split(": ")[1], card.facts.get("tasks"), card.is_live))
    assert reported == [*[("running", "2 failed, 1 running", True)] * 2, ("ended", None, False)]
    assert card.facts == {"ended": "its last words", "run folder": str(STATUS.folder)}
    card.close()


def test_a_session_is_shown_by_its_status_or_by_what_happened_to_it() -> None:
    """A live session is its card, one whose host died says so, a closed one is its name."""

    class Session:
        is_live = True

        def status(self) -> SessionStatus:
            return STATUS

        def __repr__(self) -> str:
            return "<session>"

    session: Any = Session()
    card = "Session on target 'local': running"
    client: Any = SimpleNamespace(session=session)
    assert card in display._session_bundle(session)["text/plain"]
    assert card in display._client_bundle(client)["text/plain"]

    def fail() -> SessionStatus:
        raise HostDiedError("its last words")

    session.status = fail
    assert display._session_bundle(session) == {"text/plain": "<session>\nits last words"}
    session.is_live = False
    assert display._session_bundle(session) == {"text/plain": "<session>"}


def test_futures_of_others_are_shown_as_the_list_they_are(shell: InteractiveShell) -> None:
    """An empty list, or one without a session, is text and no error."""
    display.install()
    assert bundle_of(shell, FutureList()) == {"text/plain": "<FutureList: 0 tasks>"}


def test_the_first_list_that_is_shown_installs_the_views(shell: InteractiveShell) -> None:
    """Nothing else need be shown before: a list of futures draws itself at once."""
    install_when_shown(shell)
    bundle_of(shell, FutureList())
    assert futures._view is display.view


def test_in_a_kernel_outputs_are_brought_up_to_date_after_each_cell(
    shell: InteractiveShell,
) -> None:
    """With a kernel the hook that ends the saved outputs is there, and once."""
    shell.kernel = object()  # type: ignore[attr-defined]
    display.install()
    display.install()
    callbacks = shell.events.callbacks["post_run_cell"]
    assert callbacks.count(display._finish_outputs) == 1
    formatter = shell.display_formatter.ipython_display_formatter  # type: ignore[union-attr]
    assert formatter.lookup_by_type(FutureList) is display.show


class Batch(SimpleNamespace):
    """What a table needs of a `FutureList`."""

    name = "sweep"

    @property
    def keys(self) -> list[str]:
        return self.session.mirror.ledger.keys[:2]  # type: ignore[no-any-return]


@pytest.fixture
def batch() -> Iterator[Any]:
    mirror: Any = FakeMirror()
    mirror.refresh = lambda: None
    mirror.add(3)
    client = SimpleNamespace(host_api=None)
    yield Batch(session=SimpleNamespace(run_id="run-1", mirror=mirror, client=client))


def test_showing_a_list_again_shows_the_same_table(batch: Any) -> None:
    """One stream serves all outputs of a list; a closed table is replaced."""
    first = display.table(batch)
    assert display.table(batch) is first
    assert "sweep: 2 tasks" in repr(first)
    first.close()
    second = display.table(batch)
    assert second is not first
    second.close()


def test_the_whole_run_has_one_table_too(batch: Any) -> None:
    """Whoever asks for the table of all tasks gets the same one, and a line beside it."""
    whole = display.run_table(batch.session)
    assert display.run_table(batch.session) is whole
    assert "run-1: 3 tasks" in repr(whole)
    line = display.table(batch, form="line")
    assert (line.form, whole.form) == ("line", "table")
    assert display.table(batch) is not line
    whole.close()
    line.close()


def test_a_host_that_cannot_be_reached_does_not_hide_the_last_state(batch: Any) -> None:
    """The table of a lost session shows what was known."""

    def fail() -> None:
        raise OSError("connection lost")

    batch.session.mirror.refresh = fail
    batch.session.mirror.change(0, TaskState.SUCCEEDED)
    table = display.table(batch)
    assert "50 % done" in repr(table)
    table.close()
