"""What the tasks of a session carry in Dask's annotations, and in the call log."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self

from scalable_nb.faults.decision import PolicyTerms

#: The annotation that marks a task as one of ours.
ANNOTATION: Final = "scalable"

#: Entries that say how results are stored, which a resubmission does not change.
STORAGE_ENTRIES: Final = ("store", "recompute", "keep_limit", "compress")


@dataclass(frozen=True, slots=True)
class TaskAnnotation:
    """What host and workers know of a task beforehand.

    Attributes
    ----------
    terms : PolicyTerms
    batch_id : str
    store : str
        Folder of the stored results; empty if results are not stored.
    recompute : bool
        Whether a stored result is passed over, and replaced.
    limit_bytes : int or None
        Size up to which the result is stored; None: any.
    compress : bool
        Whether the stored result is compressed.
    """

    terms: PolicyTerms = field(default_factory=PolicyTerms)
    batch_id: str = ""
    store: str = ""
    recompute: bool = False
    limit_bytes: int | None = None
    compress: bool = False

    def to_wire(self) -> dict[str, Any]:
        """Return values that msgpack can carry; the names are those of the call log."""
        values = self.terms.to_wire()
        if self.store:
            values["store"] = self.store
        if self.recompute:
            values["recompute"] = True
        if self.limit_bytes is not None:
            values["keep_limit"] = self.limit_bytes
        if self.compress:
            values["compress"] = True
        return {**values, "batch": self.batch_id} if self.batch_id else values

    @classmethod
    def from_wire(cls, values: Mapping[str, Any]) -> Self:
        """Return the annotation; names that other versions wrote are passed over.

        Raises
        ------
        PolicyError
            If a value makes no sense.
        """
        return cls(
            terms=PolicyTerms.from_wire(values),
            batch_id=values.get("batch", ""),
            store=values.get("store", ""),
            recompute=values.get("recompute", False),
            limit_bytes=values.get("keep_limit"),
            compress=values.get("compress", False),
        )
