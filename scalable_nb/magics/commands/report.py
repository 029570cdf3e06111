"""``report``: what became of a run, from its folder."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from scalable_nb.magics.completion import run_ids
from scalable_nb.magics.run_selection import LAST, RUN, catch_up, chosen_run, newest_run
from scalable_nb.magics.subcommand import (
    Context,
    Example,
    InvalidUsageError,
    Option,
    Subcommand,
    Text,
    format_option,
)

if TYPE_CHECKING:
    from scalable_nb.paths import RunPaths
    from scalable_nb.report import Comparison, Report


def _run(context: Context, options: Namespace) -> object:
    from scalable_nb.report import build_report, compare

    run = chosen_run(context, options)
    catch_up(context, run)
    if options.compare is not None and options.redact:
        raise InvalidUsageError(
            "--compare tells calls apart by their arguments: leave out --redact or --compare."
        )
    report: Report | Comparison = build_report(run, redact=options.redact)
    if options.compare is not None:
        if options.failures or options.format == "html":
            raise InvalidUsageError(
                "--compare gives text or json, of the whole run: leave out the other."
            )
        report = compare(build_report(newest_run(options.compare)), build_report(run))
    if options.format == "html":
        return _page(run, report, options)
    if options.format == "json":
        return _written(report.to_dict(), options.output)
    text = report.to_text() if options.compare else _text(report, options.failures)
    return _written(text, options.output)


def _text(report: Report | Comparison, failures: bool) -> str:
    return report.to_text(failures) if failures else report.to_text()  # type: ignore[call-arg]


def _page(run: RunPaths, report: Report | Comparison, options: Namespace) -> Text:
    from scalable_nb.telemetry.redaction import RedactedRecords
    from scalable_nb.telemetry.run_tables import RunRecords
    from scalable_nb.widgets.failure_explorer.export import report_page
    from scalable_nb.widgets.failure_explorer.view_model import FailureView

    records = RunRecords(run)
    records.poll()
    view = FailureView(RedactedRecords(records) if options.redact else records)
    text = _text(report, options.failures)
    path = Path(options.output or f"report-{run.run_id}.html")
    path.write_text(report_page(view, f"Run {run.run_id}", text), encoding="utf-8")
    return Text(f"Written to {path.absolute()}")


def _written(value: object, output: str | None) -> object:
    if output is None:
        return Text(value) if isinstance(value, str) else value
    import orjson

    path = Path(output)
    data = value if isinstance(value, str) else orjson.dumps(value, option=orjson.OPT_INDENT_2)
    path.write_bytes((data.encode() if isinstance(data, str) else data) + b"\n")
    return Text(f"Written to {path.absolute()}")


SUBCOMMAND = Subcommand(
    name="report",
    summary="tell what became of a run, from its folder alone",
    run=_run,
    options=(
        RUN,
        LAST,
        Option(("--failures", "-f"), "list the tasks that failed, and why"),
        format_option("text", "json", "html"),
        Option(("--output", "-O"), "write to this file instead of showing it", "FILE"),
        Option(("--redact",), "leave out arguments, messages, output and paths"),
        Option(("--compare", "-c"), "set the run against an earlier one", "ID", candidates=run_ids),
    ),
    examples=(
        Example("report --last --failures", "what failed in the newest run"),
        Example("report --format json", "the same as data"),
        Example("report --format html --output report.html", "one page to read offline"),
    ),
    python="from scalable_nb.report import build_report; "
    "print(build_report(session.paths).to_text(failures=True))",
    on_command_line=True,
)
