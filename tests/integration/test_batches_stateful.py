"""Random sequences of commands on batches have the outcomes that a plain-Python model predicts.

A sequence that fails is printed as Python code. ``BATCH_SEQUENCES=1000`` runs that many;
``make model`` does.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any, Protocol

import batch_kernel
import pytest
from batch_kernel import MANIFEST, Kernel, executions
from batch_model import CANCELLED, NEVER_RAN, RELEASED, Call, HeldList, Model, Outcome, Refused
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    precondition,
    rule,
    run_state_machine_as_test,
)
from kernels import kill_host

from scalable_nb import ScalableSession
from scalable_nb.paths import RunPaths, list_runs
from scalable_nb.report.build import build_report

SEQUENCES = int(os.environ.get("BATCH_SEQUENCES", "40"))

# A sequence over processes takes ten seconds on two idle cores; those in live sessions are shrunk.
pytestmark = pytest.mark.timeout(600 + 20 * SEQUENCES)

KERNELS = st.sampled_from("AB")
NUMBERS = st.lists(st.integers(1, 8), min_size=1, max_size=5)

#: Name of a list that does not exist. Each rule returns a name: which calls run first may decide
#: about an outcome, but not about what Hypothesis can draw next.
NOTHING = "nothing"


class Executor(Protocol):
    """A kernel that executes commands."""

    def execute(self, command: dict[str, Any]) -> Any:
        """Execute a command."""


class CommandError(Exception):
    """An error that another process reports."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(f"{name}: {message}")
        self.name = name


