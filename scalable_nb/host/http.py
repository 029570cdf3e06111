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


async def open_dashboard(scheduler: Any, prefix: str) -> None:
    """Add Dask's dashboard to a scheduler's pages.

    Its import takes a third of a second, which the scheduler's own start would wait for.
    """
    pages = await asyncio.to_thread(importlib.import_module, "distributed.dashboard.scheduler")
    pages.connect(scheduler.http_application, scheduler.http_server, scheduler, prefix=prefix)
    scheduler.http_application.applications[-1].resources = _beside_the_page


def _beside_the_page(absolute_url: Any = None) -> Any:
    """Where a dashboard's page finds its scripts: beside itself.

    Bokeh says ``/prefix/static/...`` (3.x, as soon as there is a prefix), which leads nowhere
    where a proxy such as JupyterHub's put something before the prefix.
    """
    from bokeh.resources import Resources
    from bokeh.server.views.static_handler import StaticHandler

    return Resources(mode="server", root_url="", path_versioner=StaticHandler.append_version)


def secret_prefix() -> str:
    """A path component with 128 random bits."""
    return f"/s-{secrets.token_hex(16)}"


def confine(application: Any, prefix: str) -> None:
    """Answer 404 for every path outside ``prefix``.

    Parameters
    ----------
    application : distributed.http.routing.RoutingApplication
    prefix : str
        With a leading and no trailing slash.
    """
    find_handler = application.find_handler
    inside = f"{prefix}/"

    def find_confined_handler(request: Any, **kwargs: Any) -> Any:
        if request.path.startswith(inside):
            return find_handler(request, **kwargs)
        return application.get_handler_delegate(request, ErrorHandler, {"status_code": 404})

    application.find_handler = find_confined_handler
