"""Failures as files that can be passed on: one HTML page, CSV, Parquet, an issue's text."""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any, Final

from scalable_nb.diagnosis.findings import Finding
from scalable_nb.errors import ScalableError
from scalable_nb.faults.fingerprint import normalise_message
from scalable_nb.telemetry.redaction import NOTICE, RedactedRecords
from scalable_nb.telemetry.sanitize import one_line, plain_text
from scalable_nb.widgets.failure_explorer import failure_html
from scalable_nb.widgets.failure_explorer.view_model import FailureView

# Nothing is fetched, whatever stands in the page.
_PAGE: Final = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data: blob:;
 style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>body {{ font: 15px/1.45 sans-serif; max-width: 70em; margin: 2em auto; padding: 0 1em }}
code, pre {{ font-family: monospace }} td, th {{ font-size: 14px }}</style></head>
<body>{body}</body></html>
"""


def export(view: FailureView, path: Path, title: str, redact: bool = False) -> Path:
    """Write what is chosen to a file, by its suffix: ``.html``, ``.csv`` or ``.parquet``.

    Raises
    ------
    ScalableError
        When the suffix is another one, or Parquet cannot be written here.
    """
    if redact:
        view = FailureView(RedactedRecords(view.records), view.selection)
    if path.suffix == ".html":
        text = NOTICE if redact else ""
        path.write_text(report_page(view, title, text), encoding="utf-8")
    elif path.suffix == ".csv":
        view.chosen.to_csv(path, index=False)
    elif path.suffix == ".parquet":
        try:
            view.chosen.to_parquet(path, index=False)
        except ImportError as error:
            raise ScalableError(
                "Parquet needs pyarrow, which is not installed: "
                "`%pip install 'scalable-nb[parquet]'`, or export "
                f"{str(path.with_suffix('.csv'))!r}"
            ) from error
    else:
        raise ScalableError(
            f"cannot export to {str(path)!r}: expected a name that ends with .html, .csv or "
            ".parquet"
        )
    return path


def report_page(view: FailureView, title: str, text: str = "") -> str:
    """One HTML page for offline reading: words, charts, kinds of failure with tracebacks.

    Parameters
    ----------
    view : FailureView
    title, text : str
        Of the page; plain text that stands above everything.
    """
    sentence = failure_html.headline(view.chosen, view.groups)
    parts = [failure_html.head_html(title, sentence, view.findings)]
    if text:
        parts.insert(0, f"<pre>{html.escape(plain_text(text, 200_000))}</pre>")
    if len(view.chosen):
        figure = view.explorer_figure()
        parts.append(figure.to_html(full_html=False, include_plotlyjs=True))
        groups: list[Any] = list(view.groups.head(50).itertuples())
        for group in groups:
            row = view.records.row(group.example)
            parts.append("<hr>" + failure_html.group_html(group, row))
    return _PAGE.format(title=html.escape(one_line(title, 200)), body="\n".join(parts))


def issue_text(group: Any, row: dict[str, Any], findings: list[Finding]) -> str:
    """A kind of failure as the text of an issue on GitHub, arguments left out."""
    trace = plain_text(row.get("traceback"), 8_000).replace("```", "'''")
    shown_findings = [f for f in findings if group.fingerprint in f.fingerprints]
    lines = [
        f"### {_quoted(group.failure_class)}: {_quoted(normalise_message(group.message))}",
        "",
        f"- {group.attempts:,} failed attempts of {group.tasks:,} tasks, {group.failed_tasks:,} "
        "failed for good",
        f"- function: `{_quoted(row.get('function_name'))}`, category: {_quoted(group.category)}",
        *(
            f"- diagnosis ({f.confidence:.0%} sure): {f.rule.replace('_', ' ')}"
            for f in shown_findings[:3]
        ),
        "",
        "```",
        trace or "no traceback in the journal",
        "```",
        "",
    ]
    return "\n".join(lines)


def _quoted(value: object) -> str:
    return one_line(value, 160).replace("`", "'").replace("<", "&lt;").replace("@", "@\u200b")