class KernelProcess:
    """A kernel in a process, which may be killed.

    Parameters
    ----------
    project : Path
        Its working directory.
    folder : Path
        Where functions note their executions.
    **connection
        See `batch_kernel.connect`.
    """

    def __init__(self, project: Path, folder: Path, **connection: Any) -> None:
        here = Path(batch_kernel.__file__).parent
        with (folder / "log-kernels").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "batch_kernel", str(folder)],
                cwd=project,
                env={**os.environ, "PYTHONPATH": os.pathsep.join([str(here), str(here.parent)])},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        self.host_pid = self.execute(connection)["pid"]

    def execute(self, command: dict[str, Any]) -> Any:
        """Execute a command in the process."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, f"the kernel has exited with {self._process.wait()}"
        answer = json.loads(line)
        if "error" in answer:
            raise CommandError(answer["error"], answer["message"])
        return answer["value"]

    def kill(self) -> None:
        """Kill the process by SIGKILL."""
        self._process.kill()
        self._process.communicate()


class BatchMachine(RuleBasedStateMachine):
    """Commands on the lists and batches of two kernels, and on the model of them.

    Attributes
    ----------
    folder : Path
        Where functions note their executions.
    kernels : dict
        Label -> kernel that is alive.
    labels : dict
        ``"A"`` or ``"B"`` -> label of the kernel that has this part now.
    """

    lists = Bundle("lists")

    def __init__(self) -> None:
        super().__init__()
        self.model = Model()
        self.labels = {"A": "A", "B": "B"}
        self._numbers = count(1)
        self._script: list[str] = []
        self.folder, self.kernels = self.begin()
        self._counts_before = Counter(self._execute("A", do="counts"))

    def begin(self) -> tuple[Path, dict[str, Executor]]:
        """Return a new folder and two kernels."""
        raise NotImplementedError

    # --- commands ------------------------------------------------------------------------

    @rule(
        target=lists,
        kernel=KERNELS,
        function=st.sampled_from("fg"),
        kind=st.sampled_from(["plain", "plain", "cacheable", "durable", "once"]),
        inputs=NUMBERS,
        columns=st.sampled_from([1, 1, 2]),
        batch=st.sampled_from([None, None, "a", "b"]),
    )
    def map(
        self, kernel: str, function: str, kind: str, inputs: list[int], columns: int,
        batch: str | None,
    ) -> Any:  # fmt: skip
        """Map a function over numbers; also twice the same one, and over two iterables."""
        name = f"{function}_{kind}"
        rows = [[each] * columns for each in inputs]
        calls = [Call(name, kind, "old", tuple(row)) for row in rows]
        return self._map(self.labels[kernel], calls, {"inputs": rows}, batch)

    @rule(
        target=lists,
        source=lists,
        kind_and_batch=st.sampled_from(
            [("plain", None), ("plain", "b"), ("durable", None), ("cacheable", None)]
        ),
    )
    def map_results(self, source: str, kind_and_batch: tuple[str, str | None]) -> Any:
        """Map a function over the futures of a list."""
        kind, batch = kind_and_batch
        held = self._list(source)
        if held is None or held.cancelled or not set(held.calls) <= held.claims:
            return NOTHING
        # Dask tells futures of one key apart: each map of futures has new tasks.
        name = f"h{next(self._numbers)}_{kind}"
        calls = [Call(name, kind, "old", (call,)) for call in held.calls]
        return self._map(held.kernel, calls, {"source": source}, batch)

    @rule(
        target=lists,
        kernel=KERNELS,
        inputs=st.lists(st.sampled_from([1, 2, 4, 6, 8]), min_size=1, max_size=5, unique=True),
        batch=st.sampled_from([None, "a"]),
        action=st.sampled_from(["", "cancel batch", "cancel future", "release"]),
    )
    def map_blocked(self, kernel: str, inputs: list[int], batch: str | None, action: str) -> Any:
        """Map a function of which two calls run and none can end; then cancel or release some."""
        kernel, function = self.labels[kernel], f"gated{next(self._numbers)}"
        calls = [Call(function, "plain", "old", (each,)) for each in inputs]
        to, label = self._new_name(kernel), batch and f"{self.folder.name}-{function}"
        found = self._execute(
            kernel, do="map", to=to, name=function, kind="plain", batch=label,
            inputs=[[each] for each in inputs],
        )  # fmt: skip
        self._execute(kernel, do="await_started", name=function, number=min(2, len(calls)))
        started = [each for each in executions(self.folder) if each.startswith(function)]
        (batch_id,), is_named = found["ids"], batch is not None
        self.model.map_blocked(
            to, kernel, calls, batch_id, found["name"], is_named=is_named, started=started
        )
        if action == "cancel batch":
            self._execute(kernel, do="cancel_batch", batch=found["name"])
            self.model.cancel(calls)
        elif action == "cancel future":
            self._execute(kernel, do="cancel_future", name=to, index=len(calls) - 1)
            self.model.cancel(calls[-1:])
        elif action == "release":
            self._execute(kernel, do="release", name=to)
            del self.model.lists[to]
        self._execute(kernel, do="unblock", name=function)
        self._execute(kernel, do="await_done", batch=batch_id)
        if action != "release" or is_named:
            self.model.unblock(calls, keeps=is_named)
        self._check_executions()
        self._check_batch(kernel, batch_id)
        return NOTHING if action == "release" else to

    @rule(error=st.sampled_from(["ValueError", "TypeError"]))
    def fix(self, error: str) -> None:
        """Fix what makes calls fail with this error."""
        self._script.append(f"fix({error})")
        (self.folder / f"fixed-{error}").touch()
        self.model.fix(error)

    @rule(name=consumes(lists))
    def release(self, name: str) -> None:
        """Drop a list."""
        held = self._list(name)
        if held is not None:
            self._execute(held.kernel, do="release", name=name)
            self.model.release(name)

    @rule(
        target=lists,
        name=lists,
        part=st.sampled_from(["all", "slice", "shuffled"]),
        only=st.sampled_from([None, None, "ValueError", "TypeError"]),
        function=st.sampled_from(["", "", "f_plain", "g_durable"]),
        tag=st.sampled_from([None, "analysis"]),
    )
    def resubmit(
        self, name: str, part: str, only: str | None, function: str, tag: str | None
    ) -> Any:
        """Resubmit a list, or a part of it, also in another order."""
        held = self._list(name)
        if held is None:
            return NOTHING
        terms = {"only": only, "function": function, "tag": tag}
        if part == "shuffled":  # put together by hand
            members = [(name, index) for index in reversed(range(len(held.calls)))]
            return self._resubmit(held.kernel, members, (), {"of": members, **terms})
        cut = (None, None) if part == "all" else (1, 3)
        members = [(name, index) for index in range(len(held.calls))[slice(*cut)]]
        source = {"name": name, "part": cut}
        return self._resubmit(held.kernel, members, held.batch_ids, {**source, **terms})

    @rule(target=lists, first=lists, second=lists, function=st.sampled_from(["", "f_plain"]))
    def resubmit_mixture(self, first: str, second: str, function: str) -> Any:
        """Resubmit members of two lists, by turns."""
        one, two = self._list(first), self._list(second)
        if one is None or two is None or one.kernel != two.kernel:
            return NOTHING
        members = [
            (name, index)
            for index in range(max(len(one.calls), len(two.calls)))
            for name, held in ((first, one), (second, two))
            if index < len(held.calls)
        ]
        options = {"of": members, "only": None, "function": function}
        return self._resubmit(one.kernel, members, (), options)

    # --- looks ---------------------------------------------------------------------------

    @precondition(lambda self: self.model.batches)
    @rule(kernel=KERNELS, position=st.integers(0, 9))
    def look(self, kernel: str, position: int) -> None:
        """Look at a batch in every way; all must be as before."""
        batch_ids = list(self.model.batches)
        batch_id = batch_ids[position % len(batch_ids)]
        self._execute(self.labels[kernel], do="look", batch=batch_id)
        self._check_batch(self.labels[kernel], batch_id)

    @rule(name=lists)
    def read(self, name: str) -> None:
        """Read the results of a list."""
        if self._list(name) is not None:
            self._check_list(name)

    def teardown(self) -> None:
        """Compare all lists and batches at the end."""
        for name in self.model.lists:
            if self._list(name) is not None:
                self._check_list(name)
        for kernel in self.kernels:
            for batch_id, batch in self.model.batches.items():
                self._check_batch(kernel, batch_id)
                if not batch.is_named:  # other sequences may have the same default name
                    continue
                newest = self._execute(kernel, do="newest", batch=batch.name)
                expected = self.model.newest(batch.name, kernel)
                assert newest == [expected], f"batches[{batch.name!r}] in {kernel}"
        self._check_executions()
        self._check_counts()

    # --- internals -----------------------------------------------------------------------

    def _execute(self, kernel: str, **command: Any) -> Any:
        arguments = ", ".join(f"{name}={value!r}" for name, value in command.items())
        self._script.append(f"{kernel}.execute({arguments})")
        return self.kernels[kernel].execute(command)

    def _list(self, name: str) -> HeldList | None:
        """Return a list, if its kernel still has it."""
        held = self.model.lists.get(name)
        return held if held is not None and held.kernel in self.kernels else None

    def _map(
        self, kernel: str, calls: Sequence[Call], source: dict[str, Any], batch: str | None
    ) -> str:
        to, first = self._new_name(kernel), calls[0]
        label = batch and f"{self.folder.name}-{batch}"
        found = self._execute(
            kernel, do="map", to=to, name=first.function, kind=first.kind, batch=label, **source
        )
        (batch_id,) = found["ids"]
        self.model.map(to, kernel, calls, batch_id, found["name"], is_named=batch is not None)
        self._check_executions()
        return to

    def _resubmit(
        self,
        kernel: str,
        members: Sequence[tuple[str, int]],
        batch_ids: tuple[str, ...],
        options: dict[str, Any],
    ) -> Any:
        lists = self.model.lists
        calls = [lists[name].calls[index] for name, index in members]
        if not calls or any(lists[name].cancelled for name, _ in members):
            return NOTHING
        to = self._new_name(kernel)
        terms = {"only": options["only"], "function": options["function"]}
        try:
            self.model.resubmit(to, kernel, calls, batch_ids, **terms)
        except Refused as refusal:
            self._expect(str(refusal), kernel, do="resubmit", to=to, **options)
            return NOTHING
        self._execute(kernel, do="resubmit", to=to, **options)
        self._check_executions()
        self._check_list(to)
        return to

    def _expect(self, error: str, kernel: str, **command: Any) -> None:
        try:
            self._execute(kernel, **command)
        except Exception as raised:
            name = raised.name if isinstance(raised, CommandError) else type(raised).__name__
            assert name == error, raised
        else:
            raise AssertionError(f"{command} did not raise {error}")

    def _new_name(self, kernel: str) -> str:
        return f"{kernel}-{next(self._numbers)}"

    def _check_executions(self) -> None:
        deadline = time.monotonic() + 30
        while wrong := self._wrong_executions():
            # Dependents of what was resubmitted may recover a little later.
            is_behind = all(count < expected for count, expected in wrong.values())
            if not is_behind or time.monotonic() > deadline:
                raise AssertionError(f"executions, and how many there should be: {wrong}")
            time.sleep(0.01)

    def _wrong_executions(self) -> dict[str, tuple[int, int]]:
        found, expected = executions(self.folder), self.model.executions
        counts = {mark: (found.get(mark, 0), expected[mark]) for mark in {*found, *expected}}
        return {mark: each for mark, each in counts.items() if each[0] != each[1]}

    def _check_counts(self) -> None:
        counts = Counter(self._execute(self.labels["A"], do="counts"))
        counts.subtract(self._counts_before)
        self._compare_counts(counts, "the status")

    def _compare_counts(self, counts: Counter[str], what: str) -> None:
        counts["succeeded"] += counts.pop("cached", 0)
        expected = self.model.counts()
        assert +counts == +expected, f"{what} counts {+counts}, expected {+expected}"

    def _check_list(self, name: str) -> None:
        found = self._execute(self.model.lists[name].kernel, do="outcomes", name=name)
        _compare(found, self.model.outcomes(name), f"list {name}")

    def _check_batch(self, kernel: str, batch_id: str) -> None:
        found = self._execute(kernel, do="batch_outcomes", batch=batch_id)
        what = f"batch {self.model.batches[batch_id].name} in kernel {kernel}"
        _compare(found, self.model.batch_outcomes(batch_id), what)


def _compare(found: Sequence[Any], expected: Sequence[Outcome], what: str) -> None:
    # Neither has a value; `batch_states` tells them apart.
    wanted = [RELEASED if outcome == NEVER_RAN else outcome for outcome in expected]
    seen = [observed(each) for each in found]
    assert seen == wanted, f"{what} has\n{found}, expected\n{[*map(tuple, expected)]}"


def observed(value: Any) -> Outcome:
    """Return the outcome that a result or the text of an error stands for."""
    if isinstance(value, int):
        return Outcome("succeeded", value)
    name, _, text = str(value).partition(": ")
    if name == "LeftOutError":
        reason = text.rpartition("left out: ")[2]
        return CANCELLED if reason == "cancelled" else Outcome("left out", reason)
    if name in ("CancelledError", "FutureCancelledError"):
        return RELEASED if "released" in text else CANCELLED
    return Outcome("failed", name)


# --- in this process ------------------------------------------------------------------------


class Sessions:
    """Two kernels' sessions of one run; replaced by others after some sequences."""

    _SEQUENCES_PER_RUN = 50

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._started: list[ScalableSession] = []
        self._numbers = count(1)

    def take(self) -> tuple[Path, dict[str, Executor]]:
        """Return a new folder and two kernels for a sequence."""
        number = next(self._numbers)
        if number % self._SEQUENCES_PER_RUN == 1:
            self.close()
            first = ScalableSession.from_yaml()
            first.start()
            self._started = [first, ScalableSession.attach(first.run_id)]
        folder = self._folder / f"sequence-{number}"
        folder.mkdir()
        names = zip("AB", self._started, strict=True)
        return folder, {name: Kernel(session, folder) for name, session in names}

    def close(self) -> None:
        """Close the sessions."""
        for session in self._started:
            session.close()


