"""Which files in a folder of logs are a job's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from scalable_nb.targets.jobqueue import logs_of_job


@pytest.mark.parametrize(
    ("job_id", "own"),
    [
        ("1", ["scalable-1e39ce-1.err", "scalable-1e39ce-1.out"]),
        ("39", []),
        ("12", ["scalable-1e39ce-12.err", "scalable-1e39ce-12_0.err"]),
        ("7.server", ["dask-worker.e7", "dask-worker.o7"]),
    ],
)
def test_the_logs_of_a_job_are_told_from_those_of_others(
    tmp_path: Path, job_id: str, own: list[str]
) -> None:
    """By its id, which must not be taken for digits of the run's name or of another id."""
    for name in (
        "scalable-1e39ce-1.err", "scalable-1e39ce-1.out", "scalable-1e39ce-12.err",
        "scalable-1e39ce-12_0.err", "scalable-1e39ce-4.err", "dask-worker.e7", "dask-worker.o7",
        "dask-worker.o77",
    ):  # fmt: skip
        (tmp_path / name).touch()
    assert [path.name for path in logs_of_job(tmp_path, job_id)] == own
