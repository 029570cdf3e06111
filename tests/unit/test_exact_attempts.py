"""Every execution of a function is one attempt in the records, whatever Dask makes of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from tracked_scheduler import SchedulerAlone

from scalable_nb.faults.decision import PolicyTerms
from scalable_nb.protocol.exit_report import ExitCause
from scalable_nb.protocol.messages import PermitRequest, ResumeRequest
from scalable_nb.protocol.operations import Operation


@pytest.fixture
def host() -> Iterator[SchedulerAlone]:
    """A host in which nothing may go wrong unseen."""
    host = SchedulerAlone(threads=1)
    yield host
    assert host.mishaps.found == []


def work(host: SchedulerAlone) -> tuple[str, str, int]:
    """Key, worker and run of the one task that is on a worker."""
    (task,) = host.processing()
    return task


def lose_an_input(host: SchedulerAlone, **terms: Any) -> tuple[str, str, int]:
    """A sum was sent to a worker when its input is lost with another; gives where it was."""
    holder = host.add_worker()
    host.submit(["input"], PolicyTerms(), [], "")
    host.finish(*work(host))
    host.pause(holder)
    host.add_worker()
    host.submit(["sum"], PolicyTerms(**terms), ["input"], "")
    taken_back = work(host)
    if not PolicyTerms(**terms).idempotent:
        assert host.ask(Operation.ACQUIRE_PERMIT, PermitRequest(*taken_back))["is_granted"]
    host.remove_worker(holder)
    host.report_exit(holder, [], [])
    return taken_back


def finish_all(host: SchedulerAlone) -> None:
    """Let everything succeed that can."""
    while tasks := list(host.processing()):
        host.finish(*tasks[0])


def attempts(host: SchedulerAlone, key: str) -> list[tuple[int, str]]:
    """Number and outcome of each attempt of a task, from the journal."""
    failures, endings = host.close()
    rows = [(row["attempt"], row["message"]) for row in failures if row["task_id"] == key]
    return rows + [(row["attempts"], row["state"]) for row in endings if row["task_id"] == key]


TAKEN_BACK = "f(x): one of its inputs was lost with another worker, and Dask took it back"


def test_an_attempt_whose_input_is_lost_is_recorded(host: SchedulerAlone) -> None:
    """Its function goes on for nobody, as its worker says; it costs the task nothing."""
    key, worker, run_id = lose_an_input(host, worker_losses=0)
    assert (host.state("sum"), host.state("input")) == ("waiting", "processing")
    host.answer_revocation(worker, key, run_id, executing=[run_id], ended=[])
    finish_all(host)
    assert attempts(host, "sum") == [(1, TAKEN_BACK), (2, "succeeded")]


def test_a_task_whose_input_is_lost_before_it_began_has_no_attempt(host: SchedulerAlone) -> None:
    """It stood in line on its worker, which says so."""
    key, worker, run_id = lose_an_input(host)
    host.answer_revocation(worker, key, run_id, executing=[], ended=[])
    finish_all(host)
    assert attempts(host, "sum") == [(1, "succeeded")]


def test_a_task_whose_input_is_lost_does_not_run_before_its_worker_has_told(
    host: SchedulerAlone,
) -> None:
    """Otherwise the same worker might go on with what it was told to forget."""
    key, worker, run_id = lose_an_input(host)
    host.finish(*work(host))
    assert not list(host.processing())
    host.answer_revocation(worker, key, run_id, executing=[], ended=[run_id])
    assert work(host)[0] == "sum"
    finish_all(host)
    outcome = f"{TAKEN_BACK}, after the function had ended and before its outcome arrived"
    assert attempts(host, "sum") == [(1, outcome), (2, "succeeded")]


def test_a_worker_that_dies_before_it_tells_has_a_nanny_that_does(host: SchedulerAlone) -> None:
    """The word of the nanny counts as the worker's own."""
    _, worker, run_id = lose_an_input(host)
    host.remove_worker(worker)
    host.report_exit(worker, executing=[run_id], ended=[])
    host.add_worker()
    finish_all(host)
    lost, succeeded = attempts(host, "sum")
    assert lost == (1, "f(x): the worker process was ended by SIGKILL, perhaps by the kernel for "
                       "want of memory")  # fmt: skip
    assert succeeded == (2, "succeeded")


