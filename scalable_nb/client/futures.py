"""Lists of futures that know what became of each, and results in the presence of failures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, SupportsIndex, cast, overload

from distributed import Future

from scalable_nb.client.context import SessionClient, SessionHandle
from scalable_nb.errors import RemoteError, SessionError
from scalable_nb.telemetry.rows import key_text

if TYPE_CHECKING:
    import pandas as pd

View = Callable[["FutureList"], dict[str, Any]]
_view: View | None = None


def set_view(view: View | None) -> None:
    """Say how a `FutureList` draws itself in a notebook (called by the front end)."""
    global _view  # noqa: PLW0603 - a kernel has one front end
    _view = view


@dataclass(frozen=True)
class TaskFailure:
    """A task that failed, in the place of its result.

    Attributes
    ----------
    index : int
        Position in the list of futures, from 0.
    key : str
        The task's key.
    label : str
        The call as text, e.g. ``run_simulation(scenario_id=47)``.
    error : BaseException
        What ``future.result()`` raises.
    attempts : int
        How often it was tried.
    """

    index: int
    key: str
    label: str
    error: BaseException = field(compare=False)
    attempts: int

    @property
    def failure_class(self) -> str:
        """Name of the error's class; the original's where a stand-in came."""
        if isinstance(self.error, RemoteError):
            return self.error.type_name.rpartition(".")[2]
        return type(self.error).__name__

    def __str__(self) -> str:
        return f"{self.label}: {self.failure_class}: {self.error}"


@dataclass(frozen=True)
class PartialResult:
    """Results and failures of a batch.

    Attributes
    ----------
    results : list
        In input order; None in the place of a task that failed.
    failures : list of TaskFailure
        In input order.
    """

    results: list[Any]
    failures: list[TaskFailure]

    @property
    def succeeded(self) -> list[Any]:
        """The results of the tasks that succeeded, in input order."""
        failed = {failure.index for failure in self.failures}
        return [result for index, result in enumerate(self.results) if index not in failed]

    def __str__(self) -> str:
        total = len(self.results)
        lines = [f"{total - len(self.failures)} of {total} tasks succeeded."]
        lines += [f"  [{failure.index}] {failure}"[:300] for failure in self.failures[:20]]
        if len(self.failures) > 20:
            lines.append(f"  ... and {len(self.failures) - 20} more")
        return "\n".join(lines)

    __repr__ = __str__


class _ListLike(type):
    """Makes a subclass of list count as a list where Dask asks for the exact type.

    `wait`, `cancel`, `progress` and `dask.delayed` look into ``type(x) in (tuple, set, list)``
    only (distributed 2026.8.0, `futures_of`): a plain subclass would be passed over in
    silence, and ``wait(futures)`` would return at once. What passes that test travels under the
    name of its type, e.g. in a published dataset, and that name has to be known at the other end.
    """

    def __eq__(cls, other: object) -> bool:
        return cls is other or other is list

    __hash__ = type.__hash__

    @property
    def __name__(cls) -> str:  # type: ignore[override]
        return "list"


class FutureList(list[Future[Any]], metaclass=_ListLike):
    """A list of futures that shows the live state of its tasks.

    Everything that takes a list of futures takes this one.

    Parameters
    ----------
    futures : iterable of Future
    name : str
        Of the batch; empty for a list put together by hand.
    batch_ids : tuple of str
        Ids of the batches whose inputs are in it; empty for a list put together by hand.
    """

    def __init__(
        self,
        futures: Iterable[Future[Any]] = (),
        *,
        name: str = "",
        batch_ids: tuple[str, ...] = (),
    ) -> None:
        super().__init__(futures)
        self.name = name
        self.batch_ids = batch_ids

    def _part(self, futures: Iterable[Future[Any]]) -> FutureList:
        return FutureList(futures, name=self.name, batch_ids=self.batch_ids)

    # --- what is in it -----------------------------------------------------------

    @property
    def keys(self) -> list[str]:
        """The tasks' keys as the ledger knows them."""
        return [key_text(future.key) for future in self]

    @property
    def labels(self) -> list[str]:
        """The tasks' calls as text; the key where the call is not known."""
        return self.session.mirror.labels(self.keys)

    @property
    def session(self) -> SessionHandle:
        """The session that runs the tasks.

        Raises
        ------
        SessionError
            If no session runs them, or more than one.
        """
        sessions = self.sessions
        if len(sessions) > 1:
            raise SessionError(
                f"these futures belong to {len(sessions)} sessions ({_run_ids(sessions)}); use the "
                "futures of each session separately"
            )
        return sessions[0]

    @property
    def sessions(self) -> list[SessionHandle]:
        """The sessions that run the tasks; more than one for a list put together by hand."""
        return list({id(client.session): client.session for client in self._clients()}.values())

    @property
    def failed(self) -> FutureList:
        """Those that failed so far."""
        return self._part(f for f in self if f.status == "error")

    @property
    def succeeded(self) -> FutureList:
        """Those that succeeded so far."""
        return self._part(f for f in self if f.status == "finished")

    @property
    def client(self) -> SessionClient:
        """The client that submitted the tasks.

        Raises
        ------
        SessionError
            If it is not the client of a session, or there are several.
        """
        clients = self._clients()
        if len(clients) > 1:
            raise SessionError(
                f"these futures belong to {len(clients)} clients (of {_run_ids(self.sessions)}); "
                "use the futures of each client separately"
            )
        return clients[0]

    def _clients(self) -> list[SessionClient]:
        clients = list(dict.fromkeys(future.client for future in self))
        if not clients or not all(isinstance(client, SessionClient) for client in clients):
            raise SessionError(
                "these futures do not belong to a session of scalable_nb; expected futures made "
                "by the `client` of `%scalable start` or `ScalableSession.start()`"
            )
        return cast("list[SessionClient]", clients)

    # --- what they give ----------------------------------------------------------

    def results(self, *, on_pause: str = "raise") -> list[Any]:
        """Return all results in order; raise the first failure.

        Parameters
        ----------
        on_pause : {"raise", "wait"}
            As in `partial`.
        """
        if not self:
            return []
        self.check_may_wait("results()", "`await client.gather(futures)`")
        return list(self.client.gather(list(self), on_pause=on_pause))

    def check_may_wait(self, what: str, instead: str) -> None:
        """Refuse to wait in the event loop of an asynchronous client.

        Raises
        ------
        SessionError
            Says what to do instead.
        """
        if self.client.asynchronous:
            raise SessionError(
                f"{what} waits, which must not happen in the coroutines of an asynchronous "
                f"client; use {instead}"
            )

    def partial(self, *, on_pause: str = "raise") -> PartialResult:
        """Wait until all ended, then give results and failures, both in input order."""
        return partial(self, on_pause=on_pause)

    def resubmit(self, **options: Any) -> Any:
        """Run again only what failed; see `scalable_nb.resubmit`."""
        from scalable_nb.resubmission.api import resubmit

        return resubmit(self, **options)

    def to_dataframe(self) -> pd.DataFrame:
        """One row per task.

        Returns
        -------
        DataFrame
            Indexed by position, with the columns ``label, state, attempt, attempts_allowed,
            worker, error, duration_s, key`` (str, str, int, int, str, str, float in seconds,
            str).
        """
        import pandas as pd

        if not self:
            return pd.DataFrame(columns=["label", *_FRAME_COLUMNS, "key"])
        mirror = self.session.mirror
        mirror.refresh()
        with mirror.lock:
            rows = [_describe(mirror.ledger, key) for key in self.keys]
        return pd.DataFrame(rows)

    # --- a list that stays what it is --------------------------------------------

    def __reduce__(self) -> tuple[Any, ...]:
        return list, (list(self),)  # elsewhere, e.g. as an argument of a task, a plain list

    @overload
    def __getitem__(self, index: SupportsIndex) -> Future[Any]: ...
    @overload
    def __getitem__(self, index: slice) -> FutureList: ...
    def __getitem__(self, index: SupportsIndex | slice) -> Future[Any] | FutureList:
        found = super().__getitem__(index)
        return self._part(found) if isinstance(found, list) else found

    def __add__(self, other: Sequence[Future[Any]]) -> FutureList:  # type: ignore[override]
        added = other.batch_ids if isinstance(other, FutureList) else ()
        batch_ids = tuple(dict.fromkeys((*self.batch_ids, *added)))
        return FutureList([*self, *other], name=self.name, batch_ids=batch_ids)

    def __repr__(self) -> str:
        from collections import Counter

        states = Counter(str(future.status) for future in self)
        counts = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
        name = f" {self.name!r}" if self.name else ""
        return f"<FutureList{name}: {len(self)} tasks{': ' if counts else ''}{counts}>"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        # A terminal would otherwise print it as it prints any list.
        printer.text(self._repr_mimebundle_()["text/plain"])

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        if _view is None or not self:
            return {"text/plain": repr(self)}
        return _view(self)


