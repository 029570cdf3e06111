"""A real Slurm for the tests in this folder, with accounting and without."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from real_slurm import RealSlurm
from sessions import MANIFEST, start

from scalable_nb.devslurm.service import DevSlurm, missing_packages

__all__ = ["start"]

_TARGET = 'slurm: {provider: slurm, max_workers: 2, threads_per_worker: 1, walltime: "00:10:00"}'


def started_slurm(
    factory: pytest.TempPathFactory,
    *,
    accounting: bool,
    enforce_memory: bool = False,
    nodes: int = 4,
) -> Iterator[RealSlurm]:
    """A Slurm while it is in use; without the packages the test is skipped."""
    missing = missing_packages(accounting=accounting)
    if missing:
        pytest.skip(f"Debian packages are missing: apt-get install {' '.join(missing)}")
    instance = DevSlurm(factory.mktemp("slurm"))
    instance.up(
        nodes=nodes, cpus=4, memory_mb=4000, accounting=accounting, enforce_memory=enforce_memory
    )
    yield RealSlurm(instance)
    instance.down(remove=True)


@pytest.fixture(scope="session")
def slurm_instance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealSlurm]:
    """Slurm with accounting, for all tests."""
    yield from started_slurm(tmp_path_factory, accounting=True)


@pytest.fixture(scope="session")
def slurm_plain_instance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealSlurm]:
    """Slurm without accounting, for all tests."""
    yield from started_slurm(tmp_path_factory, accounting=False)


@pytest.fixture
def slurm(slurm_instance: RealSlurm, monkeypatch: pytest.MonkeyPatch) -> Iterator[RealSlurm]:
    """The Slurm that commands and sessions of this test use, empty before and after it."""
    yield from slurm_instance.in_use(monkeypatch)


@pytest.fixture
def slurm_plain(
    slurm_plain_instance: RealSlurm, monkeypatch: pytest.MonkeyPatch
) -> Iterator[RealSlurm]:
    """The same without accounting."""
    yield from slurm_plain_instance.in_use(monkeypatch)


@pytest.fixture(params=["accounting", "plain"])
def any_slurm(request: pytest.FixtureRequest) -> RealSlurm:
    """The test runs twice: with accounting and without."""
    chosen: RealSlurm = request.getfixturevalue(
        "slurm" if request.param == "accounting" else "slurm_plain"
    )
    return chosen


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slurm: RealSlurm) -> Path:
    """A working directory of the test's own, with a manifest for the target `slurm`."""
    monkeypatch.chdir(tmp_path)
    local = "local: {provider: local, max_workers: 2, threads_per_worker: 1}"
    manifest = textwrap.dedent(MANIFEST).replace(local, _TARGET)
    (tmp_path / "scalable.yaml").write_text(manifest)
    return tmp_path
