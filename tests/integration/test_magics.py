"""The subcommands against a real host: in this process, in a kernel and on the command line."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from IPython.core.interactiveshell import InteractiveShell
from jupyter_client.manager import start_new_kernel
from magic_shell import make_shell, usage_error
from waiting import until

from scalable_nb import ScalableSession
from scalable_nb.client.futures import FutureList, PartialResult
from scalable_nb.resubmission.resubmit_plan import ResubmitPlan
from scalable_nb.session.status import SessionStatus
from scalable_nb.widgets.failure_explorer.explorer import FailureExplorer

#: Fails for x = 0, 3 and 6 until the file `fixed` is there; writes a file for each call.
SIMULATE = """
from pathlib import Path
import uuid

here = Path.cwd()

def simulate(x):
    (here / f"call-{x}-{uuid.uuid4().hex}").touch()
    if x % 3 == 0 and not (here / "fixed").exists():
        raise ValueError(f"unlucky {x}")
    return x * 2

futures = client.map(simulate, range(9))
partial = futures.partial()
"""


@pytest.fixture
def shell(start: Callable[..., ScalableSession]) -> InteractiveShell:
    """A shell with the extension loaded; its session is closed by the fixture `start`."""
    shell = make_shell()
    assert shell.run_cell("%load_ext scalable_nb").success
    return shell


def value(shell: InteractiveShell, cell: str) -> Any:
    """Run a cell that must succeed, and give its value."""
    result = shell.run_cell(textwrap.dedent(cell))
    assert result.success
    return result.result


def calls(folder: Path) -> list[int]:
    """How often `simulate` was called for each x, counted on disk."""
    return [len(list(folder.glob(f"call-{x}-*"))) for x in range(9)]


def test_from_start_to_stop(
    shell: InteractiveShell, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every subcommand works: only failed tasks run again, and all results come in order."""
    session = value(shell, "%scalable start")
    assert isinstance(session, ScalableSession) and shell.user_ns["client"] is session.client
    value(shell, SIMULATE)

    status = value(shell, "%scalable status")
    assert isinstance(status, SessionStatus)
    assert (status.counts["succeeded"], status.counts["failed"]) == (6, 3)
    # Whoever asks in a shell gets the dashboard's link; what a notebook prints, it saves.
    ask = [sys.executable, "-m", "scalable_nb", "status"]
    reported = subprocess.run(ask, capture_output=True, text=True, check=True).stdout
    assert f"dashboard: {session.client.dashboard_link}\n" in reported
    in_cell = {**os.environ, "JPY_PARENT_PID": "1"}
    reported = subprocess.run(ask, capture_output=True, text=True, check=True, env=in_cell).stdout
    assert "dashboard: `session.dashboard_link`\n" in reported
    assert "dashboard: `session.dashboard_link`\n" in str(status)
    assert session.dashboard_link not in str(status)

    explorer = value(shell, "%scalable failures")
    assert isinstance(explorer, FailureExplorer)
    assert list(explorer.frame["failure_class"]) == ["ValueError"] * 3

    report = value(shell, "%scalable report --failures")
    assert report.startswith("Failures (3 of 9 tasks")
    assert all(f"simulate(x={x})" in report for x in (0, 3, 6))

    plan = value(shell, "%scalable resubmit --dry-run")
    assert isinstance(plan, ResubmitPlan)
    assert (plan.succeeded, len(plan.to_run)) == (6, 3)
    assert calls(folder) == [1] * 9

    capsys.readouterr()
    value(shell, "(here / 'fixed').touch()\nresults = %scalable resubmit")
    results = shell.user_ns["results"]
    assert isinstance(results, PartialResult)
    assert results.results == [x * 2 for x in range(9)]
    assert calls(folder) == [2, 1, 1, 2, 1, 1, 2, 1, 1]
    assert capsys.readouterr().out.endswith("9 of 9 done: 9 succeeded\n")

    value(shell, "%scalable resubmit -q -o again")
    assert shell.user_ns["again"].results == results.results
    assert calls(folder) == [2, 1, 1, 2, 1, 1, 2, 1, 1]
    assert capsys.readouterr().out == ""

    assert "worker-0" in value(shell, "%scalable logs").split()
    failed = shell.user_ns["partial"].failures[0].key
    assert f"{failed}, attempt 2 on " in value(shell, f"%scalable logs --task {failed}")

    reported = value(shell, "%scalable stop")
    assert f"Run {session.run_id}: finished" in reported and "9 (9 succeeded)" in reported
    assert not session.is_live
    assert usage_error(shell, "%scalable status").startswith("no session is live")
    assert len(value(shell, "%scalable failures --last").frame) == 3
    assert value(shell, "%scalable report") == reported


