"""Batches as a run recorded them: ordered inputs, and the generations that changed their tasks."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

#: How the batches of single `submit` calls are listed together.
SUBMIT_PREFIX: Final = "submit-"


def read_key(value: Any) -> Any:
    """Return the key of a task as it was before it was JSON: lists are tuples."""
    return tuple(map(read_key, value)) if isinstance(value, list | tuple) else value


def read_keys(values: Iterable[Any]) -> list[Any]:
    """Return keys of tasks as they were before they were JSON."""
    return [key if isinstance(key, str) else read_key(key) for key in values]


class CarriedOutcome(NamedTuple):
    """Outcome of an input in an earlier run; it has not run since.

    Attributes
    ----------
    state : str
        ``"failed"``, ``"cancelled"`` or ``"never ran"``.
    reason : str
        Why it did not run.
    failure : mapping or None
        The row of its last failed attempt, as in ``failures.jsonl``.
    """

    state: str
    reason: str
    failure: Mapping[str, Any] | None = None


@dataclass(slots=True)
class BatchRecord:
    """An ordered list of inputs, and the task of each one now.

    Attributes
    ----------
    batch_id : str
    name : str
        A label; several batches may have it.
    function_name : str
    at : float
        Time of the submission, seconds since the epoch.
    kernel : str
        The call log's name for the kernel that submitted it.
    keys : list
        Of each input, the key of its task.
    is_single : bool
        Whether it is the call of one `submit`.
    generation : int
        How often inputs of it were resubmitted.
    carried : dict
        Index -> outcome in an earlier run.
    """

    batch_id: str
    name: str
    function_name: str
    at: float
    kernel: str
    keys: list[Any]
    is_single: bool = False
    generation: int = 0
    carried: dict[int, CarriedOutcome] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """The name under which it is listed."""
        return f"{SUBMIT_PREFIX}{self.name or self.function_name}" if self.is_single else self.name

    def to_entry(self) -> dict[str, Any]:
        """Return plain values for the call log."""
        values = {name: getattr(self, name) for name in self.__slots__}
        return {**values, "carried": {index: tuple(c) for index, c in self.carried.items()}}

    @classmethod
    def from_entry(cls, values: Mapping[str, Any]) -> BatchRecord:
        """Return the record of values in a call log."""
        carried = {int(i): CarriedOutcome(*each) for i, each in values["carried"].items()}
        return cls(**{**values, "keys": read_keys(values["keys"]), "carried": carried})


class BatchHistory:
    """All batches of a run, in the order of submission.

    Attributes
    ----------
    batches : dict of str to BatchRecord
        By id.
    replaced : dict
        Key of a task -> key of the task that took its place, for corrected calls.
    """

    def __init__(self) -> None:
        self.batches: dict[str, BatchRecord] = {}
        self.replaced: dict[Any, Any] = {}
        self._holders: dict[Any, list[str]] | None = None

    def add(self, record: BatchRecord) -> None:
        """Add a batch, or replace its record by a newer one."""
        self.batches[record.batch_id] = record
        self._holders = None

    def add_generation(self, batch_id: str, number: int, keys: Mapping[int, Any]) -> None:
        """Give inputs of a batch other tasks; a batch that is not known is passed over."""
        record = self.batches.get(batch_id)
        if record is None:
            return
        for index, key in keys.items():
            if not 0 <= index < len(record.keys):
                continue  # of a file from elsewhere
            if record.keys[index] != key:
                self.replaced[record.keys[index]] = key
                record.keys[index] = key
            record.carried.pop(index, None)
        record.generation = max(number, record.generation)
        self._holders = None

    def sort(self) -> None:
        """Order the batches by the time of their submission."""
        ordered = sorted(self.batches.values(), key=lambda record: record.at)
        self.batches = {record.batch_id: record for record in ordered}

    def input_keys(self) -> list[Any]:
        """Return the key of each input of the run, in order."""
        return [key for record in self.batches.values() for key in record.keys]

    def current(self, key: Any) -> Any:
        """Return the key of the task that took the place of a task, or its own."""
        while key in self.replaced:
            key = self.replaced[key]
        return key

    def current_in(self, batch_ids: Collection[str], key: Any) -> Any:
        """Return the key of the task that took the place of a task in batches, or its own.

        If several batches had the task, it may have been replaced in others only.
        """
        holders = self.holders(key)
        is_held = not set(batch_ids).isdisjoint(holders) if batch_ids else bool(holders)
        return key if is_held else self.current(key)

    def holders(self, key: Any) -> list[str]:
        """Return the ids of the batches with inputs of this key."""
        if self._holders is None:
            self._holders = {}
            for record in self.batches.values():
                for each in dict.fromkeys(record.keys):
                    self._holders.setdefault(each, []).append(record.batch_id)
        return self._holders.get(key, [])

    def carried(self) -> dict[Any, CarriedOutcome]:
        """Return the outcomes in earlier runs by key."""
        return {
            record.keys[index]: outcome
            for record in self.batches.values()
            for index, outcome in record.carried.items()
        }

    def named(self, name: str, kernel: str) -> list[BatchRecord]:
        """Return the batches that a name or id stands for.

        That is one batch, of this kernel if it has one of that name, or all those of single
        `submit` calls that are listed together.
        """
        if name in self.batches:
            return [self.batches[name]]
        return _meant([each for each in self.batches.values() if each.label == name], kernel)

    def labels(self, kernel: str) -> dict[str, list[BatchRecord]]:
        """Return all batches by what `named` finds them with: a name, or an id if it is taken."""
        by_label: dict[str, list[BatchRecord]] = {}
        for record in self.batches.values():
            by_label.setdefault(record.label, []).append(record)
        meant = {label: _meant(records, kernel) for label, records in by_label.items()}
        listed: dict[str, list[BatchRecord]] = {}
        for record in self.batches.values():
            found = meant[record.label]
            is_found = record.is_single or record is found[-1]
            listed[record.label if is_found else record.batch_id] = found if is_found else [record]
        return listed


def _meant(records: list[BatchRecord], kernel: str) -> list[BatchRecord]:
    """Return which of the batches with one label the label stands for."""
    if records and records[0].is_single:
        return records
    own = [record for record in records if record.kernel == kernel]
    return (own or records)[-1:]


def changed_keys(
    history: BatchHistory, batch_ids: Iterable[str], new: Mapping[Any, Any]
) -> Iterator[tuple[BatchRecord, dict[int, Any]]]:
    """Yield the batches in which inputs get other tasks: index -> key.

    Parameters
    ----------
    history : BatchHistory
    batch_ids : iterable of str
        The batches that are meant; a key that none of them has is replaced in all that have it.
    new : mapping
        Key of a task -> key of the task that takes its place, or the same if it runs again.
    """
    meant = set(batch_ids)
    by_batch: dict[str, set[Any]] = {}
    for key in new:
        holders = history.holders(key)
        for batch_id in meant.intersection(holders) or holders:
            by_batch.setdefault(batch_id, set()).add(key)
    for batch_id, keys in by_batch.items():
        record = history.batches[batch_id]
        yield record, {i: new[key] for i, key in enumerate(record.keys) if key in keys}


def legacy_batch_id(kernel: str, name: str, at: float) -> str:
    """Return an id for a batch that was recorded without one: the same at each reading."""
    return hashlib.sha256(f"{kernel} {name} {at!r}".encode()).hexdigest()[:32]
