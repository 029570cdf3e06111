"""The notebooks do what they promise to a reader who runs them."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import nbformat
import psutil
import pytest

from scalable_nb.devslurm.service import missing_packages
from scalable_nb.paths import list_runs
from scalable_nb.report import Report, build_report
from scalable_nb.telemetry.journal_reader import read_rows

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
# The tour takes about a minute on two cores that have nothing else to do.
pytestmark = pytest.mark.timeout(600)


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.name)
def test_notebooks_are_kept_without_outputs(path: Path) -> None:
    """A notebook in the repository is a valid one that was never run."""
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.id for cell in cells if cell.outputs or cell.execution_count] == []
    assert notebook.metadata.keys() <= {"kernelspec", "language_info"}


# --- the tour ------------------------------------------------------------------------


@dataclass(frozen=True)
class Executed:
    """A notebook after its execution."""

    output: Path
    notebook: Any

    def cell(self, name: str) -> list[Any]:
        """The outputs of a code cell."""
        (outputs,) = [cell.outputs for cell in self.notebook.cells if cell.id == name]
        found: list[Any] = outputs
        return found

    def text(self, name: str) -> str:
        """What a code cell printed, and its value as text."""
        return "".join(
            output.text if output.output_type == "stream" else output.data.get("text/plain", "")
            for output in self.cell(name)
        )

    def trouble(self) -> list[str]:
        """The cells that ended with an error, and what stands on stderr."""
        outputs = [
            (cell.id, output)
            for cell in self.notebook.cells
            if cell.cell_type == "code"
            for output in cell.outputs
        ]
        errors = "".join(output.text for _, output in outputs if output.get("name") == "stderr")
        # Dask says so when results were lost with their worker while they were being fetched.
        notes = [line for line in errors.splitlines() if "Couldn't gather" not in line]
        return [name for name, output in outputs if output.output_type == "error"] + notes


@dataclass(frozen=True)
class Demo(Executed):
    """The tour, executed as `make demo` does it."""

    exit_code: int
    printed: str

    @property
    def folder(self) -> Path:
        """Where the tour itself worked."""
        (folder,) = self.output.glob("tour-*")
        return folder

    @property
    def reports(self) -> list[Report]:
        """Of both of its sessions."""
        return [build_report(run) for run in list_runs(self.folder / ".scalable" / "runs")]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    """The tour, executed once for all tests."""
    output = tmp_path_factory.mktemp("demo")
    command = [sys.executable, NOTEBOOKS / "run_tour.py", "--output", output]
    run = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    notebook = nbformat.read(output / "00_tour.ipynb", as_version=4)
    return Demo(output, notebook, run.returncode, run.stdout)


def test_tour_keeps_its_promises(demo: Demo) -> None:
    """The tour runs to its end and its runner is content with it."""
    assert demo.exit_code == 0, demo.printed


def test_tour_shows_no_error_and_no_warning(demo: Demo) -> None:
    """No cell ends with an error, and nobody is warned of anything."""
    assert demo.trouble() == []


def test_tour_meets_every_kind_of_failure(demo: Demo) -> None:
    """Of 152 models 135 get a score; what remains is refused settings and want of memory."""
    first, _ = demo.reports
    assert sum(first.tasks.values()) == 152
    assert Counter(task.category for task in first.failed) == {"permanent": 16, "resource": 1}
    assert {"HTTPError", "ValueError", "TaskTimeoutError", "OutOfMemoryError"} <= set(
        first.failures_by_class
    )
    assert first.retries_helped >= 10


def test_tour_resubmits_what_can_be_mended(demo: Demo) -> None:
    """Ten models on the noisy data and the patient forest fail at first and succeed later."""
    rows = read_rows(list_runs(demo.folder / ".scalable" / "runs")[0].failures).rows
    first = {row["task_id"]: row for row in reversed(rows) if row["is_final"]}
    mended = [row for row in first.values() if row["category"] in ("transient", "timeout")]
    noisy = [row for row in mended if "noisy-digits" in row["args_preview"]]
    slow = [row for row in mended if row["category"] == "timeout"]
    assert len(noisy) == 10
    assert ["patient forest" in row["args_preview"] for row in slow] == [True]
    assert f"{len(mended)} tasks to run again" in demo.text("plan")
    assert "135 succeeded, 17 failed" in demo.text("resubmit").splitlines()[-1]


def test_tour_computes_nothing_twice(demo: Demo) -> None:
    """Each of the 135 scores was computed once, by the files that the function left."""
    computed = Counter(path.read_text() for path in (demo.folder / "computed").iterdir())
    assert len(computed) == 135
    assert set(computed.values()) == {1}
    assert "scores that were computed twice: 0" in demo.text("proof")

    _, second = demo.reports
    assert second.tasks == {"cached": 135}
    assert demo.text("again").splitlines() == ["the same scores: True", "computed now: 0"]


def test_tour_finds_a_good_model_and_tells_what_failed(demo: Demo) -> None:
    """The best model knows 99 % of the digits, and the table of failures says why of each."""
    assert float(demo.text("best").splitlines()[1].split()[-1]) > 0.985
    (table,) = [output.data["text/html"] for output in demo.cell("failed")]
    assert table.count("<tr") - 1 == 17
    assert "must be a str among" in table
    assert "raise `memory:` of component &#x27;fitting&#x27;" in table.replace("'", "&#x27;")


def test_tour_leaves_a_table_in_the_saved_notebook(demo: Demo) -> None:
    """The live table is a widget in JupyterLab, and plain HTML with the last state elsewhere."""
    (table,) = demo.cell("table")
    view = table.data["application/vnd.jupyter.widget-view+json"]
    widgets = demo.notebook.metadata.widgets["application/vnd.jupyter.widget-state+json"]
    assert view["model_id"] in widgets["state"]
    html = table.data["text/html"]
    assert "<script" not in html
    text = re.sub(r"<[^>]+>", "", html).replace("&nbsp;", " ")
    for shown in ("sweep: 152 tasks, 100 % done", "failed 17", "InvalidParameterError"):
        assert shown in text


def test_tour_is_told_in_words(demo: Demo) -> None:
    """The runner prints the numbers and where things lie, and writes the report."""
    first, _ = demo.reports
    assert re.search(rf"^ +attempts: +{first.attempts}$", demo.printed, re.M)
    assert re.search(rf"^ +retries: +{first.retries} ", demo.printed, re.M)
    assert re.search(r"^ +failed attempts: .*\d+ HTTPError", demo.printed, re.M)
    assert re.search(r"^ +resubmitted: +\d+ \(\d+ succeeded", demo.printed, re.M)
    for path in (demo.output / "00_tour.ipynb", demo.output / "report.txt", demo.folder):
        assert str(path) in demo.printed
    report = (demo.output / "report.txt").read_text()
    assert first.run_id in report
    assert "Failures (17 of 152 tasks):" in report


def test_tour_leaves_no_process(demo: Demo) -> None:
    """Host, workers and kernel are gone when the tour is over."""
    assert _processes_left(demo.output) == []


def test_a_tour_that_breaks_off_fails_and_leaves_no_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An error in a cell is told, is a failure of the runner, and ends the session."""
    run_tour = _load_run_tour()
    notebook = nbformat.v4.new_notebook()
    notebook.cells = [
        nbformat.v4.new_code_cell(source)
        for source in (
            'import os, tempfile; os.chdir(tempfile.mkdtemp("", "tour-", "."))',
            "%load_ext scalable_nb",
            "%scalable start",
            "1 / 0",
        )
    ]
    broken = tmp_path / "broken.ipynb"
    nbformat.write(notebook, broken)
    monkeypatch.setattr(run_tour, "TOUR", broken)

    output = tmp_path / "output"
    assert run_tour.main(["--output", str(output)]) == 1
    assert "ZeroDivisionError" in capsys.readouterr().err
    (folder,) = output.glob("tour-*")
    (run,) = list_runs(folder / ".scalable" / "runs")
    assert build_report(run).state == "finished"
    assert _processes_left(output) == []


