"""A batch that only ever fails in the same way is paused until a person decides."""

from __future__ import annotations

import json
import logging
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from click.testing import CliRunner
from counting import calls, mark
from distributed import wait
from IPython.core.interactiveshell import InteractiveShell
from kernels import last_run, run_kernel
from magic_shell import make_shell, usage_error
from waiting import until

from scalable_nb import ScalableSession
from scalable_nb.cli import main
from scalable_nb.client.futures import FutureList
from scalable_nb.errors import BatchPausedError

Start = Callable[..., ScalableSession]


PAUSED = """
    import os, time
    from scalable_nb import ScalableSession

    def fail(x):
        raise ValueError("no licence")

    session = ScalableSession.from_yaml()
    futures = session.start().map(fail, range(100), name="sweep")
    while not session.status().pauses:
        time.sleep(0.02)
    os.kill(os.getpid(), 9)
"""


@pytest.fixture
def paused(
    start: Start, folder: Path, caplog: pytest.LogCaptureFixture
) -> tuple[ScalableSession, FutureList]:
    """A batch of a hundred in which a missing licence has stopped everything."""

    def function(x: int) -> int:
        mark(folder, "all")
        if not (folder / "licence").exists():
            raise ValueError(f"no licence for task {x}")
        return x

    session = start()
    with caplog.at_level(logging.WARNING):
        futures = session.client.map(function, range(100), name="sweep")
        until(lambda: session.status().counts["paused"])
        until(lambda: not session.status().counts["running"])
        until(lambda: "are paused" in caplog.text)
    assert "no licence for task" in caplog.text
    return session, futures


@pytest.fixture
def shell(start: Start) -> InteractiveShell:
    """A shell with the extension loaded."""
    shell = make_shell()
    assert shell.run_cell("%load_ext scalable_nb").success
    return shell


def test_the_rest_is_paused_and_a_person_told(
    paused: tuple[ScalableSession, FutureList], folder: Path
) -> None:
    """Some twenty tasks ran, the others wait, and the notice says why and what to type."""
    session, _ = paused
    counts = session.status().counts
    assert counts["paused"] + counts["failed"] == 100
    assert 20 <= calls(folder, "all") <= 30
    (notice,) = session.status().notices
    assert "'sweep'" in notice
    assert "client.resume(futures)" in notice


def test_a_wait_for_paused_tasks_ends(paused: tuple[ScalableSession, FutureList]) -> None:
    """It raises with the cause and the commands, since only the user can resume the tasks."""
    session, futures = paused
    left = session.status().counts["paused"]
    until(lambda: sum(not future.done() for future in futures) == left)  # failures have arrived
    pending = FutureList(future for future in futures if not future.done())
    for wait_for in (
        pending.partial,
        pending.results,
        lambda: pending.client.gather(list(pending)),
        lambda: wait(pending),
    ):
        with pytest.raises(BatchPausedError, match=r"no licence for task .*%scalable resume"):
            wait_for()


def test_the_host_of_a_paused_batch_ends_without_its_kernel(folder: Path) -> None:
    """Tasks that wait for the user do not keep it running."""
    assert run_kernel(folder, PAUSED, SCALABLE_LINGER_S="1") == -signal.SIGKILL
    until(last_run().summary_json.exists)
    counts = json.loads(last_run().summary_json.read_text())["counts"]
    assert counts["failed"] >= 20


def test_the_pause_can_be_lifted(paused: tuple[ScalableSession, FutureList], folder: Path) -> None:
    """Resumed after the cause was mended, the others succeed and nothing stops them again."""
    session, futures = paused
    failed = session.status().counts["failed"]
    (folder / "licence").touch()
    assert session.client.resume(futures) == 100 - failed
    assert len(futures.partial().succeeded) == 100 - failed
    assert futures.resubmit().results() == list(range(100))


def test_the_pause_can_be_turned_into_a_cancel(
    paused: tuple[ScalableSession, FutureList], folder: Path
) -> None:
    """Cancelled, the paused tasks never run."""
    session, futures = paused
    before = calls(folder, "all")
    session.client.cancel(futures)
    until(lambda: session.status().counts["paused"] == 0)
    assert session.status().counts["cancelled"] > 0
    assert calls(folder, "all") == before


def test_magics_tell_lift_and_cancel_the_pause(
    shell: InteractiveShell, paused: tuple[ScalableSession, FutureList], folder: Path
) -> None:
    """`status` says why, a bare `cancel` kills nothing, and each subcommand has its effect."""
    session, futures = paused
    count = session.status().counts["paused"]

    def reported(line: str) -> str:
        return str(shell.run_cell(f"%scalable {line}").result)

    assert (
        f"paused: {count} tasks of 'sweep' are paused: 20 in a row failed with ValueError: "
        "no licence for task"
    ) in reported("status")
    assert f"'sweep': {count} paused" in reported("cancel")
    assert session.status().counts["paused"] == count
    assert usage_error(shell, "%scalable cancel sweap").startswith(
        "no unfinished batch named 'sweap'. Did you mean 'sweep'?"
    )
    assert reported("cancel sweep --paused") == f"{count} paused tasks were cancelled."
    assert futures.partial().succeeded == []
    assert session.status().counts["cancelled"] == count
    assert calls(folder, "all") == 100 - count
    assert reported("cancel") == "Nothing to cancel: every task is done."

    (folder / "licence").touch()
    again = session.client.map(lambda x: x, range(3), name="sweep")
    assert again.results() == [0, 1, 2]
    assert reported("resume") == "Nothing is paused."


def test_a_shell_lifts_the_pause_while_the_kernel_is_busy(
    paused: tuple[ScalableSession, FutureList], folder: Path
) -> None:
    """`scalable resume` from a terminal lets the tasks of a waiting notebook go on."""
    session, futures = paused
    count = session.status().counts["paused"]
    (folder / "licence").touch()
    with ThreadPoolExecutor(1) as pool:
        outcome = pool.submit(futures.partial, on_pause="wait")
        result = CliRunner().invoke(main, ["resume", "sweep"])
        assert result.output == f"{count} paused tasks go on.\n"
        assert len(outcome.result().succeeded) == count


def test_cancelled_calls_run_when_they_are_submitted_again(start: Start, folder: Path) -> None:
    """What the host cancelled is not handed out again as cancelled; results that are there stay."""

    def function(x: int) -> int:
        mark(folder, x)
        while x and not (folder / "gate").exists():
            time.sleep(0.01)
        return x

    session = start()
    futures = session.client.map(function, range(10), name="slow")
    assert futures[0].result() == 0
    until(lambda: session.status().counts["running"] == 2)
    assert session.cancel("slow") == 9
    until(lambda: all(future.cancelled() for future in futures[1:]))
    assert futures[0].result() == 0
    (folder / "gate").touch()
    assert session.client.map(function, range(10), name="slow").results() == list(range(10))
    assert calls(folder, 0) == 1


def test_a_limit_of_zero_lets_everything_run(start: Start, folder: Path) -> None:
    """`max_identical_failures: 0` switches the brake off."""
    manifest = folder / "scalable.yaml"
    manifest.write_text(
        manifest.read_text().replace("defaults: {", "defaults: {max_identical_failures: 0, ")
    )
    futures = start().client.map(lambda x: 1 / 0, range(60))
    assert len(futures.partial().failures) == 60
