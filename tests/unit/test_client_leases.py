"""Claims and observations of clients, and what their end does to tasks."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from tracked_scheduler import CLIENT, SchedulerAlone

from scalable_nb.faults.decision import PolicyTerms
from scalable_nb.protocol.messages import CancelRequest, ResubmitRequest, TaskKeys
from scalable_nb.protocol.operations import Operation
from scalable_nb.telemetry.rows import CANCELLED_BY_USER, RELEASED

OTHER = "another-client"
TERMS = PolicyTerms()


@pytest.fixture
def host() -> Iterator[SchedulerAlone]:
    """Two clients are connected to a host without workers."""
    made = SchedulerAlone()
    made.add_client(OTHER)
    yield made
    assert made.mishaps.found == []
    if not made.is_closed:
        made.close()


def finish(host: SchedulerAlone, *keys: str) -> None:
    """Workers finish tasks."""
    for key, worker, run_id in list(host.processing()):
        if key in keys:
            host.finish(key, worker, run_id)


def reasons(host: SchedulerAlone) -> dict[str, tuple[str, str | None]]:
    """State and reason of each ended task; closes the host."""
    _, endings = host.close()
    return {row["task_id"]: (row["state"], row["reason"]) for row in endings}


def released(host: SchedulerAlone, client: str) -> list[str]:
    """The tasks that a client was notified of as released."""
    return [
        key
        for message in host.received(client)
        if message["op"] == "cancelled-keys" and message["reason"] == RELEASED
        for key in message["keys"]
    ]


def drop_left(host: SchedulerAlone, *keys: str) -> tuple[str, ...]:
    """Drop the claims of vanished clients."""
    return tuple(host.ask(Operation.DROP_LEFT_CLAIMS, TaskKeys(keys))["keys"])


# --- observations ------------------------------------------------------------------------


def test_released_observation_changes_nothing(host: SchedulerAlone) -> None:
    """A task that another client claims stays as it is."""
    host.submit(["a", "b"], TERMS, [], "")
    assert host.join(OTHER, ["a", "b"], is_claim=False) == ()
    host.release(["a", "b"], OTHER)
    assert (host.state("a"), host.state("b")) == ("queued", "queued")
    host.add_worker()
    finish(host, "a", "b")
    assert (host.state("a"), host.state("b")) == ("memory", "memory")


def test_observer_receives_the_states(host: SchedulerAlone) -> None:
    """It is told of results that are there, and of those that come."""
    host.add_worker()
    host.submit(["a", "b"], TERMS, [], "")
    finish(host, "a")
    host.join(OTHER, ["a", "b"], is_claim=False)
    finish(host, "b")
    seen = [each["key"] for each in host.received(OTHER) if each["op"] == "key-in-memory"]
    assert seen == ["a", "b"]


def test_observation_keeps_nothing(host: SchedulerAlone) -> None:
    """With the last claim the task goes, and the observer is notified."""
    host.submit(["a"], TERMS, [], "")
    host.join(OTHER, ["a"], is_claim=False)
    host.release(["a"])
    assert host.state("a") == "forgotten"
    assert released(host, OTHER) == ["a"]
    assert released(host, CLIENT) == []
    assert reasons(host) == {"a": ("never ran", RELEASED)}


def test_tasks_without_claim_cannot_be_observed(host: SchedulerAlone) -> None:
    """Neither an unknown task, nor one that only stays as an input."""
    host.submit(["input"], TERMS, [], "")
    host.submit(["a"], TERMS, ["input"], "")
    host.release(["input"])
    asked = ["input", "a", "unknown"]
    assert host.join(OTHER, asked, is_claim=False) == ("input", "unknown")
    assert host.join(OTHER, asked, is_claim=True) == ("unknown",)


def test_claim_cannot_revive_a_task_that_will_not_run(host: SchedulerAlone) -> None:
    """Dask remembers a released input of a failed task; a future of it would stay pending."""
    host.add_worker()
    host.submit(["input"], TERMS, [], "")
    host.submit(["a"], TERMS, ["input"], "")
    finish(host, "input")
    host.release(["input"])
    ((key, worker, run_id),) = host.processing()
    host.ask_about_failure(key, worker, run_id, "permanent")
    host.err(key, worker, run_id)
    assert host.state("input") == "released"
    assert host.join(OTHER, ["input"], is_claim=True) == ("input",)


@pytest.mark.parametrize("how", ["join", "submit", "desire"])
def test_observer_that_claims_keeps_the_task(host: SchedulerAlone, how: str) -> None:
    """By its request, by its own graph, or by a future that it got otherwise."""
    host.submit(["a"], TERMS, [], "")
    host.join(OTHER, ["a"], is_claim=False)
    if how == "join":
        assert host.join(OTHER, ["a"], is_claim=True) == ()
    elif how == "submit":
        host.submit(["a"], TERMS, [], "", client=OTHER)
    else:
        host.desire(["a"], OTHER)
    host.release(["a"])
    assert host.state("a") == "queued"
    host.release(["a"], OTHER)
    assert host.state("a") == "forgotten"


def test_claimer_that_observes_still_claims(host: SchedulerAlone) -> None:
    """Looking at one's own tasks takes no claim away."""
    host.submit(["a"], TERMS, [], "")
    host.join(CLIENT, ["a"], is_claim=False)
    host.join(OTHER, ["a"], is_claim=False)
    host.release(["a"], OTHER)
    assert host.state("a") == "queued"


