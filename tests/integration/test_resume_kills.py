"""SIGKILL at random moments: what was kept is never computed again."""

from __future__ import annotations

from pathlib import Path

import pytest
from chaos.resume_kills import run_round


@pytest.mark.parametrize(
    "seed",
    [
        pytest.param(4, id="host"),
        pytest.param(9, id="host and kernel"),
        pytest.param(5, id="host, kernel and workers"),
        pytest.param(10, id="host, kernel and workers, at the first calls"),
        pytest.param(25, id="host and kernel, at the last calls"),
    ],
)
def test_a_killed_run_is_resumed_and_nothing_kept_runs_again(tmp_path: Path, seed: int) -> None:
    """Results are right, and at most as many calls run twice as there are threads."""
    print(run_round(tmp_path, seed, workers=1))
