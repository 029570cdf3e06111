"""The command line: the table's subcommands in a shell, with exit codes for scripts."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import orjson
import pytest
from click.testing import CliRunner, Result

from scalable_nb import __version__, cacheable
from scalable_nb.cli import main
from scalable_nb.magics.commands import SHELL, SUBCOMMANDS
from scalable_nb.magics.commands.help import overview, subcommand_help

RUN = "run-20260101T000000Z-demo-00000001"
NEWER = "run-20260102T000000Z-demo-00000002"


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in, nothing set in the environment."""
    monkeypatch.chdir(tmp_path)
    for name in ("SCALABLE_MANIFEST", "SCALABLE_TARGET", "SCALABLE_RUNS_DIR"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture
def runs(project: Path) -> Path:
    """Two runs; in each one of two tasks failed, with a different error."""
    for run, error in ((RUN, "KeyError"), (NEWER, "MemoryError")):
        folder = project / ".scalable" / "runs" / run
        folder.mkdir(parents=True)
        (folder / "run.json").write_bytes(
            orjson.dumps({"run_id": run, "project": "demo", "ended_at": "2026-01-01T00:00:00Z"})
        )
        call = {"function_name": "simulate", "args_preview": "47"}
        failed = {"task_id": "a", "attempt": 1, "is_final": True, "failure_class": error, **call}
        rows = [{"task_id": "a", "state": "failed"}, {"task_id": "b", "state": "succeeded"}]
        (folder / "failures.jsonl").write_bytes(orjson.dumps(failed) + b"\n")
        (folder / "tasks.jsonl").write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    return project


def scalable(*words: str) -> Result:
    """Run the command line in this process."""
    return CliRunner().invoke(main, words)


def test_kept_results_are_told_checked_and_cleared(project: Path) -> None:
    """A shell sees how much is kept, finds damage, and removes what a function left."""
    double = cacheable(lambda x: 2 * x)
    assert [double(x) for x in range(3)] == [0, 2, 4]
    assert scalable("cache").stdout.startswith("3 kept results, ")
    file = double.store().path(double.key(1))
    file.write_bytes(file.read_bytes()[:-1])
    assert str(file) in scalable("cache", "verify").stdout
    assert scalable("cache", "info").stdout.startswith("2 kept results, ")
    assert "2 kept results" in scalable("cache", "clear", "--function", "<lambda>").stdout
    assert scalable("cache").stdout.startswith("0 kept results, ")
    refused = scalable("cache", "verfy")
    assert refused.exit_code != 0
    assert "Did you mean 'verify'" in refused.output
    assert "in a notebook" in scalable("cache", "why", "double", "1").output


def test_tasks_of_a_run_that_is_over_are_told(runs: Path) -> None:
    """The newest run, or the one that is named: counts, and what failed with which error."""
    newest = scalable("tasks", "--last")
    assert newest.exit_code == 0
    assert newest.output.startswith(f"{NEWER}: 2 tasks, 100 % done\n")
    for reported in ("1 succeeded, 1 failed", "simulate(47): failed", "MemoryError"):
        assert reported in newest.output
    assert scalable("tasks").output == newest.output
    assert "KeyError" in scalable("tasks", "--run", RUN).output


@pytest.mark.parametrize(
    "words",
    [
        *(["cache"], ["cache", "verify"], ["cache", "clear"], ["cancel"], ["diagnose"], ["logs"]),
        *(["report"], ["report", "--run", RUN], ["resume"], ["runs"], ["scale", "1"], ["status"]),
        *(["stop"], ["tasks", "--last"]),
    ],
    ids=" ".join,
)
def test_each_subcommand_checks_the_folder_first(
    runs: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    """A folder that other users could exchange is named with its owner and a command."""
    shared = runs / ".scalable"
    shared.chmod(0o777)
    (shared / "runs" / RUN / "tls").mkdir()
    monkeypatch.setenv("SCALABLE_RUNS_DIR", str(shared / "runs"))
    monkeypatch.setenv("SCALABLE_CACHE_DIR", str(shared / "cache"))
    result = scalable(*words)
    assert result.exit_code == 1
    assert f"{str(shared)!r} is writable by others (mode 0777, owner " in result.output
    assert f"chmod go-w {shared}" in result.output
    assert (shared / "runs" / RUN / "tls").exists()


def test_subcommands_of_the_shell_are_those_of_the_table() -> None:
    """What the help lists is what the table marks, each with the help of the table."""
    assert list(SHELL.subcommands) == [
        name for name, subcommand in SUBCOMMANDS.items() if subcommand.on_command_line
    ]
    assert scalable().output == scalable("--help").output == overview(SHELL) + "\n"
    for name, subcommand in SHELL.subcommands.items():
        text = subcommand_help(subcommand, SHELL) + "\n"
        assert scalable("help", name).output == scalable(name, "--help").output == text
        assert "%scalable" not in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["reprot"],
            "no subcommand named 'reprot'. Did you mean 'report'? Known: "
            f"{', '.join(sorted(SHELL.subcommands))}. `scalable help` explains them.",
        ),
        (
            ["report", "--lats"],
            "no option of `report` named '--lats'. Did you mean '--last'? Known: --compare, "
            "--failures, --format, --help, --last, --output, --redact, --run. `scalable report "
            "--help` explains them.",
        ),
        (
            ["plan", "slurm"],
            "`scalable plan` has no place for 'slurm'. Did you mean `scalable plan --target "
            "slurm`? `scalable plan --help` explains what it takes.",
        ),
        (["plan", "--target"], "--target needs a value: `scalable plan --target NAME`."),
        (
            ["start"],
            "`start` needs a notebook: type `%scalable start` there. In a script: "
            "`from scalable_nb import ScalableSession; "
            "session = ScalableSession.from_yaml(target='slurm'); client = session.start()`.",
        ),
    ],
)
def test_wrong_use_is_exit_code_2(words: list[str], message: str) -> None:
    """Mistakes go to standard error in one line that names the way out."""
    result = scalable(*words)
    assert (result.exit_code, result.stdout, result.stderr) == (2, "", f"Error: {message}\n")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["report"], "there is no run yet. Looked in "),
        (["status"], "no host of any run in "),
        (["stop", "--run", RUN], f"no run named '{RUN}'. Known: none is defined."),
        (["report", "--run-id", "../../etc"], "no run named '../../etc'."),
        (["plan", "--target", "locla"], "no target named 'locla'. Did you mean 'local'?"),
    ],
)
def test_our_errors_are_exit_code_1(words: list[str], message: str) -> None:
    """What cannot be done is told on standard error, without a traceback."""
    result = scalable(*words)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith(f"Error: {message}")
    assert "Traceback" not in result.stderr


