"""A finding, and how the rows it stands on are measured and named."""

from __future__ import annotations

import re
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scalable_nb.telemetry.plaintext import one_line
from scalable_nb.telemetry.reader import is_final, number

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Finding:
    """One cause, in words.

    Attributes
    ----------
    rule : str
        Name of the rule, e.g. ``"out_of_memory"``.
    sentence : str
        What happened and why, for a person. Names and code stand between backticks.
    evidence : dict
        The numbers behind it, see `measure`, and what the rule itself found.
    confidence : float
        0 to 1.
    action : str
        What to do, with the code to run between backticks.
    """

    rule: str
    sentence: str
    evidence: dict[str, Any]
    confidence: float
    action: str


def measure(rows: Sequence[Row]) -> dict[str, Any]:
    """The numbers that every finding has.

    Returns
    -------
    dict
        ``attempts``, ``tasks``, ``failed_tasks`` (for good), ``example`` (a call); where
        durations are known ``median_s`` and ``longest_s`` of the attempts.
    """
    durations = [s for row in rows if (s := number(row.get("duration_s"))) >= 0]
    example = next((row for row in rows if is_final(row)), rows[0])
    call = str(example.get("task_id") or "no task")
    if example.get("function_name"):
        call = f"{example['function_name']}({example.get('args_preview') or ''})"
    evidence: dict[str, Any] = {
        "attempts": len(rows),
        "tasks": len({str(row.get("task_id")) for row in rows}),
        "failed_tasks": len({str(row.get("task_id")) for row in rows if is_final(row)}),
        "example": one_line(call, 120),
    }
    if durations:
        evidence["median_s"] = statistics.median(durations)
        evidence["longest_s"] = max(durations)
    return evidence


def counted(rows: Sequence[Row], name: str) -> Counter[str]:
    """How often each value of a column occurs, as text to show."""
    return Counter(one_line(row[name], 80) for row in rows if row.get(name))


def named_in_messages(rows: Sequence[Row], pattern: str) -> list[str]:
    """What the first group of ``pattern`` finds, the most frequent first; five at most."""
    search = re.compile(pattern).search
    # The beginning of a message is enough, and a message may be a megabyte.
    matches = (search(str(row.get("message"))[:2000]) for row in rows)
    found = Counter(one_line(match[1], 120) for match in matches if match)
    return [name for name, _ in found.most_common(5)]


def who(evidence: Mapping[str, Any]) -> str:
    """The subject of a sentence: how many tasks, and which one for example."""
    tasks, example = evidence["tasks"], evidence["example"]
    return f"1 task ({example})" if tasks == 1 else f"{tasks:,} tasks (e.g. {example})"


def after(evidence: Mapping[str, Any]) -> str:
    """`` after 180 s``, or nothing where it was at once or is not known."""
    return f" after {evidence['median_s']:.0f} s" if evidence.get("median_s", 0) >= 1 else ""


def listed(names: Sequence[str]) -> str:
    """Names between backticks, three of them."""
    return ", ".join(f"`{name}`" for name in names[:3]) + (" and others" if len(names) > 3 else "")
