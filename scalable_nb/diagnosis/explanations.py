"""What a cause that is known by name means, for all failed attempts that are its own.

Each function takes the name of the rule and the attempts, and gives the sentence, the numbers
behind it, and what to do.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Final

from scalable_nb.diagnosis.findings import (
    Finding,
    after,
    counted,
    kinds_of,
    listed,
    measure,
    messages,
    named_in_messages,
    who,
)

if TYPE_CHECKING:
    import pandas as pd

#: Of causes that only say what, not why.
_GENERIC: Final = 0.5

_ALLOCATION: Final = re.compile(r"(?i)allocate\s+([\d.]+)\s*([kmgt])i?b")
_UNITS: Final = {"k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12}
_REFUSED: Final = re.compile(
    r"\b(429|50[0234])\b|rate.?limit|too many requests|service unavailable", re.IGNORECASE
)


def out_of_memory(rule: str, frame: pd.DataFrame) -> Finding:
    """The work needs more memory than its worker has."""
    evidence = measure(frame)
    wanted: list[float] = []
    having = ""
    limit, peak = frame["memory_limit_bytes"].max(), frame["memory_bytes"].max()
    if limit > 0:
        evidence["memory_limit_bytes"] = int(limit)
        having = f" of {limit / 1e9:.3g} GB"
        wanted.append(2 * limit)
    if peak > 0:
        evidence["peak_bytes"] = int(peak)
        having += f" (it had {peak / 1e9:.3g} GB when it ended)"
        wanted.append(1.5 * peak)
    found = (_ALLOCATION.search(text) for text, _ in messages(frame))
    if sizes := [float(match[1]) * _UNITS[match[2].lower()] for match in found if match]:
        evidence["allocation_bytes"] = int(max(sizes))
        wanted.append(1.5 * max(sizes) + max(0.0, limit if limit > 0 else 0.0))
    component = next(iter(counted(frame, "component")), "")
    where = f"component `{component}`" if component else "the component"
    changes, code, more = None, "", ""
    if wanted:
        gigabytes = max(1, math.ceil(max(wanted) / 1e9))
        changes = {"memory": f"{gigabytes}G"}
        evidence["memory_to_ask_for"] = f"{gigabytes}G"
        code = f"resubmit(futures, only={_classes(frame)}, memory='{gigabytes}G')"
        more = f" (e.g. `memory: {gigabytes}G`), or for these alone `{code}`"
    return Finding(
        rule,
        f"{who(evidence)} ran out of memory{after(evidence)}: the work needs more than the "
        f"worker's memory{having}. A retry on an equal worker will not help.",
        evidence,
        0.95,
        f"Raise `memory` of {where} in scalable.yaml{more}; or find out why these need more memory "
        "than the others.",
        code,
        kinds_of(frame),
        changes,
    )


def disk_full(rule: str, frame: pd.DataFrame) -> Finding:
    """The disk is full, or the quota used up."""
    evidence = measure(frame)
    hosts = evidence["hosts"] = [name for name, _ in counted(frame, "host").most_common(5)]
    on = f" on {listed(hosts)}" if hosts else ""
    return _fixed_by(
        rule,
        frame,
        evidence,
        f"{who(evidence)} could not write: the disk{on} is full, or the quota is used up.",
        "Make room there (`!df -h`, `!quota -s`) or write to another folder, then "
        "`resubmit(futures)`.",
        0.95,
        weight=2.5,  # also where it is the disk of one node
    )


def timeout(rule: str, frame: pd.DataFrame) -> Finding:
    """The attempt hit its time limit."""
    evidence = measure(frame)
    limit = evidence.get("longest_s", 0.0)
    at = f" at {limit:.0f} s" if limit >= 1 else ""
    longer = round(max(1, 2 * limit)) if limit else 600
    code = f"resubmit(futures, timeout_s={longer})"
    return Finding(
        rule,
        f"{who(evidence)} hit the time limit{at}: stopped, not broken. Either the work is slower "
        "than the limit allows, or it hangs.",
        evidence,
        0.95,
        f"`{code}` allows more (or raise `timeout` of the task in scalable.yaml; on a cluster also "
        "`walltime`); or split the task, or find out why it is slow.",
        code,
        kinds_of(frame),
        {"timeout_s": float(longer)},
    )


def walltime(rule: str, frame: pd.DataFrame) -> Finding:
    """The job's walltime ended."""
    evidence = measure(frame)
    longest = evidence.get("longest_s", 0.0)
    minutes = math.ceil(2 * longest / 60) if longest else 0
    more = f' (e.g. `walltime: "{minutes // 60:02d}:{minutes % 60:02d}:00"`)' if minutes else ""
    return _fixed_by(
        rule,
        frame,
        evidence,
        f"{who(evidence)} lost the worker at the end of its job's walltime{after(evidence)}: "
        "stopped, not broken.",
        f"Raise `walltime` of the target in scalable.yaml{more} and start it again, or split the "
        "task; then `resubmit(futures)`.",
        0.95,
    )


