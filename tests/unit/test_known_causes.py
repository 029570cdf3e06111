"""Runs with one planted cause: the diagnosis names it first, and nothing where nothing is."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from synthetic_journals import RESET, AttemptEnd, Call, Plan, run_with

from scalable_nb.diagnosis.diagnose import diagnose
from scalable_nb.diagnosis.findings import Finding

SEEDS = range(10)


def some(values: dict[str, Any], share: float = 0.15, attempts: int = 1) -> Plan:
    """Some calls fail for good, whichever they are."""

    def plan(call: Call, dice: random.Random) -> AttemptEnd | None:
        return (attempts, True, values) if dice.random() < share else None

    return plan


def where(is_bad: Callable[[Call], bool], values: dict[str, Any], likely: float = 0.9) -> Plan:
    """Nearly all calls of a kind fail for good, others hardly ever."""

    def plan(call: Call, dice: random.Random) -> AttemptEnd | None:
        return (1, True, values) if dice.random() < (likely if is_bad(call) else 0.01) else None

    return plan


def flaky(call: Call, dice: random.Random) -> AttemptEnd | None:
    """Every attempt fails with one half, and there are two."""
    if dice.random() < 0.5:
        return None
    return (1, False, UNKNOWN) if dice.random() < 0.5 else (2, True, UNKNOWN)


def wave(call: Call, dice: random.Random) -> AttemptEnd | None:
    """What runs when the jobs are taken away is lost, and the rest is not."""
    lost = 200 <= call.number < 216
    values = {**LOST, "worker": f"worker-{call.number - 200}"}
    return (1, dice.random() < 0.5, values) if lost else None


UNKNOWN = {
    "failure_class": "RuntimeError",
    "category": "unknown",
    "message": "solver did not converge",
    "fingerprint": "converge",
}
OOM = {
    "failure_class": "OutOfMemoryError",
    "category": "resource",
    "message": "the worker used 3.9 GB of its limit of 4 GB and was ended",
    "memory_bytes": 3_900_000_000,
    "memory_limit_bytes": 4_000_000_000,
}
LOST = {
    "failure_class": "WorkerLostError",
    "category": "infrastructure",
    "message": "the worker process was ended by SIGTERM",
    "job_state": "PREEMPTED",
}
BAD = {"failure_class": "ValueError", "category": "permanent", "message": "no data"}

SYNTHETIC: list[tuple[str, Plan]] = [
    ("out_of_memory", some(OOM, attempts=3)),
    ("timeout", some({"failure_class": "TaskTimeoutError", "category": "timeout",
                      "message": "exceeded 300s limit", "duration_s": 300.0})),
    ("walltime", some({**LOST, "job_state": "TIMEOUT", "duration_s": 3500.0})),
    ("preempted", some(LOST, share=0.05)),
    ("fast_permanent", some({**BAD, "duration_s": 0.05})),
    ("permanent", some({**BAD, "duration_s": 40.0})),
    ("missing_module", some({"failure_class": "ModuleNotFoundError", "category": "permanent",
                             "message": "No module named 'xarray'"}, share=1.0)),
    ("missing_file", some({"failure_class": "FileNotFoundError", "category": "permanent",
                           "message": "[Errno 2] No such file or directory: '/data/a.nc'"})),
    ("permission", some({"failure_class": "PermissionError", "category": "permanent",
                         "message": "[Errno 13] Permission denied: '/data/b.nc'"})),
    ("network", some({"failure_class": "HTTPError", "category": "transient",
                      "message": "429 Too Many Requests"}, attempts=4)),
    ("network", some(RESET, attempts=4)),
    ("disk_full", some({"failure_class": "OSError", "category": "resource",
                        "message": "[Errno 28] No space left on device: '/tmp/x'"})),
    ("lost_worker", some({**LOST, "job_state": None, "message": "ended by SIGSEGV"}, 0.05, 4)),
    ("bad_node", where(lambda call: call.host == "n3",
                       {"failure_class": "OSError", "category": "unknown",
                        "message": "[Errno 5] Input/output error"})),
    ("bad_argument_range", where(lambda call: call.year < 1965, {**BAD, "duration_s": 0.2})),
    ("bad_argument_range", where(lambda call: call.region == "east", {**BAD, "duration_s": 5.0})),
    ("systematic_failure", some(UNKNOWN, share=1.0)),
    ("preemption_wave", wave),
    ("retries_useless", some(UNKNOWN, attempts=4)),
    ("retries_too_few", flaky),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "plan"), SYNTHETIC)
def test_a_known_cause_is_named_first(rule: str, plan: Plan) -> None:
    """Of ten runs with one cause and some noise, the diagnosis puts it first in nine at least."""
    firsts = [first(plan, seed).rule for seed in SEEDS]
    assert firsts.count(rule) >= 9, firsts


def first(plan: Plan, seed: int) -> Finding:
    run = run_with(plan, seed)
    found = diagnose(run.failures, tasks=run.tasks)
    for finding in found:
        assert 0 < finding.confidence <= 1
        assert finding.evidence["attempts"] >= 1
        assert finding.sentence
        assert finding.action
    return found[0]


@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_is_named_on_a_clean_run(seed: int) -> None:
    """Where nothing failed, nothing is found."""
    run = run_with(lambda call, dice: None, seed, noise=0.0)
    assert diagnose(run.failures, tasks=run.tasks, workers=connected(8)) == []


@pytest.mark.parametrize("seed", SEEDS)
def test_chance_is_no_pattern(seed: int) -> None:
    """Failures without a pattern are blamed on no node, no argument and no wave."""
    run = run_with(some(UNKNOWN, share=0.2), seed)
    rules = {finding.rule for finding in diagnose(run.failures, tasks=run.tasks)}
    assert rules <= {"network", "retries_helped"}


def test_the_node_and_the_values_are_named() -> None:
    """The bad node, and the range of the argument, stand in the sentence with their numbers."""
    plans = dict(SYNTHETIC)
    node = first(plans["bad_node"], 1)
    assert "the node `n3`" in node.sentence
    assert "--exclude=n3" in node.action
    assert node.evidence["rate_there"][0] > 0.7 > 0.1 > node.evidence["rate_elsewhere"][0]
    of_years, of_regions = (plan for rule, plan in SYNTHETIC if rule == "bad_argument_range")
    years = first(of_years, 1)
    assert years.evidence["argument"] == "year"
    low, high = map(float, years.evidence["values"].split(" to "))
    assert (low, high) == (pytest.approx(1951, abs=3), pytest.approx(1964, abs=3))
    region = first(of_regions, 1)
    assert "`region` = 'east'" in region.sentence


def test_memory_is_asked_for_by_what_was_used() -> None:
    """The memory to ask for comes from peak, limit and the allocation that was refused."""
    finding = first(SYNTHETIC[0][1], 0)
    assert finding.evidence["peak_bytes"] == 3_900_000_000
    assert finding.changes == {"memory": "8G"}
    assert "memory='8G'" in finding.code


def test_enough_retries_are_proposed() -> None:
    """Where every second retry helps, seven give nearly all tasks a result."""
    finding = first(flaky, 3)
    assert finding.changes is not None
    assert 4 <= finding.changes["retries"] <= 10
    assert finding.code == f"resubmit(futures, retries={finding.changes['retries']})"


def connected(jobs: int, *, lost: int = 0) -> list[dict[str, Any]]:
    names = [f"analysis-{n}" for n in range(jobs)]
    rows = [{"event_type": "job-submitted", "worker": name, "job_id": f"9{n}"}
            for n, name in enumerate(names)]  # fmt: skip
    rows += [{"event_type": "worker-connected", "worker": f"{name}-0"} for name in names[lost:]]
    return rows + [{"event_type": "job-ended", "worker": name} for name in names]


@pytest.mark.parametrize("seed", SEEDS)
def test_jobs_that_never_became_workers_are_named(seed: int) -> None:
    """Jobs without a worker are a finding of their own, also where no task failed at all."""
    lost = random.Random(seed).randrange(2, 9)
    (finding,) = diagnose([], workers=connected(8, lost=lost))
    assert finding.rule == "worker_not_connected"
    assert f"{lost} of 8 jobs (e.g. 90)" in finding.sentence
    assert "%scalable logs 90" in finding.action