# --- failure modes -------------------------------------------------------------------


@pytest.fixture(scope="module")
def modes(tmp_path_factory: pytest.TempPathFactory) -> Executed:
    """The notebook of failure modes, executed once for all tests."""
    return _execute("10_failure_modes.ipynb", tmp_path_factory.mktemp("modes"))


@pytest.mark.parametrize(
    ("cell", "texts"),
    [
        ("memory", ["3 of 4 tasks", "measure(megabytes=600): OutOfMemoryError: ", "`memory:`"]),
        (
            "slow",
            ["2 of 3 tasks", "TaskTimeoutError: simulate(seconds=3) ran longer than its limi"],
        ),
        ("slow-again", ["7 of 7 done: 6 succeeded, 1 failed", "'3 seconds of work'"]),
        ("network", ["42 degrees"]),
        (
            "network-attempts",
            ["attempt 1 failed after 0.", "ConnectionResetError", "attempt 3 succeeded"],
        ),
        ("preempted", ["killed: ", "glacier: done by process "]),
        (
            "preempted-record",
            ["attempt 1 failed: ", "SIGKILL", "attempt 2 succeeded", "workers now: 2"],
        ),
        ("module", ["0 of 2 tasks", "ModuleNotFoundError: No module named 'balance'"]),
        ("module-again", ["[2.2, 4.4]"]),
        ("data", ["2 of 3 tasks", "FileNotFoundError: ", "'east.txt'"]),
        ("data-again", ["[12, 30, 12]"]),
        ("cascade", ["many: 100 tasks"]),
        (
            "cascade-status",
            ["of 'many' are paused: 20 in a row failed with RuntimeError: no licenc"],
        ),
        ("cascade-resume", ["paused tasks go on."]),
        ("cascade-again", ["True"]),
        ("failures", ["ran out of memory", "could not import `balance`", "no licence"]),
        ("report", ["Failures (1 of ", "1. measure(megabytes=600)"]),
        ("level-2", ["told: number 3 is moody"]),
        ("level-3", ["[0, 10, 20, 30, 40, 50]"]),
        ("level-4", ["4 of 6 tasks succeeded", "number 0 is", "[0, 10, 20, 30, 40, 50]"]),
        ("level-5", ["[0, 10, 20]"]),
        ("exercise", ["lottery: 50 tasks, 100 % done", "50 succeeded"]),
        ("exercise-results", ["all succeeded: True"]),
        ("journal", ["retries in the journal: 13", "63 = 50 + 13"]),
        ("bigger-again", ["[20, 40, 60, 600]", "['cached', 'cached', 'cached', 'succeeded']"]),
        ("stop", ["4 (1 succeeded, 3 cached)"]),
    ],
)
def test_failure_modes_show_what_happens_and_what_helps(
    modes: Executed, cell: str, texts: list[str]
) -> None:
    """Each kind of failure is provoked for real, told by its name, and mended."""
    shown = modes.text(cell)
    assert [text for text in texts if text not in shown] == [], shown


