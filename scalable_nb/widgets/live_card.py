"""The card of a session in a page, with a link that no file keeps."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import anywidget
import traitlets

from scalable_nb.widgets.session_card import card_facts, card_title
from scalable_nb.widgets.subshells import let_callbacks_run_in_subshells

if TYPE_CHECKING:
    from scalable_nb.status import SessionStatus


class LiveCard(anywidget.AnyWidget):
    """The card of a session, with a link to the dashboard where the kernel can be asked for it.

    Outputs and widgets' traits are saved with the notebook. The link is secret, so it is
    neither: the page asks for it whenever it draws the card.

    Parameters
    ----------
    status : SessionStatus
        What the card says.

    Attributes
    ----------
    title : str
        The line above the facts. Written by Python.
    facts : dict of str to str
        Name to value, in their order. Written by Python.
    """

    _esm = Path(__file__).parent / "static" / "live_card.js"
    title = traitlets.Unicode().tag(sync=True)
    facts = traitlets.Dict().tag(sync=True)

    def __init__(self, status: SessionStatus) -> None:
        super().__init__(title=card_title(status), facts=card_facts(status))
        self._way = status.dashboard_way
        self._link = status.dashboard_link
        let_callbacks_run_in_subshells(self.comm)
        self.on_msg(self._answer)

    def _answer(self, _: Any, content: dict[str, Any], buffers: Any) -> None:
        if content.get("type") == "dashboard":
            self.send({"type": "dashboard", "way": self._way, "link": self._link})

    def view(self) -> dict[str, Any]:
        """What stands for it in an output."""
        place = {"version_major": 2, "version_minor": 0, "model_id": self.model_id}
        return {"application/vnd.jupyter.widget-view+json": place}
