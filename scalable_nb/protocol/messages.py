"""What the client says of a batch of tasks before it sends their graph."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Final

from scalable_nb.faults.circuit_breaker import CircuitBreaker
from scalable_nb.faults.decision import PolicyTerms
from scalable_nb.telemetry.ledger import key_text

#: The annotation that marks a task as one of ours: ``{"batch": id, **policy}``.
ANNOTATION: Final = "scalable"

#: What of it is not policy: how results are kept, which a resubmission does not change.
CACHE_ANNOTATIONS: Final = ("store", "recompute", "keep_limit", "compress")


@dataclass(slots=True)
class Batch:
    """What the tasks of one ``submit`` or ``map`` have in common.

    Where ``batch_id`` is empty, its tasks came another way; see `host.plain`.

    ``previews`` (key -> arguments as text) is emptied as the tasks arrive; ``is_known`` says
    that they stand in the ledger already, answered by kept results. ``terms`` are read by the
    host from the first of them, ``breaker`` is the host's.
    """

    batch_id: str
    name: str = ""
    function: str = ""
    task: str = ""
    component: str = ""
    tag: str = ""
    previews: dict[Any, str] = field(default_factory=dict)
    is_known: bool = False
    terms: PolicyTerms | None = None
    breaker: CircuitBreaker | None = None

    def label(self, key: Any, preview: str) -> str:
        """A task as a person reads it: the call, or the key of one that is no call of ours."""
        return f"{self.function}({preview})" if self.batch_id else key_text(key)

    def to_wire(self) -> dict[str, Any]:
        """As plain values, keys and previews apart (keys may be tuples)."""
        return {
            "batch_id": self.batch_id,
            "name": self.name,
            "function": self.function,
            "task": self.task,
            "component": self.component,
            "tag": self.tag,
            "keys": list(self.previews),
            "previews": list(self.previews.values()),
            "is_known": self.is_known,
        }

    def with_previews(self, previews: dict[Any, str], *, is_known: bool = False) -> Batch:
        """The same batch, about to send these tasks."""
        return replace(self, previews=previews, is_known=is_known)

    @classmethod
    def from_wire(cls, *, keys: list[Any], previews: list[str], **values: Any) -> Batch:
        """The inverse of `to_wire`."""
        return cls(previews=dict(zip(keys, previews, strict=True)), **values)
