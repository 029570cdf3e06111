"""What a page asks of the kernel for a person, and the answers."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any, Final

from scalable_nb.errors import SubmitError
from scalable_nb.widgets.task_table.actions import Controls, Outcome

logger = logging.getLogger(__name__)

Message = dict[str, Any]


class PageRequests:
    """Answers a page's messages; what goes wrong is told to the person.

    Parameters
    ----------
    controls : Controls, optional
        Nothing can be asked where there are none.
    key_of : callable
        Gives the key of a row of the table.
    send : callable
        Sends a message to the page.
    report_problem : callable
        Shows a text under the view; the empty one takes it away.
    """

    def __init__(
        self,
        controls: Controls | None,
        *,
        key_of: Callable[[int], str],
        send: Callable[[Message], None],
        report_problem: Callable[[str, Exception | None], None],
    ) -> None:
        self._given = controls
        self._key_of = key_of
        self._send = send
        self._report_problem = report_problem
        self._handlers: Final[dict[str, Callable[[Message], None]]] = {
            "attempts": self._attempts,
            "log": self._log,
            "act": self._act,
            "resume": self._decide,
            "cancel": self._decide,
        }

    def answer(self, content: Message) -> None:
        """Answer a message ``{"type": ..., ...}``."""
        answer = self._handlers.get(str(content.get("type")))
        try:
            if answer is None:
                expected = ", ".join(self._handlers)
                raise ValueError(f"expected a message {expected}, got {content!r:.200}")
            answer(content)
        except Exception as error:
            # ipywidgets would write it to a log that nobody reads.
            logger.exception("a request of the task table failed")
            self._report_problem("the kernel could not answer the table", error)
            if "id" in content:
                self._report_outcome(content["id"], _failure(error))
        else:
            self._report_problem("", None)

    @property
    def _controls(self) -> Controls:
        if self._given is None:
            raise SubmitError("this view shows tasks and cannot ask anything of them")
        return self._given

    def _attempts(self, content: Message) -> None:
        row = int(content["row"])
        key = self._key_of(row)
        rows = list(self._controls.attempts(key))
        self._send({"type": "attempts", "row": row, "key": key, "rows": rows})

    def _log(self, content: Message) -> None:
        row, attempt = int(content["row"]), int(content["attempt"])
        lines = self._controls.log(self._key_of(row), attempt)
        self._send({"type": "log", "row": row, "attempt": attempt, "lines": lines})

    def _decide(self, content: Message) -> None:
        self._controls.decide(content["type"], str(content["batch"]))
        self._send({"type": "decided", "batch": content["batch"]})

    def _act(self, content: Message) -> None:
        keys = [self._key_of(int(row)) for row in content["rows"]]
        outcome = self._controls.act(str(content["action"]), keys)
        self._report_outcome(content["id"], outcome)
        if outcome.follow_up is not None:
            # The kernel has other things to do meanwhile.
            arguments = (content["id"], outcome.follow_up)
            threading.Thread(target=self._finish, args=arguments, daemon=True).start()

    def _finish(self, number: int, rest: Callable[[], Outcome]) -> None:
        try:
            outcome = rest()
        except Exception as error:
            logger.exception("an action of the task table failed")
            outcome = _failure(error)
        self._report_outcome(number, outcome)

    def _report_outcome(self, number: int, outcome: Outcome) -> None:
        texts = {"text": outcome.text, "details": outcome.details}
        self._send({"type": "acted", "id": number, **texts})


def _failure(error: Exception) -> Outcome:
    return Outcome(f"{type(error).__name__}: {error}")
