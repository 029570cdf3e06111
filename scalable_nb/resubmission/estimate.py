"""What calls have cost so far, which tells what they may cost again."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from scalable_nb.paths import RunPaths


def durations_by_function(rows: Iterable[Mapping[str, Any]]) -> dict[str, tuple[float, int]]:
    """Name of a function -> sum of what its attempts took (s), and their number.

    Parameters
    ----------
    rows : iterable of mappings
        Of ``failures.jsonl`` and ``tasks.jsonl``.
    """
    found: dict[str, tuple[float, int]] = {}
    for row in rows:
        name, duration_s = row.get("function_name"), row.get("duration_s")
        if isinstance(name, str) and isinstance(duration_s, float) and duration_s > 0:
            total_s, count = found.get(name, (0.0, 0))
            found[name] = total_s + duration_s, count + 1
    return found


def cores_of_a_slot(paths: RunPaths) -> float:
    """Cores that a task had for itself, by the plan of the run; one where it does not say."""
    try:
        plan = json.loads(paths.plan_json.read_bytes())
        return float(plan["cores"] / (plan["workers"] * plan["threads_per_worker"]))
    except (OSError, ValueError, KeyError, ZeroDivisionError):
        return 1.0