def preempted(rule: str, frame: pd.DataFrame) -> Finding:
    """The batch system took the job for others' work."""
    evidence = measure(frame)
    jobs = evidence["jobs"] = len(counted(frame, "job_id") or counted(frame, "worker"))
    times = frame["timestamp"].dropna()
    span_s = (times.max() - times.min()).total_seconds() if len(times) else 0.0
    evidence["span_s"] = round(span_s, 1)
    when = f" between {times.min():%H:%M:%S} and {times.max():%H:%M:%S} UTC" if len(times) else ""
    return _fixed_by(
        rule,
        frame,
        evidence,
        f"{who(evidence)} lost the worker because the batch system took {jobs:,} of the jobs for "
        f"others' work{when}. Nothing is wrong with the tasks.",
        "`resubmit(futures)` runs again what is missing; keep results with `cache: true`, or use a "
        "partition that is not preempted.",
        0.95,
    )


def missing_module(rule: str, frame: pd.DataFrame) -> Finding:
    """A module is not there on the worker."""
    evidence = measure(frame)
    modules = evidence["modules"] = named_in_messages(frame, r"No module named ['\"]?([\w.]+)")
    install = modules[0].partition(".")[0] if modules else "NAME"
    return _fixed_by(
        rule,
        frame,
        evidence,
        f"{who(evidence)} could not import {listed(modules) or 'a module'} on the worker. It may "
        "be there in the notebook; what counts is the worker's environment.",
        f"Install it where the workers run (`%pip install {install}` on the local target, else the "
        "container image of the component), start the target again (`%scalable stop`, "
        "`%scalable start`) and submit these calls anew.",
        0.95,
        code=f"%pip install {install}",
    )


def missing_file(rule: str, frame: pd.DataFrame) -> Finding:
    """A file is not there on the worker."""
    evidence = measure(frame)
    files = evidence["files"] = named_in_messages(
        frame, r"No such file or directory: ['\"]([^'\"\n]+)['\"]"
    )
    return _fixed_by(
        rule,
        frame,
        evidence,
        f"{who(evidence)} did not find {listed(files) or 'a file'}: the path is wrong, the file "
        "was never made, or the worker's machine does not see that folder.",
        "Where only the file was missing, put it there and `resubmit(futures)`. Else correct the "
        "path (an absolute one is surest) or the `mounts` of the component, and submit these "
        "calls anew.",
        0.9,
    )


def permission(rule: str, frame: pd.DataFrame) -> Finding:
    """Something may not be read or written."""
    evidence = measure(frame)
    files = evidence["files"] = named_in_messages(
        frame, r"Permission denied: ['\"]([^'\"\n]+)['\"]"
    )
    return _fixed_by(
        rule,
        frame,
        evidence,
        f"{who(evidence)} had no permission for {listed(files) or 'something it needs'}. A retry "
        "will not help.",
        f"See who may do what with `!ls -ld {files[0] if files else 'PATH'}`, mend it or write "
        "elsewhere, then `resubmit(futures)`.",
        0.9,
    )