def test_failure_modes_show_no_error_and_leave_no_process(modes: Executed) -> None:
    """All failures are tasks' failures: no cell fails, nothing is warned of, nothing stays."""
    assert modes.trouble() == []
    assert _processes_left(modes.output) == []


# --- on Slurm ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def on_slurm(tmp_path_factory: pytest.TempPathFactory) -> Executed:
    """The notebook that starts a Slurm of its own, executed once for all tests."""
    missing = missing_packages(accounting=False)
    if missing:
        pytest.skip(f"Debian packages are missing: apt-get install {' '.join(missing)}")
    return _execute("20_slurm.ipynb", tmp_path_factory.mktemp("slurm"))


@pytest.mark.parametrize(
    ("cell", "texts"),
    [
        ("up", ["batch* idle n[1-3]", "export SLURM_CONF="]),
        ("script", ["#SBATCH -p batch", "#SBATCH --mem=477M", "--component large"]),
        ("workers", ["RUNNING    2       477M  n"]),
        ("reasons", ["2 pending, waiting for ", "Priority", "Resources"]),
        ("wait", ["16 and 2 results are there"]),
        ("result", ["1.40  0.99", "3.20  0.0"]),
        ("why", ["worker lost: Slurm job", "PREEMPTED", "DUE TO PREEMPTION", "infrastructure"]),
        ("attempts", ["attempt 1 failed on large-", "attempt 2 succeeded on large-"]),
        ("routes", ["curve ran on small-", "closer ran on large-"]),
        ("memory", ["atoms from one island to the next"]),
        ("memory-attempts", ["attempt 1 failed on small-", "attempt 2 succeeded on small-1050M-0"]),
        ("stop", ["19 (19 succeeded)", "WorkerLostError 1, OutOfMemoryError 1"]),
        ("empty", ["jobs left: 0"]),
        ("down", ["Slurm is gone: True"]),
    ],
)
def test_a_run_on_slurm_survives_and_says_what_happened(
    on_slurm: Executed, cell: str, texts: list[str]
) -> None:
    """Plan, queue, a job that is preempted and one that is too small: all as the reader is told."""
    shown = on_slurm.text(cell)
    assert [text for text in texts if text not in shown] == [], shown


