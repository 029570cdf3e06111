"""The two who are compared: a session of ours, and what one would write without us."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from pathlib import Path

from distributed import Client, LocalCluster, SubprocessCluster

from scalable_nb import ScalableSession

WORKERS = 2
MANIFEST = f"""
version: 1
project: {{name: benchmark}}
targets:
  local: {{provider: local, max_workers: {WORKERS}, threads_per_worker: 1}}
components:
  default: {{}}
"""


@contextmanager
def our_session() -> Iterator[ScalableSession]:
    """A session with all its workers, in a folder that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder, chdir(folder):
        Path("scalable.yaml").write_text(MANIFEST)
        with ScalableSession.from_yaml() as live:
            live.client.wait_for_workers(WORKERS)
            yield live


@contextmanager
def plain_client() -> Iterator[Client]:
    """Plain Dask with as many workers."""
    with (
        LocalCluster(
            n_workers=WORKERS,
            threads_per_worker=1,
            dashboard_address="127.0.0.1:0",
            silence_logs=logging.CRITICAL,  # what its workers say when it closes
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client


@contextmanager
def plain_client_apart() -> Iterator[Client]:
    """Plain Dask whose scheduler is a process of its own, as ours is."""
    with (
        SubprocessCluster(
            n_workers=WORKERS,
            threads_per_worker=1,
            dashboard_address="127.0.0.1:0",
            silence_logs=logging.CRITICAL,
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client
