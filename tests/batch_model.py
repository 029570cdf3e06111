"""A model of batches, inputs, claims and resubmissions, in plain Python.

The model knows no Dask, no process and no file. Between two commands nothing runs: each command
ends when all it started is done. Rules that ADR 0026 leaves open are those a user would expect:

- A map of a call that failed runs it again, whichever kernel holds the failure.
- A call with a stored result of its own batch (a named one, ``keep_results``) is not answered by
  that result in a later batch: only `cacheable` and non-idempotent calls are.
- A list that a resubmission returned claims what the resubmission started, and what its kernel
  claimed before.
- A resubmission selects inputs that did not succeed and were not cancelled; if the host is gone,
  also those that succeeded and whose results were in memory. Inputs that failed with an input of
  theirs bring that along. Released results that selected inputs take are computed again.
- A `cacheable` call that takes results of others is stored only in a batch with a name. (A little
  later than others; the sequences leave that out.)
- Claimed inputs that failed only with an input of theirs recover when that one succeeds.
- `func=` replaces calls of the members of a list, not those of the inputs that these bring along.
- With ``only=``, inputs that failed with an input of theirs have no failure of their own.
- A non-idempotent call runs again only if it never ran.
- A failed input stays failed when the last claim on it goes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any, NamedTuple

from batch_kernel import failure_of, value_of


@dataclass(frozen=True)
class Call:
    """A function and its arguments; two inputs with equal calls share a task.

    Attributes
    ----------
    function : str
    kind : str
        ``plain``, ``cacheable``, ``durable`` (``keep_results``) or ``once`` (not idempotent).
    version : str
        ``old``, or ``good`` for corrected code.
    args : tuple
        Numbers, or calls whose results are taken.
    serial : int
        Not 0 for a call of a resubmission: it shares its task with no other.
    """

    function: str
    kind: str
    version: str
    args: tuple[Any, ...]
    serial: int = 0

    @property
    def inputs(self) -> list[Call]:
        """The calls whose results it takes."""
        return [each for each in self.args if isinstance(each, Call)]

    @property
    def is_kept(self) -> bool:
        """Whether its result is stored, also in a batch without a name."""
        if self.kind == "cacheable":
            return not self.inputs  # else it is not known which call it is
        return self.kind in ("durable", "once")

    def values(self) -> list[int]:
        """Return the arguments as numbers."""
        return [each.value() if isinstance(each, Call) else each for each in self.args]

    def value(self) -> int:
        """Return the result."""
        return value_of(self.version, self.values())

    def mark(self) -> str:
        """Return under which name its executions are counted."""
        return "-".join([self.function, self.version, *map(str, self.values())])


class Outcome(NamedTuple):
    """What became of an input: its state, and the result or the error's class."""

    state: str
    detail: Any = ""


NEVER_RAN = Outcome("never ran")
CANCELLED = Outcome("cancelled")
RELEASED = Outcome("released")
LOST = Outcome("failed", "HostDiedError")


@dataclass
class Task:
    """A task of the current run."""

    call: Call
    outcome: Outcome = NEVER_RAN
    in_memory: bool = False
    is_stored: bool = False
    was_called: bool = False
    left_out: str = ""

    @property
    def has_result(self) -> bool:
        """Whether its result can be read."""
        return self.outcome.state == "succeeded" and (self.in_memory or self.is_stored)

    def seen(self) -> Outcome:
        """Return the outcome as a user sees it."""
        if self.left_out and self.outcome != CANCELLED:
            return Outcome("left out", self.left_out)
        if self.outcome.state == "succeeded" and not self.has_result:
            return RELEASED
        return self.outcome


@dataclass
class Batch:
    """An ordered list of inputs: of each one, the call that computes it now."""

    batch_id: str
    name: str
    kernel: str
    calls: list[Call]
    is_named: bool = False


@dataclass
class HeldList:
    """A list of futures that a kernel holds, with the calls that it claims."""

    kernel: str
    calls: list[Call]
    claims: set[Call]
    batch_ids: tuple[str, ...] = ()
    cancelled: set[Call] = field(default_factory=set)