def test_version_is_told() -> None:
    """`--version` prints the package's version."""
    assert scalable("--version").output == f"scalable-nb, version {__version__}\n"


def test_runs_lists_all_with_their_state(runs: Path) -> None:
    """`scalable runs` has a line per run, the newest first; one whose host died is interrupted."""
    (runs / ".scalable" / "runs" / NEWER / "run.json").write_bytes(
        orjson.dumps({"run_id": NEWER, "hostname": platform.node(), "target": "local"})
    )
    session = {"pid": 2**22 + 1, "host": platform.node()}
    (runs / ".scalable" / "runs" / NEWER / "session.json").write_bytes(orjson.dumps(session))
    lines = scalable("runs").stdout.splitlines()
    assert lines[0].split()[:2] == ["run", "state"]
    assert [line.split()[:2] for line in lines[1:]] == [[NEWER, "interrupted"], [RUN, "finished"]]
    assert lines[1].split()[-2:] == ["2", "1"]
    listed = json.loads(scalable("runs", "--format", "json").stdout)
    assert [run["state"] for run in listed["runs"]] == ["interrupted", "finished"]


def test_diagnose_says_what_to_do(runs: Path) -> None:
    """`scalable diagnose --last` names the cause, how sure it is, and the action; also as data."""
    shown = scalable("diagnose", "--last").stdout
    assert shown.startswith(f"Run {NEWER}: 1 finding")
    assert "1 task (simulate(47)) ran out of memory" in shown
    assert "(out of memory, 95% sure)" in " ".join(shown.split())
    assert "Do: Raise `memory`" in shown
    data = json.loads(scalable("diagnose", "--last", "--format", "json").stdout)
    assert [finding["rule"] for finding in data["findings"]] == ["out_of_memory"]
    assert data["findings"][0]["evidence"]["failed_tasks"] == 1


