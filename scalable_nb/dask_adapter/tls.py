"""One certificate per session: whoever cannot read its folder cannot connect."""

from __future__ import annotations

from pathlib import Path

from distributed.security import Security

from scalable_nb.paths import private_folder, write_private


def create_security(folder: Path) -> Security:
    """Make a fresh certificate, keep it in a private folder, and return its use.

    A Dask scheduler authenticates nobody: anyone who reaches its port may run code as
    this user. With a certificate that signs itself and serves every role, only holders
    of the key file can speak to scheduler and workers.
    """
    temporary = Security.temporary()
    private_folder(folder)
    write_private(folder / "cert.pem", temporary.tls_ca_file.encode())
    write_private(folder / "key.pem", temporary.tls_client_key.encode())
    return load_security(folder)


def load_security(folder: Path) -> Security:
    """The use of a session's certificate, from its folder."""
    cert, key = str(folder / "cert.pem"), str(folder / "key.pem")
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
