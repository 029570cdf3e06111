"""Calls that wait for the end of their job."""

from __future__ import annotations

import os
import time
from pathlib import Path

from counting import mark


def lost_then_refused(folder: str, x: int) -> int:
    """Waits at its first call for somebody to end it, fails at the second, and then returns."""
    (Path(folder) / f"job-{x}").write_text(os.environ["SLURM_JOB_ID"])
    before = mark(Path(folder), x)
    if before == 0:
        time.sleep(600)
    if before == 1:
        raise ConnectionError("not what the worker was lost for")
    return x