def test_two_runs_are_compared(runs: Path) -> None:
    """`--compare` says what changed from an earlier run to this one."""
    shown = scalable("report", "--last", "--compare", RUN).stdout
    assert shown.startswith(f"Run {NEWER} against {RUN}")
    assert re.search(r"^KeyError +1 -> +0$", shown, re.M)
    assert re.search(r"^MemoryError +0 -> +1$", shown, re.M)
    assert "Still failed (1):\n  simulate(47)" in shown
    data = json.loads(scalable("report", "--last", "-c", RUN, "--format", "json").stdout)
    assert data["still_failed"] == ["simulate(47)"]


@pytest.mark.parametrize(("format_", "begin"), [("text", "Failures (1"), ("json", "{")])
def test_a_report_goes_to_a_file(runs: Path, format_: str, begin: str) -> None:
    """`--output` writes what would have been shown, and says where it is."""
    result = scalable("report", "--last", "-f", "-F", format_, "--output", "report.out")
    assert result.stdout == f"Written to {runs / 'report.out'}\n"
    assert (runs / "report.out").read_text().startswith(begin)


def test_a_report_is_one_page_without_network(runs: Path) -> None:
    """`--format html` writes one page; nothing in it is fetched, arguments go on request."""
    scalable("report", "--last", "--failures", "--format", "html", "--output", "page.html")
    page = (runs / "page.html").read_text()
    assert "default-src 'none'" in page
    assert "simulate(47)" in page
    assert "Plotly.newPlot" in page
    assert re.findall(r"<(?:script|link|img)[^>]* (?:src|href)=", page) == []
    scalable("report", "--last", "-f", "-F", "html", "-O", "page.html", "--redact")
    page = (runs / "page.html").read_text()
    assert "simulate(47)" not in page
    assert "simulate(…)" in page


@pytest.mark.parametrize("newest", ["--last", "--latest", "-l"])
def test_report_of_the_newest_run(runs: Path, newest: str) -> None:
    """`scalable report --last --failures` lists what failed in the newest run."""
    result = scalable("report", newest, "--failures")
    assert result.exit_code == 0
    assert result.stdout.startswith("Failures (1 of 2 tasks):\n\n1. simulate(47)\n")
    assert "MemoryError" in result.stdout and "KeyError" not in result.stdout


def test_report_of_a_named_run_as_json(runs: Path) -> None:
    """`--format json` gives the whole report as data."""
    report = json.loads(scalable("report", "--run-id", RUN, "--format", "json").stdout)
    assert report["run_id"] == RUN
    assert [task["failure_class"] for task in report["failed"]] == ["KeyError"]


def test_init_and_plan_follow_each_other(project: Path) -> None:
    """A first manifest is written, can be planned, and is not overwritten."""
    Path("made").mkdir()
    written = scalable("init", "--path", "made/scalable.yaml")
    assert written.exit_code == 0 and "`scalable plan`" in written.stderr
    path = Path(written.stdout.strip())
    assert path.is_file() and path.name == "scalable.yaml"
    planned = scalable("plan", "--manifest", str(path), "--target", "local")
    assert planned.exit_code == 0 and "local" in planned.stdout
    assert scalable("init", "--path", "made/scalable.yaml").exit_code == 1


def test_module_runs_as_a_program(runs: Path) -> None:
    """`python -m scalable_nb` is the same command, and a closed pipe is no error."""
    command = f"{sys.executable} -m scalable_nb report --last | head -c 10"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == (f"Run {NEWER}"[:10], "")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("scalable re", ["report", "resume"]),
        ("scalable report --la", ["--last", "--latest"]),
        ("scalable report --run run-20260101", [RUN]),
        ("scalable plan --target lo", ["local"]),
    ],
)
def test_shell_completion(runs: Path, line: str, words: list[str]) -> None:
    """The Tab key of bash gets the same words as the notebook's."""
    parts = line.split()
    env = {
        "_SCALABLE_COMPLETE": "bash_complete",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(parts) - 1),
    }
    result = CliRunner(env=env).invoke(main, [], prog_name="scalable")
    assert [one.partition(",")[2] for one in result.output.splitlines()] == words
