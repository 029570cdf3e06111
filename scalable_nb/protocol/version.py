"""The version of the protocol: both ends of a connection must have the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

from scalable_nb import __version__
from scalable_nb.errors import ProtocolVersionError

#: Raised with every change of an operation or a message.
PROTOCOL_VERSION: Final = 1

#: Name under which a worker announces its version when it registers with the scheduler.
ANNOUNCEMENT: Final = "scalable_nb"


@dataclass(frozen=True, slots=True)
class ProtocolVersion:
    """The version of a process.

    Attributes
    ----------
    protocol : int or None
        None for a release from before there were versions.
    package : str
        The version of scalable_nb; empty if unknown.
    """

    protocol: int | None
    package: str = ""

    @classmethod
    def own(cls) -> Self:
        """Return the version of this process."""
        return cls(PROTOCOL_VERSION, __version__)

    @classmethod
    def from_wire(cls, values: Mapping[str, Any] | None) -> Self:
        """Return the version that another process announced, whatever it looks like."""
        values = values if isinstance(values, Mapping) else {}
        protocol, package = values.get("protocol_version"), values.get("package_version")
        return cls(protocol if isinstance(protocol, int) else None, str(package or ""))

    def to_wire(self) -> dict[str, Any]:
        """Return the version as plain values."""
        return {"protocol_version": self.protocol, "package_version": self.package}

    @property
    def is_compatible(self) -> bool:
        """Whether this process understands it."""
        return self.protocol == PROTOCOL_VERSION

    def require_compatible(self, run_id: str) -> None:
        """Check the version of the host of a run.

        Raises
        ------
        ProtocolVersionError
            If this process does not understand it.
        """
        if not self.is_compatible:
            there = f"scalable_nb {self.package}" if self.package else "the release that started it"
            raise ProtocolVersionError(
                f"the host of session {run_id} has {self}, and this notebook has {self.own()}. "
                f"Join it from an environment with {there}, or run `%scalable stop` there and "
                "`%scalable start` here."
            )

    def __str__(self) -> str:
        number = "before 1" if self.protocol is None else str(self.protocol)
        return f"protocol version {number}" + (
            f" (scalable_nb {self.package})" if self.package else ""
        )
