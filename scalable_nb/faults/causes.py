"""The causes that are known by name: which attempts are theirs, and what they mean."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from scalable_nb.faults.findings import (
    Finding,
    Row,
    after,
    counted,
    listed,
    measure,
    named_in_messages,
    who,
)
from scalable_nb.telemetry.reader import number

#: A permanent failure faster than this (seconds) was bad from the start.
FAST_FAIL_S: Final = 1.0


class Cause(NamedTuple):
    """A rule: ``claims`` says whether an attempt is its own, ``explain`` what all of them mean."""

    name: str
    claims: Callable[[Row], bool]
    explain: Callable[[str, Sequence[Row]], Finding]


def _out_of_memory(rule: str, rows: Sequence[Row]) -> Finding:
    evidence = measure(rows)
    limits = [n for row in rows if (n := number(row.get("memory_limit_bytes"))) > 0]
    having, more = "", ""
    if limits:
        limit = evidence["memory_limit_bytes"] = int(max(limits))
        having = f" of {limit / 1e9:.3g} GB"
        more = f" (e.g. `memory: {max(1, round(2 * limit / 1e9))}G`)"
    component = next(iter(counted(rows, "component")), "")
    where = f"component `{component}`" if component else "the component"
    return Finding(
        rule,
        f"{who(evidence)} ran out of memory{after(evidence)}: the work needs more than the "
        f"worker's memory{having}. A retry on an equal worker will not help.",
        evidence,
        0.95,
        f"Raise `memory` of {where} in scalable.yaml{more}, start the target again "
        "(`%scalable stop`, `%scalable start`) and submit these calls anew; or find out why they "
        "need more memory than the others.",
    )


def _disk_full(rule: str, rows: Sequence[Row]) -> Finding:
    evidence = measure(rows)
    hosts = evidence["hosts"] = [name for name, _ in counted(rows, "host").most_common(5)]
    on = f" on {listed(hosts)}" if hosts else ""
    return Finding(
        rule,
        f"{who(evidence)} could not write: the disk{on} is full, or the quota is used up.",
        evidence,
        0.95,
        "Make room there (`!df -h`, `!quota -s`) or write to another folder, then "
        "`resubmit(futures)`.",
    )


def _timeout(rule: str, rows: Sequence[Row]) -> Finding:
    evidence = measure(rows)
    limit = evidence.get("longest_s", 0.0)
    at = f" at {limit:.0f} s" if limit >= 1 else ""
    longer = f"{max(1, 2 * limit):.0f}" if limit else "600"
    return Finding(
        rule,
        f"{who(evidence)} hit the time limit{at}: stopped, not broken. Either the work is slower "
        "than the limit allows, or it hangs.",
        evidence,
        0.95,
        f"`resubmit(futures, timeout_s={longer})` allows more (or raise `timeout` of the task in "
        "scalable.yaml; on a cluster also `walltime`); or split the task, or find out why it is "
        "slow.",
    )


def _missing_module(rule: str, rows: Sequence[Row]) -> Finding:
    evidence = measure(rows)
    modules = evidence["modules"] = named_in_messages(rows, r"No module named ['\"]?([\w.]+)")
    install = modules[0].partition(".")[0] if modules else "NAME"
    return Finding(
        rule,
        f"{who(evidence)} could not import {listed(modules) or 'a module'} on the worker. It may "
        "be there in the notebook; what counts is the worker's environment.",
        evidence,
        0.95,
        f"Install it where the workers run (`%pip install {install}` on the local target, else the "
        "container image of the component), start the target again (`%scalable stop`, "
        "`%scalable start`) and submit these calls anew.",
    )


def _missing_file(rule: str, rows: Sequence[Row]) -> Finding:
    evidence = measure(rows)
    files = evidence["files"] = named_in_messages(
        rows, r"No such file or directory: ['\"]([^'\"\n]+)['\"]"
    )
    return Finding(
        rule,
        f"{who(evidence)} did not find {listed(files) or 'a file'}: the path is wrong, the file "
        "was never made, or the worker's machine does not see that folder.",
        evidence,
        0.9,
        "Where only the file was missing, put it there and `resubmit(futures)`. Else correct the "
        "path (an absolute one is surest) or the `mounts` of the component, and submit these "
        "calls anew.",
    )


def _permission(rule: str, rows: Sequence[Row]) -> Finding:
    evidence = measure(rows)
    files = evidence["files"] = named_in_messages(rows, r"Permission denied: ['\"]([^'\"\n]+)['\"]")
    return Finding(
        rule,
        f"{who(evidence)} had no permission for {listed(files) or 'something it needs'}. A retry "
        "will not help.",
        evidence,
        0.9,
        f"See who may do what with `!ls -ld {files[0] if files else 'PATH'}`, mend it or write "
        "elsewhere, then `resubmit(futures)`.",
    )


def _network(rule: str, rows: Sequence[Row]) -> Finding:
    evidence = measure(rows)
    refused = evidence["refused_by_service"] = sum(map(_is_refused, rows))
    what = "could not connect, or lost the connection"
    action = (
        "Run what failed again: `resubmit(futures, retries=3)`. If it stays, check the address, "
        "and whether the workers' machine may reach it."
    )
    if refused * 2 > len(rows):
        what = "met a busy service (rate limit or server error)"
        action = (
            "Ask less often, with longer waits: `resubmit(futures, retries=RetryPolicy(5, "
            "base_s=5))`, or with fewer workers."
        )
    if not evidence["failed_tasks"]:
        action = "Nothing: no task failed for good by it so far, the retries deal with it."
    return Finding(
        rule, f"{who(evidence)} {what}. This is usually temporary.", evidence, 0.8, action
    )


def _lost_worker(rule: str, rows: Sequence[Row]) -> Finding:
    evidence = measure(rows)
    evidence["workers"] = [name for name, _ in counted(rows, "worker").most_common(5)]
    return Finding(
        rule,
        f"{who(evidence)} lost the worker while executing: its process ended, or the batch system "
        "took it away. The message of the attempt says what is known.",
        evidence,
        0.7,
        "Run what failed again: `resubmit(futures)`. If the same calls end their worker every "
        "time, the function crashes it: call it alone with these arguments to see.",
    )


def _fast_permanent(rule: str, rows: Sequence[Row]) -> Finding:
    evidence = measure(rows)
    errors = evidence["errors"] = dict(counted(rows, "failure_class").most_common(5))
    seconds = max(0.1, evidence["median_s"])
    return Finding(
        rule,
        f"{who(evidence)} failed at once (within {seconds:.1f} s) with {listed([*errors])}: the "
        "input, or the code that meets it, is bad from the start. A retry will not help.",
        evidence,
        0.9,
        "Look at the arguments: `futures.failed.to_dataframe()`. Correct the input or the "
        "function, and submit these calls anew; what succeeded need not run again.",
    )


def _permanent(rule: str, rows: Sequence[Row]) -> Finding:
    evidence = measure(rows)
    errors = evidence["errors"] = dict(counted(rows, "failure_class").most_common(5))
    return Finding(
        rule,
        f"{who(evidence)} failed with {listed([*errors])}{after(evidence)}: an error of the code "
        "or its input, which a retry meets again.",
        evidence,
        0.8,
        "Read the traceback (`%scalable failures`), correct the function, and submit these calls "
        "anew; what succeeded need not run again.",
    )


def _has_class(*names: str) -> Callable[[Row], bool]:
    return lambda row: row.get("failure_class") in names


def _has_category(name: str) -> Callable[[Row], bool]:
    return lambda row: row.get("category") == name


def _finds(pattern: str, name: str) -> Callable[[Row], bool]:
    search = re.compile(pattern, re.IGNORECASE).search
    return lambda row: search(str(row.get(name))[:2000]) is not None


_is_refused: Final = _finds(
    r"\b(429|50[0234])\b|rate.?limit|too many requests|service unavailable", "message"
)
_is_connection_error: Final = _finds(
    "Connection|CommClosed|HTTPError|URLError|BrokenPipe|SSLError", "failure_class"
)
# Also numpy's _ArrayMemoryError.
_is_memory_error: Final = _finds("MemoryError|OutOfMemory", "failure_class")
_is_disk_full: Final = _finds("no space left on device|quota exceeded", "message")
_is_time_error: Final = _has_class("TaskTimeoutError", "TimeoutError")


def _is_unclassified(row: Row) -> bool:
    return row.get("category") in (None, "", "unknown")


def _is_timeout(row: Row) -> bool:
    # One that counts as transient is somebody else's: a socket's, a service's.
    return row.get("category") == "timeout" or (_is_unclassified(row) and _is_time_error(row))


def _is_network(row: Row) -> bool:
    return row.get("category") == "transient" or (
        _is_unclassified(row) and _is_connection_error(row)
    )


def _is_fast_permanent(row: Row) -> bool:
    return row.get("category") == "permanent" and 0 <= number(row.get("duration_s")) < FAST_FAIL_S


#: An attempt belongs to the first that claims it.
CAUSES: Final[tuple[Cause, ...]] = (
    Cause("out_of_memory", _is_memory_error, _out_of_memory),
    Cause("disk_full", _is_disk_full, _disk_full),
    Cause("timeout", _is_timeout, _timeout),
    Cause("missing_module", _has_class("ModuleNotFoundError", "ImportError"), _missing_module),
    Cause("missing_file", _has_class("FileNotFoundError"), _missing_file),
    Cause("permission", _has_class("PermissionError"), _permission),
    Cause("lost_worker", _has_category("infrastructure"), _lost_worker),
    Cause("network", _is_network, _network),
    Cause("fast_permanent", _is_fast_permanent, _fast_permanent),
    Cause("permanent", _has_category("permanent"), _permanent),
)
