"""A kernel that executes commands of the model-based test of batches.

`Kernel` executes them in this process. ``python -m batch_kernel`` reads them from its standard
input, one JSON object a line, and answers each with a line: the value, or the error.
"""

from __future__ import annotations

import json
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, Final

from scalable_nb import FutureList, ScalableSession, TaskPolicy, cacheable, resubmit
from scalable_nb.resubmission.resubmit_plan import ResubmitPlan
from scalable_nb.session.session import live_sessions

MANIFEST: Final = """
version: 1
project: {name: model}
targets:
  local: {provider: local, max_workers: 1, threads_per_worker: 2}
components:
  analysis: {cpus: 1, memory: 400M}
tasks:
  durable: {keep_results: true}
"""

#: A value's remainder of seven -> what a call with it raises, until the cause is fixed.
CAUSES: Final = {3: ValueError, 5: TypeError}


def failure_of(value: int) -> type[Exception] | None:
    """Return what a call with this first argument raises until the cause is fixed."""
    return CAUSES.get(value % 7)


def value_of(version: str, args: Sequence[int]) -> int:
    """Return the result of a call."""
    return sum(args) * 10 + (version == "good")


def make_function(folder: Path, name: str, version: str) -> Callable[..., int]:
    """Return a function that notes each execution in a folder, and fails for some arguments."""

    def function(*args: int) -> int:
        words = "-".join(map(str, args))
        with (folder / f"{name}-{version}-{words}").open("ab") as file:
            file.write(b"x")
        while name.startswith("gated") and not (folder / f"open-{name}").exists():
            time.sleep(0.005)
        error = failure_of(args[0])
        if error and version != "good" and not (folder / f"fixed-{error.__name__}").exists():
            raise error(f"{name}({words})")
        return value_of(version, args)

    function.__name__ = function.__qualname__ = name
    return function


def executions(folder: Path) -> dict[str, int]:
    """Return how often each call was executed, by ``name-version-arguments``."""
    files = [
        path for path in folder.iterdir() if not path.name.startswith(("fixed-", "open-", "log-"))
    ]
    return {path.name: path.stat().st_size for path in files}


