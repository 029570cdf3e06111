"""What the tutorial's code takes for granted and never defines.

Executed in front of each block, as if the reader had typed it. What is wrong with a scenario
stands in ``inputs/<scenario>``, so that input data can be mended without touching the code.
Each call leaves a mark in ``visits``.
"""

from __future__ import annotations

import json  # noqa: F401 - the tutorial uses it
import time
from pathlib import Path

import numpy
import requests as real_requests

MEBIBYTE = 2**20


def visit(function: str, scenario: int) -> int:
    """Leave a mark; returns how many there are now."""
    path = Path("visits", f"{function}-{scenario}")
    with path.open("a") as file:
        file.write(".")
    return path.stat().st_size


def sometimes_fails(i):
    """Every third scenario fails twice before it succeeds; number 19 fails for ever."""
    visits = visit("sometimes_fails", i)
    if i == 19 or (i % 3 == 0 and visits <= 2):
        raise ConnectionError(f"connection reset by peer, scenario {i}")
    return i * 10


def maybe_fails(i):
    """Every tenth scenario fails when it is called for the first time."""
    if visit("maybe_fails", i) == 1 and i % 10 == 7:
        raise ValueError(f"scenario {i} is not ready")
    return i * 100


def compute(scenario_id):
    """What ``run_simulation`` spends its time with."""
    visits = visit("compute", scenario_id)
    trouble = Path("inputs", str(scenario_id))
    if trouble.exists():
        meet(trouble.read_text(), visits)
    return scenario_id**2


def meet(trouble: str, visits: int) -> None:
    """Fail for real, in the way that the input asks for."""
    if trouble == "far too large":
        numpy.ones(2**48)
    elif trouble == "too large":
        hoard = [numpy.ones(MEBIBYTE) for _ in range(100)]  # 800 MiB, all of it touched
        time.sleep(60)
        raise AssertionError(f"{len(hoard)} arrays were kept, and nobody minded")
    elif trouble == "slow":
        time.sleep(60)
    elif trouble == "invalid":
        raise ValueError("invalid input data")
    elif trouble == "unreachable at first" and visits <= 2:
        raise ConnectionError("connection reset by peer")


def expensive_computation(scenario_id):
    """What ``process_and_save`` saves."""
    return {"scenario": scenario_id, "value": scenario_id**2}


class LocalRequests:
    """``requests``, with api.example.com on this machine."""

    def get(self, url):
        """Ask the local server in place of the one that is named."""
        address = Path("api_address").read_text()
        with real_requests.Session() as session:
            session.trust_env = False  # no proxy in between
            return session.get(url.replace("https://api.example.com", address), timeout=30)


requests = LocalRequests()