def test_a_task_that_must_not_run_twice_does_not_when_its_input_is_lost(
    host: SchedulerAlone,
) -> None:
    """Its function was called and gave no result that was kept: it has failed for good."""
    key, worker, run_id = lose_an_input(host, idempotent=False)
    host.answer_revocation(worker, key, run_id, executing=[], ended=[run_id])
    finish_all(host)
    assert host.recorder.ledger.count()["failed"] == 1
    assert [number for number, _ in attempts(host, "sum")] == [1, 1]  # its row, and its end


def test_a_lost_result_that_a_worker_had_fetched_is_no_attempt(host: SchedulerAlone) -> None:
    """Sent there to be computed again, it is found, and no function is called for it."""
    holder = host.add_worker()
    host.submit(["task"], PolicyTerms(), [], "")
    host.finish(*work(host))
    host.remove_worker(holder)
    host.add_worker()
    host.finish(*work(host), is_fetched=True)
    counts, columns = host.recorder.ledger.count(), host.recorder.ledger.columns
    assert (counts["succeeded"], columns["attempt"][0]) == (1, 1)
    assert attempts(host, "task") == [(1, "succeeded")]


def test_a_failure_that_is_told_too_late_is_no_failure_but_a_lost_attempt(
    host: SchedulerAlone,
) -> None:
    """Over a new connection, when the host has given up the worker: its nanny's word counts."""
    worker = host.add_worker()
    host.submit(["task"], PolicyTerms(), [], "")
    key, _, run_id = work(host)
    host.remove_worker(worker)
    answer = host.ask_about_failure(key, worker, run_id, "transient")
    assert answer == {"will_retry": False, "is_recorded": False}  # so that it stays noted
    host.report_exit(worker, executing=[], ended=[run_id], cause=ExitCause.CUT)
    host.add_worker()
    finish_all(host)
    (number, message), succeeded = attempts(host, "task")
    assert (number, succeeded) == (1, (2, "succeeded"))
    assert "after the function had ended" in message


def test_a_late_word_on_a_cancelled_task_is_not_about_its_successor(host: SchedulerAlone) -> None:
    """The same call, cancelled, submitted again and lost again, waits for its own nanny's word."""
    lost = []
    for number in range(2):
        lost.append(host.add_worker())
        if number:
            host.release(["task"])
        host.submit(["task"], PolicyTerms(), [], "")
        _, _, run_id = work(host)
        host.remove_worker(lost[-1])
    host.report_exit(lost[0], executing=[], ended=[])
    host.report_exit(lost[1], executing=[run_id], ended=[])
    host.add_worker()
    finish_all(host)
    assert [number for number, _ in attempts(host, "task")][-2:] == [0, 2]  # cancelled; and ran


def test_what_is_lost_while_its_batch_is_paused_stays_paused(host: SchedulerAlone) -> None:
    """A word about a lost attempt is not the word that the person was asked for."""
    lost, living = host.add_worker(), host.add_worker()
    host.submit(list("abcdef"), PolicyTerms(), [], "study")
    executing = [run_id for _, worker, run_id in host.processing() if worker == lost]
    host.remove_worker(lost)
    for _ in range(3):
        task = next(task for task in host.processing() if task[1] == living)
        assert not host.ask_about_failure(*task, "permanent")["will_retry"]
        host.err(*task)
    host.report_exit(lost, executing=executing, ended=[])
    assert host.recorder.ledger.count()["paused"] == 3
    assert host.ask(Operation.RESUME_BATCHES, ResumeRequest(None)) == {"count": 3}
    host.close()
