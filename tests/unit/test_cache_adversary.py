"""An adversary: random programs with one mutation never get a wrong result from the cache."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from cache_programs import HOLDERS

TESTS = Path(__file__).parents[1]
FIXED_SEED = 20261130


def run_adversary(*options: object) -> str:
    """Run the adversary in a process with a single thread, and return what it prints."""
    threads = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL")}
    path = os.pathsep.join((str(TESTS.parent), str(TESTS)))
    done = subprocess.run(
        [sys.executable, TESTS / "cache_adversary.py", *map(str, options)],
        env={**os.environ, **threads, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr[-8000:]
    return done.stdout


def test_cached_answers_equal_those_without_a_cache():
    """No cached answer is wrong, and no program without an opaque object goes uncached.

    Other seeds: ``make fuzz-cache``.
    """
    printed = run_adversary("--seed", FIXED_SEED, "--examples", 300, "--within", 60)
    assert "no wrong result" in printed


def test_unchanged_programs_have_the_same_key_in_a_fresh_process():
    """Another process with another hash seed makes the same keys."""
    assert int(run_adversary("--seed", FIXED_SEED, "--keys", 25).split()[1]) > 15


def test_the_adversary_knows_each_kind_of_dependency():
    """Programs of all groups of failures are drawn."""
    assert {holder.row for holder in HOLDERS} == {
        *("plain", "reduced to a type", "functions with data", "treated as changed"),
        *("counts its calls", "attributes", "scopes and wrappers", "texts"),
    }