class Kernel:
    """The lists that a kernel holds, and the commands that it executes.

    Parameters
    ----------
    session : ScalableSession or None
        None: a run is resubmitted first.
    folder : Path
        Where the functions note their executions.
    """

    def __init__(self, session: ScalableSession | None, folder: Path) -> None:
        self._session_or_none = session
        self._folder = folder
        self._lists: dict[str, FutureList] = {}

    @property
    def _session(self) -> ScalableSession:
        """The session given, else that of the run that was resubmitted."""
        if self._session_or_none is None:
            self._session_or_none = live_sessions()[-1]
        return self._session_or_none

    def execute(self, command: dict[str, Any]) -> Any:
        """Execute a command: the name of a method in ``do``, and its arguments."""
        arguments = dict(command)
        return getattr(self, arguments.pop("do"))(**arguments)

    # --- lists ---------------------------------------------------------------------------

    def map(
        self,
        to: str,
        name: str,
        kind: str,
        version: str = "old",
        inputs: Sequence[Sequence[int]] = (),
        source: str = "",
        batch: str | None = None,
    ) -> dict[str, Any]:
        """Map a function over inputs or over the futures of a list; keep the list."""
        function = make_function(self._folder, name, version)
        options: dict[str, Any] = {} if batch is None else {"name": batch}
        if kind == "once":
            options["policy"] = TaskPolicy(idempotent=False)
        if kind == "durable":
            options["task"] = "durable"
        columns = [self._lists[source]] if source else list(zip(*inputs, strict=True))
        called = cacheable(function) if kind == "cacheable" else function
        futures = self._session.client.map(called, *columns, **options)
        self._lists[to] = futures
        return self._described(futures, wait=not name.startswith("gated"))

    def resubmit(
        self,
        to: str,
        name: str = "",
        part: tuple[int | None, int | None] = (None, None),
        of: Sequence[tuple[str, int]] | None = None,
        batch: str = "",
        run: str | None = None,
        only: str | None = None,
        function: str = "",
        **options: Any,
    ) -> dict[str, Any]:
        """Resubmit a list, members of lists, a batch or a run; keep what is returned."""
        futures = None
        if name:
            futures = self._lists[name][slice(*part)]
        elif batch:
            futures = self._session.batches[batch]
        elif of is not None:
            futures = FutureList(self._lists[each][index] for each, index in of)
        if function:
            options["func"] = make_function(self._folder, function, "good")
        with redirect_stdout(sys.stderr):
            found = resubmit(futures, run=run, only=only, **options)
        if isinstance(found, ResubmitPlan):
            return self._plan(found)
        self._lists[to] = found
        return self._described(found, wait=True)

    def release(self, name: str) -> None:
        """Drop a list."""
        del self._lists[name]

    def outcomes(self, name: str) -> list[Any]:
        """Return the outcomes of the members of a list."""
        return _outcomes(self._lists[name])

    def cancel_future(self, name: str, index: int) -> None:
        """Cancel a future of a list."""
        self._lists[name][index].cancel()

    def await_started(self, name: str, number: int) -> None:
        """Wait until so many calls of a blocked function have started."""
        _until(lambda: sum(each.startswith(name) for each in executions(self._folder)) >= number)

    def unblock(self, name: str) -> None:
        """Let the calls of a function end once what was cancelled or released has left."""
        client = self._session.client

        def waiting(dask_worker: Any) -> list[str]:
            states = {str(key): each.state for key, each in dask_worker.state.tasks.items()}
            return [key for key, state in states.items() if state in ("ready", "constrained")]

        def wanted(dask_scheduler: Any) -> list[str]:
            return [
                str(key) for key, each in dask_scheduler.tasks.items() if each.state != "memory"
            ]

        def is_settled() -> bool:
            known = client.run_on_scheduler(wanted)
            found = [key for keys in client.run(waiting).values() for key in keys]
            return all(key in known for key in found if key.startswith(name))

        client.host_api.flush()
        _until(is_settled)
        (self._folder / f"open-{name}").touch()

    def await_done(self, batch: str) -> None:
        """Wait until no input of a batch waits or runs."""
        busy = {"waiting", "queued", "running", "paused"}
        _until(lambda: not busy.intersection(self.batch_states(batch)))

    # --- batches -------------------------------------------------------------------------

    def batches(self) -> list[dict[str, Any]]:
        """Return name, id and size of all batches."""
        found = [self._session.batches[each] for each in self._session.batches]
        return [{"name": b.name, "id": b.batch_ids[0], "size": len(b)} for b in found if b]

    def newest(self, batch: str) -> list[str]:
        """Return the ids of the batch that a name stands for."""
        return list(self._session.batches[batch].batch_ids)

    def batch_outcomes(self, batch: str) -> list[Any]:
        """Return the outcomes of a batch's inputs."""
        return _outcomes(self._session.batches[batch])

    def batch_states(self, batch: str) -> list[str]:
        """Return the states of a batch's inputs."""
        futures = self._session.batches[batch]
        return [str(state) for state in futures.to_dataframe()["state"]] if futures else []

    def cancel_batch(self, batch: str) -> int:
        """Cancel what is not done of a batch."""
        return self._session.cancel(batch)

    def look(self, batch: str) -> None:
        """Look at a batch in every way that has no effect."""
        futures = self._session.batches[batch]
        repr(futures), repr(self._session.batches), futures.to_dataframe(), futures.failed
        with redirect_stdout(sys.stderr):
            resubmit(futures, dry_run=True)

    # --- the session ---------------------------------------------------------------------

    def close(self) -> None:
        """Close the session."""
        self._lists.clear()
        self._session.close()

    def counts(self) -> dict[str, int]:
        """Return the number of inputs of the run by state, once all journals are written."""
        self._session.client.host_api.flush()
        return self._session.status().counts

    def host(self) -> dict[str, Any]:
        """Return the run's id and the process id of its host."""
        return {"run": self._session.run_id, "pid": self._session.status().host_pid}

    def _described(self, futures: FutureList, *, wait: bool) -> dict[str, Any]:
        if wait:
            _until(lambda: all(future.done() for future in futures))
        return {"ids": list(futures.batch_ids), "name": futures.name, "size": len(futures)}

    @staticmethod
    def _plan(plan: ResubmitPlan) -> dict[str, Any]:
        return {"text": str(plan)}


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("not done within 30 s")
        time.sleep(0.002)


def _outcomes(futures: FutureList) -> list[Any]:
    outcome = futures.partial()
    found: list[Any] = list(outcome.results)
    for failure in outcome.failures:
        found[failure.index] = f"{failure.failure_class}: {failure.error}"
    return found


def main() -> None:
    """Execute the commands of the standard input until it ends; the first one connects."""
    folder = Path(sys.argv[1])
    answers, sys.stdout = sys.stdout, sys.stderr
    kernel: Kernel | None = None
    for line in sys.stdin:
        command = json.loads(line)
        answer: dict[str, Any]
        try:
            if kernel is None:
                kernel = connect(folder, **command)
                answer = {"value": kernel.host()}
            else:
                answer = {"value": kernel.execute(command)}
        except Exception as error:
            traceback.print_exc()
            answer = {"error": type(error).__name__, "message": str(error)}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def connect(folder: Path, how: str, **options: Any) -> Kernel:
    """Return a kernel whose session is started, attached to the live run, or takes one over."""
    if how == "attach":
        return Kernel(ScalableSession.attach(), folder)
    if how == "start":
        session = ScalableSession.from_yaml()
        session.start()
        return Kernel(session, folder)
    kernel = Kernel(None, folder)
    kernel.resubmit(run="last", **options)
    return kernel


if __name__ == "__main__":
    main()
