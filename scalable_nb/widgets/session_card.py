"""The card of a session: what runs where, and where to look further."""

from __future__ import annotations

import html
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from dask.utils import format_bytes

from scalable_nb.batch_system.job_state import jobs_text
from scalable_nb.faults.circuit_breaker import pause_text
from scalable_nb.session.status import DASHBOARD_CALL

if TYPE_CHECKING:
    from scalable_nb.session.status import SessionStatus

_FRAME: Final = "border:1px solid rgba(128,128,128,.35);border-radius:6px;padding:10px 12px"
_NAME_CELL: Final = "text-align:left;vertical-align:top;padding:1px 14px 1px 0;opacity:.7"
_VALUE_CELL: Final = "text-align:left;padding:1px 0"


def card_text(status: SessionStatus, dashboard: str = DASHBOARD_CALL) -> str:
    """The card as plain text; ``dashboard`` is what stands for the dashboard's link."""
    lines = [card_title(status)]
    lines += [f"  {name + ':':<12}{value}" for name, value in card_facts(status, dashboard).items()]
    return "\n".join(lines)


def card_html(status: SessionStatus) -> str:
    """The card as HTML without scripts, and without the dashboard's link."""
    rows = "".join(
        f'<tr><th style="{_NAME_CELL};font-weight:normal">{name}</th>'
        f'<td style="{_VALUE_CELL}">{html.escape(value)}</td></tr>'
        for name, value in card_facts(status).items()
    )
    return (
        f'<div style="{_FRAME}"><div><strong>{html.escape(card_title(status))}</strong></div>'
        f'<table style="border-collapse:collapse;margin:6px 0 0">{rows}</table></div>'
    )


def card_title(status: SessionStatus) -> str:
    """The line above the facts."""
    return f"Session on target {status.target!r}: {status.state}"


def card_facts(status: SessionStatus, dashboard: str = DASHBOARD_CALL) -> dict[str, str]:
    """What the card says, name to value."""
    counts = ", ".join(f"{count:,} {state}" for state, count in status.counts.items() if count)
    facts = {
        "workers": _workers(status.workers),
        "jobs": jobs_text(status.jobs),
        "memory": _memory(status.workers),
        "used": f"{status.core_hours:.3g} core-hours" if status.core_hours >= 0.01 else "",
        "tasks": counts or "none yet",
        "paused": "; ".join(map(pause_text, status.pauses)),
        "dashboard": f"{status.dashboard_way}{dashboard}" if status.dashboard_link else "",
        "run folder": str(status.folder),
        "host": status.host_text,
    }
    return {name: value for name, value in facts.items() if value}


def _workers(workers: list[dict[str, Any]]) -> str:
    """Workers by component and state."""
    if not workers:
        return "none yet"
    threads = sum(worker["threads"] for worker in workers)
    kinds: dict[str, Counter[str]] = {}
    for worker in workers:
        states = kinds.setdefault(str(worker.get("component") or ""), Counter())
        states[str(worker["state"])] += 1
    parts = [
        f"{kind + ': ' if kind else ''}{states.total()} "
        f"({', '.join(f'{count} {state}' for state, count in states.items())})"
        for kind, states in sorted(kinds.items())
    ]
    return f"{', '.join(parts)}, {threads} thread{'' if threads == 1 else 's'}"


def _memory(workers: list[dict[str, Any]]) -> str:
    used = sum(worker["memory_bytes"] or 0 for worker in workers)
    limit = sum(worker["memory_limit_bytes"] or 0 for worker in workers)
    if not used:
        return ""
    return f"{format_bytes(used)}{f' of {format_bytes(limit)}' if limit else ''} used"
