"""Why a job may run without any worker of it reaching the scheduler, from what it printed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

#: In the order in which they are tried: what names its cause before what only follows from it.
_RULES: Final = (
    (
        r"No module named '?(?P<what>[\w.]+)",
        "the Python of the job has no package {what!r}: activate the right environment in "
        "`job_script_prologue:`, or name its interpreter with `python:`",
    ),
    (
        r"(?P<what>\S+): (?:command )?not found|(?P<file>\S*python\S*): No such file or directory",
        "{what!r} is not there on the node: load its module or activate the environment in "
        "`job_script_prologue:`",
    ),
    (
        r"(?:cert|key)\.pem|FileNotFoundError.*\.pem",
        "the node cannot read the session's TLS files: the run folder has to lie on a file "
        "system that all nodes share (SCALABLE_RUNS_DIR)",
    ),
    (
        r"'?(?P<what>[\w.-]+)'? is not a valid network interface",
        "the node has no network interface {what!r}: name one that login and compute nodes "
        "have with `interface:`",
    ),
    (
        r"[Tt]imed out|Connection refused|ConnectionRefused|No route to host|"
        r"Network is unreachable",
        "the node cannot reach the scheduler: it listens on an interface that the nodes do not "
        "see (`interface:`), or a firewall is between them",
    ),
    (
        r"Permission denied",
        "a file that the job needs may not be read or run on the node",
    ),
)

_SILENT: Final = (
    "the job has not printed anything: its prologue may still be loading modules, or wait for a "
    "slow file system"
)


def likely_cause(lines: Sequence[str]) -> str | None:
    """The most likely cause in words; None where the output fits no rule.

    Parameters
    ----------
    lines : sequence of str
        The end of the job's output.

    Examples
    --------
    >>> likely_cause(["ModuleNotFoundError: No module named 'distributed'"])[:46]
    "the Python of the job has no package 'distribu"
    """
    if not any(line.strip() for line in lines):
        return _SILENT
    text = "\n".join(lines)
    for pattern, cause in _RULES:
        found = re.search(pattern, text)
        if found:
            groups = found.groupdict()
            return cause.format(what=groups.get("what") or groups.get("file"))
    return None