# --- clients that vanish -----------------------------------------------------------------


def test_claims_of_a_vanished_client_stay(host: SchedulerAlone) -> None:
    """Whoever observes or claims its tasks later and lets go of them."""
    host.submit(["a", "b"], TERMS, [], "")
    host.remove_client(CLIENT)
    for is_claim in (False, True):
        assert host.join(OTHER, ["a", "b"], is_claim=is_claim) == ()
        host.release(["a", "b"], OTHER)
    host.add_worker()
    finish(host, "a", "b")
    assert (host.state("a"), host.state("b")) == ("memory", "memory")


def test_dropped_left_claims_release_what_nobody_else_claims(host: SchedulerAlone) -> None:
    """A task that another client claims stays, and its claims are not counted."""
    host.submit(["a", "b"], TERMS, [], "")
    host.join(OTHER, ["b"], is_claim=True)
    assert drop_left(host, "a", "b") == ()
    host.remove_client(CLIENT)
    assert drop_left(host, "a", "b", "unknown") == ("a", "b")
    assert (host.state("a"), host.state("b")) == ("forgotten", "queued")


def test_observations_of_a_vanished_client_are_no_claims(host: SchedulerAlone) -> None:
    """They end with it."""
    host.submit(["a"], TERMS, [], "")
    host.join(OTHER, ["a"], is_claim=False)
    host.remove_client(OTHER)
    host.release(["a"])
    assert host.state("a") == "forgotten"


# --- tasks that run to their end ---------------------------------------------------------


def test_task_of_a_named_batch_runs_after_its_last_claim(host: SchedulerAlone) -> None:
    """It is released when it has ended, and observers are notified then."""
    host.submit(["a"], TERMS, [], "study", runs_to_end=True)
    host.join(OTHER, ["a"], is_claim=False)
    host.release(["a"])
    assert host.state("a") == "queued"
    assert released(host, OTHER) == []
    host.add_worker()
    finish(host, "a")
    assert host.state("a") == "forgotten"
    assert released(host, OTHER) == ["a"]
    assert reasons(host) == {"a": ("succeeded", None)}


def test_task_that_runs_to_its_end_can_be_claimed_meanwhile(host: SchedulerAlone) -> None:
    """Its result stays then."""
    host.submit(["a"], TERMS, [], "study", runs_to_end=True)
    host.release(["a"])
    assert host.join(OTHER, ["a"], is_claim=True) == ()
    host.add_worker()
    finish(host, "a")
    assert host.state("a") == "memory"
    host.release(["a"], OTHER)
    assert host.state("a") == "forgotten"


