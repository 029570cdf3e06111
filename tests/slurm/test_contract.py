"""What every target promises, on a real Slurm: the suite of the local target, unchanged."""

from __future__ import annotations

import pytest
from test_backend_contract import *  # noqa: F403


@pytest.fixture
def target() -> str:
    """The target under test."""
    return "slurm"
