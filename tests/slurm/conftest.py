"""A real Slurm for the tests in this folder, with accounting and without."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from real_slurm import RealSlurm, started_slurm
from sessions import MANIFEST, start

from scalable_nb import ScalableSession

__all__ = ["start"]

_TARGET = 'slurm: {provider: slurm, max_workers: 2, threads_per_worker: 1, walltime: "00:10:00"}'


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


@pytest.fixture(scope="session")
def strict_instance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealSlurm]:
    """Slurm with accounting that kills jobs which use more memory than they asked for."""
    yield from started_slurm(tmp_path_factory, accounting=True, enforce_memory=True, nodes=1)


@pytest.fixture(scope="session")
def strict_plain_instance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealSlurm]:
    """The same without accounting."""
    yield from started_slurm(tmp_path_factory, accounting=False, enforce_memory=True, nodes=1)


@pytest.fixture
def strict_slurm(
    strict_instance: RealSlurm, monkeypatch: pytest.MonkeyPatch
) -> Iterator[RealSlurm]:
    """The Slurm of this test kills jobs for their memory."""
    yield from strict_instance.in_use(monkeypatch)


@pytest.fixture
def strict_slurm_plain(
    strict_plain_instance: RealSlurm, monkeypatch: pytest.MonkeyPatch
) -> Iterator[RealSlurm]:
    """The same without accounting."""
    yield from strict_plain_instance.in_use(monkeypatch)


@pytest.fixture(params=["accounting", "plain"])
def any_strict_slurm(request: pytest.FixtureRequest) -> RealSlurm:
    """The test runs twice: with accounting and without."""
    chosen: RealSlurm = request.getfixturevalue(
        "strict_slurm" if request.param == "accounting" else "strict_slurm_plain"
    )
    return chosen


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slurm: RealSlurm) -> Path:
    """A working directory of the test's own, with a manifest for the target `slurm`."""
    monkeypatch.chdir(tmp_path)
    _write_manifest(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def shared_session(
    slurm_plain_instance: RealSlurm, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ScalableSession]:
    """One session for the tests of a module, on the Slurm that other tests do not empty."""
    folder = tmp_path_factory.mktemp("shared")
    _write_manifest(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("SLURM_CONF", str(slurm_plain_instance.conf))
        with ScalableSession.from_yaml(target="slurm") as session:
            yield session
    slurm_plain_instance.clear()


def _write_manifest(folder: Path) -> None:
    local = "local: {provider: local, max_workers: 2, threads_per_worker: 1}"
    manifest = textwrap.dedent(MANIFEST).replace(local, _TARGET)
    (folder / "scalable.yaml").write_text(manifest)
