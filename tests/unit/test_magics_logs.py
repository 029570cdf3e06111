"""What `logs` shows of a run's folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from IPython.core.interactiveshell import InteractiveShell
from magic_shell import make_shell, usage_error

RUN = "run-20260101T000000Z-demo-00000001"


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> InteractiveShell:
    """A shell in a folder with one run, which has a host, a worker and a job."""
    monkeypatch.chdir(tmp_path)
    folder = Path(".scalable/runs", RUN)
    for name in ("host.log", "logs/worker-0.log", "jobs/dask-worker-75.out"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.write_text("".join(f"{path.stem} {n}\n" for n in range(50)))
    shell = make_shell()
    assert shell.run_cell("%load_ext scalable_nb").success
    return shell


def value(shell: InteractiveShell, line: str) -> str:
    result = shell.run_cell(f"%scalable {line}")
    assert result.success
    return str(result.result)


def test_logs_are_listed_with_what_shows_one(shell: InteractiveShell) -> None:
    """Without a name each log has a line, and the head says what to type next."""
    head, *lines = value(shell, "logs").splitlines()
    assert head == f"Logs of run {RUN}; `%scalable logs host` shows the end of one:"
    assert [line.split()[0] for line in lines] == ["host", "worker-0", "dask-worker-75"]


def test_the_end_of_a_log_is_shown(shell: InteractiveShell, tmp_path: Path) -> None:
    """The last lines come under a head that says where the rest is; several logs one by one."""
    path = tmp_path / ".scalable/runs" / RUN / "logs" / "worker-0.log"
    assert value(shell, "logs worker-0 -n 2").splitlines() == [
        f"worker-0: the last 2 lines of {path}",
        "worker-0 48",
        "worker-0 49",
    ]
    assert len(value(shell, "logs worker-0").splitlines()) == 41
    both = value(shell, "logs host dask-worker-75 -n 1").splitlines()
    assert (both[1], both[4]) == ("host 49", "dask-worker-75 49")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "logs worker-1",
            "no log named 'worker-1'. Did you mean 'worker-0'? Known: dask-worker-75, host, "
            "worker-0. Without a name, `logs` lists them.",
        ),
        (
            "logs ../../secret",
            "no log named '../../secret'. Known: dask-worker-75, host, worker-0. Without a name, "
            "`logs` lists them.",
        ),
        ("logs host --task f-1", "host and --task f-1: give one of them."),
        (
            "logs --task f-1",
            f"run {RUN} has no attempt of a task 'f-1'; expected a key as `%scalable tasks` "
            "shows it.",
        ),
        ("logs -n many", "--lines many: expected a whole number, 0 or more."),
        ("logs --run x", "no run named 'x'. "),
    ],
)
def test_what_is_not_there_is_said(shell: InteractiveShell, line: str, message: str) -> None:
    """A log, a task or a run that does not exist gets a sentence with what there is."""
    assert usage_error(shell, f"%scalable {line}").startswith(message)