def test_failed_task_is_reported_to_observers_before_it_is_released(host: SchedulerAlone) -> None:
    """So that they know its error."""
    host.submit(["a"], TERMS, [], "study", runs_to_end=True)
    host.join(OTHER, ["a"], is_claim=False)
    host.release(["a"])
    host.add_worker()
    ((key, worker, run_id),) = host.processing()
    host.ask_about_failure(key, worker, run_id, "permanent")
    host.received(OTHER)
    host.err(key, worker, run_id)
    assert [each["op"] for each in host.received(OTHER)] == ["task-erred", "cancelled-keys"]


def test_named_batch_with_known_tasks_makes_them_run_to_their_end(host: SchedulerAlone) -> None:
    """The task came with an unnamed batch before."""
    host.submit(["a"], TERMS, [], "")
    host.submit(["a"], TERMS, [], "study", client=OTHER, runs_to_end=True)
    host.release(["a"])
    host.release(["a"], OTHER)
    assert host.state("a") == "queued"


def test_resubmitted_task_runs_to_its_end(host: SchedulerAlone) -> None:
    """Also if its batch has no name."""
    host.add_worker()
    host.submit(["a"], TERMS, [], "")
    ((key, worker, run_id),) = host.processing()
    host.ask_about_failure(key, worker, run_id, "permanent")
    host.err(key, worker, run_id)
    host.ask(Operation.RESUBMIT, ResubmitRequest(("a",), {}, (), dry_run=False))
    host.release(["a"])
    finish(host, "a")
    assert reasons(host)["a"] == ("succeeded", None)


@pytest.mark.parametrize("by", ["host", "client", "after release"])
def test_cancelled_task_does_not_run_to_its_end(host: SchedulerAlone, by: str) -> None:
    """Whoever cancels it, before or after the last claim; the row says that the user did."""
    host.submit(["a"], TERMS, [], "study", runs_to_end=True)
    if by == "after release":
        host.release(["a"])
    if by == "client":
        host.cancel(["a"])
    else:
        host.ask(Operation.CANCEL_BATCHES, CancelRequest(("study",), only_paused=False))
    assert host.state("a") == "forgotten"
    assert reasons(host) == {"a": ("cancelled", CANCELLED_BY_USER)}


def test_all_claims_end_with_the_host(host: SchedulerAlone) -> None:
    """Also those on tasks that were to run to their end."""
    host.submit(["a"], TERMS, [], "study", runs_to_end=True)
    host.submit(["b"], TERMS, [], "study", runs_to_end=True)
    host.release(["a"])
    host.release_all()
    assert not host.scheduler.tasks


# --- cancelling --------------------------------------------------------------------------


@pytest.mark.parametrize("is_claim", [False, True])
def test_client_cancels_what_a_vanished_one_left(host: SchedulerAlone, is_claim: bool) -> None:
    """An observer may, too."""
    host.submit(["a"], TERMS, [], "")
    host.remove_client(CLIENT)
    host.join(OTHER, ["a"], is_claim=is_claim)
    host.cancel(["a"], OTHER)
    assert host.state("a") == "forgotten"


def test_client_does_not_cancel_what_another_claims(host: SchedulerAlone) -> None:
    """Unless it forces the end."""
    host.submit(["a"], TERMS, [], "")
    host.join(OTHER, ["a"], is_claim=True)
    host.cancel(["a"])
    assert host.state("a") == "queued"
    host.cancel(["a"], force=True)
    assert host.state("a") == "forgotten"


def test_observers_do_not_keep_a_task_from_being_cancelled(host: SchedulerAlone) -> None:
    """They are notified like all clients."""
    host.submit(["a"], TERMS, [], "")
    host.join(OTHER, ["a"], is_claim=False)
    host.cancel(["a"])
    assert host.state("a") == "forgotten"