def test_only_chosen_failures_run_again(shell: InteractiveShell, folder: Path) -> None:
    """`--only` takes classes and categories, `--func` corrected code; a typo is refused."""
    value(shell, "%scalable start -q")
    value(shell, SIMULATE)
    message = usage_error(shell, "%scalable resubmit --only ValeuError")
    assert message.startswith("no failure named 'ValeuError'. Did you mean 'ValueError'?")
    assert calls(folder) == [1] * 9
    message = usage_error(shell, "%scalable resubmit --func simulat")
    assert message == "--func simulat: the notebook has no function of this name."
    assert "no component of this session" in usage_error(shell, "%scalable resubmit -m 9G")
    value(shell, "def simulate(x): (here / f'call-{x}-again').touch(); return -x")
    dry_run = "%scalable resubmit --retries 1 --timeout 1m --tag analysis --dry-run"
    assert "3 tasks to run again" in str(value(shell, dry_run))
    assert "`simulate` has changed since" in str(value(shell, dry_run))
    assert "changed since" not in str(value(shell, f"{dry_run} --func simulate"))
    assert calls(folder) == [1] * 9
    futures = value(shell, "%scalable resubmit --only permanent --func simulate --no-wait")
    assert isinstance(futures, FutureList)
    assert futures.results() == [-x if x % 3 == 0 else x * 2 for x in range(9)]
    assert calls(folder) == [2, 1, 1] * 3


def test_interrupted_wait_leaves_the_tasks_alone(
    shell: InteractiveShell, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ctrl-C ends the wait, says how to go on, and the tasks finish all the same."""
    value(shell, "%scalable start -q")
    value(
        shell,
        """
        from pathlib import Path
        import time
        here = Path.cwd()

        def patient(x):
            if not (here / "begun").exists():
                (here / "begun").touch()
                raise ValueError("the first time")
            (here / "again").touch()
            while not (here / "gate").exists():
                time.sleep(0.01)
            return x

        patient_future = client.submit(patient, 5)
        error = patient_future.exception()
        """,
    )
    capsys.readouterr()

    def interrupt() -> None:
        until((folder / "again").exists)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # as in a kernel
    try:
        thread.start()
        result = shell.run_cell("%scalable resubmit")
        thread.join()
    finally:
        signal.signal(signal.SIGINT, before)
    assert isinstance(result.error_in_exec, KeyboardInterrupt)
    shown = capsys.readouterr().out
    assert "0 of 1 done\n" in shown
    assert (
        "KeyboardInterrupt: stopped waiting; 1 of 1 tasks are not done and go on. "
        "`%scalable tasks` shows them; `resubmitted` holds their FutureList, "
        "`resubmitted.partial()` waits for them." in shown
    )
    assert "Traceback" not in shown
    (folder / "gate").touch()
    assert value(shell, "resubmitted.partial().results") == [5]


def test_another_target_is_refused_while_one_is_live(shell: InteractiveShell, folder: Path) -> None:
    """The error names both and how to go on; the live session stays as it is."""
    manifest = folder / "scalable.yaml"
    manifest.write_text(
        manifest.read_text().replace("targets:\n", "targets:\n  other: {provider: local}\n")
    )
    session = value(shell, "%scalable start --target local")
    assert usage_error(shell, "%scalable start --target other") == (
        f"cannot start target 'other': a session on target 'local' is live (run {session.run_id})."
        " `%scalable stop` ends it."
    )
    assert usage_error(shell, "%scalable start --target otter").startswith(
        "no target named 'otter'. Did you mean 'other'?"
    )
    assert value(shell, "%scalable start") is session
    assert value(shell, f"%scalable status --run {session.run_id}").state == "running"


def test_host_that_died_is_told_by_every_subcommand(shell: InteractiveShell, folder: Path) -> None:
    """Subcommands say that the host is gone; `stop` and `start` lead on, and the records stay."""
    session = value(shell, "%scalable start")
    value(shell, SIMULATE)
    assert len(session.failures()) == 3  # written by now, not only on its way
    os.kill(session.status().host_pid, signal.SIGKILL)
    until(lambda: not session.is_host_alive())
    for cell in ("%scalable status", "%scalable start", "%scalable resubmit"):
        assert usage_error(shell, cell).startswith(f"the host of session {session.run_id} (pid ")
    assert len(value(shell, "%scalable failures").frame) == 3
    value(shell, "%scalable stop")
    assert value(shell, "%scalable start").run_id != session.run_id


def scalable(*words: str) -> subprocess.CompletedProcess[str]:
    """Run the command line as a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "scalable_nb", *words],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_command_line_finds_the_live_run(start: Callable[..., ScalableSession]) -> None:
    """A shell sees the notebook's run, looking changes nothing, and can stop it."""
    session = start()
    bad = session.client.submit(lambda x: 1 // x, 0)
    assert isinstance(bad.exception(), ZeroDivisionError)
    looked = scalable("status")
    assert looked.returncode == 0, looked.stderr
    assert session.run_id in looked.stdout and "1 failed" in looked.stdout
    assert session.status().state == "running"
    report = scalable("report", "--last", "--failures")
    assert report.stdout.startswith("Failures (1 of 1 tasks")
    assert "ZeroDivisionError" in report.stdout
    stopped = scalable("stop", "--run", session.run_id)
    assert stopped.returncode == 0, stopped.stderr
    assert f"Run {session.run_id}: finished" in stopped.stdout
    assert not session.is_host_alive()
    again = scalable("stop")
    assert (again.returncode, again.stdout) == (1, "")
    assert again.stderr.startswith("Error: no host of any run in ")


@pytest.fixture
def kernel(start: Callable[..., ScalableSession]) -> Iterator[Any]:
    """A client of a real kernel in the test's folder."""
    manager, client = start_new_kernel(kernel_name="python3", env=_environment())
    yield client
    client.stop_channels()
    manager.shutdown_kernel(now=True)
    manager.cleanup_resources()
    scalable("stop")  # a host outlives its kernel; this one only where the test went wrong


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}