def test_a_run_on_slurm_shows_no_error_and_leaves_no_process(on_slurm: Executed) -> None:
    """No cell fails, nothing is warned of; session, jobs and Slurm are gone."""
    assert on_slurm.trouble() == []
    assert _processes_left(on_slurm.output) == []


# --- the failure explorer ------------------------------------------------------------


@pytest.fixture(scope="module")
def explored(tmp_path_factory: pytest.TempPathFactory) -> Executed:
    """The notebook of the failure explorer, executed once for all tests."""
    return _execute("30_failure_explorer.ipynb", tmp_path_factory.mktemp("explorer"))


@pytest.mark.parametrize(
    ("cell", "texts"),
    [
        ("gather", ["1500 calls, "]),
        ("explorer", ["failed attempts of", "FileNotFoundError", "HTTPError", "busy service"]),
        ("diagnose", ["did not find", "busy service", "% sure"]),
        ("groups", ["FileNotFoundError", "HTTPError"]),
        ("arguments", ["south"]),
        ("retries", ["success_rate"]),
        ("figure", ["argument region", "timeline"]),
        ("choose", ["failed attempts in the south"]),
        ("resubmit", ["1500 of 1500 succeeded"]),
        ("report", ["Core-hours:", "Slowest:"]),
        ("export", ["failures.html True failures.csv"]),
        ("runs", ["running"]),
    ],
)
def test_the_explorer_explains_a_real_run(explored: Executed, cell: str, texts: list[str]) -> None:
    """A run of thousands of attempts is explained, mended and passed on."""
    shown = explored.text(cell)
    assert [text for text in texts if text not in shown] == [], shown


def test_the_explorer_shows_no_error_and_leaves_no_process(explored: Executed) -> None:
    """No cell fails, nothing is warned of, nothing stays; the saved page tells the story."""
    assert explored.trouble() == []
    assert _processes_left(explored.output) == []
    folders = explored.output.iterdir()
    (run,) = [run for folder in folders for run in list_runs(folder / ".scalable/runs")]
    assert build_report(run).attempts > 2_000
    (shown,) = [output.data for output in explored.cell("explorer") if "data" in output]
    assert "application/vnd.jupyter.widget-view+json" in shown
    assert "FileNotFoundError" in shown["text/html"]


# --- nothing is computed twice -------------------------------------------------------


@pytest.fixture(scope="module")
def resumed(tmp_path_factory: pytest.TempPathFactory) -> Executed:
    """The notebook that loses its kernel and its host, executed once for all tests."""
    return _execute("40_resume.ipynb", tmp_path_factory.mktemp("resume"))


