"""The terms on which held calls were submitted, and what a later call may still change of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Final

import cloudpickle
from distributed import Future

from scalable_nb.cache.hashing.function_identity import Identity
from scalable_nb.cache.hashing.value_writers import NotEncodableError
from scalable_nb.client.call_options import CallOptions
from scalable_nb.client.submission import Submission
from scalable_nb.errors import SubmitError
from scalable_nb.faults.decision import default_term
from scalable_nb.protocol.annotations import STORAGE_ENTRIES
from scalable_nb.telemetry.rows import key_text

#: Option of `submit` and `map` -> (its value so far, the requested value).
Differences = dict[str, tuple[Any, Any]]

_KEEP_RESULTS: Final = "keep_results"
_TAG: Final = "tag"
_RULES: Final = "code"


class HeldTerms:
    """The terms of the calls of which one client holds futures.

    The same call, submitted again, is the same task. Options that the task does not have and
    cannot get any more are refused.
    """

    def __init__(self) -> None:
        self._submissions: dict[Any, Submission] = {}

    def note(self, submission: Submission, keys: Iterable[Any]) -> None:
        """Remember the terms of calls."""
        self._submissions.update(dict.fromkeys(keys, submission))

    def note_reopened(self, keys: Iterable[Any], options: CallOptions) -> None:
        """Remember the new terms of failed calls that run again."""
        for key in keys:
            old = self._submissions.get(key)
            if old is not None:
                storage = {name: old.wire[name] for name in STORAGE_ENTRIES if name in old.wire}
                terms = {
                    name: value
                    for name, value in options.wire.items()
                    if name not in STORAGE_ENTRIES
                }
                component = options.component or old.batch.component
                batch = replace(old.batch, component=component)
                self._submissions[key] = replace(old, wire={**terms, **storage}, batch=batch)

    def note_stored(self, keys: Iterable[Any], options: CallOptions) -> None:
        """Remember that the results of calls are stored like those of a batch with a name."""
        storage: dict[str, Any] = {
            name: options.wire[name] for name in STORAGE_ENTRIES if name in options.wire
        }
        for key in keys:
            old = self._submissions.get(key)
            if old is not None:
                self._submissions[key] = replace(old, wire={**storage, **old.wire})

    def forget(self, key: Any) -> None:
        """Drop the terms of a call whose last future is gone."""
        self._submissions.pop(key, None)

    def check(self, held: Mapping[Any, Future[Any]], options: CallOptions) -> None:
        """Check that held calls have, or can get, the options of a new submission.

        Raises
        ------
        SubmitError
            If they cannot.
        """
        if not held or not options.explicit_names:
            return
        known: dict[int, Differences] = {}
        for key, future in held.items():
            submission = self._submissions.get(key)
            if submission is None:
                continue
            changes = known.get(id(submission))
            if changes is None:
                changes = known[id(submission)] = find_differences(submission, options)
            if changes:
                _refuse_changes(key, str(future.status), changes)

    def unstored(self, held: Iterable[Any], options: CallOptions) -> list[Any]:
        """Return the held calls whose results are not stored, if those of a submission are."""
        if "keep_limit" not in options.wire:  # not stored because of a name
            return []
        terms = self._submissions
        return [key for key in held if key in terms and "store" not in terms[key].wire]


def find_differences(submission: Submission, options: CallOptions) -> Differences:
    """Return the options of a call that differ from those of an earlier submission of it."""
    before, after = _entries(submission.wire), _entries(options.wire)
    before[_TAG], after[_TAG] = submission.batch.component, options.component
    changes: Differences = {}
    for name in sorted(options.explicit_names):
        default = default_term(name)
        old, new = before.get(name, default), after.get(name, default)
        if old != new and not (name == _RULES and _are_same_rules(old, new)):
            changes[name] = old, new
    return changes


def _entries(wire: Mapping[str, Any]) -> dict[str, Any]:
    return {**wire, _KEEP_RESULTS: "store" in wire and "keep_limit" not in wire}


def _are_same_rules(old: bytes, new: bytes) -> bool:
    """Return whether rules are the same, though a function was defined again."""
    if not old or not new:
        return False
    try:
        return Identity(cloudpickle.loads(old)).digest == Identity(cloudpickle.loads(new)).digest
    except (NotEncodableError, OSError):
        return False


def _refuse_changes(key: Any, status: str, changes: Differences) -> None:
    """Raise if a call of this status cannot get other options."""
    if status == "error":
        refused = {name: each for name, each in changes.items() if name == _KEEP_RESULTS}
        happened = "failed"
    elif status == "finished":
        # Budgets and limits of a call that has succeeded are no longer needed.
        refused = {name: each for name, each in changes.items() if _is_of_results(name, each)}
        happened = "has its result already"
    else:
        refused, happened = changes, "is waiting or running"
    if not refused:
        return
    options = " and ".join(_described(name, *values) for name, values in refused.items())
    raise SubmitError(
        f"{key_text(key)} was submitted before, and {happened}: {options}. Release its earlier "
        "futures first, or use `pure=False` or `key=` to run it as a task of its own."
    )


def _is_of_results(name: str, values: tuple[Any, Any]) -> bool:
    return name == _KEEP_RESULTS or (name == "idempotent" and values[1] is False)


def _described(name: str, old: Any, new: Any) -> str:
    if name == _RULES:
        return "its policy has other rules (`retry_on`, `give_up_on`, `validate`)"
    return f"it has `{name}={old!r}`, which cannot become {new!r}"
