"""A short storm over a session at work; `make chaos` is the long one."""

from __future__ import annotations

from pathlib import Path

import pytest
from chaos.__main__ import Scale, run
from chaos.storm import Forecast

SHORT = Scale(tasks=300, task_s=0.05, forecast=Forecast(kills=5, stops=2, cuts=1))


@pytest.mark.timeout(300)  # on a busy machine workers take long to come back
def test_a_storm_over_the_workers_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed, stopped and cut off: every result is right, and all records agree with the disk."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP", "11s")
    storm, finding = run(SHORT, seed=7, folder=tmp_path)
    assert finding.faults == []
    assert storm.struck == {"kill": 5, "stop": 2, "cut": 1}
