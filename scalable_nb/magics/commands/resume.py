"""``resume``: let paused batches go on."""

from __future__ import annotations

from argparse import Namespace

from scalable_nb.magics.completion import paused_batches
from scalable_nb.magics.run_selection import RUN, visited_session
from scalable_nb.magics.subcommand import Argument, Context, Example, Subcommand, Text


def _run(context: Context, options: Namespace) -> Text:
    with visited_session(context, options.run) as session:
        count = session.resume(*options.batches)
    if not count:
        return Text("Nothing is paused.")
    return Text(f"{count:,} paused task{' goes' if count == 1 else 's go'} on.")


SUBCOMMAND = Subcommand(
    name="resume",
    summary="let tasks go on that were paused because all before them failed alike",
    run=_run,
    arguments=(
        Argument("batches", "BATCH", "only these batches", paused_batches, is_repeated=True),
    ),
    options=(RUN,),
    examples=(
        Example("resume", "whatever is paused"),
        Example("resume sweep", "the batch that was mapped with name='sweep'"),
    ),
    python="session.resume('sweep')",
    on_command_line=True,
)
