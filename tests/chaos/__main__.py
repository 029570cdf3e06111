"""``python -m tests.chaos --seed 1``: a storm over a session at work, and its audit."""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from random import Random, SystemRandom

from scalable_nb import ScalableSession
from scalable_nb.paths import RunPaths
from scalable_nb.telemetry.journal_reader import read_rows

from .audit import Evidence, Finding, audit
from .storm import Forecast, Storm
from .workload import Submitted, make_jobs, submit

MANIFEST = """
version: 1
project: {name: chaos}
targets:
  local: {provider: local, max_workers: 4, threads_per_worker: 2}
components:
  worker: {cpus: 2, memory: 1G}
"""


@dataclass(frozen=True)
class Scale:
    """How many tasks of which average duration, and what befalls them."""

    tasks: int
    task_s: float
    forecast: Forecast


FULL = Scale(tasks=5000, task_s=0.06, forecast=Forecast(kills=50, stops=20, cuts=10))


def run(scale: Scale, seed: int, folder: Path) -> tuple[Storm, Finding]:
    """Let a storm go over a session in this folder, and look at what it left."""
    marks = folder / "executions"
    marks.mkdir()
    (folder / "scalable.yaml").write_text(MANIFEST)
    jobs = make_jobs(scale.tasks, scale.task_s, Random(seed))
    with ScalableSession.from_yaml(folder / "scalable.yaml") as session:
        session.client.wait_for_workers(4)
        submitted = submit(session.client, jobs, marks)
        storm = Storm(session, scale.forecast, Random(seed), say=_say)
        raging = threading.Thread(target=storm.rage, args=[len(submitted.futures)])
        raging.start()
        submitted.collect()
        raging.join()
        counts = session.status().counts
        paths = session.paths
    assert paths is not None
    return storm, audit(evidence_of(submitted, counts, paths, marks))


def _say(line: str) -> None:
    print(line, flush=True)


def evidence_of(
    submitted: Submitted, counts: dict[str, int], paths: RunPaths, marks: Path
) -> Evidence:
    """What is there after a session was closed."""
    return Evidence(
        expected=submitted.expected,
        outcomes=submitted.outcomes,
        executions=submitted.executions(marks),
        failures=read_rows(paths.failures).rows,
        tasks=read_rows(paths.tasks).rows,
        counts=counts,
    )


def show(storm: Storm, finding: Finding) -> None:
    """Print the table, and every fault."""
    forecast = storm.forecast
    planned = {"kill": forecast.kills, "stop": forecast.stops, "cut": forecast.cuts}
    print()
    for kind, count in planned.items():
        print(f"{kind + 's':40} {storm.struck[kind]:6} of {count}")
    for name, count in finding.sums.items():
        print(f"{name:40} {count:6}")
    print()
    for fault in finding.faults:
        print(f"FAULT {fault}")
    print("nothing was lost" if not finding.faults else f"{len(finding.faults)} faults")


def main() -> int:
    """Run the full storm; 1 where it left a fault or did not rage as it should."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, help="of an earlier storm, to have it again")
    seed = parser.parse_args().seed
    if seed is None:
        seed = SystemRandom().randrange(10**6)
    print(f"a storm over {FULL.tasks} tasks, SEED={seed}", flush=True)
    begun = time.monotonic()
    # The least that Dask takes, so that a silent network is noticed within the storm.
    os.environ["DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP"] = "11s"
    folder = Path(tempfile.mkdtemp(prefix="chaos-"))
    with contextlib.chdir(folder):
        storm, finding = run(FULL, seed, folder)
    show(storm, finding)
    if finding.faults:
        print(f"the run, to look into it: {folder}")
    else:
        shutil.rmtree(folder)
    is_complete = storm.struck.total() == FULL.forecast.total
    print(f"SEED={seed}, {time.monotonic() - begun:.0f} s")
    return 0 if is_complete and not finding.faults else 1


if __name__ == "__main__":
    sys.exit(main())
