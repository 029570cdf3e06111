"""The table of tasks without a live page: HTML for a saved, exported or printed notebook.

No scripts, no style sheet of its own, below 30 kB however many tasks there are, and
everything is said in words too, because GitHub drops colours and drawings.
"""

from __future__ import annotations

import html
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np

from scalable_nb.telemetry.rows import TaskState
from scalable_nb.widgets.task_table.summary import STATE_ORDER, TableSummary, TaskLine, headline

# Mid tones: read on white and on black.
_COLOURS: Final = {
    TaskState.PENDING: "#a9a4b8",
    TaskState.WAITING: "#b4bac4",
    TaskState.QUEUED: "#9aa5b4",
    TaskState.RUNNING: "#3b82e0",
    TaskState.RETRYING: "#e39a12",
    TaskState.PAUSED: "#9868cf",
    TaskState.SUCCEEDED: "#2fa36b",
    TaskState.CACHED: "#5bb9a9",
    TaskState.FAILED: "#d9434e",
    TaskState.CANCELLED: "#7b8491",
    TaskState.LEFT_OUT: "#b0764c",
    TaskState.NEVER_RAN: "#a3a7ad",
}
_MARKS: Final = {
    TaskState.PENDING: "·",
    TaskState.WAITING: "…",
    TaskState.QUEUED: "○",
    TaskState.RUNNING: "▸",
    TaskState.RETRYING: "↻",
    TaskState.PAUSED: "‖",
    TaskState.SUCCEEDED: "✓",
    TaskState.CACHED: "◆",
    TaskState.FAILED: "✕",
    TaskState.CANCELLED: "⊘",
    TaskState.LEFT_OUT: "⊖",
    TaskState.NEVER_RAN: "◌",
}
# Seen even where few of them are among many.
_LOUD: Final = np.isin(
    np.arange(len(TaskState)),
    [
        TaskState.RUNNING,
        TaskState.RETRYING,
        TaskState.PAUSED,
        TaskState.FAILED,
        TaskState.LEFT_OUT,
        TaskState.CANCELLED,
    ],
)
#: From top to bottom, where a column of the strip stands for many tasks.
_STACK: Final = (
    *reversed(STATE_ORDER[6:]),
    *STATE_ORDER[:2],
    *reversed(STATE_ORDER[2:6]),
)

_STRIP_COLUMNS: Final = 80
_STRIP_ROWS: Final = 6
_CELL: Final = 7  # units of the drawing

_FRAME: Final = "border:1px solid rgba(128,128,128,.35);border-radius:6px;padding:10px 12px"
_FAINT: Final = "opacity:.7"
_CELL_STYLE: Final = "padding:2px 10px 2px 0;text-align:left"


