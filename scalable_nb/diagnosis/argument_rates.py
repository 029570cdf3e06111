"""Which argument values fail: rates of failure by argument, and whether they are chance."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from scalable_nb.telemetry.aggregates import last_rows
from scalable_nb.telemetry.dataframes import MAX_ARGUMENTS, parse_preview

if TYPE_CHECKING:
    import pandas as pd

Array = np.ndarray[Any, Any]
_Z: Final = 1.96  # 95 %
_PERMUTATIONS: Final = 499


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


class Rate(NamedTuple):
    """A share, and the bounds between which the true one lies with 95 % confidence."""

    share: float
    low: float
    high: float


class Information(NamedTuple):
    """How much a value says about an outcome.

    Attributes
    ----------
    bits : float
        Mutual information.
    share : float
        Of what there is to know about the outcome (its entropy), 0 to 1.
    p_value : float
        How often chance alone says as much.
    """

    bits: float
    share: float
    p_value: float


def wilson(failed: float, total: float) -> Rate:
    """The rate of failures with Wilson's 95 % interval; of nothing it lies anywhere."""
    if total <= 0:
        return Rate(0.0, 0.0, 1.0)
    share, square = failed / total, _Z**2 / total
    middle = (share + square / 2) / (1 + square)
    half = _Z / (1 + square) * math.sqrt(share * (1 - share) / total + square / (4 * total))
    return Rate(share, max(0.0, middle - half), min(1.0, middle + half))


def excess_p_value(failed: int, total: int, rate: float) -> float:
    """How often chance gives ``failed`` or more of ``total`` where each fails with ``rate``.

    Chernoff's bound of the binomial distribution: never too small.
    """
    share = failed / total if total else 0.0
    rate = min(max(rate, 1e-12), 1 - 1e-12)
    if share <= rate:
        return 1.0
    terms = share * math.log(share / rate)
    if share < 1:
        terms += (1 - share) * math.log((1 - share) / (1 - rate))
    return math.exp(-total * terms)


def information(levels: Array, failed: Array, seed: int = 0) -> Information:
    """Mutual information of some levels with an outcome.

    Parameters
    ----------
    levels : ndarray of int
        Of each task, from 0.
    failed : ndarray of bool
        Its outcome.
    seed : int
        Of the permutations, so that the same data give the same answer.

    Notes
    -----
    A permutation of the outcomes spreads the failures over the levels like drawing without
    replacement: it is drawn so, at once for all levels, instead of shuffling.
    """
    totals = np.bincount(levels)
    hits = np.bincount(levels, weights=failed, minlength=len(totals))
    count, total = int(failed.sum()), len(failed)
    if count in (0, total):
        return Information(0.0, 0.0, 1.0)
    rng = np.random.default_rng(seed)
    by_chance = rng.multivariate_hypergeometric(
        totals, count, size=_PERMUTATIONS, method="marginals"
    )
    bits = _bits(hits[None, :], totals, count, total)[0]
    as_much = int((_bits(by_chance, totals, count, total) >= bits - 1e-12).sum())
    share = count / total
    entropy = -(share * math.log2(share) + (1 - share) * math.log2(1 - share))
    return Information(float(bits), float(bits / entropy), (1 + as_much) / (1 + _PERMUTATIONS))


def _bits(hits: Array, totals: Array, count: int, total: int) -> Array:
    """Mutual information of each line of ``hits`` (failures by level), in bits."""
    bits = np.zeros(len(hits))
    for part, outcome in ((hits, count), (totals - hits, total - count)):
        expected = totals * (outcome / total)
        with np.errstate(divide="ignore", invalid="ignore"):
            terms = part / total * np.log2(part / expected)
        bits += np.nan_to_num(terms, nan=0.0, posinf=0.0, neginf=0.0).sum(axis=1)
    return np.maximum(bits, 0.0)


def densest_interval(values: Array, failed: Array) -> tuple[float, float]:
    """The interval of values with the most failures beyond what the overall rate gives.

    Parameters
    ----------
    values : ndarray of float
        Finite.
    failed : ndarray of bool
    """
    levels, places = np.unique(values, return_inverse=True)
    excess = np.bincount(places, weights=failed - failed.mean())
    sums = np.concatenate([[0.0], np.cumsum(excess)])
    lowest = np.minimum.accumulate(sums)
    end = int(np.argmax(sums - lowest))
    begin = int(np.argmin(sums[: end + 1]))
    return float(levels[begin]), float(levels[max(begin, end - 1)])
