"""The parts of the failure explorer: what is shown, and what a person asks by them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import anywidget
import ipywidgets
import traitlets

from scalable_nb.diagnosis.findings import Finding
from scalable_nb.telemetry.run_tables import unread_notes
from scalable_nb.telemetry.sanitize import one_line
from scalable_nb.widgets.failure_explorer import failure_html
from scalable_nb.widgets.failure_explorer.view_model import FailureView

#: Kinds of failure in the list; more are found by choosing a class.
MAX_LISTED: Final = 200
_MAX_REMEDIES: Final = 3
#: Stands for all classes in the list of them; None there would mean that nothing is chosen.
_ALL: Final = "\0all"

#: Name of what is asked, with its value: see `FailurePanel`.
OnAction = Callable[[str, Any], None]


class FailurePanel(ipywidgets.VBox):  # type: ignore[misc]  # ipywidgets has no types
    """Words, fields, lists and buttons around the chart; decides nothing.

    Parameters
    ----------
    on_action : callable
        Called with what a person asks: ``"class"`` (a name, None for all), ``"text"``,
        ``"kind"`` (a fingerprint), ``"remedy"`` (a `Finding`), or with None ``"show all"``,
        ``"refresh"``, ``"resubmit"``, ``"reproduce"``, ``"open log"``, ``"save"``.
    is_of_run : bool
        Whether there is a run that can be acted on.
    """

    def __init__(self, on_action: OnAction, *, is_of_run: bool) -> None:
        super().__init__()
        self._on_action, self._is_of_run = on_action, is_of_run
        self._is_loading = False
        self._shown: list[ipywidgets.Widget] = []
        wide = ipywidgets.Layout(width="auto", max_width="28em")
        wrapped = ipywidgets.Layout(flex_flow="row wrap")
        self._head, self._note = ipywidgets.HTML(), ipywidgets.HTML()
        self._chosen, self._detail = ipywidgets.HTML(), ipywidgets.HTML()
        self._class = ipywidgets.Dropdown(description="Error", layout=wide)
        self._search = ipywidgets.Text(
            placeholder="search in messages and arguments", continuous_update=False, layout=wide
        )
        self._list = ipywidgets.Select(layout=ipywidgets.Layout(width="auto"))
        self._remedies = ipywidgets.HBox(layout=wrapped)
        self._copy = CopyButton()
        self._renew = self._button("Refresh", "refresh", "refresh")
        clear = self._button("Show all", "times", "show all")
        again = self._button("Resubmit these", "repeat", "resubmit")
        here = self._button("Reproduce here", "bug", "reproduce")
        log = self._button("Open log", "file-text-o", "open log")
        save = self._button("Save as HTML", "download", "save")
        choosing = [self._class, self._search, clear, *([self._renew] if is_of_run else [])]
        self._bar = ipywidgets.HBox([*choosing, self._chosen], layout=wrapped)
        acting = [again, here, log] if is_of_run else []
        self._buttons = ipywidgets.HBox([*acting, self._copy, save], layout=wrapped)
        self._class.observe(self._on_class, "value")
        self._search.observe(lambda _: on_action("text", one_line(self._search.value)), "value")
        self._list.observe(self._on_kind, "value")

    def _button(self, label: str, icon: str, what: str, value: Any = None) -> ipywidgets.Button:
        button = ipywidgets.Button(description=label, icon=icon)
        button.layout.width = "auto"
        button.on_click(lambda _: self._on_action(what, value))
        return button

    def _on_class(self, _: Any) -> None:
        if not self._is_loading:
            self._on_action("class", None if self._class.value == _ALL else self._class.value)

    def _on_kind(self, _: Any) -> None:
        if not self._is_loading:
            self._on_action("kind", self._list.value)

    # --- what is chosen in the list ------------------------------------------------

    @property
    def kind(self) -> str | None:
        """Fingerprint of the kind that is chosen in the list."""
        value = self._list.value
        return None if value is None else str(value)

    @kind.setter
    def kind(self, fingerprint: str) -> None:
        self._list.value = fingerprint

    @property
    def kinds(self) -> list[str]:
        """Fingerprints of the kinds in the list."""
        return [value for _, value in self._list.options]

    # --- what is shown ---------------------------------------------------------------

    def show(self, view: FailureView, title: str, remedies: Sequence[Finding]) -> None:
        """Bring words, fields and lists up to date, in as few messages as can be."""
        sentence = failure_html.headline(view.frame, view.groups)
        problems = "; ".join(unread_notes(view.records))
        _set(self._head, failure_html.head_html(title, sentence, view.findings, problems))
        chosen = f"Only {view.selection}" if not view.selection.is_empty else ""
        _set(self._chosen, failure_html.note_html(chosen))
        self._fill_classes(view)
        self._fill_kinds(view)
        self._fill_remedies(remedies)

    def arrange(self, chart: ipywidgets.Widget | None, is_empty: bool) -> None:
        """Put the parts in their places; without a failure there is little to show."""
        parts = [self._head, self._remedies, self._note, *([chart] if chart is not None else [])]
        if not is_empty:
            parts += [self._bar, self._list, self._buttons, self._detail]
        elif self._is_of_run:
            parts.append(self._renew)
        if [part.model_id for part in parts] != [part.model_id for part in self._shown]:
            self._shown = self.children = parts

    def show_message(self, html: str) -> None:
        """Say something in passing."""
        _set(self._note, html)

    def detail(self, html: str, issue: str | None = None) -> None:
        """Show below the list what belongs to the chosen kind; with the text to copy."""
        _set(self._detail, html)
        if issue is not None:
            self._copy.text = issue

    def _fill_classes(self, view: FailureView) -> None:
        table = view.classes
        options = [("all", _ALL)]
        counts = table["final"] + table["retried"]
        for name, count in zip(table["failure_class"].tolist(), counts, strict=True):
            options.append((f"{one_line(name, 60) or 'other classes'} ({count:,})", name))
        chosen = view.selection.error_class
        self._set_options(self._class, options, _ALL if chosen is None else chosen[0])

    def _fill_kinds(self, view: FailureView) -> None:
        options = [
            (failure_html.group_label(group), group.fingerprint)
            for group in view.groups.head(MAX_LISTED).itertuples()
        ]
        if self._list.rows != (rows := max(3, min(9, len(options)))):
            self._list.rows = rows
        self._set_options(self._list, options, self._list.value)

    def _set_options(self, chooser: Any, options: list[tuple[str, Any]], wanted: Any) -> None:
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

    def _fill_remedies(self, findings: Sequence[Finding]) -> None:
        wanted = {failure_html.remedy_label(each): each for each in findings[:_MAX_REMEDIES]}
        if [*wanted] != [button.description for button in self._remedies.children]:
            self._remedies.children = [
                self._button(label, "repeat", "remedy", finding)
                for label, finding in wanted.items()
            ]


def _set(part: ipywidgets.HTML, value: str) -> None:
    if part.value != value:  # a message to the page less
        part.value = value


class CopyButton(anywidget.AnyWidget):
    """A button that copies a text, written by Python, to the clipboard of the browser."""

    _esm = Path(__file__).parents[1] / "static" / "clipboard.js"
    label = traitlets.Unicode("Copy as GitHub issue").tag(sync=True)
    text = traitlets.Unicode().tag(sync=True)
