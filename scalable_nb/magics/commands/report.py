"""``report``: what became of a run, from its folder."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterable

from scalable_nb.magics.runs import LAST, RUN, catch_up, chosen_run
from scalable_nb.magics.verb import Context, Example, Option, Text, Verb

_FORMATS = ("text", "json")


def _run(context: Context, options: Namespace) -> object:
    from scalable_nb.report import build_report

    run = chosen_run(context, options)
    catch_up(context, run)
    report = build_report(run)
    if options.format == "json":
        return report.to_dict()
    return Text(report.to_text(failures=options.failures))


def _format(text: str) -> str:
    if text not in _FORMATS:
        raise ValueError(f"expected {' or '.join(_FORMATS)}")
    return text


def _formats(words: list[str]) -> Iterable[str]:
    return _FORMATS


VERB = Verb(
    name="report",
    summary="tell what became of a run, from its folder alone",
    run=_run,
    options=(
        RUN,
        LAST,
        Option(("--failures", "-f"), "list the tasks that failed, and why"),
        Option(
            ("--format", "-F"),
            "text or json",
            "FORMAT",
            _format,
            default="text",
            candidates=_formats,
        ),
    ),
    examples=(
        Example("report --last --failures", "what failed in the newest run"),
        Example("report --format json", "the same as data"),
    ),
    python="build_report(session.paths).to_text(failures=True)",
    on_command_line=True,
)
