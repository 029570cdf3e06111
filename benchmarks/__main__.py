"""``python -m benchmarks [name ...]``: measure, print ratios, keep the figures as JSON."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks import (
    attach,
    backoff,
    explorer,
    failing,
    hits,
    memory,
    resubmit,
    start_time,
    table,
    throughput,
)
from benchmarks.measure import Outcome, measure
from scalable_nb.errors import UnknownNameError

_QUICK_TASKS, _TASKS = 1_000, 10_000


def main(arguments: list[str] | None = None) -> None:
    """Run the benchmarks that are asked for.

    A missed budget is printed, and is no error: how fast a machine is today proves nothing.
    """
    for name in [name for name in os.environ if name.startswith("SCALABLE_")]:
        del os.environ[name]  # a person's own settings are not what is measured
    known = {
        "start-time": lambda tasks: start_time.benchmark(),
        "throughput": throughput.benchmark,
        "backoff": backoff.benchmark,
        "failing": failing.benchmark,
        "memory": memory.benchmark,
        "resubmit": resubmit.benchmark,
        "hits": lambda tasks: hits.benchmark(10 * tasks),
        "attach": attach.benchmark,
        "attach-100k": lambda tasks: attach.benchmark(10 * tasks, "attach-100k"),
        "table-kernel": lambda tasks: table.kernel_benchmark(),
        "table-host": lambda tasks: table.host_benchmark(),
        "table-snapshot": lambda tasks: table.snapshot_benchmark(),
        "table-update": lambda tasks: table.update_benchmark(),
        **explorer.BENCHMARKS,
    }
    options = _parse(arguments, list(known))
    tasks = _QUICK_TASKS if options.quick else options.tasks
    pairs = 2 if options.quick else options.pairs
    output = options.output.absolute()
    load_before = os.getloadavg()[0]
    outcomes = []
    for name in options.names or known:
        outcomes.append(measure(known[name](tasks), pairs))
        print(outcomes[-1], end="\n\n", flush=True)
    machine = {**_machine(), "load_before": load_before}
    print(_in_words(machine))
    _write(output, outcomes, machine)


def _parse(arguments: list[str] | None, known: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Measure against plain Dask, side by side."
    )
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"{', '.join(known)}; all where none is given"
    )
    parser.add_argument("--pairs", type=int, default=5, help="measurements of each side")
    parser.add_argument("--tasks", type=int, default=_TASKS, help="of a measurement")
    parser.add_argument(
        "--quick", action="store_true", help=f"2 pairs, {_QUICK_TASKS:,} tasks: does it run at all"
    )
    parser.add_argument("--output", type=Path, default=Path("out/benchmarks"), help="a folder")
    options = parser.parse_args(arguments)
    for name in options.names:
        if name not in known:
            parser.error(str(UnknownNameError("benchmark", name, known)))
    return options


def _machine() -> dict[str, Any]:
    packages = ("scalable-nb", "dask", "distributed")
    return {
        "python": platform.python_version(),
        "cpus": os.cpu_count(),
        **{package: importlib.metadata.version(package) for package in packages},
    }


def _in_words(machine: dict[str, Any]) -> str:
    return ", ".join(
        f"{name.replace('_', ' ')} {value:.1f}" if isinstance(value, float) else f"{name} {value}"
        for name, value in machine.items()
    )


def _write(folder: Path, outcomes: list[Outcome], machine: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    measured_at = datetime.now(UTC)
    path = folder / f"{measured_at:%Y%m%dT%H%M%SZ}.json"
    record = {
        "measured_at": measured_at.isoformat(timespec="seconds"),
        "machine": machine,
        "outcomes": [outcome.to_dict() for outcome in outcomes],
    }
    path.write_text(json.dumps(record, indent=1) + "\n")
    print(f"Figures: {path}")


if __name__ == "__main__":
    main()
