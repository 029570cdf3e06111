"""``diagnose``: what went wrong in a run, and what to do."""

from __future__ import annotations

from argparse import Namespace

from scalable_nb.magics.run_selection import LAST, RUN, catch_up, chosen_run
from scalable_nb.magics.subcommand import Context, Example, Subcommand, Text, format_option


def _run(context: Context, options: Namespace) -> object:
    from scalable_nb.diagnosis.diagnose import diagnose
    from scalable_nb.report.run_report import diagnosis_text
    from scalable_nb.telemetry.run_tables import RunRecords, unread_notes

    run = chosen_run(context, options)
    catch_up(context, run)
    records = RunRecords(run)
    records.poll()
    findings = diagnose(records.failures, tasks=records.tasks, workers=records.workers)
    notes = unread_notes(records)
    if options.format == "json":
        found = [finding.to_dict() for finding in findings]
        return {"run_id": run.run_id, "findings": found, "problems": notes}
    return Text(diagnosis_text(run.run_id, findings, notes))


SUBCOMMAND = Subcommand(
    name="diagnose",
    summary="say what went wrong in a run, how sure that is, and what to do",
    run=_run,
    options=(RUN, LAST, format_option("text", "json")),
    examples=(
        Example("diagnose", "of the session; without one, of the newest run"),
        Example("diagnose --last --format json", "of the newest run, as data"),
    ),
    python="from scalable_nb.diagnosis.diagnose import diagnose; diagnose(session.failures())",
    on_command_line=True,
)
