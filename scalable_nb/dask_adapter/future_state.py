"""Futures whose outcome is known without the scheduler."""

from __future__ import annotations

import asyncio
from typing import Any

from distributed.client import FutureState


class AnsweredState(FutureState):
    """State of a future that is finished from the start.

    Dask makes an event for it at once, which takes more memory than all else of a hit, and hardly
    anybody ever waits for it.
    """

    __slots__ = ()

    def __init__(self, key: Any) -> None:
        super().__init__(key)
        self.status = "finished"

    def _get_event(self) -> asyncio.Event:
        event: asyncio.Event | None = self._event
        if event is None:
            event = asyncio.Event()
            if self.status == "finished":
                event.set()
            self._event = event  # type: ignore[assignment]  # Dask declares it as None
        return event

    def done(self) -> bool:
        """Whether there is a result or an error."""
        return self._get_event().is_set()