@pytest.fixture(scope="module")
def sessions(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sessions]:
    """Sessions for all sequences in this process."""
    folder = tmp_path_factory.mktemp("sequences")
    (folder / "scalable.yaml").write_text(MANIFEST)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        shared = Sessions(folder)
        yield shared
        shared.close()


def test_sequences_in_live_sessions(sessions: Sessions) -> None:
    """Results, failures, order, states and executions are those of the model."""

    class Machine(BatchMachine):
        def begin(self) -> tuple[Path, dict[str, Executor]]:
            return sessions.take()

    run_sequences(Machine, SEQUENCES * 34 // 40, steps=12)


def run_sequences(
    machine: type[BatchMachine],
    sequences: int,
    steps: int,
    phases: Collection[Phase] = tuple(Phase),
) -> None:
    """Run sequences of a machine; a failure is printed, after shrinking the shortest one."""
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        machine,
        settings=settings(
            max_examples=sequences,
            stateful_step_count=steps,
            phases=phases,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            print_blob=True,
        ),
    )


# --- in processes ---------------------------------------------------------------------------


class ProcessMachine(BatchMachine):
    """Kernels and hosts in processes of their own, which may be killed.

    Attributes
    ----------
    root : Path
        Each sequence has a folder in it.
    """

    root: Path

    def begin(self) -> tuple[Path, dict[str, Executor]]:
        self.project = Path(tempfile.mkdtemp(prefix="sequence-", dir=self.root))
        folder = self.project / "marks"
        folder.mkdir(parents=True)
        (self.project / "scalable.yaml").write_text(MANIFEST)
        first = KernelProcess(self.project, folder, how="start")
        return folder, {"A": first, "B": KernelProcess(self.project, folder, how="attach")}

    @rule(kernel=KERNELS)
    def kill_kernel(self, kernel: str) -> None:
        """Kill a kernel; the host goes on, and another kernel attaches."""
        self._kill(self.labels[kernel])
        self._connect(kernel, how="attach")

    @precondition(lambda self: self.model.batches)
    @rule(
        target=BatchMachine.lists,
        only=st.sampled_from([None, None, "ValueError"]),
        function=st.sampled_from(["", "f_plain"]),
    )
    def resubmit_live_run(self, only: str | None, function: str) -> Any:
        """Resubmit the run whose host is alive."""
        kernel, model = self.labels["A"], self.model
        to, terms = self._new_name(kernel), {"only": only, "function": function}
        command = {"do": "resubmit", "to": to, "run": "last", **terms}
        try:
            model.resubmit(to, kernel, model.inputs(), tuple(model.batches), **terms)
        except Refused as refusal:
            self._expect(str(refusal), kernel, **command)
            return NOTHING
        self._execute(kernel, **command)
        self._check_executions()
        self._check_list(to)
        return to

    @precondition(lambda self: self.model.batches)
    @rule(
        target=BatchMachine.lists,
        how=st.sampled_from(["close", "kill host", "kill all"]),
        only=st.sampled_from([None, None, "ValueError"]),
        function=st.sampled_from(["", "f_plain"]),
    )
    def take_over(self, how: str, only: str | None, function: str) -> Any:
        """End the run in some way, and resubmit it from its folder in new kernels."""
        paths = last_run_of(self.project)
        self._check_counts()
        self._end_run(how)
        self._compare_counts(Counter(build_report(paths).tasks), "the report")
        terms: dict[str, Any] = {"only": only, "function": function}
        label = self._label("A")
        to = self._new_name(label)
        try:
            self.model.take_over(to, label, **terms)
        except Refused:
            terms = {"only": None, "function": ""}
            self.model.take_over(to, label, **terms)
        self._connect("A", how="resubmit", to=to, **terms)
        self._connect("B", how="attach")
        self._check_executions()
        self._check_list(to)
        return to

    def teardown(self) -> None:
        """Compare all, and stop the processes."""
        try:
            super().teardown()
        finally:
            self._end_run("kill all")

    def _end_run(self, how: str) -> None:
        first = self.kernels[self.labels["A"]]
        assert isinstance(first, KernelProcess)
        if how == "close":
            first.execute({"do": "close"})
        else:
            kill_host(last_run_of(self.project))
        if how == "kill host":
            for name, held in self.model.lists.items():
                if held.kernel in self.kernels:
                    found = self._execute(held.kernel, do="outcomes", name=name)
                    _compare(found, self.model.outcomes_without_host(name), f"list {name}")
        for label in list(self.kernels):
            self._kill(label)

    def _kill(self, label: str) -> None:
        kernel = self.kernels.pop(label)
        assert isinstance(kernel, KernelProcess)
        kernel.kill()

    def _label(self, part: str) -> str:
        return f"{part}{next(self._numbers)}"

    def _connect(self, part: str, **connection: Any) -> None:
        label = connection.get("to", self._label(part)).partition("-")[0]
        self.labels[part] = label
        self.kernels[label] = KernelProcess(self.project, self.folder, **connection)


def last_run_of(project: Path) -> RunPaths:
    """Return the newest run of a project."""
    return list_runs(project / ".scalable" / "runs")[-1]


def test_sequences_over_processes(tmp_path: Path) -> None:
    """Kernels and hosts that are killed or closed lose, repeat and reorder nothing."""

    class Machine(ProcessMachine):
        root = tmp_path

    # To shrink a failure would take hours.
    phases = (Phase.explicit, Phase.reuse, Phase.generate)
    run_sequences(Machine, SEQUENCES - SEQUENCES * 34 // 40, steps=8, phases=phases)
