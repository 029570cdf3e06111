"""Values of a policy, checked; errors say what was given, what is expected, how to write it."""

from __future__ import annotations

import math
import operator
import reprlib
from numbers import Real
from typing import Any, Final

from scalable_nb.errors import PolicyError
from scalable_nb.faults.classify import Rule

#: More further attempts than this is a mistake of typing, and the ledger counts in 16 bits.
MAX_COUNT: Final = 10_000


def check_count(name: str, value: Any, example: str) -> int:
    """A whole number from 0 to 10,000.

    Raises
    ------
    PolicyError
        For anything else; ``True`` is no number here.
    """
    try:
        # True would count as 1, and whoever writes retries=True means something else.
        count = -1 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        count = -1
    if not 0 <= count <= MAX_COUNT:
        raise refusal(name, value, f"a whole number from 0 to {MAX_COUNT:,}", example)
    return count


def check_number(
    name: str, value: Any, expected: str, example: str, *, low: float, high: float = math.inf
) -> float:
    """A finite number from `low` to `high`.

    Raises
    ------
    PolicyError
        For anything else, nan included.
    """
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    if not (is_number and math.isfinite(value) and low <= value <= high):
        raise refusal(name, value, expected, example)
    return float(value)


def check_rules(name: str, value: Any) -> tuple[Rule, ...]:
    """One rule or several, as a tuple.

    Raises
    ------
    PolicyError
        When something among them is no exception type, name or callable.
    """
    if value is None:
        return ()
    example = f"{name}=(ConnectionError, 'pkg.Error', is_flaky)"
    expected = "exception types, their names or functions of the error"
    if isinstance(value, str | type) or callable(value):
        value = (value,)
    try:
        rules = tuple(value)
    except TypeError:
        raise refusal(name, value, expected, example) from None
    for rule in rules:
        if not _is_rule(rule):
            raise refusal(name, rule, expected, example)
    return rules


def _is_rule(rule: Any) -> bool:
    if isinstance(rule, str):
        return all(part.isidentifier() for part in rule.split("."))
    if isinstance(rule, type):
        return issubclass(rule, BaseException)
    return callable(rule)


def refusal(name: str, value: Any, expected: str, example: str) -> PolicyError:
    """The error for a value that cannot be used."""
    return PolicyError(f"{name}={reprlib.repr(value)}: expected {expected}; e.g. {example}")