def partial(futures: Iterable[Future[Any]], *, on_pause: str = "raise") -> PartialResult:
    """Wait until all futures ended, then give results and failures, both in input order.

    Parameters
    ----------
    futures : iterable of Future
    on_pause : {"raise", "wait"}
        If the circuit breaker has paused their tasks and no other task can run: raise
        `BatchPausedError`, or wait until the user resumes or cancels them.

    Returns
    -------
    PartialResult
    """
    listed = futures if isinstance(futures, FutureList) else FutureList(futures)
    if not listed:
        return PartialResult([], [])
    listed.check_may_wait("partial()", "`await client.gather(futures, errors='return')`")
    outcomes = listed.client.outcomes(list(listed), on_pause)
    failed = [index for index, outcome in enumerate(outcomes) if isinstance(outcome, Failed)]
    states = listed.to_dataframe() if failed else None
    failures = []
    for index in failed:
        assert states is not None
        failures.append(
            TaskFailure(
                index=index,
                key=key_text(listed[index].key),
                label=str(states["label"].iat[index]),
                error=outcomes[index].error,
                attempts=_count(states["attempt"].iat[index]),
            )
        )
    results = [None if isinstance(each, Failed) else each for each in outcomes]
    return PartialResult(results, failures)


def _run_ids(sessions: Iterable[SessionHandle]) -> str:
    return ", ".join(session.paths.run_id for session in sessions if session.paths is not None)


def _count(value: Any) -> int:
    # A task that the ledger does not know has no number of attempts: None, or NaN among others.
    return int(value) if value is not None and value == value else 0


@dataclass(frozen=True)
class Failed:
    """Stands for the result of a task that has none; no result is ever one of these."""

    error: BaseException


_FRAME_COLUMNS = (
    "state",
    "attempt",
    "attempts_allowed",
    "worker",
    "error",
    "duration_s",
)


def _describe(ledger: Any, key: str) -> dict[str, Any]:
    from scalable_nb.telemetry.rows import STATE_LABELS

    row = ledger.row_of.get(key)
    if row is None:
        return {"label": key, **dict.fromkeys(_FRAME_COLUMNS), "key": key}
    columns = ledger.columns
    return {
        "label": ledger.labels[row],
        "state": STATE_LABELS[columns["state"][row]],
        "attempt": columns["attempt"][row],
        "attempts_allowed": columns["attempts_allowed"][row],
        "worker": ledger.text("worker", row),
        "error": ledger.text("error", row),
        "duration_s": columns["duration_s"][row],
        "key": key,
    }
