"""Messages of the host that the user should read."""

from __future__ import annotations

import logging

from scalable_nb.dask_adapter.scheduler import SchedulerAdapter
from scalable_nb.protocol.operations import NOTICE_TOPIC

logger = logging.getLogger(__name__)


class Notices:
    """All notices of a run, for the kernels that are connected and those that connect later.

    Parameters
    ----------
    adapter : SchedulerAdapter
    """

    def __init__(self, adapter: SchedulerAdapter) -> None:
        self._log_event = adapter.log_event
        self._notices: list[str] = []

    def notify(self, notice: str) -> None:
        """Log a notice and send it to all kernels."""
        logger.warning(notice)
        self._notices.append(notice)
        self._log_event(NOTICE_TOPIC, notice)

    def texts(self) -> list[str]:
        """Return the notices so far, oldest first."""
        return list(self._notices)
