"""Run only the failed tasks again, of a live session or of a finished run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scalable_nb.resubmission.api import resubmit

__all__ = ["resubmit"]


def __getattr__(name: str) -> Any:
    if name != "resubmit":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from scalable_nb.resubmission.api import resubmit

    return resubmit
