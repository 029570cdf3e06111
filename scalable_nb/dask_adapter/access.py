"""Keeps other users out: a certificate per session, and HTTP pages under a secret prefix.

A Dask scheduler does not authenticate: anyone who reaches its port may run code as this user. With
a certificate that signs itself and serves every role, only holders of the key file can connect.

Loopback does not separate the users of one machine, and Dask's pages require no password. So they
are under a prefix that cannot be guessed. A prefix alone is not enough: Dask redirects ``/`` to
it and lists it in ``/sitemap.json``.
"""

from __future__ import annotations

import asyncio
import importlib
import secrets
from hashlib import sha256
from pathlib import Path
from typing import Any

from distributed.security import Security
from tornado.web import ErrorHandler

from scalable_nb.dask_adapter.compatibility import DASHBOARD, check
from scalable_nb.dask_adapter.connection_gate import current_gate
from scalable_nb.errors import RunFolderError
from scalable_nb.paths import private_folder, write_private
from scalable_nb.trusted_paths import read_regular

# --- certificates ----------------------------------------------------------------------


def create_security(folder: Path) -> Security:
    """Create a certificate in a private folder and return the settings that contain it."""
    temporary: Any = Security.temporary()
    private_folder(folder)
    cert, key = certificate_files(folder)
    write_private(cert, temporary.tls_ca_file.encode())
    write_private(key, temporary.tls_client_key.encode())
    return load_security(folder)


def certificate_files(folder: Path) -> tuple[Path, Path]:
    """Return the paths of the certificate and the key in a session's folder."""
    return folder / "cert.pem", folder / "key.pem"


def certificate_digest(folder: Path) -> str:
    """Return the SHA-256 of the certificate in a session's folder."""
    return sha256(read_regular(certificate_files(folder)[0])).hexdigest()


def load_security(folder: Path, certificate: str | None = None) -> Security:
    """Read the certificate in a session's folder and return the settings that contain it.

    The files are not read again, so replacing them later changes no connection.

    Parameters
    ----------
    folder : Path
    certificate : str, optional
        The SHA-256 that it must have.

    Raises
    ------
    RunFolderError
        If it is another certificate.
    """
    cert, key = (read_regular(path).decode() for path in certificate_files(folder))
    if certificate is not None and sha256(cert.encode()).hexdigest() != certificate:
        raise RunFolderError(
            f"the certificate in {str(folder)!r} is not that of the session's host: not connected. "
            "The folder was put together from several runs, or changed by someone"
        )
    return Security(
        require_encryption=True,
        tls_ca_file=cert,
        tls_client_cert=cert,
        tls_client_key=key,
        tls_scheduler_cert=cert,
        tls_scheduler_key=key,
        tls_worker_cert=cert,
        tls_worker_key=key,
    )


# --- HTTP pages ------------------------------------------------------------------------


def secret_prefix() -> str:
    """Return a path component with 128 random bits."""
    return f"/s-{secrets.token_hex(16)}"


def confine(server: Any, prefix: str) -> None:
    """Answer 404 for every path outside a prefix, and limit connections that do not know it.

    Parameters
    ----------
    server : Scheduler or Worker
    prefix : str
        With a leading and no trailing slash.
    """
    # No option of Dask removes the redirect and the site map.
    # https://github.com/dask/distributed/blob/2026.8.0/distributed/http/routing.py#L49
    application, gate = server.http_application, current_gate()
    find_handler = application.find_handler
    inside = f"{prefix}/"
    gate.guard_pages(server.http_server)

    def find_confined_handler(request: Any, **kwargs: Any) -> Any:
        if request.path.startswith(inside):
            gate.prove(request.connection.stream)
            return find_handler(request, **kwargs)
        return application.get_handler_delegate(request, ErrorHandler, {"status_code": 404})

    application.find_handler = find_confined_handler


async def open_dashboard(scheduler: Any, prefix: str) -> None:
    """Add Dask's dashboard to a scheduler's pages.

    Its import takes a third of a second, which ``dashboard=True`` would add to the start.
    """
    # https://github.com/dask/distributed/blob/2026.8.0/distributed/dashboard/scheduler.py
    pages = await asyncio.to_thread(importlib.import_module, "distributed.dashboard.scheduler")
    check(DASHBOARD)
    pages.connect(scheduler.http_application, scheduler.http_server, scheduler, prefix=prefix)
    _use_relative_scripts(scheduler.http_application.applications[-1])


def _use_relative_scripts(dashboard: Any) -> None:
    """Name a dashboard's scripts relative to its pages.

    Bokeh (3.x) names ``/prefix/static/...`` if there is a prefix, which leads nowhere behind a
    proxy such as JupyterHub's that adds another.
    """
    absolute = dashboard.resources()
    relative = type(absolute)(
        mode=absolute.mode, root_url="", path_versioner=absolute.path_versioner
    )
    dashboard.resources = lambda absolute_url=None: relative
