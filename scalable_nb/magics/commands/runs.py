"""``runs``: all runs, with what became of them."""

from __future__ import annotations

from argparse import Namespace

from scalable_nb.magics.subcommand import Context, Example, Subcommand, format_option


def _run(context: Context, options: Namespace) -> object:
    from scalable_nb.report import overview
    from scalable_nb.settings import load_settings

    runs = overview(load_settings().runs_dir)
    return runs.to_dict() if options.format == "json" else runs


SUBCOMMAND = Subcommand(
    name="runs",
    summary="list all runs: finished, running, or interrupted because their host died",
    run=_run,
    options=(format_option("text", "json"),),
    examples=(Example("runs", "the newest first"), Example("runs --format json", "as data")),
    python="from scalable_nb.report import overview; overview(session.settings.runs_dir)",
    on_command_line=True,
)