def network(rule: str, frame: pd.DataFrame) -> Finding:
    """A connection broke, or a service was busy."""
    evidence = measure(frame)
    found = messages(frame)
    refused = sum(count for text, count in found if _REFUSED.search(text))
    evidence["refused_by_service"] = refused
    what = "could not connect, or lost the connection"
    code = "resubmit(futures, retries=3)"
    action = (
        f"Run what failed again: `{code}`. If it stays, check the address, and whether the "
        "workers' machine may reach it."
    )
    if refused * 2 > sum(count for _, count in found):
        what = "met a busy service (rate limit or server error)"
        code = "resubmit(futures, retries=RetryPolicy(5, base_s=5))"
        action = f"Ask less often, with longer waits: `{code}`, or with fewer workers."
    if not evidence["failed_tasks"]:
        code = ""
        action = "Nothing: no task failed for good by it so far, the retries deal with it."
    sentence = f"{who(evidence)} {what}. This is usually temporary."
    return Finding(rule, sentence, evidence, 0.8, action, code, kinds_of(frame), {"retries": 3})


def lost_worker(rule: str, frame: pd.DataFrame) -> Finding:
    """The worker ended, and more is not known."""
    evidence = measure(frame)
    evidence["workers"] = [name for name, _ in counted(frame, "worker").most_common(5)]
    return _fixed_by(
        rule,
        frame,
        evidence,
        f"{who(evidence)} lost the worker while executing: its process ended, or the batch system "
        "took it away. The message of the attempt says what is known.",
        "Run what failed again: `resubmit(futures)`. If the same calls end their worker every "
        "time, the function crashes it: call it alone with these arguments to see.",
        0.7,
        weight=_GENERIC,
    )


def fast_permanent(rule: str, frame: pd.DataFrame) -> Finding:
    """Bad from the start."""
    evidence = measure(frame)
    errors = evidence["errors"] = dict(counted(frame, "failure_class").most_common(5))
    seconds = max(0.1, evidence["median_s"])
    return Finding(
        rule,
        f"{who(evidence)} failed at once (within {seconds:.1f} s) with {listed([*errors])}: the "
        "input, or the code that meets it, is bad from the start. A retry will not help.",
        evidence,
        0.9,
        "Look at the arguments: `futures.failed.to_dataframe()`. Correct the input or the "
        "function, and submit these calls anew; what succeeded need not run again.",
        "futures.failed.to_dataframe()",
        kinds_of(frame),
        weight=_GENERIC,
    )


def permanent(rule: str, frame: pd.DataFrame) -> Finding:
    """An error of the code or its input."""
    evidence = measure(frame)
    errors = evidence["errors"] = dict(counted(frame, "failure_class").most_common(5))
    return Finding(
        rule,
        f"{who(evidence)} failed with {listed([*errors])}{after(evidence)}: an error of the code "
        "or its input, which a retry meets again.",
        evidence,
        0.8,
        "Read the traceback (`%scalable failures`), correct the function, and submit these calls "
        "anew; what succeeded need not run again.",
        "%scalable failures",
        kinds_of(frame),
        weight=_GENERIC,
    )


def _fixed_by(
    rule: str,
    frame: pd.DataFrame,
    evidence: dict[str, object],
    sentence: str,
    action: str,
    confidence: float,
    *,
    code: str = "resubmit(futures)",
    weight: float = 1.0,
) -> Finding:
    """A finding after whose remedy the same calls can run again."""
    return Finding(
        rule, sentence, evidence, confidence, action, code, kinds_of(frame), {}, weight=weight
    )


def _classes(frame: pd.DataFrame) -> list[str]:
    return sorted(counted(frame, "failure_class"))
