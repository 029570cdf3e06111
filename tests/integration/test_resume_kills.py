"""SIGKILL at random moments: what was kept is never computed again."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

_FILE = Path(__file__).parents[1] / "chaos" / "resume_kills.py"


@pytest.mark.parametrize("seed", range(5))
def test_a_killed_run_is_resumed_and_nothing_kept_runs_again(tmp_path: Path, seed: int) -> None:
    """Results are right, and at most as many calls run twice as there are threads."""
    spec = importlib.util.spec_from_file_location("resume_kills", _FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    print(module.run_round(tmp_path, seed))
