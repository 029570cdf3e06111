"""The card of a session: what runs where, and where to look further."""

from __future__ import annotations

import html
import os
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from dask.utils import format_bytes

from scalable_nb.faults.brake import pause_text
from scalable_nb.targets.jobstate import jobs_text

if TYPE_CHECKING:
    from scalable_nb.status import SessionStatus

_FRAME: Final = "border:1px solid rgba(128,128,128,.35);border-radius:6px;padding:10px 12px"
_NAME_CELL: Final = "text-align:left;vertical-align:top;padding:1px 14px 1px 0;opacity:.7"
_VALUE_CELL: Final = "text-align:left;padding:1px 0"


def dashboard_url(link: str, environ: Mapping[str, str] | None = None) -> str:
    """The address at which a person's browser reaches the dashboard.

    Parameters
    ----------
    link : str
        As the scheduler gives it, e.g. ``http://127.0.0.1:40123/3f1c/status``.
    environ : mapping, optional
        Behind JupyterHub, ``JUPYTERHUB_SERVICE_PREFIX`` leads through jupyter-server-proxy,
        because the browser is on another machine.

    Returns
    -------
    str
        Empty where there is no dashboard.
    """
    prefix = (os.environ if environ is None else environ).get("JUPYTERHUB_SERVICE_PREFIX")
    parts = urlsplit(link)
    if not prefix or not parts.port:
        return link
    return f"{prefix.rstrip('/')}/proxy/{parts.port}{parts.path}"


def card_bundle(status: SessionStatus) -> dict[str, Any]:
    """The card as HTML and as text."""
    return {"text/plain": card_text(status), "text/html": card_html(status)}


def card_text(status: SessionStatus) -> str:
    """The card as plain text."""
    lines = [_title(status)]
    lines += [f"  {name + ':':<12}{value}" for name, value in _facts(status).items()]
    return "\n".join(lines)


def card_html(status: SessionStatus) -> str:
    """The card as HTML without scripts."""
    rows = "".join(
        f'<tr><th style="{_NAME_CELL};font-weight:normal">{name}</th>'
        f'<td style="{_VALUE_CELL}">{_value_html(name, value)}</td></tr>'
        for name, value in _facts(status).items()
    )
    return (
        f'<div style="{_FRAME}"><div><strong>{html.escape(_title(status))}</strong></div>'
        f'<table style="border-collapse:collapse;margin:6px 0 0">{rows}</table></div>'
    )


def _title(status: SessionStatus) -> str:
    return f"Session on target {status.target!r}: {status.state}"


def _facts(status: SessionStatus) -> dict[str, str]:
    counts = ", ".join(f"{count:,} {state}" for state, count in status.counts.items() if count)
    facts = {
        "workers": _workers(status.workers),
        "jobs": jobs_text(status.jobs),
        "memory": _memory(status.workers),
        "used": f"{status.core_hours:.3g} core-hours" if status.core_hours else "",
        "tasks": counts or "none yet",
        "paused": "; ".join(map(pause_text, status.pauses)),
        "dashboard": dashboard_url(status.dashboard_text),
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


def _value_html(name: str, value: str) -> str:
    text = html.escape(value)
    if name == "dashboard" and value.startswith(("http://", "https://", "/")):
        return f'<a href="{text}" target="_blank" rel="noopener">{text}</a>'
    return text
