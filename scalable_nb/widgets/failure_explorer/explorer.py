"""The failure explorer: what went wrong, in charts, in kinds, in a traceback, in words."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

import ipywidgets
import plotly.graph_objects as go

from scalable_nb.diagnosis.findings import Finding
from scalable_nb.diagnosis.selection import Selection
from scalable_nb.errors import UnknownNameError
from scalable_nb.paths import RunPaths
from scalable_nb.telemetry.run_tables import Records, records_of
from scalable_nb.widgets.failure_explorer import failure_html
from scalable_nb.widgets.failure_explorer.chart import FailureChart
from scalable_nb.widgets.failure_explorer.export import export, issue_text
from scalable_nb.widgets.failure_explorer.failure_actions import Actions, RunActions, last_log_lines
from scalable_nb.widgets.failure_explorer.panel import FailurePanel
from scalable_nb.widgets.failure_explorer.view_model import FailureView
from scalable_nb.widgets.task_table.actions import Outcome
from scalable_nb.widgets.viewers import Follower

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pandas as pd

Row = Mapping[str, Any]


class HasRunFolder(Protocol):
    """What has a run folder: a session."""

    @property
    def paths(self) -> RunPaths:
        """Where its files lie."""
        ...


class FailureExplorer(ipywidgets.VBox):  # type: ignore[misc]  # ipywidgets has no types
    """Failed attempts of a run, to look through.

    Charts of classes, execution times, time, places, arguments and retries; the kinds of
    failure, the traceback of an example of the chosen kind, and the diagnosis with what can be
    done. A click in a chart, or a box or a lasso around some of it, filters all others and the
    kinds; the same click again takes it back.

    Parameters
    ----------
    rows : session, RunPaths, Records, or iterable of mapping
        A run, which is followed while it goes on; or failed attempts (rows of
        ``failures.jsonl``).
    title : str
        Shown above everything; a run's own name where none is given.
    timeout_s : float, optional
        A limit to draw; that of the timeouts themselves where it is not given.
    is_running : callable, optional
        Whether there may be more; the explorer then follows by itself.
    tasks : iterable of mapping
        Rows of ``tasks.jsonl``, where ``rows`` are rows.

    Attributes
    ----------
    selection : Selection
        What is chosen; see `choose`.

    Notes
    -----
    The chart is one ``FigureWidget``, made when the explorer is first shown and kept: each
    one costs 5 MB in the page and in the saved notebook.
    """

    def __init__(
        self,
        rows: HasRunFolder | RunPaths | Records | Iterable[Row] = (),
        *,
        title: str = "",
        timeout_s: float | None = None,
        is_running: Callable[[], bool] | None = None,
        tasks: Iterable[Row] = (),
    ) -> None:
        paths = rows if isinstance(rows, RunPaths) else getattr(rows, "paths", None)
        self._paths = paths if isinstance(paths, RunPaths) else None
        self._title = title or (f"Failures of {self._paths.run_id}" if self._paths else "")
        self._timeout_s, self._is_running = timeout_s, is_running
        self._records = records_of(self._paths or rows, tasks)
        self._actions: Actions | None = RunActions(self._paths) if self._paths else None
        self._follower: Follower | None = None
        # Callbacks and the follower run in other threads than a cell that calls `refresh`.
        self._lock = threading.RLock()
        self._is_shown = False
        self._chart: FailureChart | None = None
        self._handlers: dict[str, Callable[[Any], object]] = {
            "class": self._choose_class,
            "text": self._choose_text,
            "kind": lambda _: self._show_kind(),
            "show all": lambda _: self.choose(Selection()),
            "refresh": lambda _: self.refresh(),
            "remedy": self._remedy,
            "resubmit": lambda _: self._show_message(self.resubmit()),
            "reproduce": lambda _: self._reproduce(),
            "open log": lambda _: self._open_log(),
            "save": lambda _: self._save_page(),
        }
        self._panel = FailurePanel(self._handle_action, is_of_run=self._paths is not None)
        super().__init__([self._panel])
        self._view = FailureView(self._records, None, timeout_s)
        self._show()

    # --- what a program asks ---------------------------------------------------

    @property
    def frame(self) -> pd.DataFrame:
        """All failed attempts, see `scalable_nb.telemetry.dataframes.failures_frame`."""
        return self._view.frame

    @property
    def groups(self) -> pd.DataFrame:
        """The kinds of failure that are chosen, see `scalable_nb.telemetry.aggregates`."""
        return self._view.groups

    @property
    def findings(self) -> list[Finding]:
        """The diagnosis of all."""
        return self._view.findings

    @property
    def figures(self) -> dict[str, go.Figure]:
        """Plain plotly figures of what is shown: to save, to change, to put elsewhere."""
        return self._view.figures()

    @property
    def frames(self) -> dict[str, pd.DataFrame]:
        """The tables that the figures are drawn from."""
        return self._view.frames()

    @property
    def selection(self) -> Selection:
        """What is chosen."""
        return self._view.selection

    def choose(self, selection: Selection) -> None:
        """Show only what a selection chooses; ``Selection()`` for everything."""
        with self._lock:
            self._view.choose(selection)
            self._show()

    @property
    def error_class(self) -> str | None:
        """The error class whose kinds are listed; None for all. May be set."""
        names = self.selection.error_class
        return None if names is None else names[0]

    @error_class.setter
    def error_class(self, name: str | None) -> None:
        known = self._view.classes["failure_class"].tolist()
        if name is not None and name not in known:
            raise UnknownNameError("error class here", name, filter(None, known))
        chosen = self.selection.without("error_class")
        self.choose(
            chosen if name is None else chosen.toggled("error_class", self._view.classes_of(name))
        )

    @property
    def selected(self) -> str | None:
        """Fingerprint of the chosen kind of failure. May be set."""
        return self._panel.kind

    @selected.setter
    def selected(self, fingerprint: str) -> None:
        if fingerprint not in self._panel.kinds:
            raise UnknownNameError(
                "failure in the list", fingerprint, self._panel.kinds, "See `explorer.groups`."
            )
        self._panel.kind = fingerprint

    def refresh(self) -> None:
        """Read what is new and bring everything up to date; what was chosen stays chosen."""
        with self._lock:
            if self._records.poll():
                self._load()

    def resubmit(self, *kinds: str, **changes: Any) -> str:
        """Run the tasks of these kinds of failure again, the chosen kind where none is named.

        Parameters
        ----------
        *kinds : str
            Fingerprints.
        **changes
            As for `scalable_nb.resubmit`, e.g. ``memory="8G"``; what the diagnosis proposes
            where none is given.
        """
        named = kinds or tuple(filter(None, [self.selected]))
        if self._actions is None:
            raise UnknownNameError("run to resubmit from", "rows", [], "Show a session or a run.")
        return self._actions.resubmit(named, changes or self._proposed(named))

    def _proposed(self, kinds: Iterable[str]) -> dict[str, Any]:
        for finding in self.findings:
            if finding.changes is not None and set(kinds) & set(finding.fingerprints):
                return finding.changes
        return {}

    def export(self, path: str | Path, *, redact: bool = False) -> Path:
        """Write what is chosen to one self-contained ``.html``, to ``.csv`` or ``.parquet``.

        Parameters
        ----------
        redact : bool
            Leave out arguments, messages, output, environment and paths.
        """
        return export(self._view, Path(path), self._title or "Failures", redact)

    def close(self) -> None:
        """Follow no more, and leave the page."""
        follower = getattr(self, "_follower", None)  # also of one that was never finished
        if follower is not None:
            follower.close()
        super().close()

    # --- bringing up to date ---------------------------------------------------

    def _load(self) -> None:
        self._view = FailureView(self._records, self.selection, self._timeout_s)
        self._panel.show_message("")
        self._show()

    def _show(self) -> None:
        remedies = [
            f for f in self.findings if f.changes is not None and f.evidence["failed_tasks"]
        ]
        self._panel.show(self._view, self._title, remedies if self._actions else [])
        self._show_kind()
        if self._chart is not None:
            self._chart.draw(self._view.explorer_figure())
        elif self._is_shown and len(self.frame):
            self._chart = FailureChart(self._view.explorer_figure(), self._on_selection)
        if self._chart is not None:
            self._chart.mark(self._view.marks())
        self._panel.arrange(self._chart, not len(self.frame))

    def _show_kind(self) -> None:
        with self._lock:
            chosen = self._chosen_kind()
            if chosen is None:
                self._panel.detail("", "")
            else:
                group, row = chosen
                issue = issue_text(group, row, self.findings)
                self._panel.detail(failure_html.group_html(group, row), issue)

    def _chosen_kind(self) -> tuple[Any, dict[str, Any]] | None:
        """The chosen kind, and the whole row of its example."""
        chosen = self.groups[self.groups["fingerprint"] == self.selected]
        if not len(chosen):
            return None
        group = next(chosen.itertuples())
        return group, self._records.row(cast("int", group.example))

    # --- what the page asks ----------------------------------------------------

    def _handle_action(self, what: str, value: Any) -> None:
        with self._showing_problems():
            self._handlers[what](value)

    def _on_selection(self, selected: Mapping[str, Sequence[float]], is_click: bool) -> None:
        with self._showing_problems(), self._lock:
            chosen = self.selection
            for dimension, lines in selected.items():
                value = self._view.value_at(dimension, lines)
                if not is_click:
                    chosen = chosen.without(dimension)
                chosen = chosen.toggled(dimension, value)
            self.choose(chosen)

    def _choose_class(self, name: str | None) -> None:
        self.error_class = name

    def _choose_text(self, text: str) -> None:
        if text != self.selection.text:
            self.choose(replace(self.selection, text=text))

    def _remedy(self, finding: Finding) -> None:
        self._show_message(self.resubmit(*finding.fingerprints, **(finding.changes or {})))

    def _reproduce(self) -> None:
        chosen = self._chosen_kind()
        if chosen is None or self._actions is None:
            return
        outcome = self._actions.reproduce(str(chosen[1].get("task_id") or ""))
        self._show_outcome(outcome)
        if outcome.follow_up is not None:
            # The kernel has other things to do meanwhile.
            threading.Thread(target=self._finish, args=[outcome.follow_up], daemon=True).start()

    def _finish(self, rest: Callable[[], Outcome]) -> None:
        with self._showing_problems():
            self._show_outcome(rest())

    def _show_outcome(self, outcome: Outcome) -> None:
        self._show_message(outcome.text)
        if outcome.details:
            self._panel.detail(failure_html.outcome_html(outcome.text, outcome.details))

    def _open_log(self) -> None:
        assert self._paths is not None
        chosen = self._chosen_kind()
        worker = next(iter(chosen[0].workers), "") if chosen else ""
        path, text = last_log_lines(self._paths, worker)
        self._panel.detail(failure_html.log_html(str(path), text))

    def _save_page(self) -> None:
        name = f"failures-{self._paths.run_id}.html" if self._paths else "failures.html"
        self._show_message(f"Written to {self.export(name).absolute()}")

    def _show_message(self, text: str) -> None:
        self._panel.show_message(failure_html.note_html(text))

    @contextmanager
    def _showing_problems(self) -> Iterator[None]:
        """Show an error of a callback, which would show nowhere else."""
        try:
            yield
        except Exception as error:  # noqa: BLE001
            self._panel.show_message(failure_html.problem_html(error))

    # --- what is kept ----------------------------------------------------------

    def __repr__(self) -> str:
        return f"<FailureExplorer: {failure_html.headline(self.frame, self.groups)}>"

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        with self._lock:
            if not self._is_shown:
                self._is_shown = True
                self._show()
                if self._is_running is not None:
                    self._follower = Follower(self.refresh, self._is_running)
            shown = (self._title, self.frame, self.groups, self.findings)
            first = self.groups["example"].head(1).tolist()
            example = self._records.row(int(first[0])) if first else None
        return {
            **super()._repr_mimebundle_(**kwargs),
            "text/plain": failure_html.static_text(*shown),
            "text/html": failure_html.static_html(*shown, example),
        }
