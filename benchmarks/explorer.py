"""How long it takes until the failures of a run are columns, against parsing their lines."""

from __future__ import annotations

import random
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final

import orjson

from benchmarks.measure import Benchmark, Budget
from scalable_nb.telemetry.rows import SCHEMA_VERSION, FailureRow, utc_iso

_MEMORY_LIMIT_BYTES: Final = 1_000_000_000

# In a process of its own, whose memory is looked at too.
_FRAME = """
import resource, sys, time
from pathlib import Path
{imports}
started_at = time.perf_counter()
{work}
seconds = time.perf_counter() - started_at
assert count == int(sys.argv[2]), count
print(seconds, 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
_OURS = _FRAME.format(
    imports="""
import pandas
from scalable_nb.telemetry.dataframes import FAILURES
from scalable_nb.telemetry.run_tables import FollowedTable
""",
    work="""
table = FollowedTable(FAILURES, [Path(sys.argv[1])])
table.poll()
count = len(table.frame)
""",
)
_PLAIN = _FRAME.format(
    imports="import orjson",
    work="""
count = 0
with open(sys.argv[1], "rb") as file:
    for line in file:
        orjson.loads(line)
        count += 1
""",
)
_KINDS = [
    ("MemoryError", "unable to allocate {size:.1f} GB", "resource"),
    ("TaskTimeoutError", "exceeded the time limit of 300 s", "timeout"),
    ("ConnectionResetError", "[Errno 104] Connection reset by peer", "transient"),
    ("ValueError", "scenario {number} has no data for the year {year}", "permanent"),
]
_TRACEBACK = "Traceback (most recent call last):\n" + "".join(
    f'  File "/home/ada/project/model.py", line {line}, in step_{line}\n'
    "    return solve(load(scenario_id), grid, options)\n"
    for line in range(12, 60, 8)
)


def benchmark(rows: int) -> Benchmark:
    """Seconds to the columns of a ``failures.jsonl``, peak memory below 1 GB.

    Parameters
    ----------
    rows : int
        Failed attempts in the file, each of about 1.5 kB.
    """
    folder = tempfile.TemporaryDirectory(prefix="benchmark-")
    journal = Path(folder.name, "failures.jsonl")

    def measured(script: str, limit_bytes: float) -> float:
        assert folder  # kept until the last measurement
        if not journal.exists():
            with journal.open("wb") as file:
                file.writelines(_lines(rows))
        return _time(script, journal, rows, limit_bytes)

    ours: Callable[[], float] = partial(measured, _OURS, _MEMORY_LIMIT_BYTES)
    return Benchmark(
        name=f"explorer-{rows}",
        summary=f"{rows:,} failed attempts as columns, against `orjson.loads` of their lines",
        unit="s",
        budget=Budget(must=2.5, wanted=1.2, is_upper=True),
        ours=ours,
        plain=partial(measured, _PLAIN, float("inf")),
    )


def _time(script: str, journal: Path, rows: int, limit_bytes: float) -> float:
    command = [sys.executable, "-c", script, str(journal), str(rows)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode:
        raise RuntimeError(f"the script ended with {run.returncode}:\n{script}\n{run.stderr}")
    seconds, peak_bytes = map(float, run.stdout.split())
    if peak_bytes > limit_bytes:
        raise RuntimeError(f"took {peak_bytes / 1e9:.2f} GB, more than {limit_bytes / 1e9:.0f} GB")
    return seconds


def _lines(rows: int) -> Iterator[bytes]:
    dice = random.Random(0)
    for number in range(rows):
        name, message, category = _KINDS[min(3, int(dice.expovariate(0.7)))]
        values: dict[str, Any] = {
            "size": dice.random() * 9, "number": number, "year": dice.randrange(1990, 2030)
        }  # fmt: skip
        text = message.format(**values)
        is_final = number % 4 == 3
        row = FailureRow(
            run_id="run-20260301T120000Z-demo-0123abcd",
            failure_class=name,
            message=text,
            timestamp=utc_iso(1_770_000_000 + number / 50),
            provider="slurm",
            task_id=f"run_simulation-{dice.getrandbits(128):032x}",
            details={"pid": 1000 + number % 64},
            event_type="failure",
            schema_version=SCHEMA_VERSION,
            task_name="run_analysis",
            function_name="run_simulation",
            component="analysis",
            tag="analysis",
            attempt=1 + number % 4,
            attempts_allowed=4,
            is_final=is_final,
            will_retry=not is_final,
            retry_in_s=None if is_final else dice.random() * 8,
            category=category,
            fingerprint=f"{len(name):016x}",
            error_module="builtins",
            traceback=f"{_TRACEBACK}{name}: {text}\n",
            worker=f"worker-{number % 64}",
            host=f"n{number % 16}",
            job_id=str(4000 + number % 64),
            job_state=None,
            exit_code=None,
            memory_bytes=None,
            memory_limit_bytes=None,
            queued_s=dice.random(),
            duration_s=dice.expovariate(0.05),
            args_preview=f"scenario_id={number}, year={values['year']}",
        )
        yield orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE)


#: One for each size of a journal, whatever number of tasks the others are measured with.
BENCHMARKS: Final[dict[str, Callable[[int], Benchmark]]] = {
    f"explorer-{rows}": lambda tasks, rows=rows: benchmark(rows)  # type: ignore[misc]
    for rows in (10_000, 100_000, 1_000_000)
}