@pytest.mark.parametrize(
    ("cell", "texts"),
    [
        ("kill-kernel", ["killed; computed so far: True"]),
        ("attach", ["Joined run run-", "`session.batches['sweep']`: 20 tasks"]),
        ("sweep", ["'sweep': 20 tasks"]),
        ("more", ["it went on: True"]),
        ("power-cut", ["is gone"]),
        ("plan", ["from cache", "to run again", "never ran", "core-hours"]),
        ("resubmit", ["20 of 20 tasks succeeded"]),
        ("results", ["True"]),
        ("proof", ["at all: True", "at most two: True", "more than twice: []"]),
        ("why", ["the source of `simulate`"]),
        ("info", ["20 kept results"]),
    ],
)
def test_a_run_survives_its_kernel_and_its_host(
    resumed: Executed, cell: str, texts: list[str]
) -> None:
    """Killed half-way twice, the batch is completed, and what was kept is not computed again."""
    shown = resumed.text(cell)
    assert [text for text in texts if text not in shown] == [], shown


def test_a_resumed_run_leaves_no_process(resumed: Executed) -> None:
    """Both kernels, both hosts and all workers are gone in the end."""
    assert _processes_left(resumed.output) == []


# --- a model of one's own ------------------------------------------------------------


@pytest.fixture(scope="module")
def modelled(tmp_path_factory: pytest.TempPathFactory) -> Executed:
    """The notebook that wraps a program, executed once for all tests."""
    return _execute("50_your_own_model.ipynb", tmp_path_factory.mktemp("model"))


@pytest.mark.parametrize(
    ("cell", "texts"),
    [
        ("outcome", ["north    finished [4, 7, 10]", "east     error", "west     error"]),
        ("outcome", ["south    finished [3, 5, 7]", "centre   finished [2, 3, 4]"]),
        ("why", ["ValueError after 1 attempts: exit code 2: growth=-5: must not be negative"]),
        ("why", ["TaskTimeoutError after 3 attempts"]),
        ("left", ["programs started: 8", "programs left: 0"]),
        ("mend", ["[[4, 7, 10], [3, 5, 7], [6, 11, 16], [51, 101, 151], [2, 3, 4]]"]),
        ("mend", ["programs started now: 2"]),
        ("directory", ["1"]),
    ],
)
def test_a_program_is_a_good_task(modelled: Executed, cell: str, texts: list[str]) -> None:
    """It is retried, ended with its worker, and not run again for an input that is the same."""
    shown = modelled.text(cell)
    assert [text for text in texts if text not in shown] == [], shown


def test_a_program_that_hangs_leaves_no_process(modelled: Executed) -> None:
    """No cell fails, nothing is warned of, and neither worker nor program is left."""
    assert modelled.trouble() == []
    assert _processes_left(modelled.output) == []


def _execute(name: str, output: Path) -> Executed:
    run_tour = _load_run_tour()
    notebook = nbformat.read(NOTEBOOKS / name, as_version=4)
    with run_tour.kernel_environment(SCALABLE_TOUR_DIR=str(output)):
        try:
            run_tour.execute_notebook(notebook, output)
        finally:
            runs = [run for path in output.iterdir() for run in list_runs(path / ".scalable/runs")]
            run_tour.stop_runs(runs)
    return Executed(output, notebook)


def _processes_left(folder: Path, within_s: float = 10) -> list[str]:
    """Command lines of processes that work in a folder and do not end by themselves soon."""
    deadline = time.monotonic() + within_s
    while (found := _processes_in(folder)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return found


def _processes_in(folder: Path) -> list[str]:
    found = []
    for process in psutil.process_iter():
        try:
            words = [*process.cmdline(), process.cwd()]
        except psutil.Error:
            continue  # it ended meanwhile, or belongs to somebody else
        if any(str(folder) in word for word in words):
            found.append(" ".join(words))
    return found


def _load_run_tour() -> ModuleType:
    spec = importlib.util.spec_from_file_location("run_tour", NOTEBOOKS / "run_tour.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
