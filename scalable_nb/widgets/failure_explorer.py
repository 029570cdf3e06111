"""The failure explorer: what went wrong, in charts, in kinds, in a traceback, in words."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

import ipywidgets
import plotly.graph_objects as go

from scalable_nb.errors import UnknownNameError
from scalable_nb.faults.diagnose import Finding
from scalable_nb.paths import RunPaths
from scalable_nb.telemetry.plaintext import one_line
from scalable_nb.telemetry.runs import Records, records_of
from scalable_nb.telemetry.selection import Selection
from scalable_nb.widgets import failure_text
from scalable_nb.widgets.copy_button import CopyButton
from scalable_nb.widgets.failure_actions import Actions, SessionActions, last_log_lines
from scalable_nb.widgets.failure_chart import FailureChart
from scalable_nb.widgets.failure_export import export, issue_text
from scalable_nb.widgets.failure_view import FailureView
from scalable_nb.widgets.following import Follower

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pandas as pd

Row = Mapping[str, Any]

#: Kinds of failure in the list; more are found by choosing a class.
MAX_LISTED: Final = 200
_MAX_REMEDIES: Final = 3
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

    Charts of classes, execution times, time, places, arguments and retries; the kinds of
    failure, the traceback of an example of the chosen kind, and the diagnosis with what can be
    done. A click in a chart filters all others and the kinds; the same click again takes it back.

    Parameters
    ----------
    rows : session, RunPaths, Records, or iterable of mapping
        A run, which is followed while it goes on; or failed attempts (rows of
        ``failures.jsonl``).
    title : str
        Shown above everything; a run's own name where none is given.
    timeout_s : float, optional
        A limit to draw; that of the timeouts themselves where it is not given.
    is_going_on : callable, optional
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
        is_going_on: Callable[[], bool] | None = None,
        tasks: Iterable[Row] = (),
    ) -> None:
        super().__init__()
        paths = rows if isinstance(rows, RunPaths) else getattr(rows, "paths", None)
        self._paths = paths if isinstance(paths, RunPaths) else None
        self._title = title or (f"Failures of {self._paths.run_id}" if self._paths else "")
        self._timeout_s, self._is_going_on = timeout_s, is_going_on
        self._records = records_of(self._paths or rows, tasks)
        self._actions: Actions | None = SessionActions(self._paths) if self._paths else None
        self._follower: Follower | None = None
        # Callbacks and the follower run in other threads than a cell that calls `refresh`.
        self._lock = threading.RLock()
        self._is_loading = self._is_shown = False
        self._chart: FailureChart | None = None
        self._shown: list[ipywidgets.Widget] = []
        self._make_parts()
        self._view = FailureView(self._records, None, timeout_s)
        self._show()

    def _make_parts(self) -> None:
        wide = ipywidgets.Layout(width="auto", max_width="28em")
        self._head, self._problem = ipywidgets.HTML(), ipywidgets.HTML()
        self._chosen, self._detail = ipywidgets.HTML(), ipywidgets.HTML()
        self._class = ipywidgets.Dropdown(description="Error", layout=wide)
        self._search = ipywidgets.Text(
            placeholder="search in messages and arguments", continuous_update=False, layout=wide
        )
        self._list = ipywidgets.Select(layout=ipywidgets.Layout(width="auto"))
        self._remedies = ipywidgets.HBox(layout=ipywidgets.Layout(flex_flow="row wrap"))
        self._copy = CopyButton()
        self._clear = self._button("Show all", "times", lambda: self.choose(Selection()))
        self._renew = self._button("Refresh", "refresh", self.refresh)
        self._again = self._button("Resubmit these", "repeat", self._resubmit_kind)
        self._log = self._button("Open log", "file-text-o", self._open_log)
        self._save = self._button("Save as HTML", "download", self._save_page)
        renew = [self._renew] if self._paths else []
        self._bar = ipywidgets.HBox(
            [self._class, self._search, self._clear, *renew, self._chosen],
            layout=ipywidgets.Layout(flex_flow="row wrap"),
        )
        of_run = [self._again, self._log] if self._paths else []
        self._buttons = ipywidgets.HBox([*of_run, self._copy, self._save])
        self._class.observe(self._on_class, "value")
        self._search.observe(self._on_search, "value")
        self._list.observe(self._on_group, "value")

    def _button(self, label: str, icon: str, act: Callable[[], object]) -> ipywidgets.Button:
        button = ipywidgets.Button(description=label, icon=icon)
        button.layout.width = "auto"

        def clicked(_: Any) -> None:
            with self._showing_problems():
                act()

        button.on_click(clicked)
        return button

    # --- what a program asks ---------------------------------------------------

    @property
    def frame(self) -> pd.DataFrame:
        """All failed attempts, see `scalable_nb.telemetry.columns.failures_frame`."""
        return self._view.frame

    @property
    def groups(self) -> pd.DataFrame:
        """The kinds of failure that are chosen, see `scalable_nb.telemetry.frames`."""
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
            Leave out arguments, and values within messages.
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
        self._problem.value = ""
        self._show()

    def _show(self) -> None:
        """Give every part what it has to show, in as few messages as can be."""
        view = self._view
        sentence = failure_text.headline(view.frame, view.groups)
        told = failure_text.problems_text(self._records.problems)
        _set(self._head, failure_text.head_html(self._title, sentence, view.findings, told))
        chosen = f"Only {view.selection}" if not view.selection.is_empty else ""
        _set(self._chosen, failure_text.note_html(chosen))
        self._fill_classes()
        self._fill_list()
        self._fill_remedies()
        self._draw()
        self._arrange()

    def _arrange(self) -> None:
        parts = [self._head, self._remedies, self._problem]
        if self._chart is not None:
            parts.append(self._chart)
        if len(self.frame):
            parts += [self._bar, self._list, self._buttons, self._detail]
        elif self._paths is not None:
            parts.append(self._renew)
        if [part.model_id for part in parts] != [part.model_id for part in self._shown]:
            self._shown = self.children = parts

    def _fill_classes(self) -> None:
        table = self._view.classes
        options = [("all", _ALL)]
        counts = table["final"] + table["retried"]
        for name, count in zip(table["failure_class"].tolist(), counts, strict=True):
            options.append((f"{one_line(name, 60) or 'other classes'} ({count:,})", name))
        chosen = self.selection.error_class
        self._give(self._class, options, _ALL if chosen is None else chosen[0])

    def _fill_list(self) -> None:
        options = [
            (failure_text.group_label(group), group.fingerprint)
            for group in self.groups.head(MAX_LISTED).itertuples()
        ]
        if self._list.rows != (rows := max(3, min(9, len(options)))):
            self._list.rows = rows
        self._give(self._list, options, self._list.value)
        self._show_group()

    def _give(self, chooser: Any, options: list[tuple[str, Any]], wanted: Any) -> None:
        """Give options without losing the choice, in one message to the page or none."""
        values = [value for _, value in options]
        wanted = wanted if wanted in values else next(iter(values), None)
        self._is_loading = True
        try:
            if tuple(options) != tuple(chooser.options):
                with chooser.hold_sync():
                    chooser.options = options
                    chooser.value = wanted
            elif chooser.value != wanted:
                chooser.value = wanted
        finally:
            self._is_loading = False

    def _fill_remedies(self) -> None:
        if self._actions is None:
            return
        able = [f for f in self.findings if f.changes is not None and f.evidence["failed_tasks"]]
        wanted = [(failure_text.remedy_label(f), f) for f in able[:_MAX_REMEDIES]]
        if [label for label, _ in wanted] != [b.description for b in self._remedies.children]:
            self._remedies.children = [
                self._button(label, "repeat", partial(self._remedy, finding))
                for label, finding in wanted
            ]

    def _show_group(self) -> None:
        chosen = self.groups[self.groups["fingerprint"] == self.selected]
        if not len(chosen):
            _set(self._detail, "")
            return
        group = next(chosen.itertuples())
        row = self._records.row(cast("int", group.example))
        _set(self._detail, failure_text.group_html(group, row))
        self._copy.text = issue_text(group, row, self.findings)

    def _draw(self) -> None:
        if self._chart is not None:
            self._chart.draw(self._view.explorer_figure())
        elif self._is_shown and len(self.frame):
            self._chart = FailureChart(self._view.explorer_figure(), self._on_click)
        if self._chart is not None:
            self._chart.mark(self._view.marks())

    # --- what the page asks ----------------------------------------------------

    def _on_click(self, dimension: str, line: int, column: int) -> None:
        with self._showing_problems(), self._lock:
            value = self._view.value_at(dimension, line)
            self.choose(self.selection.toggled(dimension, value))

    def _on_class(self, _: Any) -> None:
        if not self._is_loading:
            with self._showing_problems():
                self.error_class = None if self._class.value == _ALL else self._class.value

    def _on_search(self, _: Any) -> None:
        with self._showing_problems():
            text = one_line(self._search.value)
            if text != self.selection.text:
                self.choose(replace(self.selection, text=text))

    def _on_group(self, _: Any) -> None:
        if not self._is_loading:
            with self._showing_problems(), self._lock:
                self._show_group()

    def _resubmit_kind(self) -> None:
        self._problem.value = failure_text.note_html(self.resubmit())

    def _remedy(self, finding: Finding) -> None:
        said = self.resubmit(*finding.fingerprints, **(finding.changes or {}))
        self._problem.value = failure_text.note_html(said)

    def _open_log(self) -> None:
        assert self._paths is not None
        chosen = self.groups[self.groups["fingerprint"] == self.selected]
        worker = next(iter(chosen["workers"].iloc[0]), "") if len(chosen) else ""
        path, text = last_log_lines(self._paths, worker)
        _set(self._detail, failure_text.log_html(str(path), text))

    def _save_page(self) -> None:
        name = f"failures-{self._paths.run_id}.html" if self._paths else "failures.html"
        path = self.export(name)
        self._problem.value = failure_text.note_html(f"Written to {path.absolute()}")

    @contextmanager
    def _showing_problems(self) -> Iterator[None]:
        """Show an error of a callback, which would show nowhere else."""
        try:
            yield
        except Exception as error:  # noqa: BLE001
            self._problem.value = failure_text.problem_html(error)

    # --- what is kept ----------------------------------------------------------

    def __repr__(self) -> str:
        return f"<FailureExplorer: {failure_text.headline(self.frame, self.groups)}>"

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        with self._lock:
            if not self._is_shown:
                self._is_shown = True
                self._show()
                if self._is_going_on is not None:
                    self._follower = Follower(self.refresh, self._is_going_on)
            told = (self._title, self.frame, self.groups, self.findings)
            first = self.groups["example"].head(1).tolist()
            example = self._records.row(int(first[0])) if first else None
        return {
            **super()._repr_mimebundle_(**kwargs),
            "text/plain": failure_text.static_text(*told),
            "text/html": failure_text.static_html(*told, example),
        }


def _set(part: ipywidgets.HTML, value: str) -> None:
    if part.value != value:  # a message to the page less
        part.value = value