def summary_html(summary: TableSummary) -> str:
    """The table as HTML without scripts, for a saved, exported or printed notebook."""
    at = datetime.fromtimestamp(summary.at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    parts = [
        f"<div><strong>{html.escape(headline(summary), quote=False)}</strong> "
        f'<span style="{_FAINT}">as of {at}</span></div>',
        _bar(summary),
        _legend(summary),
        _strip(summary),
        _table(summary),
    ]
    return f'<div style="{_FRAME}">{"".join(parts)}</div>'


def _bar(summary: TableSummary) -> str:
    total = len(summary.states)
    pieces = "".join(
        f'<div style="width:{100 * count / total:.3f}%;background:{_COLOURS[state]}"></div>'
        for state, count in summary.counts.items()
        if state.is_final or state == TaskState.RUNNING
    )
    return (
        '<div style="display:flex;height:8px;margin:8px 0;border-radius:4px;overflow:hidden;'
        f'background:rgba(128,128,128,.25)">{pieces}</div>'
    )


def _legend(summary: TableSummary) -> str:
    words = [
        f'<span style="color:{_COLOURS[state]}">{_MARKS[state]}</span>&nbsp;{state.label}'
        f"&nbsp;<strong>{count:,}</strong>"
        for state, count in summary.counts.items()
    ]
    return f"<div>{' &nbsp; '.join(words)}</div>"


def _strip(summary: TableSummary) -> str:
    total = len(summary.states)
    if not total:
        return ""
    is_small = total <= _STRIP_COLUMNS * _STRIP_ROWS
    width, height, paths = _cells(summary.states) if is_small else _shares(summary.states)
    drawn = "".join(f'<path fill="{_COLOURS[s]}" d="{d}"/>' for s, d in paths.items() if d)
    return (
        f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" '
        'aria-label="The tasks in their order, coloured by state" '
        f'style="display:block;max-width:100%;margin:8px 0">{drawn}</svg>'
    )


def _cells(states: Any) -> tuple[int, int, dict[TaskState, str]]:
    """Every task as a cell: width, height, and a path for each state."""
    rows = min(_STRIP_ROWS, -(-len(states) // 40))
    size = _CELL - 1
    paths = {
        state: "".join(
            f"M{at // rows * _CELL} {at % rows * _CELL}h{size}v{size}h-{size}z"
            for at in np.flatnonzero(states == state).tolist()
        )
        for state in STATE_ORDER
    }
    return -(-len(states) // rows) * _CELL, rows * _CELL, paths


def _shares(states: Any) -> tuple[int, int, dict[TaskState, str]]:
    """Every column stands for equally many tasks and is divided by their states."""
    height = _STRIP_ROWS * _CELL
    paths = dict.fromkeys(STATE_ORDER, "")
    columns = column_heights(states, _STRIP_COLUMNS, height)
    for column, heights in enumerate(columns.tolist()):
        top = 0
        for state in _STACK:
            if heights[state]:
                paths[state] += f"M{column * _CELL} {top}h{_CELL}v{heights[state]}h-{_CELL}z"
                top += heights[state]
    return len(columns) * _CELL, height, paths


def column_heights(states: Any, max_columns: int, height: int) -> Any:
    """How a strip of many tasks divides its columns.

    Parameters
    ----------
    states : ndarray of uint8
    max_columns, height : int

    Returns
    -------
    ndarray of int, shape (columns, states)
        Each row adds up to ``height``. A state that needs attention has at least 1.
    """
    per_column = -(-len(states) // max_columns)
    owner = np.arange(len(states)) // per_column
    counts = np.zeros((owner[-1] + 1, len(TaskState)), np.int64)
    np.add.at(counts, (owner, states), 1)
    heights = counts * height // counts.sum(axis=1, keepdims=True)
    heights[(counts > 0) & (heights == 0) & _LOUD] = 1
    # What rounding left over, or took too much, belongs to the largest part.
    largest = heights.argmax(axis=1)
    heights[np.arange(len(heights)), largest] += height - heights.sum(axis=1)
    return heights


def _table(summary: TableSummary) -> str:
    if not summary.lines:
        return ""
    names = ("#", "task", "state", "attempt", "worker", "duration", "error")
    head = "".join(f'<th style="{_CELL_STYLE}">{name}</th>' for name in names)
    body = "".join(_table_row(line) for line in summary.lines)
    more = (
        f'<div style="{_FAINT}">… and {summary.hidden:,} more that failed or wait for a retry</div>'
        if summary.hidden
        else ""
    )
    return (
        '<table style="border-collapse:collapse;margin:4px 0;font-size:90%">'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{more}"
    )


def _table_row(line: TaskLine) -> str:
    state = f"{_MARKS[line.state]} {line.state.label}"
    values = (
        line.position, line.label, state, line.attempt, line.worker, line.duration, line.error
    )  # fmt: skip
    texts = [html.escape(str(value), quote=False) for value in values]
    cells = "".join(f'<td style="{_CELL_STYLE}">{text}</td>' for text in texts)
    return f"<tr>{cells}</tr>"
