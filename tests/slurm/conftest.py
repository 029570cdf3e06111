"""A real Slurm for the tests in this folder, with accounting and without."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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


@pytest.fixture(scope="session")
def strict_instance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealSlurm]:
    """Slurm with accounting that kills jobs which use more memory than they asked for."""
    yield from started_slurm(tmp_path_factory, accounting=True, enforce_memory=True, nodes=1)


@pytest.fixture(scope="session")
def strict_plain_instance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealSlurm]:
    """The same without accounting."""
    yield from started_slurm(tmp_path_factory, accounting=False, enforce_memory=True, nodes=1)


def _in_use(*names: str) -> Any:
    """A fixture: the Slurm of a test's commands and sessions, empty before and after it.

    With two instances the test runs twice: with accounting and without.
    """

    @pytest.fixture(params=names if names[1:] else None, ids=["accounting", "plain"][: len(names)])
    def in_use(
        request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
    ) -> Iterator[RealSlurm]:
        instance: RealSlurm = request.getfixturevalue(getattr(request, "param", names[0]))
        yield from instance.in_use(monkeypatch)

    return in_use


slurm = _in_use("slurm_instance")
slurm_plain = _in_use("slurm_plain_instance")
strict_slurm = _in_use("strict_instance")
any_slurm = _in_use("slurm_instance", "slurm_plain_instance")
any_strict_slurm = _in_use("strict_instance", "strict_plain_instance")


@pytest.fixture
def folder(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory of the test's own, with a manifest for the target `slurm`.

    The test's Slurm comes first, and so goes last: sessions would submit again what it cancels.
    """
    own = [name for name in request.fixturenames if name.endswith("slurm") or name == "slurm_plain"]
    request.getfixturevalue(own[0] if own else "slurm")
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
        slurm_plain_instance.use(patch)
        with ScalableSession.from_yaml(target="slurm") as session:
            yield session
    slurm_plain_instance.clear()


def _write_manifest(folder: Path) -> None:
    local = "local: {provider: local, max_workers: 2, threads_per_worker: 1}"
    manifest = textwrap.dedent(MANIFEST).replace(local, _TARGET)
    (folder / "scalable.yaml").write_text(manifest)
