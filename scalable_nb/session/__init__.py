"""Sessions: starting or finding a host, and what users do with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scalable_nb.session.session import ScalableSession, current_session, live_sessions

__all__ = ["ScalableSession", "current_session", "live_sessions"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from scalable_nb.session import session

    return getattr(session, name)
