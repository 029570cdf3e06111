"""Lists that were only looked at neither keep results nor release them."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from counting import counted, executions
from histories import all_batches, planned, resubmitted
from kernels import run_kernel

from scalable_nb import ScalableSession


def test_unstarted_inputs_of_a_dropped_named_batch_run(
    shared_session: ScalableSession, tmp_path: Path
) -> None:
    """A batch with a name runs to its end, also if its list is dropped at once."""
    shared_session.client.map(counted(tmp_path, "ahead", gate="go"), range(6), name="ahead")
    (tmp_path / "go").touch()
    assert shared_session.batches["ahead"].results() == [0, 10, 20, 30, 40, 50]
    assert executions(tmp_path, range(6), "ahead") == [1] * 6


# --- a kernel that was killed, with a host that goes on -------------------------------------

#: Its kernel is killed while two of the eight inputs of `big` run.
KILLED_KERNEL = """
    import os, time
    from pathlib import Path
    from counting import calls, counted
    from scalable_nb import ScalableSession

    HERE = Path.cwd()
    client = ScalableSession.from_yaml().start()
    unnamed = client.map(counted(HERE, "unnamed"), range(3))
    unnamed.results()
    named = client.map(counted(HERE, "f"), range(4), name="x")
    named.results()
    big = client.map(counted(HERE, "big", gate="go"), range(8), name="big")
    while not all(calls(HERE, f"big-{i}") for i in range(2)):
        time.sleep(0.01)
    os.kill(os.getpid(), 9)
"""


@pytest.fixture
def abandoned(here: Path) -> Path:
    """The folder of a host whose kernel was killed."""
    assert run_kernel(here, KILLED_KERNEL) == -signal.SIGKILL
    return here


def test_dry_run_changes_nothing(abandoned: Path) -> None:
    """Unfinished tasks go on after a dry run, and unnamed results stay in memory."""
    plan = planned()
    assert (plan.succeeded, plan.unfinished, len(plan.to_run)) == (7, 8, 0)
    session = ScalableSession.attach()
    (abandoned / "go").touch()
    assert session.batches["big"].results() == [i * 10 for i in range(8)]
    assert session.batches["unnamed"].results() == [0, 10, 20]
    assert executions(abandoned, range(8), "big") == [1] * 8
    assert executions(abandoned, range(3), "unnamed") == [1] * 3


def test_resubmission_of_which_nobody_keeps_the_list_changes_nothing(abandoned: Path) -> None:
    """The list that `resubmit` returns is no claim: without it everything goes on."""
    resubmitted()
    session = ScalableSession.attach()
    (abandoned / "go").touch()
    assert session.batches["big"].results() == [i * 10 for i in range(8)]
    assert session.batches["unnamed"].results() == [0, 10, 20]
    assert executions(abandoned, range(8), "big") == [1] * 8
    assert executions(abandoned, range(3), "unnamed") == [1] * 3


def test_batch_that_was_mapped_again_is_taken_from_the_cache(abandoned: Path) -> None:
    """The same map in a second kernel computes nothing, and neither does the next run."""
    session = ScalableSession.attach()
    keys = session.batches["x"].keys
    again = session.client.map(counted(abandoned, "f"), range(4), name="x")
    assert again.keys == keys
    assert again.results() == [0, 10, 20, 30]
    session.cancel("big")
    session.close()
    plan = planned()
    assert plan.from_cache >= 8
    futures = resubmitted()
    assert futures.session.batches["x"].results() == [0, 10, 20, 30]
    first, second = (batch for batch in all_batches(futures.session) if batch.name == "x")
    assert first.results() == second.results() == [0, 10, 20, 30]
    assert executions(abandoned, range(4)) == [1] * 4
