"""Execute the tour without a browser, and tell what happened and whether it kept its promises.

    python notebooks/run_tour.py --output out/demo [--target slurm]

With ``--target slurm`` a Slurm of its own runs for as long as the tour, where no other answers.

The output folder gets the executed notebook, the reports of its two runs as text, and a
folder with everything that the tour itself wrote.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from traitlets.config import Config

from scalable_nb.devslurm.service import DevSlurm
from scalable_nb.errors import NoSessionError
from scalable_nb.paths import RunPaths, list_runs
from scalable_nb.report import Report, build_report
from scalable_nb.session.session import ScalableSession
from scalable_nb.telemetry.journal_reader import read_rows

TOUR = Path(__file__).with_name("00_tour.ipynb")
_CELL_TIMEOUT_S = 300
_DONE = ("succeeded", "cached")


@dataclass(frozen=True)
class Tour:
    """What an execution of the tour left behind.

    Attributes
    ----------
    notebook : Path
        The executed notebook, with its outputs and the state of its widgets.
    folder : Path
        Where the tour worked.
    runs : tuple of RunPaths
        Of its sessions, oldest first.
    error : str
        What stopped it; empty where it ran to its end.
    duration_s : float
        How long it took.
    """

    notebook: Path
    folder: Path
    runs: tuple[RunPaths, ...]
    error: str
    duration_s: float

    def computed(self) -> Counter[str]:
        """How often each score was computed: the function writes a file each time."""
        return Counter(path.read_text() for path in (self.folder / "computed").glob("*.json"))

    def resubmitted(self) -> dict[str, str]:
        """Tasks of the first run that a person ran again: key -> state in the end."""
        states: dict[str, list[str]] = {}
        for row in read_rows(self.runs[0].tasks).rows:
            states.setdefault(row["task_id"], []).append(row["state"])
        # Others have a second row too: their result went with its worker and was read again.
        return {key: ended[-1] for key, ended in states.items() if "failed" in ended[:-1]}


def execute(output: Path, target: str = "local") -> Tour:
    """Execute the tour in a fresh folder below `output`, and leave no process behind.

    Parameters
    ----------
    output : Path
        Made where it is missing; an executed notebook that lies there is replaced.
    target : str
        One of the tour's targets.
    """
    output.mkdir(parents=True, exist_ok=True)
    earlier = set(output.glob("tour-*"))
    notebook = nbformat.read(TOUR, as_version=4)  # type: ignore[no-untyped-call]
    started_at, error = time.monotonic(), ""
    with kernel_environment(SCALABLE_TOUR_DIR=str(output), SCALABLE_TARGET=target):
        try:
            execute_notebook(notebook, output)
        except (CellExecutionError, CellTimeoutError, DeadKernelError) as problem:
            error = str(problem)
        finally:
            folders = sorted(set(output.glob("tour-*")) - earlier)
            runs = [run for folder in folders for run in list_runs(folder / ".scalable" / "runs")]
            stop_runs(runs)
    executed = output / TOUR.name
    nbformat.write(notebook, executed)  # type: ignore[no-untyped-call]
    folder = folders[-1] if folders else output
    return Tour(executed, folder, tuple(runs), error, time.monotonic() - started_at)


@contextmanager
def slurm_at_hand() -> Iterator[None]:
    """While it lasts Slurm's commands have somebody to speak to."""
    if slurm_answers():
        yield
        return
    with TemporaryDirectory(prefix="slurm-") as folder:
        slurm = DevSlurm(Path(folder) / "slurm")
        slurm.up(nodes=2, cpus=4, memory_mb=4000, accounting=False, enforce_memory=False)
        try:
            with kernel_environment(SLURM_CONF=str(slurm.layout.slurm_conf)):
                yield
        finally:
            slurm.down(remove=True)


