"""A finding, and how the failed attempts it stands on are measured and named."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final

from scalable_nb.telemetry.sanitize import one_line

if TYPE_CHECKING:
    import pandas as pd

Row = Mapping[str, Any]

#: Messages that are looked at; those of a million attempts say the same.
_MAX_MESSAGES: Final = 2_000


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
    code : str
        The code of the action alone; empty where none is to be run.
    fingerprints : tuple of str
        The kinds of failure that it explains.
    changes : dict
        Keyword arguments with which `resubmit` has a chance; None where it has none.
    weight : float
        How much it is preferred to other findings that cost as much: a finding that says
        where or when comes before one that only says what.
    """

    rule: str
    sentence: str
    evidence: dict[str, Any]
    confidence: float
    action: str
    code: str = ""
    fingerprints: tuple[str, ...] = ()
    changes: dict[str, Any] | None = None
    weight: float = field(default=1.0, repr=False)

    def to_dict(self) -> dict[str, Any]:
        """As values that JSON knows."""
        return asdict(self)


def measure(frame: pd.DataFrame) -> dict[str, Any]:
    """The numbers that every finding has.

    Parameters
    ----------
    frame : pandas.DataFrame
        Failed attempts, see `scalable_nb.telemetry.dataframes.failures_frame`; not empty.

    Returns
    -------
    dict
        ``attempts``, ``tasks``, ``failed_tasks`` (for good), ``example`` (a call); where
        durations are known ``median_s`` and ``longest_s`` of the attempts.
    """
    final = frame[frame["is_final"]]
    durations = frame.loc[frame["duration_s"] >= 0, "duration_s"]
    example = (final if len(final) else frame).iloc[0]
    call = str(example["task_id"] or "no task")
    if example["function_name"]:
        call = f"{example['function_name']}({example['args_preview']})"
    evidence: dict[str, Any] = {
        "attempts": len(frame),
        "tasks": int(frame["task_id"].nunique()),
        "failed_tasks": int(final["task_id"].nunique()),
        "example": one_line(call, 120),
    }
    if len(durations):
        evidence["median_s"] = float(durations.median())
        evidence["longest_s"] = float(durations.max())
    return evidence


def counted(frame: pd.DataFrame, name: str) -> Counter[str]:
    """How often each value of a column occurs, as text to show."""
    counts: Counter[str] = Counter()
    for value, count in frame[name].value_counts().items():
        if value and count:
            counts[one_line(value, 80)] += int(count)
    return counts


def messages(frame: pd.DataFrame) -> list[tuple[str, int]]:
    """Messages, and how often they occur; the most frequent ones."""
    counts = frame["message"].value_counts().head(_MAX_MESSAGES)
    return [(str(text), int(count)) for text, count in counts.items() if count]


def named_in_messages(frame: pd.DataFrame, pattern: str) -> list[str]:
    """What the first group of ``pattern`` finds, the most frequent first; five at most."""
    search = re.compile(pattern).search
    found: Counter[str] = Counter()
    for text, count in messages(frame):
        if match := search(text):
            found[one_line(match[1], 120)] += count
    return [name for name, _ in found.most_common(5)]


def kinds_of(frame: pd.DataFrame) -> tuple[str, ...]:
    """The fingerprints of some failed attempts, the most frequent first."""
    counts = frame["fingerprint"].value_counts()
    return tuple(str(kind) for kind, count in counts.items() if count)


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