def test_dependent_that_a_vanished_client_left_is_not_cancelled(host: SchedulerAlone) -> None:
    """Its input runs for it, and is not recorded as cancelled."""
    host.submit(["input"], TERMS, [], "", client=OTHER)
    host.submit(["a"], TERMS, ["input"], "")
    host.remove_client(CLIENT)
    host.cancel(["input"], OTHER)
    host.add_worker()
    finish(host, "input")
    finish(host, "a")
    assert reasons(host) == {"input": ("succeeded", None), "a": ("succeeded", None)}


# --- records -----------------------------------------------------------------------------


def test_finished_task_stays_finished_in_the_records(host: SchedulerAlone) -> None:
    """Released and cancelled, it has one row."""
    host.add_worker()
    host.submit(["a", "b"], TERMS, [], "")
    finish(host, "a", "b")
    host.release(["a"])
    host.cancel(["b"])
    assert host.recorder.ledger.count()["succeeded"] == 2
    assert reasons(host) == {"a": ("succeeded", None), "b": ("succeeded", None)}


def test_task_that_is_computed_again_stays_finished_in_the_records(host: SchedulerAlone) -> None:
    """Its result was lost with a worker; then its last claim is released."""
    worker = host.add_worker()
    host.submit(["a"], TERMS, [], "")
    finish(host, "a")
    host.remove_worker(worker)
    assert host.recorder.ledger.count()["succeeded"] == 0
    host.release(["a"])
    assert host.recorder.ledger.count()["succeeded"] == 1
    assert reasons(host) == {"a": ("succeeded", None)}


# --- any sequence ------------------------------------------------------------------------

CLIENTS = ("client-0", "client-1", "client-2")


@dataclass
class Known:
    """What the model knows of a task that the host has."""

    claims: set[str]
    runs_to_end: bool
    observers: set[str] = field(default_factory=set)
    is_left: bool = False
    runs_on: bool = False
    is_finished: bool = False


