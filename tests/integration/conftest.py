"""Sessions on the local target."""

from __future__ import annotations

from collections.abc import Iterator

import dask
import pytest
from dask_twins import Twins
from distributed import Client, LocalCluster
from histories import here
from sessions import folder, shared_session, start

from scalable_nb import ScalableSession

__all__ = ["folder", "here", "same", "shared_session", "start"]


@pytest.fixture(scope="module")
def same(
    shared_session: ScalableSession, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Twins]:
    """Runs a case with plain Dask and with the shared session, and wants the same outcome."""
    with (
        # As in our host: otherwise a worker that is restarted twice may be gone for good.
        dask.config.set({"distributed.deploy.lost-worker-timeout": "1000 days"}),
        LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            resources={"slots": 1},
            dashboard_address="127.0.0.1:0",
            local_directory=str(tmp_path_factory.mktemp("plain")),
        ) as cluster,
        Client(cluster, set_as_default=False) as plain,
    ):
        yield Twins(plain, shared_session.client)
