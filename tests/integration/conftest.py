"""Sessions on the local target."""

from sessions import folder, shared_session, start

__all__ = ["folder", "shared_session", "start"]
