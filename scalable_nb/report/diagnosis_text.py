"""The diagnosis of a run in words, for a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, Final

from scalable_nb.diagnosis.findings import Finding
from scalable_nb.telemetry.sanitize import one_line

_WIDTH: Final = 88
#: Of the evidence, what stands in the sentence already.
_SAID: Final = ("example", "tasks")


def diagnosis_text(run_id: str, findings: Sequence[Finding]) -> str:
    """Findings with their numbers, confidence and what to do."""
    if not findings:
        return f"Run {run_id}: nothing to diagnose, no attempt failed for a known cause."
    lines = [f"Run {run_id}: {_counted(len(findings))}, the costliest first"]
    for place, finding in enumerate(findings, start=1):
        sure = f"({finding.rule.replace('_', ' ')}, {finding.confidence:.0%} sure)"
        indent = " " * len(f"{place}. ")
        lines += ["", *_wrapped(f"{place}. {_plain(finding.sentence)} {sure}", indent)]
        lines += _wrapped(f"{indent}Numbers: {_numbers(finding.evidence)}", indent + "  ")
        lines += _wrapped(f"{indent}Do: {_plain(finding.action)}", indent + "  ")
        if finding.code:
            lines.append(f"{indent}Code: {one_line(finding.code)}")
    return "\n".join(lines)


def _wrapped(text: str, indent: str) -> list[str]:
    return textwrap.wrap(
        text, _WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def _plain(text: str) -> str:
    return one_line(text, 1_000)


def _numbers(evidence: Mapping[str, Any]) -> str:
    shown = []
    for name, value in evidence.items():
        if name in _SAID or value in ("", [], {}):
            continue
        words = f"{value:.4g}" if isinstance(value, float) else one_line(value, 80)
        shown.append(f"{name.replace('_', ' ')} {words}")
    return ", ".join(shown)


def _counted(count: int) -> str:
    return "1 finding" if count == 1 else f"{count:,} findings"
