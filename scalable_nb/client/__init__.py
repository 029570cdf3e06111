"""The client of a session: submitting calls, gathering results, the call log."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scalable_nb.client.client import ScalableClient

__all__ = ["ScalableClient"]


def __getattr__(name: str) -> Any:
    if name != "ScalableClient":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from scalable_nb.client.client import ScalableClient

    return ScalableClient
