"""What a person has chosen among failed attempts, and which attempts that leaves."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np

from scalable_nb.telemetry.aggregates import MAX_ATTEMPTS

if TYPE_CHECKING:
    import pandas as pd

#: What can be chosen, each in a chart of its own or in a field.
DIMENSIONS: Final = ("error_class", "duration_s", "place", "span", "argument", "attempt", "text")


@dataclass(frozen=True)
class Selection:
    """Choices in some dimensions; all of them hold at once. None chooses everything.

    Attributes
    ----------
    error_class : tuple of str, optional
        Error classes.
    duration_s : tuple of float, optional
        Shortest and longest execution time.
    place : tuple of (str, str), optional
        A column (``host``, ``job_id``, ``worker``) and its value.
    span : tuple of pandas.Timestamp, optional
        Begin and end.
    argument : tuple of (str, str), optional
        Name and value of an argument as it is shown, or a range ``"1950 to 1964"``.
    attempt : int, optional
        Number of the attempt; `scalable_nb.telemetry.aggregates.MAX_ATTEMPTS` also for later ones.
    text : str
        Stands in the message, the arguments or the task's key, in capitals or not.
    """

    error_class: tuple[str, ...] | None = None
    duration_s: tuple[float, float] | None = None
    place: tuple[str, str] | None = None
    span: tuple[Any, Any] | None = None
    argument: tuple[str, str] | None = None
    attempt: int | None = None
    text: str = ""

    @property
    def is_empty(self) -> bool:
        """Whether everything is chosen."""
        return self == Selection()

    def toggled(self, dimension: str, value: Any) -> Self:
        """With another choice in one dimension; the same choice again takes it back."""
        is_same = getattr(self, dimension) == value
        changes: dict[str, Any] = {dimension: None if is_same else value}
        return replace(self, **changes)

    def without(self, *dimensions: str) -> Self:
        """What is chosen in the other dimensions: what the chart of these is drawn from."""
        changes: dict[str, Any] = {each: "" if each == "text" else None for each in dimensions}
        return replace(self, **changes)

    def of(self, frame: pd.DataFrame) -> pd.DataFrame:
        """The failed attempts that are chosen."""
        return frame if self.is_empty else frame[self._mask(frame)]

    def _mask(self, frame: pd.DataFrame) -> Any:
        mask = np.ones(len(frame), dtype=bool)
        if self.error_class is not None:
            mask &= frame["failure_class"].isin(self.error_class).to_numpy()
        if self.duration_s is not None:
            mask &= frame["duration_s"].between(*self.duration_s).to_numpy()
        if self.place is not None:
            column, name = self.place
            mask &= (frame[column] == name).to_numpy()
        if self.span is not None:
            mask &= frame["timestamp"].between(*self.span).to_numpy()
        if self.attempt is not None:
            mask &= (frame["attempt"].clip(1, MAX_ATTEMPTS) == self.attempt).to_numpy()
        if self.text:
            mask &= _holds(frame, self.text)
        if self.argument is not None:
            mask[mask] = _has_argument(frame.loc[mask, "args_preview"], *self.argument)
        return mask

    def __str__(self) -> str:
        span = self.span and f"{self.span[0]:%H:%M:%S} to {self.span[1]:%H:%M:%S}"
        given = {
            "class": ", ".join(name or "others" for name in self.error_class or ()),
            "took": self.duration_s and "{:.3g} s to {:.3g} s".format(*self.duration_s),
            "place": self.place and self.place[1],
            "time": span,
            "argument": self.argument and " = ".join(self.argument),
            "attempt": self.attempt,
            "text": self.text,
        }
        return "; ".join(f"{name}: {value}" for name, value in given.items() if value)


def _holds(frame: pd.DataFrame, text: str) -> Any:
    def search(texts: Any) -> Any:
        return texts.str.contains(text, case=False, regex=False).astype(bool)

    messages = frame["message"].cat
    matching = search(messages.categories.to_series()).to_numpy()
    found = matching[messages.codes.to_numpy()] if len(matching) else np.zeros(len(frame), bool)
    for name in ("args_preview", "task_id"):
        found |= search(frame[name]).to_numpy()
    return found


def _has_argument(previews: pd.Series[str], name: str, value: str) -> Any:
    from scalable_nb.telemetry.dataframes import parse_preview

    low, _, high = value.partition(" to ")

    def matches(found: str) -> bool:
        if not high:
            return found == value
        try:
            return float(low) <= float(found) <= float(high)
        except ValueError:
            return found == value

    # Of a million calls only those are taken apart that may have it: a number stands bare.
    bare = re.compile(rf"(?:^|,)\s*{re.escape(name)}=([^,()\[\]{{}}'\"]+)").findall

    def may_match(preview: str) -> bool:
        if value in preview or not high:
            return value in preview
        return name.startswith("#") or any(matches(found.strip()) for found in bare(preview))

    return [
        may_match(preview)
        and any(n == name and matches(found) for n, found in parse_preview(preview))
        for preview in previews
    ]
