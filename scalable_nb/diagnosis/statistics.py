"""The statistics behind a finding: plain formulas, without more than numpy.

Rates come with Wilson's interval, which also holds for few tasks and for rates near 0 or 1;
how much a value explains is its mutual information with the outcome, and whether that is more
than chance is told by a permutation test.
"""

from __future__ import annotations

import math
from typing import Any, Final, NamedTuple

import numpy as np

Array = np.ndarray[Any, Any]

_Z: Final = 1.96  # 95 %
_PERMUTATIONS: Final = 499


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