def slurm_answers() -> bool:
    """Whether there is a Slurm to use."""
    try:
        ping = subprocess.run(["scontrol", "ping"], capture_output=True, check=False, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return ping.returncode == 0


def execute_notebook(notebook: nbformat.NotebookNode, folder: Path) -> None:
    # The paths of the sockets must be short, and on them nobody else can listen or speak to
    # the kernel, as on the ports of TCP.
    with TemporaryDirectory(prefix="tour-") as sockets:
        NotebookClient(
            notebook,
            timeout=_CELL_TIMEOUT_S,
            resources={"metadata": {"path": str(folder)}},
            config=Config(KernelManager={"transport": "ipc", "ip": f"{sockets}/kernel"}),
        ).execute()


@contextmanager
def kernel_environment(**values: str) -> Iterator[None]:
    """The environment of the kernel: without the person's own settings, and with `values`."""
    before = dict(os.environ)
    for name in before:
        if name.startswith("SCALABLE_"):
            del os.environ[name]
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def stop_runs(runs: list[RunPaths]) -> None:
    """End sessions that a tour that broke off has left."""
    for run in runs:
        with kernel_environment(SCALABLE_RUNS_DIR=str(run.folder.parent)):
            try:
                ScalableSession.attach(run.run_id).close()
            except NoSessionError:
                continue  # as it should be: the tour stopped it itself


# --- what the tour promises ----------------------------------------------------------


def broken_promises(tour: Tour) -> list[str]:
    """What the tour promises and did not keep, in words; empty where all is well."""
    if tour.error:
        return [f"it did not run to its end:\n{tour.error}"]
    if len(tour.runs) != 2:
        return [f"it has two sessions, but {len(tour.runs)} runs were recorded"]
    first, second = (build_report(run) for run in tour.runs)
    failures = read_rows(tour.runs[0].failures).rows
    return [
        promise
        for promise, is_kept in {
            **_about_failures(first, failures),
            **_about_resubmission(tour, first),
            **_about_results(tour, first, second),
        }.items()
        if not is_kept
    ]


def _about_failures(first: Report, failures: list[dict[str, Any]]) -> Mapping[str, bool]:
    met = {row["category"] for row in failures}
    permanent = [row["will_retry"] for row in failures if row["category"] == "permanent"]
    return {
        "all kinds of failure are met": met == {"permanent", "resource", "timeout", "transient"},
        "retries make up for a busy service": first.retries_helped > 0,
        "no permanent error is retried": not any(permanent),
        "each failed attempt is recorded": sum(first.failures_by_class.values()) == len(failures),
    }


def _about_resubmission(tour: Tour, first: Report) -> Mapping[str, bool]:
    left = {task.category for task in first.failed}
    return {
        "what was resubmitted succeeds": "succeeded" in tour.resubmitted().values(),
        "only what cannot be mended is still failed": left == {"permanent", "resource"},
    }


def _about_results(tour: Tour, first: Report, second: Report) -> Mapping[str, bool]:
    computed = tour.computed()
    succeeded = sum(count for state, count in first.tasks.items() if state in _DONE)
    return {
        "every task has an end": set(first.tasks) <= {*_DONE, "failed"},
        "each score is computed once": computed.total() == len(computed) == succeeded,
        "the second session computes nothing": second.tasks == {"cached": succeeded},
        "both sessions are stopped": (first.state, second.state) == ("finished", "finished"),
    }


# --- what is told --------------------------------------------------------------------


def write_report(tour: Tour, path: Path) -> None:
    """Write the reports of the tour's runs, summaries first, as text."""
    reports = [build_report(run) for run in tour.runs]
    parts = [report.to_text() for report in reports]
    parts += [report.to_text(failures=True) for report in reports if report.failed]
    rule = "\n\n" + "-" * 80 + "\n\n"
    path.write_text(rule.join(parts) + "\n")


def describe(tour: Tour) -> str:
    """What happened, in a dozen lines."""
    report = build_report(tour.runs[0])
    resubmitted = Counter(tour.resubmitted().values())
    lines = {
        "tasks": _counted(report.tasks),
        "attempts": f"{report.attempts}",
        "retries": f"{report.retries} ({report.retries_helped} tasks succeeded in a retry)",
        "failed attempts": _counted(report.failures_by_class),
        "resubmitted": _counted(resubmitted),
        "failed for good": _counted(Counter(task.failure_class for task in report.failed)),
        "scores computed": f"{tour.computed().total()}, {_twice(tour.computed())} of them twice",
        "asked for again": _counted(build_report(tour.runs[-1]).tasks),
    }
    return "\n".join(f"  {name + ':':<17} {text}" for name, text in lines.items())


def _counted(counts: Mapping[str, int]) -> str:
    details = ", ".join(f"{count} {name}" for name, count in counts.items())
    return f"{sum(counts.values())} ({details})" if counts else "0"


def _twice(computed: Counter[str]) -> int:
    return sum(count > 1 for count in computed.values())


def main(arguments: list[str] | None = None) -> int:
    """Run the tour; returns 0 only where it kept all its promises."""
    parser = argparse.ArgumentParser(description="Execute the tour and tell what happened.")
    parser.add_argument("--output", type=Path, default=Path("out/demo"), help="a folder")
    parser.add_argument("--target", choices=("local", "slurm"), default="local")
    options = parser.parse_args(arguments)
    output = options.output.absolute()

    print("The tour runs; it takes about a minute.", flush=True)
    with slurm_at_hand() if options.target == "slurm" else nullcontext():
        tour = execute(output, options.target)
    print(f"It took {tour.duration_s:.0f} s.\n")
    if tour.runs:
        print(describe(tour), end="\n\n")
        write_report(tour, output / "report.txt")
        print(f"Report:            {output / 'report.txt'}")
    print(f"Executed notebook: {tour.notebook}")
    print(f"Files of the tour: {tour.folder}")
    broken = broken_promises(tour)
    for promise in broken:
        print(f"\nNOT KEPT: {promise}", file=sys.stderr)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