def test_subcommands_in_a_real_kernel(kernel: Any, folder: Path) -> None:
    """Completion answers, a mistake is one line, session and futures draw themselves."""
    outputs: list[dict[str, Any]] = []

    def run(cell: str) -> dict[str, Any]:
        outputs.clear()
        reply: dict[str, Any] = kernel.execute_interactive(
            cell, output_hook=outputs.append, timeout=60
        )
        return reply["content"]  # type: ignore[no-any-return]

    assert run("%load_ext scalable_nb")["status"] == "ok"
    line = "session_now = %scalable start --target lo"
    found = kernel.complete(line, reply=True, timeout=30)["content"]
    assert found["matches"] == ["local"]
    assert line[: found["cursor_start"]] + "local" == "session_now = %scalable start --target local"

    assert run("%scalable strat")["status"] == "error"
    texts = [message["content"].get("text", "") for message in outputs]
    assert re.search(
        r"UsageError: no subcommand named 'strat'. Did you mean 'start'\?", "".join(texts)
    )

    assert run("%scalable start")["status"] == "ok"
    shown = [m["content"]["data"] for m in outputs if m["msg_type"] == "execute_result"]
    assert len(shown) == 1 and "local" in shown[0]["text/plain"]
    fails = "future = client.submit(lambda: 1 // 0)\nerror = future.exception()"
    assert run(fails)["status"] == "ok"
    found = kernel.complete("%scalable resubmit --only Z", reply=True, timeout=30)["content"]
    assert found["matches"] == ["ZeroDivisionError"]
    assert run("futures = client.map(str, range(3))\nfutures")["status"] == "ok"
    shown = [m["content"]["data"] for m in outputs if m["msg_type"] == "display_data"]
    assert "application/vnd.jupyter.widget-view+json" in shown[0]
    assert run("assert client.submit(sum, [1, 2]).result() == 3")["status"] == "ok"
    assert run("%scalable stop -q")["status"] == "ok"
