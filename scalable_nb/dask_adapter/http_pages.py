"""Keeps the HTTP pages of scheduler and workers to those who were told where they are.

Loopback does not separate the users of one machine, and Dask's pages ask for no
password. So they live under a prefix that nobody can guess. A prefix alone is not
enough: Dask redirects ``/`` to it and lists it in ``/sitemap.json``.
"""

from __future__ import annotations

import asyncio
import importlib
import secrets
from typing import Any

from tornado.web import ErrorHandler

from scalable_nb.dask_adapter.compatibility import DASHBOARD, check


async def open_dashboard(scheduler: Any, prefix: str) -> None:
    """Add Dask's dashboard to a scheduler's pages.

    Its import takes a third of a second, which the scheduler's own start would wait for.
    """
    pages = await asyncio.to_thread(importlib.import_module, "distributed.dashboard.scheduler")
    check(DASHBOARD)
    pages.connect(scheduler.http_application, scheduler.http_server, scheduler, prefix=prefix)
    _find_scripts_beside_the_page(scheduler.http_application.applications[-1])


def _find_scripts_beside_the_page(dashboard: Any) -> None:
    """Let a dashboard's pages name their scripts relative to themselves.

    Bokeh (3.x) says ``/prefix/static/...`` as soon as there is a prefix, which leads nowhere
    where a proxy such as JupyterHub's put something before it.
    """
    resources = dashboard.resources()
    beside = type(resources)(
        mode=resources.mode, root_url="", path_versioner=resources.path_versioner
    )
    dashboard.resources = lambda absolute_url=None: beside


def secret_prefix() -> str:
    """A path component with 128 random bits."""
    return f"/s-{secrets.token_hex(16)}"


def confine(server: Any, prefix: str) -> None:
    """Answer 404 for every path outside ``prefix``.

    Parameters
    ----------
    server : Scheduler or Worker
    prefix : str
        With a leading and no trailing slash.
    """
    # No option of Dask hides a page, and its routes cannot be removed.
    # https://github.com/dask/distributed/blob/2026.8.0/distributed/http/routing.py
    application = server.http_application
    find_handler = application.find_handler
    inside = f"{prefix}/"

    def find_confined_handler(request: Any, **kwargs: Any) -> Any:
        if request.path.startswith(inside):
            return find_handler(request, **kwargs)
        return application.get_handler_delegate(request, ErrorHandler, {"status_code": 404})

    application.find_handler = find_confined_handler
