"""More memory for the attempt after one that ran out of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from scalable_nb.faults.validation import refusal

_EXAMPLE: Final = 'escalate={"memory": 2.0, "max": "64G"}'
_EXPECTED: Final = 'a dict with "memory", a factor above 1, and perhaps "max", a size'
_SIZE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([kMGT]?)(i?)B?", re.IGNORECASE)
_LARGEST_FACTOR: Final = 1000.0


@dataclass(frozen=True, slots=True)
class MemoryEscalation:
    """How the memory of the next attempt follows from that of the last one.

    Attributes
    ----------
    factor : float
        More than 1.
    max_bytes : int or None
        Never more than this; None: no limit but that of the machines.
    """

    factor: float
    max_bytes: int | None = None

    def memory_after(self, memory_bytes: int) -> int | None:
        """Bytes for the next attempt; None where it cannot have more.

        Examples
        --------
        >>> Escalation(2.0, 3_000_000_000).memory_after(2_000_000_000)
        3000000000
        """
        wanted = int(memory_bytes * self.factor)
        if self.max_bytes is not None:
            wanted = min(wanted, self.max_bytes)
        return wanted if wanted > memory_bytes else None


def check_memory_escalation(value: Any) -> MemoryEscalation | None:
    """An `MemoryEscalation` from what a person wrote.

    Raises
    ------
    PolicyError
        For anything that is none.
    """
    if value is None or isinstance(value, MemoryEscalation):
        return value
    if not isinstance(value, Mapping) or "memory" not in value or value.keys() - {"memory", "max"}:
        raise refusal("escalate", value, _EXPECTED, _EXAMPLE)
    factor, largest = value["memory"], value.get("max")
    is_factor = isinstance(factor, int | float) and not isinstance(factor, bool)
    if not (is_factor and 1 < factor <= _LARGEST_FACTOR):
        raise refusal('escalate["memory"]', factor, "a factor above 1", _EXAMPLE)
    return MemoryEscalation(float(factor), None if largest is None else _bytes(largest))


def _bytes(size: Any) -> int:
    """``64G`` and ``64GB`` are decimal, ``64GiB`` is binary, as in the manifest."""
    text = str(size).strip() if not isinstance(size, bool) else ""
    match = _SIZE.fullmatch(text)
    if match is None:
        raise refusal('escalate["max"]', size, "a size", _EXAMPLE)
    number, prefix, is_binary = match.groups()
    power = " kmgt".index(prefix.lower() or " ")
    size_bytes = int(float(number) * (1024 if is_binary else 1000) ** power)
    if size_bytes < 1:
        raise refusal('escalate["max"]', size, "a size above 0", _EXAMPLE)
    return size_bytes