class Clients(RuleBasedStateMachine):
    """Clients come, submit, look, claim, release, cancel and go, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.host = SchedulerAlone()
        self.host.add_worker()
        self.connected: list[str] = []
        self.known: dict[str, Known] = {}
        self.outcomes: dict[str, tuple[str, str | None]] = {}
        self.count = 0

    # --- clients ---------------------------------------------------------------------

    @precondition(lambda self: len(self.connected) < len(CLIENTS))
    @rule()
    def a_client_comes(self) -> None:
        client = next(name for name in CLIENTS if name not in self.connected)
        self.host.add_client(client)
        self.connected.append(client)

    @precondition(lambda self: self.connected)
    @rule(data=st.data())
    def a_client_vanishes(self, data: st.DataObject) -> None:
        client = self._client(data)
        self.host.remove_client(client)
        self.connected.remove(client)
        for task in self.known.values():
            task.is_left |= client in task.claims
            task.claims.discard(client)
            task.observers.discard(client)

    @precondition(lambda self: self.connected)
    @rule(data=st.data(), runs_to_end=st.booleans())
    def submit(self, data: st.DataObject, runs_to_end: bool) -> None:
        client, key = self._client(data), f"key-{self.count}"
        self.count += 1
        self.host.submit([key], TERMS, [], "", client=client, runs_to_end=runs_to_end)
        self.known[key] = Known({client}, runs_to_end)

    @precondition(lambda self: self.connected and self.known)
    @rule(data=st.data(), runs_to_end=st.booleans())
    def submit_again(self, data: st.DataObject, runs_to_end: bool) -> None:
        client, key = self._client(data), self._key(data)
        self.host.submit([key], TERMS, [], "", client=client, runs_to_end=runs_to_end)
        task = self.known[key]
        task.runs_to_end |= runs_to_end
        self._claim(task, client)

    @precondition(lambda self: self.connected and self.count)
    @rule(data=st.data(), is_claim=st.booleans())
    def join(self, data: st.DataObject, is_claim: bool) -> None:
        client = self._client(data)
        key = data.draw(st.sampled_from([f"key-{n}" for n in range(self.count)]))
        unknown = self.host.join(client, [key], is_claim=is_claim)
        assert unknown == (() if key in self.known else (key,))
        if key in self.known and is_claim:
            self._claim(self.known[key], client)
        elif key in self.known and client not in self.known[key].claims:
            self.known[key].observers.add(client)

    @precondition(lambda self: self.connected and self.known)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        client, key = self._client(data), self._key(data)
        self.host.release([key], client)
        task = self.known[key]
        task.observers.discard(client)
        task.claims.discard(client)
        self._settle(key)

    @precondition(lambda self: self.known)
    @rule(data=st.data())
    def drop_what_was_left(self, data: st.DataObject) -> None:
        key = self._key(data)
        left = drop_left(self.host, key)
        assert left == ((key,) if self.known[key].is_left else ())
        self.known[key].is_left = False
        self._settle(key)

    # --- the ends of tasks -----------------------------------------------------------

    @precondition(lambda self: list(self.host.processing()))
    @rule(data=st.data())
    def a_task_finishes(self, data: st.DataObject) -> None:
        key, worker, run_id = data.draw(st.sampled_from(list(self.host.processing())))
        self.host.finish(key, worker, run_id)
        self.outcomes[key] = "succeeded", None
        self.known[key].is_finished, self.known[key].runs_on = True, False
        self._settle(key)

    @precondition(lambda self: self.connected and self.known)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        client, key = self._client(data), self._key(data)
        self.host.cancel([key], client)
        task = self.known[key]
        if client in task.claims | task.observers:
            is_others = bool(task.claims - {client})
        else:
            is_others = bool(task.claims or task.is_left or task.runs_on)
        if not is_others:
            self._end(key, CANCELLED_BY_USER)

    @precondition(lambda self: self.known)
    @rule(data=st.data())
    def cancel_for_all(self, data: st.DataObject) -> None:
        key = self._key(data)
        self.host.ask(Operation.CANCEL_TASKS, TaskKeys((key,)))
        if not self.known[key].is_finished:
            self._end(key, CANCELLED_BY_USER)

    # --- the model -------------------------------------------------------------------

    def _client(self, data: st.DataObject) -> str:
        return data.draw(st.sampled_from(self.connected))

    def _key(self, data: st.DataObject) -> str:
        return data.draw(st.sampled_from(sorted(self.known)))

    def _claim(self, task: Known, client: str) -> None:
        task.claims.add(client)
        task.observers.discard(client)

    def _settle(self, key: str) -> None:
        task = self.known[key]
        if task.claims or task.is_left or task.runs_on:
            return
        if task.runs_to_end and not task.is_finished:
            task.runs_on = True
            return
        notified = {client: released(self.host, client) for client in task.observers}
        assert notified == {client: [key] for client in task.observers}
        self._end(key, RELEASED)

    def _end(self, key: str, reason: str) -> None:
        if not self.known.pop(key).is_finished:
            state = "cancelled" if reason == CANCELLED_BY_USER else "never ran"
            self.outcomes[key] = state, reason
        gc.collect()  # tasks are equal by key: Dask's queue may hold a forgotten one

    @invariant()
    def the_host_has_what_the_model_has(self) -> None:
        assert self.host.mishaps.found == []
        assert {str(key) for key in self.host.scheduler.tasks} == set(self.known)
        for key, task in self.known.items():
            expected = task.claims | task.observers
            expected |= {"scalable-left-claims"} if task.is_left else set()
            expected |= {"fire-and-forget"} if task.runs_on else set()
            who_wants = self.host.scheduler.tasks[key].who_wants or ()
            assert {cs.client_key for cs in who_wants} == expected, key
        self.host.scheduler.validate_state()

    def teardown(self) -> None:
        assert reasons(self.host) == self.outcomes


Clients.TestCase.settings = settings(
    max_examples=25, stateful_step_count=30, deadline=None, derandomize=True
)


class TestClients(Clients.TestCase):  # type: ignore[name-defined,misc]
    """Tasks stay, run on, or end as the model says."""
