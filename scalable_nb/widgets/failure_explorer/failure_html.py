"""The words of the failure explorer, as HTML and as plain text.

Pure functions. Everything that comes from a journal is untrusted and passes `_escaped`
before it meets markup. Colours are those of the notebook's theme, with fallbacks.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from scalable_nb.diagnosis.findings import Finding
from scalable_nb.faults.tracebacks import user_frames_first
from scalable_nb.telemetry.journal_reader import number
from scalable_nb.telemetry.sanitize import one_line, plain_text

if TYPE_CHECKING:
    import pandas as pd

#: A saved notebook keeps this much of an explorer, whatever the errors contain.
MAX_STATIC_CHARS: Final = 29_000
_STATIC_GROUPS: Final = 15
_TRACEBACK_CHARS: Final = 20_000

_FAINT: Final = "color:var(--jp-ui-font-color2,#767676)"
_PRE: Final = (
    "white-space:pre-wrap;overflow-wrap:anywhere;max-height:22em;overflow:auto;margin:4px 0;"
    "padding:6px 8px;border:1px solid var(--jp-border-color2,#bdbdbd);line-height:1.35;"
    "font-size:var(--jp-code-font-size,13px);"
    "font-family:var(--jp-code-font-family,monospace)"
)


def headline(frame: pd.DataFrame, groups: pd.DataFrame) -> str:
    """One sentence: how much failed, and in how many ways."""
    if not len(frame):
        return "Nothing has failed: no attempt of this run has ended with an error yet."
    in_task = frame[frame["task_id"] != ""]
    tasks = in_task["task_id"].nunique()
    final = in_task.loc[in_task["is_final"], "task_id"].nunique()
    return (
        f"{_counted(len(frame), 'failed attempt')} of {_counted(tasks, 'task')}; "
        f"{_counted(final, 'task')} failed for good. {_counted(len(groups), 'kind')} of failure."
    )


def group_label(group: Any) -> str:
    """A line of the list: count, share, class and message of one kind of failure."""
    message = one_line(group.message, 110)
    return f"{group.attempts:,} × ({group.share:.0%})  {one_line(group.failure_class, 50)}" + (
        f": {message}" if message else ""
    )


def head_html(title: str, sentence: str, findings: Sequence[Finding], problems: str = "") -> str:
    """Title, headline, what could not be read, and the diagnosis."""
    parts = [f"<b>{_escaped(title, 120)}</b><br>" if title else "", _escaped(sentence)]
    if problems:
        parts.append(f"<br><span style='{_FAINT}'>{_escaped(problems)}</span>")
    if findings:
        items = "".join(
            f"<li style='margin-top:4px'>{_prose(finding.sentence)}<br>"
            f"<span style='{_FAINT}'>Do ({finding.confidence:.0%} sure): </span>"
            f"{_prose(finding.action)}</li>"
            for finding in findings
        )
        parts.append(f"<ul style='margin:4px 0;padding-left:1.4em'>{items}</ul>")
    return f"<div style='line-height:1.4'>{''.join(parts)}</div>"


def group_html(group: Any, example: Mapping[str, Any]) -> str:
    """One kind of failure: where and when it happened, and an example's traceback.

    Parameters
    ----------
    group : named tuple
        A line of the groups.
    example : mapping
        The whole row that stands for it.
    """
    facts = {
        "Example": _call(example),
        "Attempt": _attempt(example),
        "Tasks": f"{group.tasks:,}, {group.failed_tasks:,} failed for good",
        "Category": one_line(group.category),
        "Workers": _names(group.workers),
        "Hosts": _names(group.hosts),
        "Time": _span(group.first_at, group.last_at),
    }
    lines = "".join(
        f"<div><span style='{_FAINT}'>{name}: </span>{_escaped(value, 300)}</div>"
        for name, value in facts.items()
        if value
    )
    message = plain_text(group.message, 2_000)
    return (
        f"<div style='line-height:1.4'><b>{_escaped(group.failure_class)}</b>{lines}"
        f"{_pre(message) if message else ''}{_traceback_html(example, _TRACEBACK_CHARS)}</div>"
    )


def static_html(
    title: str,
    frame: pd.DataFrame,
    groups: pd.DataFrame,
    findings: Sequence[Finding],
    example: Mapping[str, Any] | None,
) -> str:
    """What a saved or printed notebook shows instead of the widget; bounded in size."""
    sections = [head_html(title, headline(frame, groups), findings)]
    if len(groups):
        sections.append(_groups_html(groups.head(_STATIC_GROUPS).itertuples(), len(groups)))
    if example is not None:
        sections.append(_traceback_html(example, 2_500))
    return "".join(_fitting(sections, MAX_STATIC_CHARS))


def static_text(
    title: str, frame: pd.DataFrame, groups: pd.DataFrame, findings: Sequence[Finding]
) -> str:
    """The same as plain text."""
    lines = [one_line(title, 120)] if title else []
    lines.append(headline(frame, groups))
    lines += [f"  {group_label(group)}" for group in groups.head(_STATIC_GROUPS).itertuples()]
    if len(groups) > _STATIC_GROUPS:
        lines.append(f"  … and {_counted(len(groups) - _STATIC_GROUPS, 'other kind')}")
    for finding in findings:
        lines += [f"- {one_line(finding.sentence, 600)}", f"  {one_line(finding.action, 600)}"]
    return "\n".join(_fitting(lines, MAX_STATIC_CHARS))


def remedy_label(finding: Finding) -> str:
    """The button that does what a finding proposes."""
    changes = ", ".join(f"{name}={value}" for name, value in (finding.changes or {}).items())
    what = finding.rule.replace("_", " ")
    tasks = _counted(finding.evidence["failed_tasks"], "task")
    return f"Resubmit {tasks} ({what})" + (f" with {changes}" if changes else "")


def note_html(text: str) -> str:
    """A word in passing."""
    return f"<div role='status' style='{_FAINT}'>{_escaped(text)}</div>" if text else ""


def log_html(path: str, text: str) -> str:
    """The end of a log."""
    return f"<div style='{_FAINT}'>The end of {_escaped(path)}</div>{_pre(plain_text(text))}"


def outcome_html(text: str, details: str) -> str:
    """What came of a call that was made again."""
    return f"<div style='{_FAINT}'>{_escaped(text)}</div>{_pre(plain_text(details))}"


def problem_html(error: BaseException) -> str:
    """An error of the explorer itself, which would show nowhere else."""
    return (
        "<div role='alert' style='color:var(--jp-error-color0,#b3261e)'>"
        f"{_escaped(f'{type(error).__name__}: {error}', 600)}</div>"
    )


def _groups_html(groups: Iterable[Any], count: int) -> str:
    cell = "text-align:left;padding:2px 8px;vertical-align:top"
    heads = ("attempts", "share", "error", "message", "tasks failed", "workers")
    rows = [
        f"<td style='{cell}'>{group.attempts:,}</td><td style='{cell}'>{group.share:.0%}</td>"
        f"<td style='{cell}'>{_escaped(group.failure_class, 60)}</td>"
        f"<td style='{cell}'>{_escaped(one_line(group.message, 120))}</td>"
        f"<td style='{cell}'>{group.failed_tasks:,} of {group.tasks:,}</td>"
        f"<td style='{cell}'>{_escaped(_names(group.workers, 3), 90)}</td>"
        for group in groups
    ]
    head = "".join(f"<th style='{cell}'>{name}</th>" for name in heads)
    more = f"<div>… and {count - len(rows):,} more</div>" if count > len(rows) else ""
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{more}"


def _attempt(example: Mapping[str, Any]) -> str:
    made, allowed = number(example.get("attempt")), number(example.get("attempts_allowed"))
    seconds = number(example.get("duration_s"))
    counts = f"{made:g} of {max(made, allowed):g}" if made >= 1 and allowed >= 1 else ""
    return counts + (f", {seconds:.3g} s" if seconds >= 0 else "")


def _traceback_html(example: Mapping[str, Any], max_chars: int) -> str:
    if not example.get("traceback"):
        return f"<div style='{_FAINT}'>The journal holds no traceback of it.</div>"
    call = f"<div style='{_FAINT}'>Traceback of {_escaped(_call(example), 200)}</div>"
    return call + _pre(plain_text(user_frames_first(str(example["traceback"])), max_chars))


def _pre(text: str) -> str:
    return f"<pre tabindex='0' style='{_PRE}'>{html.escape(text)}</pre>"


def _call(row: Mapping[str, Any]) -> str:
    if not row.get("function_name"):
        return one_line(row.get("task_id"))
    return f"{one_line(row['function_name'])}({one_line(row.get('args_preview'))})"


def _escaped(value: object, max_chars: int = 600) -> str:
    return html.escape(plain_text(value, max_chars))


def _prose(text: str) -> str:
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", _escaped(one_line(text, 600)))


def _names(names: Sequence[str], most: int = 6) -> str:
    shown = ", ".join(one_line(name, 60) for name in names[:most])
    return shown + (f" and {len(names) - most:,} more" if len(names) > most else "")


def _span(first: Any, last: Any) -> str:
    # NaT, the missing time, is the only one that is not equal to itself.
    if first != first or last != last:
        return ""
    if first == last:
        return f"{first:%Y-%m-%d %H:%M:%S} UTC"
    return f"{first:%Y-%m-%d %H:%M:%S} to {last:%Y-%m-%d %H:%M:%S} UTC"


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def _fitting(parts: Iterable[str], max_chars: int) -> Iterable[str]:
    room = max_chars
    for part in parts:
        room -= len(part) + 1
        if room < 0:
            yield "… (cut)"
            return
        yield part
