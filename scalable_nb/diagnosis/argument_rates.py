"""Which argument values fail: the arguments of many calls as columns, set against the outcome."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from scalable_nb.diagnosis.statistics import (
    Array,
    Information,
    Rate,
    densest_interval,
    information,
    wilson,
)
from scalable_nb.telemetry.aggregates import last_rows
from scalable_nb.telemetry.dataframes import MAX_ARGUMENTS, parse_preview

if TYPE_CHECKING:
    import pandas as pd

#: Calls that are looked at; more say nothing new.
MAX_CALLS: Final = 20_000
_MAX_BINS: Final = 8
_MAX_LEVELS: Final = 40
_OTHERS: Final = "others"


class Level(NamedTuple):
    """A range of numbers, or a value, and how many of its calls failed."""

    label: str
    failed: int
    total: int
    rate: Rate


class Argument(NamedTuple):
    """One argument, and what it says about failures.

    Attributes
    ----------
    values : ndarray
        Of the calls that have it: float64 for numbers, else text.
    failed : ndarray of bool
        Their outcomes.
    levels : list of Level
        Ranges of equally many values in their order, or the most frequent values.
    """

    name: str
    is_numeric: bool
    values: Array
    failed: Array
    levels: list[Level]
    information: Information


def explaining_arguments(previews: Sequence[str], failed: Array) -> list[Argument]:
    """The arguments of some calls, those that explain most first.

    Parameters
    ----------
    previews : sequence of str
        ``args_preview`` of each call.
    failed : ndarray of bool
        Whether it failed for good.
    """
    if len(previews) > MAX_CALLS:
        chosen = np.random.default_rng(0).choice(len(previews), MAX_CALLS, replace=False)
        previews, failed = [previews[place] for place in chosen.tolist()], failed[chosen]
    columns: dict[str, tuple[list[str], list[int]]] = {}
    for place, preview in enumerate(previews):
        for name, value in parse_preview(preview):
            if name in columns or len(columns) < MAX_ARGUMENTS:
                values, places = columns.setdefault(name, ([], []))
                values.append(value)
                places.append(place)
    found = [
        _argument(name, values, failed[np.array(places)])
        for name, (values, places) in columns.items()
    ]
    return sorted(found, key=lambda a: (a.information.p_value, -a.information.share))


def failing_level(argument: Argument) -> Level | None:
    """The part of an argument's values in which nearly all of the failures lie."""
    failed = argument.failed
    if argument.is_numeric:
        low, high = densest_interval(argument.values, failed)
        inside = (argument.values >= low) & (argument.values <= high)
        label = f"{low:g}" if low == high else f"{low:g} to {high:g}"
    else:
        bad = [level for level in argument.levels if level.rate.share > max(0.3, failed.mean())]
        labels = [level.label for level in bad if level.label != _OTHERS]
        inside = np.isin(argument.values, labels)
        label = ", ".join(labels[:3]) + (f" and {len(labels) - 3} more" if len(labels) > 3 else "")
    if not inside.any() or inside.all():
        return None
    hits, total = int(failed[inside].sum()), int(inside.sum())
    return Level(label, hits, total, wilson(hits, total))


def _argument(name: str, texts: list[str], failed: Array) -> Argument:
    numbers = _numbers(texts)
    if numbers is not None and len(np.unique(numbers)) > 2:
        places, labels = _bins(numbers)
        values: Array = numbers
    else:
        values = np.array(texts, dtype=object)
        places, labels = _levels(texts)
    totals = np.bincount(places, minlength=len(labels))
    hits = np.bincount(places, weights=failed, minlength=len(labels)).astype(int)
    levels = [
        Level(label, int(hit), int(total), wilson(hit, total))
        for label, hit, total in zip(labels, hits, totals, strict=True)
    ]
    return Argument(name, values is numbers, values, failed, levels, information(places, failed))


def _numbers(texts: list[str]) -> Array | None:
    try:
        found = np.array(texts, dtype="U40").astype("float64")
    except ValueError:
        return None
    return found if np.isfinite(found).all() else None


def _bins(numbers: Array) -> tuple[Array, list[str]]:
    """Ranges with about equally many values each."""
    edges = np.unique(np.quantile(numbers, np.linspace(0, 1, _MAX_BINS + 1)))
    places = np.clip(np.searchsorted(edges, numbers, side="right") - 1, 0, len(edges) - 2)
    used, places = np.unique(places, return_inverse=True)
    labels = []
    for place in range(len(used)):
        inside = numbers[places == place]
        labels.append(f"{inside.min():g} to {inside.max():g}")
    return places, labels


def _levels(texts: list[str]) -> tuple[Array, list[str]]:
    counts = Counter(texts)
    named = [text for text, _ in counts.most_common(_MAX_LEVELS)]
    place_of = {text: place for place, text in enumerate(named)}
    labels = [*named, _OTHERS] if len(counts) > len(named) else named
    return np.array([place_of.get(text, len(named)) for text in texts]), labels


def outcomes(tasks: pd.DataFrame) -> pd.DataFrame:
    """The last row of each task that ended with a result or failed for good."""
    last = last_rows(tasks)
    return last[last["state"].isin(["succeeded", "cached", "failed"])]
