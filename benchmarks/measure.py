"""Two contenders measured in turn, and what is to be said of their ratios."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Budget:
    """What a ratio has to keep to.

    Parameters
    ----------
    must, wanted : float
        Bounds of the median ratio.
    is_upper : bool
        Whether smaller is better, so that the bounds are upper ones.
    """

    must: float
    wanted: float
    is_upper: bool = False

    def verdict(self, ratio: float) -> str:
        """The strictest bound that is kept, or ``"missed"``."""
        for verdict, bound in (("as wanted", self.wanted), ("kept", self.must)):
            if ratio <= bound if self.is_upper else ratio >= bound:
                return verdict
        return "missed"

    def __str__(self) -> str:
        sign = "<=" if self.is_upper else ">="
        return f"must {sign} {self.must:g}, wanted {sign} {self.wanted:g}"


@dataclass(frozen=True)
class Benchmark:
    """A quantity that two contenders are compared in.

    Parameters
    ----------
    name : str
        By which it is asked for.
    summary : str
        One line on what is measured.
    unit : str
        Of what `ours` and `plain` return, e.g. ``"tasks/s"``.
    budget : Budget or None
        For ours / plain; None where the figure is for information.
    ours, plain : callable
        Measure once.
    against : str
        What `plain` is.
    """

    name: str
    summary: str
    unit: str
    budget: Budget | None
    ours: Callable[[], float]
    plain: Callable[[], float]
    against: str = "plain Dask"


@dataclass(frozen=True)
class Outcome:
    """The measurements of one benchmark, pair by pair.

    Attributes
    ----------
    ours, plain : tuple of float
        As measured; those at the same place belong together.
    """

    benchmark: Benchmark
    ours: tuple[float, ...]
    plain: tuple[float, ...]

    @property
    def ratios(self) -> list[float]:
        """Ours / plain, of each pair."""
        return [ours / plain for ours, plain in zip(self.ours, self.plain, strict=True)]

    @property
    def ratio(self) -> float:
        """The median of `ratios`, which the budget is about."""
        return statistics.median(self.ratios)

    def __str__(self) -> str:
        unit = self.benchmark.unit
        rows: list[tuple[str, Sequence[float], str]] = [
            ("ours", self.ours, unit),
            (self.benchmark.against, self.plain, unit),
            ("ours / plain", self.ratios, ""),
        ]
        lines = [f"{self.benchmark.name}: {self.benchmark.summary}"]
        width = max(len(name) for name, _, _ in rows) + 1
        lines.append(f"  {'':<{width}} {'minimum':>9} {'median':>9} {'maximum':>9}")
        for name, values, label in rows:
            low, middle, high = (_shown(value) for value in spread(values))
            lines.append(f"  {name:<{width}} {low:>9} {middle:>9} {high:>9}  {label}".rstrip())
        lines.append(f"  {self._verdict_in_words()} ({len(self.ours)} pairs)")
        return "\n".join(lines)

    @property
    def verdict(self) -> str | None:
        """What the budget says of the ratio, where there is one."""
        budget = self.benchmark.budget
        return budget.verdict(self.ratio) if budget else None

    def _verdict_in_words(self) -> str:
        if self.verdict is None:
            return "no budget: for information"
        return f"budget: {self.benchmark.budget} -> {self.verdict.upper()}"

    def to_dict(self) -> dict[str, Any]:
        """Everything as values that JSON knows."""
        return {
            "name": self.benchmark.name,
            "summary": self.benchmark.summary,
            "unit": self.benchmark.unit,
            "against": self.benchmark.against,
            "ours": self.ours,
            "plain": self.plain,
            "ratios": self.ratios,
            "ratio": self.ratio,
            "budget": asdict(self.benchmark.budget) if self.benchmark.budget else None,
            "verdict": self.verdict,
        }


def measure(benchmark: Benchmark, pairs: int) -> Outcome:
    """Measure ours and plain in turn.

    A machine changes its pace (heat, neighbours), so only two measurements that follow each
    other are compared, and who goes first changes from pair to pair.

    Parameters
    ----------
    benchmark : Benchmark
    pairs : int
        How many measurements of each.
    """
    ours: list[float] = []
    plain: list[float] = []
    for number in range(pairs):
        contenders = [(benchmark.ours, ours), (benchmark.plain, plain)]
        for contender, values in contenders if number % 2 == 0 else contenders[::-1]:
            values.append(contender())
        note = f"pair {number + 1} of {pairs}: {_shown(ours[-1])} / {_shown(plain[-1])}"
        print(f"{benchmark.name}, {note} {benchmark.unit}", file=sys.stderr, flush=True)
    return Outcome(benchmark, tuple(ours), tuple(plain))


def spread(values: Sequence[float]) -> tuple[float, float, float]:
    """Minimum, median and maximum."""
    return min(values), statistics.median(values), max(values)


def _shown(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
