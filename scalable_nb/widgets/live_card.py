"""The card of a session in a page, with a link that no file keeps."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anywidget
import traitlets

from scalable_nb.errors import SessionError
from scalable_nb.widgets.session_card import card_facts, card_title
from scalable_nb.widgets.viewers import let_callbacks_run_in_subshells

if TYPE_CHECKING:
    from scalable_nb.session.status import SessionStatus


logger = logging.getLogger(__name__)


class LiveCard(anywidget.AnyWidget):
    """The card of a session, with a link to the dashboard where the kernel can be asked for it.

    Outputs and widgets' traits are saved with the notebook. The link is secret, so it is
    neither: the page asks for it whenever it draws the card. The page also has the kernel look
    again at the session from time to time, while the card can be seen.

    Parameters
    ----------
    status : SessionStatus
        What the card says at first.
    refresh : callable, optional
        Gives the status of now, or raises a `SessionError` once there is none. Without it the
        card stays as it is.

    Attributes
    ----------
    title : str
        The line above the facts. Written by Python.
    facts : dict of str to str
        Name to value, in their order. Written by Python.
    is_live : bool
        Whether looking again can tell anything new. Written by Python.
    """

    _esm = Path(__file__).parent / "static" / "live_card.js"
    title = traitlets.Unicode().tag(sync=True)
    facts = traitlets.Dict().tag(sync=True)
    is_live = traitlets.Bool().tag(sync=True)

    def __init__(
        self, status: SessionStatus, refresh: Callable[[], SessionStatus] | None = None
    ) -> None:
        super().__init__(
            title=card_title(status), facts=card_facts(status), is_live=refresh is not None
        )
        self._status = status
        self._refresh = refresh
        let_callbacks_run_in_subshells(self.comm)
        self.on_msg(self._on_message)

    def _on_message(self, _: Any, content: dict[str, Any], buffers: Any) -> None:
        kind = content.get("type")
        if kind == "dashboard":
            way, link = self._status.dashboard_way, self._status.dashboard_link
            self.send({"type": "dashboard", "way": way, "link": link})
        elif kind == "look" and self._refresh is not None:
            # A host that hangs must not keep the kernel from its cells.
            thread = threading.Thread(target=self._run_refresh, args=(self._refresh,), daemon=True)
            thread.start()

    def _run_refresh(self, refresh: Callable[[], SessionStatus]) -> None:
        try:
            self._update(refresh)
        finally:
            self.send({"type": "looked"})

    def _update(self, refresh: Callable[[], SessionStatus]) -> None:
        try:
            self._status = refresh()
            facts = card_facts(self._status)
        except SessionError as error:  # closed, or its host died
            self._refresh = None
            self._status = replace(self._status, state="ended")
            facts = {"ended": str(error), "run folder": str(self._status.folder)}
        except OSError:  # not reached this time; whether it is gone, the next look tells
            logger.debug("the host did not answer its session's card", exc_info=True)
            return
        with self.hold_sync():
            self.title, self.facts = card_title(self._status), facts
            self.is_live = self._refresh is not None

    def view(self) -> dict[str, Any]:
        """What stands for it in an output."""
        place = {"version_major": 2, "version_minor": 0, "model_id": self.model_id}
        return {"application/vnd.jupyter.widget-view+json": place}
