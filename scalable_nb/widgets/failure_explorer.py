"""The failure explorer: what went wrong, in a chart, in kinds, in a traceback, in words."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Protocol, cast

import ipywidgets
import pandas as pd
import plotly.graph_objects as go

from scalable_nb.errors import UnknownNameError
from scalable_nb.faults.diagnose import Finding, diagnose
from scalable_nb.figures import error_classes, execution_times, explorer_figure, shown_classes
from scalable_nb.paths import RunPaths
from scalable_nb.telemetry.frames import failure_groups, failures_frame
from scalable_nb.telemetry.plaintext import one_line
from scalable_nb.telemetry.reader import JournalTail, read_rows
from scalable_nb.widgets import failure_text
from scalable_nb.widgets.failure_chart import FailureChart

Row = Mapping[str, Any]

#: Kinds of failure in the list; more are found by choosing a class.
MAX_LISTED: Final = 200
#: Stands for all classes in the list of them; None there would mean that nothing is chosen.
_ALL: Final = "\0all"


class HasRunFolder(Protocol):
    """What has a run folder: a session."""

    @property
    def paths(self) -> RunPaths:
        """Where its files lie."""
        ...


class FailureExplorer(ipywidgets.VBox):  # type: ignore[misc]  # ipywidgets has no types
    """Failed attempts of a run, to look through.

    A chart of error classes and execution times, the kinds of failure, the traceback of an
    example of the chosen kind, and the diagnosis. A click on a class shows only its kinds; a
    second click shows all again.

    Parameters
    ----------
    rows : session, RunPaths, or iterable of mapping
        A run, whose folder is read now and again by `refresh`; or failed attempts (rows of
        ``failures.jsonl``).
    title : str
        Shown above everything; a run's own name where none is given.
    source : callable, optional
        Returns all rows as they are now; `refresh` asks it, and a button calls `refresh`. A
        run is its own source.
    tasks : callable, optional
        Returns the rows of ``tasks.jsonl``, from which the diagnosis learns which retries
        helped. A run has them.
    timeout_s : float, optional
        A limit to draw into the chart.

    Attributes
    ----------
    frame, groups : pandas.DataFrame
        The failed attempts and their kinds, see `scalable_nb.telemetry.frames`.
    findings : list of Finding
        The diagnosis.

    Notes
    -----
    The chart is one ``FigureWidget``, made when the explorer is first shown and kept: each
    one costs 5 MB in the page and in the saved notebook.
    """

    def __init__(
        self,
        rows: HasRunFolder | RunPaths | Iterable[Row] = (),
        *,
        title: str = "",
        source: Callable[[], Iterable[Row]] | None = None,
        tasks: Callable[[], Iterable[Row]] | None = None,
        timeout_s: float | None = None,
    ) -> None:
        super().__init__()
        paths = rows if isinstance(rows, RunPaths) else getattr(rows, "paths", None)
        if isinstance(paths, RunPaths):
            title = title or f"Failures of {paths.run_id}"
            source = source or _follow(paths)
            tasks = tasks or (lambda: read_rows(paths.tasks).rows)
            rows = source()
        self._title, self._source, self._tasks, self._timeout_s = title, source, tasks, timeout_s
        # Callbacks may run in another thread while a cell calls `refresh`.
        self._lock = threading.RLock()
        self._is_loading = self._is_shown = False
        self._chart: FailureChart | None = None
        self._head = ipywidgets.HTML()
        self._problem = ipywidgets.HTML()
        wide = ipywidgets.Layout(width="auto", max_width="28em")
        self._class = ipywidgets.Dropdown(description="Error", layout=wide)
        self._list = ipywidgets.Select(layout=ipywidgets.Layout(width="auto"))
        self._detail = ipywidgets.HTML()
        self._class.observe(self._on_class, "value")
        self._list.observe(self._on_group, "value")
        self._refresh = ipywidgets.Button(description="Refresh", icon="refresh")
        self._refresh.on_click(self._on_refresh)
        self._load(cast("Iterable[Row]", rows))

    # --- what a program asks ---------------------------------------------------

    @property
    def figures(self) -> dict[str, go.Figure]:
        """Plain plotly figures of what is shown: to save, to change, to put elsewhere."""
        return {
            "error_classes": error_classes(self.frame),
            "execution_times": execution_times(self.frame, self._timeout_s),
            "explorer": explorer_figure(self.frame, self._timeout_s),
        }

    @property
    def error_class(self) -> str | None:
        """The error class whose kinds are listed; None for all. May be set."""
        return None if self._class.value in (_ALL, None) else str(self._class.value)

    @error_class.setter
    def error_class(self, name: str | None) -> None:
        known = [value for _, value in self._class.options if value != _ALL]
        if name is not None and name not in known:
            raise UnknownNameError("error class here", name, filter(None, known))
        self._class.value = _ALL if name is None else name

    @property
    def selected(self) -> str | None:
        """Fingerprint of the chosen kind of failure. May be set."""
        value = self._list.value
        return None if value is None else str(value)

    @selected.setter
    def selected(self, fingerprint: str) -> None:
        known = [value for _, value in self._list.options]
        if fingerprint not in known:
            raise UnknownNameError(
                "failure in the list", fingerprint, known, "See `explorer.groups`."
            )
        self._list.value = fingerprint

    def refresh(self) -> None:
        """Read the rows again and bring everything up to date; what was chosen stays chosen."""
        if self._source is not None:
            self._load(self._source())

    # --- bringing up to date ---------------------------------------------------

    def _load(self, rows: Iterable[Row]) -> None:
        with self._lock:
            rows = list(rows)
            self.frame: pd.DataFrame = failures_frame(rows)
            self.groups: pd.DataFrame = failure_groups(self.frame)
            tasks = self._tasks() if self._tasks is not None else ()
            self.findings: list[Finding] = diagnose(rows, tasks=tasks)
            self._classes = shown_classes(self.frame)
            sentence = failure_text.headline(self.frame, self.groups)
            self._head.value = failure_text.head_html(self._title, sentence, self.findings)
            self._problem.value = ""
            self._fill_classes()
            self._fill_list()
            self._draw()
            self.children = self._parts()

    def _parts(self) -> list[ipywidgets.Widget]:
        buttons = [self._refresh] if self._source is not None else []
        if not len(self.frame):
            return [self._head, self._problem, *buttons]
        bar = ipywidgets.HBox([self._class, *buttons])
        chart = [self._chart] if self._chart is not None else []
        return [self._head, self._problem, *chart, bar, self._list, self._detail]

    def _fill_classes(self) -> None:
        options = [("all", _ALL)]
        counts = self._classes["final"] + self._classes["retried"]
        for name, count in zip(self._classes["failure_class"].tolist(), counts, strict=True):
            options.append((f"{one_line(name, 60) or 'other classes'} ({count:,})", name))
        self._keep_value(self._class, options)

    def _fill_list(self) -> None:
        groups = self.groups
        if self.error_class == "":  # those without a bar of their own
            groups = groups[~groups["failure_class"].isin(self._classes["failure_class"])]
        elif self.error_class is not None:
            groups = groups[groups["failure_class"] == self.error_class]
        options = [
            (failure_text.group_label(group), group.fingerprint)
            for group in groups.head(MAX_LISTED).itertuples()
        ]
        self._list.rows = max(3, min(9, len(options)))
        self._keep_value(self._list, options)
        self._show_group()

    def _keep_value(self, chooser: Any, options: list[tuple[str, Any]]) -> None:
        """Give new options without losing the choice, in one message to the page."""
        before = chooser.value
        values = [value for _, value in options]
        self._is_loading = True
        try:
            with chooser.hold_sync():
                chooser.options = options
                chooser.value = before if before in values else next(iter(values), None)
        finally:
            self._is_loading = False

    def _show_group(self) -> None:
        chosen = self.groups[self.groups["fingerprint"] == self.selected]
        if not len(chosen):
            self._detail.value = ""
            return
        group = next(chosen.itertuples())
        example = next(self.frame.loc[[group.example]].itertuples())
        self._detail.value = failure_text.group_html(group, example)

    def _draw(self) -> None:
        if self._chart is not None:
            self._chart.draw(explorer_figure(self.frame, self._timeout_s))
        elif self._is_shown and len(self.frame):
            figure = explorer_figure(self.frame, self._timeout_s)
            self._chart = FailureChart(figure, self._on_click)
        self._mark_class()

    def _mark_class(self) -> None:
        if self._chart is not None:
            names = list(self._classes["failure_class"])
            self._chart.mark(None if self.error_class is None else names.index(self.error_class))

    # --- what the page asks ----------------------------------------------------

    def _on_click(self, line: int) -> None:
        try:
            with self._lock:
                name = str(self._classes["failure_class"].iloc[line])
                self.error_class = None if name == self.error_class else name
        except Exception as error:  # noqa: BLE001  in a callback it would show nowhere
            self._problem.value = failure_text.problem_html(error)

    def _on_class(self, _: Any) -> None:
        with self._lock:
            if not self._is_loading:
                self._fill_list()
                self._mark_class()

    def _on_group(self, _: Any) -> None:
        with self._lock:
            if not self._is_loading:
                self._show_group()

    def _on_refresh(self, _: Any) -> None:
        try:
            self.refresh()
        except Exception as error:  # noqa: BLE001  in a callback it would show nowhere
            self._problem.value = failure_text.problem_html(error)

    # --- what is kept ----------------------------------------------------------

    def __repr__(self) -> str:
        return f"<FailureExplorer: {failure_text.headline(self.frame, self.groups)}>"

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        with self._lock:
            if not self._is_shown:
                self._is_shown = True
                self._draw()
                self.children = self._parts()
        told = (self._title, self.frame, self.groups, self.findings)
        return {
            **super()._repr_mimebundle_(**kwargs),
            "text/plain": failure_text.static_text(*told),
            "text/html": failure_text.static_html(*told),
        }


def _follow(paths: RunPaths) -> Callable[[], list[Row]]:
    """All rows of a run's failures so far; a further call reads only what is new."""
    tail = JournalTail(paths.failures)
    rows: list[Row] = []

    def source() -> list[Row]:
        rows.extend(tail.poll())
        return rows

    return source
