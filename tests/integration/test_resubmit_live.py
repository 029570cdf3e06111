"""Failed calls of a live session run again: with other code, on other terms, and nothing else."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from counting import calls, mark
from sessions import MANIFEST
from waiting import until

from scalable_nb import ScalableSession, TaskPolicy, errors, resubmit
from scalable_nb.resubmission.resubmit_plan import ResubmitPlan
from scalable_nb.telemetry.journal_reader import read_rows

COMPONENTS = """
  analysis: {cpus: 1, memory: 400M}
  large: {cpus: 1, memory: 900M, tags: [roomy]}
tasks:
  durable: {keep_results: true, compress: true}
"""


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ScalableSession]:
    """One session for all of these, with two components and a task whose results are kept."""
    folder = tmp_path_factory.mktemp("live")
    head, rest = MANIFEST.split("\n  analysis:", 1)
    (folder / "scalable.yaml").write_text(
        head + COMPONENTS + rest[rest.index("tasks:\n") + len("tasks:\n") :]
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        with ScalableSession.from_yaml() as live:
            yield live


def as_in_a_notebook(monkeypatch: pytest.MonkeyPatch, function: Callable[..., Any]) -> None:
    """Give a function the place that a notebook's cell would give it."""
    monkeypatch.setattr(sys.modules["__main__"], function.__name__, function, raising=False)


def test_corrected_code_runs_in_the_places_of_what_failed(
    session: ScalableSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Closure and helper are the new ones; what succeeded stays; each round runs fewer."""
    offset = 1

    def strictly(x: int) -> float:
        return 12 / x

    def leniently(x: int) -> float:
        return 12 / x if x else 0.0

    divide = strictly

    def simulate(x: int) -> float:
        mark(tmp_path, x)
        return divide(x - offset)

    as_in_a_notebook(monkeypatch, simulate)
    futures = session.client.map(simulate, range(4), name="corrected")
    later = session.client.map(lambda one: one * 2, futures)
    assert len(later.partial().failures) == 1
    assert "note:" not in str(resubmit(futures, dry_run=True))

    offset = 2  # the very same function, with another value in its closure
    plan = resubmit(futures, dry_run=True)
    assert isinstance(plan, ResubmitPlan)
    assert re.match(r"3 results are there, 1 task to run again, about \S+ core-hours", str(plan))
    assert "`simulate` has changed since, and runs as it was recorded; `func=simulate`" in str(plan)
    assert "note:" not in str(resubmit(futures, func=simulate, dry_run=True))

    def simulate_badly(x: int) -> float:
        mark(tmp_path, x)
        return divide(x - 1)

    still = resubmit(futures, func=simulate_badly)
    assert [future is old for future, old in zip(still, futures, strict=True)] == [
        *(True, False, True, True)
    ]
    assert [each.label for each in still.partial().failures] == ["simulate_badly(x=1)"]

    divide = leniently
    again = resubmit(still, func=simulate)
    assert again.results() == [-12.0, -12.0, 12.0, 6.0]
    assert again.resubmit().results() == again.results()
    assert [calls(tmp_path, x) for x in range(4)] == [1, 3, 1, 1]
    with pytest.raises(errors.SubmitError, match="not callable"):
        resubmit(futures, func="simulate")  # type: ignore[arg-type]


def test_failed_tasks_run_on_other_terms(session: ScalableSession, tmp_path: Path) -> None:
    """Retries, time, memory and component can be changed; the records say on which they ran."""

    def task(x: int) -> int:
        if mark(tmp_path, x) < x:
            raise ConnectionError(f"attempt for {x}")
        if x == 1:
            time.sleep(60)
        return x

    futures = session.client.map(task, range(4), tag="analysis", key="terms")
    assert len(futures.partial().failures) == 3
    with pytest.raises(errors.SubmitError, match=r"no component.*large 0.9 GB"):
        resubmit(futures, memory="2G")
    with pytest.raises(errors.SubmitError, match="'much' is not a size of memory"):
        resubmit(futures, memory="much")
    with pytest.raises(errors.SubmitError, match="both choose a component"):
        resubmit(futures, memory="1G", tag="large")
    with pytest.raises(errors.UnknownNameError, match="Did you mean 'roomy'"):
        resubmit(futures, tag="romy")
    assert [calls(tmp_path, x) for x in range(4)] == [1] * 4  # nothing ran of all that

    one = resubmit(futures[1:2], timeout_s=0.2)
    two = resubmit(futures[2:3], memory="500M", retries=1)
    three = resubmit(futures[3:], tag="roomy", retries=2)
    assert [each.failure_class for each in one.partial().failures] == ["TaskTimeoutError"]
    assert two.results() + three.results() == [2, 3]
    session.client.host_api.flush()
    assert session.paths is not None
    rows = {row["task_id"]: row for row in read_rows(session.paths.tasks).rows}
    ran = [rows[future.key]["component"] for future in futures]
    assert ran == ["analysis", "analysis", "large", "large"]
    assert list(futures.to_dataframe()["attempts_allowed"])[2:] == [3, 4]
    # The first one's result may have been lost with the worker that was stopped.
    assert [calls(tmp_path, x) for x in range(1, 4)] == [2, 3, 4]


def test_kept_results_outlive_their_worker(session: ScalableSession, tmp_path: Path) -> None:
    """With `keep_results: true`, or in a batch with a name up to a size that is told."""

    def make(nbytes: int) -> bytes:
        mark(tmp_path, nbytes)
        return bytes(nbytes)

    client = session.client
    named = client.map(make, [10, 2_000_000], name="outliving")
    durable = client.submit(make, 2_000_001, task="durable")
    alone = client.submit(make, 11)
    sizes = [*map(len, named.results()), len(durable.result()), len(alone.result())]
    assert sizes == [10, 2_000_000, 2_000_001, 11]
    client.host_api.flush()
    reported = [notice for notice in session.status().notices if "is not kept" in notice]
    assert len(reported) == 1
    assert "make(nbytes=2000000)" in reported[0]
    assert "the limit is 1.05 MB for a task that does not say `keep_results: true`" in reported[0]

    assert session.paths is not None
    kept = {row["task_id"]: row["bytes"] for row in read_rows(session.paths.cache).rows}
    assert kept[durable.key] < 100_000  # of two million

    for pid in client.run(os.getpid, nanny=False).values():
        os.kill(pid, signal.SIGKILL)
    until(lambda: "finished" not in {named[1].status, alone.status})
    assert [len(each) for each in client.gather([*named, durable, alone])] == sizes
    ran = [calls(tmp_path, nbytes) for nbytes in (10, 2_000_000, 2_000_001, 11)]
    assert ran == [1, 2, 1, 2]


def test_what_must_not_run_twice_is_named_or_left_out(
    session: ScalableSession, tmp_path: Path
) -> None:
    """A task that is not idempotent runs again only when its key says so."""

    def pay(x: int) -> int:
        if not mark(tmp_path, x):
            raise RuntimeError("refused")
        return x

    future = session.client.submit(pay, 1, policy=TaskPolicy(idempotent=False))
    with pytest.raises(RuntimeError):
        future.result()
    assert "1 left out (not idempotent)" in str(resubmit([future], dry_run=True))
    assert resubmit([future], only=str(future.key))[0].result() == 1
    assert calls(tmp_path, 1) == 2