class Refused(Exception):
    """A command that must raise an error; the message is the error's class."""


class Model:
    """All that is known of a sequence.

    Attributes
    ----------
    executions : Counter
        How often each call was executed, by its mark.
    batches : dict of str to Batch
        By id, in the order of submission.
    lists : dict of str to HeldList
        By name; those of killed kernels go on claiming.
    """

    def __init__(self) -> None:
        self.executions: Counter[str] = Counter()
        self.fixed: set[str] = set()
        self.tasks: dict[Call, Task] = {}
        self.batches: dict[str, Batch] = {}
        self.lists: dict[str, HeldList] = {}
        self._cache: set[Call] = set()
        self._replaced: dict[Call, Call] = {}
        self._serials = count(1)

    # --- commands ------------------------------------------------------------------------

    def map(
        self, to: str, kernel: str, calls: Sequence[Call], batch_id: str, name: str, *,
        is_named: bool,
    ) -> None:  # fmt: skip
        """Add a batch and the list that claims it, and run what has to run."""
        self.batches[batch_id] = Batch(batch_id, name, kernel, list(calls), is_named)
        known = {call for call in calls if self._is_claimed(call)}
        self.lists[to] = HeldList(kernel, list(calls), set(calls), (batch_id,))
        for call in dict.fromkeys(calls):
            task = self.tasks.setdefault(call, Task(call))
            if call in known and task.has_result:
                task.in_memory = True
            elif not self._answer(task):
                task.is_stored = False
                self._run(task, keeps=is_named)
            self._keep(task, keeps=is_named)

    def map_blocked(
        self, to: str, kernel: str, calls: Sequence[Call], batch_id: str, name: str, *,
        is_named: bool, started: Iterable[str],
    ) -> None:  # fmt: skip
        """Add a batch of new calls, of which some have started and none can end."""
        self.batches[batch_id] = Batch(batch_id, name, kernel, list(calls), is_named)
        self.lists[to] = HeldList(kernel, list(calls), set(calls), (batch_id,))
        for call in calls:
            self.tasks[call] = Task(call, was_called=call.mark() in started)
        self.executions.update(started)

    def unblock(self, calls: Iterable[Call], *, keeps: bool) -> None:
        """Let blocked calls end, and run those that have not started; not cancelled ones."""
        for call in calls:
            task = self.tasks[call]
            if task.outcome == NEVER_RAN:
                self.executions[call.mark()] -= task.was_called
                self._run(task, keeps=keeps)
        self._forget_unclaimed()

    def cancel(self, calls: Iterable[Call]) -> None:
        """Cancel calls that have not ended, in all lists and batches."""
        cancelled = set(calls)
        for call in cancelled:
            self.tasks[call].outcome = CANCELLED
        for held in self.lists.values():
            held.cancelled |= cancelled & set(held.calls)

    def fix(self, error: str) -> None:
        """Fix a cause: calls do not raise this error any more."""
        self.fixed.add(error)

    def release(self, name: str) -> None:
        """Drop a list: what nobody else claims leaves the memory."""
        del self.lists[name]
        self._forget_unclaimed()

    def resubmit(
        self,
        to: str,
        kernel: str,
        calls: Sequence[Call],
        batch_ids: Iterable[str] = (),
        only: str | None = None,
        function: str = "",
        *,
        is_live: bool = True,
    ) -> None:
        """Run again what did not succeed; the new list has a member for each call."""
        batch_ids = tuple(batch_ids)
        current = [self.current(call, batch_ids) for call in calls]
        to_run = self.selected(current, only, is_live=is_live)
        chosen = {call for call in to_run if call in current}  # the others are inputs of these
        replaced = self._functions_to_replace(chosen, function)
        own_claims = {c for held in self._lists_of(kernel) for c in held.claims}
        anew: dict[Call, Call] = {}
        for call in self._in_order(to_run):
            is_corrected = call in chosen and call.function in replaced
            if is_corrected or any(each in anew for each in call.inputs):
                args = tuple(anew.get(each, each) for each in call.args)
                again = replace(call, args=args, serial=next(self._serials))
                anew[call] = _corrected(again, function) if is_corrected else again
        result = [anew.get(call, call) for call in current]
        started = {anew.get(call, call) for call in to_run}
        keeps = {anew.get(call, call): self._keeps(call) for call in to_run}
        claims = started | {call for call in result if call in own_claims}
        self.lists[to] = HeldList(kernel, result, claims, batch_ids)
        for call in self._in_order(started):
            task = self.tasks.setdefault(call, Task(call))
            if not task.has_result:
                self._run(task, keeps=keeps[call])
        self._replace(anew, set(batch_ids))
        self._forget_unclaimed()

    def take_over(self, to: str, kernel: str, only: str | None = None, function: str = "") -> None:
        """Resubmit the run in another one, after its host has gone with all that was in memory."""
        self.lists.clear()
        self._forget_unclaimed()
        calls = self.inputs()
        to_run = self.selected(calls, only, is_live=False)
        for call in dict.fromkeys(calls):
            task = self.tasks[call]
            if not task.has_result and call not in to_run:
                task.left_out = self._obstacle(call) or "not chosen by only="
        self.resubmit(to, kernel, calls, tuple(self.batches), only, function, is_live=False)

    # --- questions -----------------------------------------------------------------------

    def outcomes(self, name: str) -> list[Outcome]:
        """Return what a list has for each of its members."""
        held = self.lists[name]
        return [
            CANCELLED if call in held.cancelled else self.tasks[call].seen() for call in held.calls
        ]

    def outcomes_without_host(self, name: str) -> list[Outcome]:
        """Return what a list has when the host has died, and all that was in memory with it."""
        calls = self.lists[name].calls
        return [
            LOST if seen.state == "succeeded" and not self.tasks[call].is_stored else seen
            for call, seen in zip(calls, self.outcomes(name), strict=True)
        ]

    def batch_outcomes(self, batch_id: str) -> list[Outcome]:
        """Return what a batch has for each of its inputs."""
        return [self.tasks[call].seen() for call in self.batches[batch_id].calls]

    def inputs(self) -> list[Call]:
        """Return the call of each input of the run, in order."""
        return [call for batch in self.batches.values() for call in batch.calls]

    def counts(self) -> Counter[str]:
        """Return the number of inputs by state, as views count them."""
        states = Counter(self.tasks[call].seen().state for call in self.inputs())
        states["succeeded"] += states.pop("released", 0)
        return states

    def newest(self, name: str, kernel: str) -> str:
        """Return the id of the batch that a name stands for in a kernel."""
        found = [batch for batch in self.batches.values() if batch.name == name]
        own = [batch for batch in found if batch.kernel == kernel]
        return (own or found)[-1].batch_id

    def current(self, call: Call, batch_ids: Iterable[str] = ()) -> Call:
        """Return the call that took the place of a call, unless a batch still has that call."""
        if any(call in self.batches[batch_id].calls for batch_id in batch_ids):
            return call
        while call in self._replaced:
            call = self._replaced[call]
        return call

    def selected(
        self, calls: Sequence[Call], only: str | None = None, *, is_live: bool = True
    ) -> list[Call]:
        """Return the calls that a resubmission runs: those without a result, and their inputs.

        In a live run, a result that was released is none that is missed.

        Raises
        ------
        Refused
            If ``only`` is the class of no failure.
        """

        def is_missing(call: Call) -> bool:
            task = self.tasks[call]
            return task.outcome.state != "succeeded" if is_live else not task.has_result

        without = [call for call in dict.fromkeys(calls) if is_missing(call)]
        if only and not any(self._own_failure(call) == only for call in without):
            raise Refused("UnknownNameError")
        chosen = [
            call
            for call in without
            if not self._obstacle(call) and (only is None or self._own_failure(call) == only)
        ]
        needed = dict.fromkeys(chosen)
        stack = list(chosen)
        while stack:
            for call in map(self.current, stack.pop().inputs):
                if call not in needed and is_missing(call):
                    needed[call] = None
                    stack.append(call)
        return list(needed)

    # --- internals -----------------------------------------------------------------------

    def _is_claimed(self, call: Call) -> bool:
        return any(call in held.claims - held.cancelled for held in self.lists.values())

    def _lists_of(self, kernel: str) -> Iterator[HeldList]:
        return (held for held in self.lists.values() if held.kernel == kernel)

    def _answer(self, task: Task) -> bool:
        """Answer a call by a stored result of an earlier one, if that may be."""
        call = task.call
        if call.kind == "cacheable" and call in self._cache and not call.inputs:
            task.is_stored, task.outcome = True, Outcome("succeeded", call.value())
            return True
        return call.kind == "once" and task.is_stored

    def _keeps(self, call: Call) -> bool:
        """Return whether results of this call's task are stored for its batches."""
        return call.is_kept or any(
            batch.is_named and call in batch.calls for batch in self.batches.values()
        )

    def _run(self, task: Task, *, keeps: bool) -> None:
        """Execute a call, and before that those of its inputs whose results are gone."""
        task.left_out = ""
        sources = [self.tasks[call] for call in task.call.inputs]
        for source in sources:
            if source.seen() == RELEASED:
                self._run(source, keeps=False)
        failed = [each.outcome for each in sources if each.outcome.state != "succeeded"]
        if failed:
            task.outcome = Outcome("failed", failed[0].detail)
            return
        call = task.call
        self.executions[call.mark()] += 1
        task.was_called = True
        error = failure_of(call.values()[0])
        if error and call.version != "good" and error.__name__ not in self.fixed:
            task.outcome = Outcome("failed", error.__name__)
            return
        task.outcome, task.in_memory = Outcome("succeeded", call.value()), True
        self._keep(task, keeps=keeps)
        for other in list(self.tasks.values()):
            is_waiting = other.outcome.state == "failed" and not other.was_called
            if is_waiting and call in other.call.inputs and self._is_claimed(other.call):
                self._run(other, keeps=self._keeps(other.call))

    def _keep(self, task: Task, *, keeps: bool) -> None:
        if task.outcome.state != "succeeded":
            return
        if keeps or task.call.is_kept:
            task.is_stored = True
        if task.call.kind == "cacheable" and task.call.is_kept:
            self._cache.add(task.call)

    def _own_failure(self, call: Call) -> str:
        """Return the class of the error that the call itself raised."""
        task = self.tasks[call]
        return str(task.outcome.detail) if task.was_called and not task.has_result else ""

    def _obstacle(self, call: Call) -> str:
        """Return why a call without a result cannot run; empty if it can."""
        task = self.tasks[call]
        if task.outcome.state == "cancelled":
            return "cancelled"
        if call.kind == "once" and task.was_called:
            return "not idempotent"
        sources = list(map(self.current, call.inputs))
        if any(not self.tasks[each].has_result and self._obstacle(each) for each in sources):
            return "an input is left out"
        return ""

    def _functions_to_replace(self, calls: Iterable[Call], function: str) -> set[str]:
        names = {call.function for call in calls}
        if not function:
            return set()
        if len(names) <= 1:
            return names
        if function in names:
            return {function}
        raise Refused("SubmitError")

    def _in_order(self, calls: Iterable[Call]) -> list[Call]:
        """Return calls so that inputs come before what takes them."""
        return sorted(calls, key=_depth)

    def _replace(self, anew: dict[Call, Call], batch_ids: set[str]) -> None:
        for old, new in anew.items():
            holders = {b.batch_id for b in self.batches.values() if old in b.calls}
            for batch_id in holders & batch_ids or holders:
                batch = self.batches[batch_id]
                batch.calls = [new if call == old else call for call in batch.calls]
            self._replaced[old] = new

    def _forget_unclaimed(self) -> None:
        for call, task in self.tasks.items():
            if not self._is_claimed(call):
                task.in_memory = False


def _corrected(call: Call, function: str) -> Call:
    """Return the call of corrected code, whose result is stored if the old one would be."""
    kind = "durable" if call.kind == "cacheable" else call.kind
    return replace(call, function=function, version="good", kind=kind)


def _depth(call: Call) -> int:
    return 1 + max(map(_depth, call.inputs), default=0)
