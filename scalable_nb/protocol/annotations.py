"""The data of a task in Dask's annotations and in the call log."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import NoneType
from typing import Any, Final, Self

from scalable_nb.errors import ProtocolError
from scalable_nb.faults.decision import TERM_NAMES, PolicyTerms

#: The annotation that marks tasks of `submit` and `map`.
ANNOTATION: Final = "scalable"

#: Entries that say how results are stored, which a resubmission does not change.
STORAGE_ENTRIES: Final = ("store", "recompute", "keep_limit", "compress")

#: Entries that may be changed for a task that runs again: its terms, and its component.
CHANGEABLE_ENTRIES: Final = TERM_NAMES | {"component"}

# Exact types, so that True is no size. A flag of an older run may be the number that was given.
_ENTRY_TYPES: Final[Mapping[str, tuple[type, ...]]] = {
    "batch": (str,),
    "store": (str,),
    "recompute": (bool, int, NoneType),
    "keep_limit": (int, NoneType),
    "compress": (bool,),
}


@dataclass(frozen=True, slots=True)
class CacheFacts:
    """What became of a task's stored result; travels in Dask's metadata of the task.

    Attributes
    ----------
    key : str
        Of the result.
    event : {"hit", "kept"} or None
        None if the result was neither found nor stored.
    bytes : int or None
        Size of a result that was stored.
    problem : str or None
        Why a result could not be read or stored, in words.
    """

    key: str = ""
    event: str | None = None
    bytes: int | None = None
    problem: str | None = None

    def to_wire(self) -> dict[str, Any]:
        """Return the values that are not None, by name."""
        values = {
            "key": self.key, "event": self.event, "bytes": self.bytes, "problem": self.problem
        }  # fmt: skip
        return {name: value for name, value in values.items() if value is not None}

    @classmethod
    def from_wire(cls, values: Mapping[str, Any]) -> Self:
        """Return the facts that `to_wire` wrote.

        Types are not checked: this runs within transitions, where an error would lose the task.
        """
        get = values.get
        return cls(get("key", ""), get("event"), get("bytes"), get("problem"))


@dataclass(frozen=True, slots=True)
class TaskAnnotation:
    """The settings of a task that host and workers use.

    Attributes
    ----------
    terms : PolicyTerms
    batch_id : str
    store : str
        Folder of the stored results; empty if results are not stored.
    recompute : bool or None
        Whether a stored result is passed over, and replaced; None if only this submission uses
        its results.
    limit_bytes : int or None
        Size up to which the result is stored; None: any.
    compress : bool
        Whether the stored result is compressed.
    """

    terms: PolicyTerms = field(default_factory=PolicyTerms)
    batch_id: str = ""
    store: str = ""
    recompute: bool | None = None
    limit_bytes: int | None = None
    compress: bool = False

    def to_wire(self) -> dict[str, Any]:
        """Return values that msgpack can carry; the names are those of the call log."""
        values = self.terms.to_wire()
        if self.store:
            values["store"] = self.store
        if self.recompute is not None:
            values["recompute"] = bool(self.recompute)
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
            If a value of the policy makes no sense.
        ProtocolError
            If another value is of the wrong type.
        """
        if not isinstance(values, Mapping):
            raise ProtocolError(f"{cls.__name__} is {values!r:.80}; expected a mapping")
        for name in values.keys() & _ENTRY_TYPES.keys():
            if type(values[name]) not in _ENTRY_TYPES[name]:
                raise ProtocolError(
                    f"{cls.__name__}: {name} is a {type(values[name]).__name__}, "
                    f"{values[name]!r:.80}; expected {_ENTRY_TYPES[name][0].__name__}"
                )
        return cls(
            terms=PolicyTerms.from_wire(values),
            batch_id=values.get("batch", ""),
            store=values.get("store", ""),
            recompute=values.get("recompute"),
            limit_bytes=values.get("keep_limit"),
            compress=values.get("compress", False),
        )
