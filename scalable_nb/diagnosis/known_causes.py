"""The causes that are known by name: which failures are theirs."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple

from scalable_nb.diagnosis import explanations
from scalable_nb.diagnosis.findings import Finding, Row
from scalable_nb.telemetry.journal_reader import number

if TYPE_CHECKING:
    import pandas as pd

#: A permanent failure faster than this (seconds) was bad from the start.
FAST_FAIL_S: Final = 1.0


class Cause(NamedTuple):
    """A rule: ``matches`` says whether a kind is its own, ``explain`` what all of them mean.

    A kind is one row that stands for others: ``failure_class, category, message, job_state,
    duration_s`` (the median).
    """

    name: str
    matches: Callable[[Row], bool]
    explain: Callable[[str, pd.DataFrame], Finding]


def _has_class(*names: str) -> Callable[[Row], bool]:
    return lambda row: row.get("failure_class") in names


def _has_category(name: str) -> Callable[[Row], bool]:
    return lambda row: row.get("category") == name


def _finds(pattern: str, name: str) -> Callable[[Row], bool]:
    search = re.compile(pattern, re.IGNORECASE).search
    return lambda row: search(str(row.get(name))[:2000]) is not None


_is_connection_error: Final = _finds(
    "Connection|CommClosed|HTTPError|URLError|BrokenPipe|SSLError", "failure_class"
)
# Also numpy's _ArrayMemoryError.
_is_memory_error: Final = _finds("MemoryError|OutOfMemory", "failure_class")
_is_disk_full: Final = _finds("no space left on device|quota exceeded", "message")
_is_import_error: Final = _has_class("ModuleNotFoundError", "ImportError")
_is_time_error: Final = _has_class("TaskTimeoutError", "TimeoutError")
_mentions_walltime: Final = _finds(r"time limit|walltime", "message")
_mentions_preemption: Final = _finds(r"preempt|spot instance|reclaimed", "message")


def _is_unclassified(row: Row) -> bool:
    return row.get("category") in (None, "", "unknown")


def _is_timeout(row: Row) -> bool:
    # One that counts as transient is somebody else's: a socket's, a service's.
    return row.get("category") == "timeout" or (_is_unclassified(row) and _is_time_error(row))


def _is_walltime(row: Row) -> bool:
    is_infrastructure = row.get("category") == "infrastructure"
    return is_infrastructure and (row.get("job_state") == "TIMEOUT" or _mentions_walltime(row))


def _is_preempted(row: Row) -> bool:
    is_infrastructure = row.get("category") == "infrastructure"
    return is_infrastructure and (row.get("job_state") == "PREEMPTED" or _mentions_preemption(row))


def _is_network(row: Row) -> bool:
    return row.get("category") == "transient" or (
        _is_unclassified(row) and _is_connection_error(row)
    )


def _is_fast_permanent(row: Row) -> bool:
    return row.get("category") == "permanent" and 0 <= number(row.get("duration_s")) < FAST_FAIL_S


#: A kind of failure belongs to the first that claims it.
CAUSES: Final[tuple[Cause, ...]] = (
    Cause("out_of_memory", _is_memory_error, explanations.out_of_memory),
    Cause("disk_full", _is_disk_full, explanations.disk_full),
    Cause("timeout", _is_timeout, explanations.timeout),
    Cause(
        "missing_module",
        _has_class("ModuleNotFoundError", "ImportError"),
        explanations.missing_module,
    ),
    Cause("missing_file", _has_class("FileNotFoundError"), explanations.missing_file),
    Cause("permission", _has_class("PermissionError"), explanations.permission),
    Cause("walltime", _is_walltime, explanations.walltime),
    Cause("preempted", _is_preempted, explanations.preempted),
    Cause("lost_worker", _has_category("infrastructure"), explanations.lost_worker),
    Cause("network", _is_network, explanations.network),
    Cause("fast_permanent", _is_fast_permanent, explanations.fast_permanent),
    Cause("permanent", _has_category("permanent"), explanations.permanent),
)
