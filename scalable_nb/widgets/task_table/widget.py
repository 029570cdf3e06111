"""The live table of tasks under a cell."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Final, Protocol, Self
from weakref import WeakSet

import anywidget
import traitlets

from scalable_nb.errors import ScalableError
from scalable_nb.faults.circuit_breaker import Pause, pause_text
from scalable_nb.telemetry.ledger import Delta, Ledger
from scalable_nb.widgets.asset_bundle import bundle_modules, bundle_styles
from scalable_nb.widgets.task_table.actions import Controls
from scalable_nb.widgets.task_table.page_requests import PageRequests
from scalable_nb.widgets.task_table.row_stream import RowStream
from scalable_nb.widgets.task_table.saved_output import SavedOutputs
from scalable_nb.widgets.task_table.static_html import summary_html
from scalable_nb.widgets.task_table.summary import (
    TableSummary,
    paused_batches,
    summarize_table,
    summary_text,
)
from scalable_nb.widgets.viewers import THIS_KERNEL, Viewers, let_callbacks_run_in_subshells

logger = logging.getLogger(__name__)

_STATIC: Final = Path(__file__).parents[1] / "static" / "task_table"

FRAME_INTERVAL_S: Final = 0.25  # the Jupyter server drops what comes too fast, silently
#: A snapshot follows the frames within this time, so that a page that lost one is healed
#: though the kernel is too busy to hear it ask. Large tables: less often, see `_snapshot_due_s`.
_SNAPSHOT_AFTER_S: Final = 3.0
_SNAPSHOT_CPU_SHARE: Final = 0.02
_SNAPSHOT_BYTES_PER_S: Final = 200_000


class LedgerMirror(Protocol):
    """What the table follows; `scalable_nb.telemetry.ledger_mirror.Mirror` is one."""

    @property
    def ledger(self) -> Ledger:
        """The copy."""
        ...

    @property
    def lock(self) -> AbstractContextManager[Any]:
        """Guards the copy."""
        ...

    @property
    def status(self) -> str:
        """``"live"``, ``"lost"`` or ``"closed"``."""
        ...

    def subscribe(self, callback: Callable[[Delta], None]) -> Callable[[], None]:
        """Follow the ledger."""
        ...


class TaskTable(anywidget.AnyWidget):
    """Every task of a batch or a run, live: state, attempt, worker, duration, error.

    What changes is pushed to the page by a thread, so the table also moves while a cell
    runs; sorting, filtering and scrolling need no kernel at all.

    Parameters
    ----------
    mirror : LedgerMirror
        The kernel's copy of the ledger.
    keys : sequence of str, optional
        The tasks to show, in this order; all where not given.
    title : str
        Shown above the table.
    controls : Controls, optional
        Gives what is known of a task, and does what a person wants of it.
    form : {"table", "line"}
        ``"line"`` shows counts, progress and time alone.

    Attributes
    ----------
    title : str
        Written by Python.
    status : str
        ``"live"``, ``"lost"``, ``"closed"`` or ``"finished"``. Written by Python.
    problem : str
        What went wrong in a callback, shown under the table. Written by Python.
    form : str
        Written by Python.
    has_controls : bool
        Whether attempts can be asked for. Written by Python.
    actions : list of str
        What can be done with tasks; see `Controls`. Written by Python.
    pauses : list of dict
        A ``batch`` of the table that is paused, and the ``text`` that says why. Written by Python.
    snapshot : bytes
        The whole table as a frame, made when it is sent. Written by Python.
    """

    _is_closed = True  # until there is something to close: ipywidgets closes what it deletes
    _esm = bundle_modules(_STATIC / "view.mjs")
    _css = bundle_styles(_STATIC)

    title = traitlets.Unicode("").tag(sync=True)
    status = traitlets.Unicode("live").tag(sync=True)
    problem = traitlets.Unicode("").tag(sync=True)
    form = traitlets.Unicode("table").tag(sync=True)
    has_controls = traitlets.Bool(False).tag(sync=True)
    actions = traitlets.List(traitlets.Unicode()).tag(sync=True)
    pauses = traitlets.List(traitlets.Dict()).tag(sync=True)
    snapshot = traitlets.Bytes(b"").tag(sync=True, to_json=lambda _, self: self._make_snapshot())

    def __init__(
        self,
        mirror: LedgerMirror,
        *,
        keys: Sequence[str] | None = None,
        title: str = "",
        controls: Controls | None = None,
        form: str = "table",
    ) -> None:
        self._mirror = mirror
        self._controls = controls
        self._viewers = Viewers()
        self._paused: dict[str, int] = {}  # batch -> paused tasks of this table
        self._lock = threading.RLock()  # of everything below; taken before the mirror's
        self._stream = RowStream(mirror.ledger, mirror.lock, keys)
        self._requests = PageRequests(
            controls,
            key_of=self._stream.key,
            send=self.send,
            report_problem=self._report_problem,
        )
        self._snapshot_cost_s = 0.0
        self._snapshot_bytes = 0
        self._snapshot_seq = 0
        self._snapshot_at = 0.0
        self._outputs = SavedOutputs(self._render)
        self._has_work = threading.Event()
        self._unsubscribe: Callable[[], None] | None = None
        self._is_closed = False
        super().__init__(
            title=title,
            form=form,
            has_controls=controls is not None,
            actions=[] if controls is None else list(controls.actions),
            status=mirror.status,
        )
        let_callbacks_run_in_subshells(self.comm)
        self.on_msg(self._on_message)
        self._update_subscription()
        _open_tables.add(self)
        if mirror.status == "live":
            threading.Thread(target=self._follow, name="scalable-task-table", daemon=True).start()

    @classmethod
    def of_ledger(
        cls, ledger: Ledger, *, title: str = "", controls: Controls | None = None
    ) -> Self:
        """The table of a finished run, whose ledger does not change any more."""
        return cls(_FinishedRunMirror(ledger), title=title, controls=controls)

    @property
    def is_open(self) -> bool:
        """Whether it was not closed."""
        return not self._is_closed

    def close(self) -> None:
        """Take the table away, here and in every page; closing twice is harmless."""
        if not self._is_closed:
            self._is_closed = True
            self._update_subscription()
            self._has_work.set()
            _open_tables.discard(self)
        super().close()

    # --- following the ledger -----------------------------------------------------

    def _update_subscription(self) -> None:
        """Follow the ledger while somebody looks, and no longer."""
        is_wanted = self._viewers.are_present and not self._is_closed
        with self._lock:
            unsubscribe = self._unsubscribe
            if is_wanted and unsubscribe is None:
                self._unsubscribe = self._mirror.subscribe(self._on_delta)
            elif not is_wanted and unsubscribe is not None:
                self._unsubscribe = None
                unsubscribe()

    def _on_delta(self, delta: Delta) -> None:
        # In the client's IO thread, which must not wait for this one.
        self._stream.follow_clock(delta["now_at"])
        self._has_work.set()

    def _follow(self) -> None:
        while not self._is_closed:
            self._has_work.wait(self._wait_s())
            self._has_work.clear()
            try:
                self._update_subscription()
                if self._unsubscribe is not None:
                    self._push()
            except Exception as error:
                # A thread's exception is seen by nobody; the table says that it stopped.
                logger.exception("the task table no longer follows its run")
                self._report_problem("the table no longer follows the run", error)
                return
            if self.status != "live":
                return  # and was told so
            time.sleep(FRAME_INTERVAL_S)

    def _wait_s(self) -> float | None:
        """How long there is nothing to do, unless something changes."""
        with self._lock:
            if self._unsubscribe is None:
                return None
            due = [] if self._outputs.due_at is None else [self._outputs.due_at]
            if self._snapshot_seq != self._stream.seq:
                due.append(self._snapshot_at + self._snapshot_due_s())
        expires_in_s = self._viewers.expires_in_s()
        if expires_in_s is not None:
            due.append(time.monotonic() + expires_in_s)
        return max(0.0, min(due) - time.monotonic()) if due else None

    def _push(self, *, at_once: bool = False) -> None:
        """Send what changed; ``at_once``: without sparing the page."""
        with self._lock:
            if self._is_closed:
                return
            frame = self._stream.frame()
            if frame is not None:
                self.send({"type": "delta"}, buffers=[frame.data])
            if self.status != self._mirror.status:
                self.status = self._mirror.status
            self._publish_pauses()
            summary = self._summary()
            has_ended = self.status != "live"
            is_over = has_ended or summary.done == len(summary.states) > 0
            is_due = time.monotonic() >= self._snapshot_at + self._snapshot_due_s()
            if self._snapshot_seq != self._stream.seq and (is_over or is_due):
                self.send_state("snapshot")
            if is_over:
                self._outputs.update(summary, at_once=at_once or has_ended)

    def _publish_pauses(self) -> None:
        with self._mirror.lock:
            paused = paused_batches(self._mirror.ledger, self._stream.ledger_rows())
        if self._controls is None or self._mirror.status != "live":
            paused = {}
        if paused == self._paused:
            return
        causes: dict[str, Pause] = {}
        if paused and self._controls is not None:
            try:
                causes = {pause["batch"]: pause for pause in self._controls.pauses()}
            except (ScalableError, OSError):
                return  # the host is gone: the mirror will say so
        self.pauses = [
            {"batch": name, "text": pause_text({**causes[name], "count": count})}
            for name, count in paused.items()
            if name in causes
        ]
        self._paused = paused

    def _snapshot_due_s(self) -> float:
        return max(
            _SNAPSHOT_AFTER_S,
            self._snapshot_cost_s / _SNAPSHOT_CPU_SHARE,
            self._snapshot_bytes / _SNAPSHOT_BYTES_PER_S,
        )

    def _make_snapshot(self) -> bytes:
        with self._lock:
            began = time.thread_time()
            frame = self._stream.snapshot()
            self._snapshot_cost_s = time.thread_time() - began
            self._snapshot_bytes = len(frame.data)
            self._snapshot_seq = frame.seq
            self._snapshot_at = time.monotonic()
            return frame.data

    # --- what the page asks -------------------------------------------------------

    def _on_message(self, _: Any, content: dict[str, Any], buffers: Any) -> None:
        kind = content.get("type")
        if kind == "resync":
            self.send_state("snapshot")
        elif kind == "watch":
            self._viewers.record_seen()
            self._has_work.set()
        elif kind == "unwatch":
            self._viewers.leave()
            self._has_work.set()
        else:
            self._requests.answer(content)

    def _report_problem(self, what: str, error: Exception | None) -> None:
        text = "" if error is None else f"{what}: {type(error).__name__}: {error}"
        self.problem = text[:1000]

    # --- showing ------------------------------------------------------------------

    def _summary(self) -> TableSummary:
        with self._lock, self._mirror.lock:
            return summarize_table(
                self._mirror.ledger,
                self._stream.ledger_rows(),
                title=self.title,
                status=self._mirror.status,
                at=time.time(),
            )

    def __repr__(self) -> str:
        return summary_text(self._summary())

    def mimebundle(self) -> dict[str, Any]:
        """The widget, with its present state as HTML and as text for where it cannot live."""
        return self._render(self._summary())

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        return self.mimebundle(), {}

    def _ipython_display_(self) -> None:
        """Show the table in an output that is written again when the work is over."""
        with self._lock:
            self._outputs.show(self._summary())

    def _render(self, summary: TableSummary) -> dict[str, Any]:
        return {
            "text/plain": summary_text(summary),
            "text/html": summary_html(summary),
            "application/vnd.jupyter.widget-view+json": {
                "version_major": 2,
                "version_minor": 0,
                "model_id": self.model_id,
            },
        }


class _FinishedRunMirror:
    """A ledger that nobody changes any more, in the shape of a mirror."""

    status = "finished"

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.lock: AbstractContextManager[Any] = nullcontext()

    def subscribe(self, callback: Callable[[Delta], None]) -> Callable[[], None]:
        """Nothing will ever happen."""
        return lambda: None


_open_tables: WeakSet[TaskTable] = WeakSet()


def begin_cell(*_: Any) -> None:
    """Follow the run from now on: a kernel that runs a cell hears nobody who begins to look.

    For IPython's ``pre_run_cell``.
    """
    THIS_KERNEL.begin_cell()
    for table in list(_open_tables):
        table._has_work.set()


def finish_outputs(*_: Any) -> None:
    """Bring the outputs of tables whose work is over up to date, without waiting.

    For IPython's ``post_run_cell``: where a notebook is executed without a browser, what
    comes after the end of a cell is nobody's.
    """
    THIS_KERNEL.end_cell()
    for table in list(_open_tables):
        table._push(at_once=True)
