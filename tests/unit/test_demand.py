"""How many tasks ask for a worker."""

from __future__ import annotations

from tracked_scheduler import SchedulerAlone

from scalable_nb.faults.backoff import Backoff
from scalable_nb.faults.decision import PolicyTerms
from scalable_nb.host.workers.demand import runnable_by_component


def _runnable(host: SchedulerAlone) -> int:
    ledger, parts = host.recorder.ledger, host.parts
    return runnable_by_component(ledger, parts.adapter, parts.parked).total()


def test_what_waits_asks_for_no_worker() -> None:
    """Neither between two attempts, nor for an input, nor for a person's word."""
    host = SchedulerAlone(threads=1)
    worker = host.add_worker()
    host.submit(["parked"], PolicyTerms(retries=1, backoff=Backoff(base_s=3600)), [], "")
    host.submit(["blocked"], PolicyTerms(), ["parked"], "")
    assert _runnable(host) == 1
    (task,) = host.processing()
    assert host.ask_about_failure(*task, "transient")["will_retry"]
    host.give_back("parked", worker)
    assert _runnable(host) == 0
    host.remove_worker(worker)
    assert _runnable(host) == 0
    host.end_wait("parked")
    assert _runnable(host) == 1
    assert host.mishaps.found == []
    host.close()
