"""``cancel``: end tasks that are not done, of some batches or of all."""

from __future__ import annotations

import shlex
from argparse import Namespace
from typing import TYPE_CHECKING

from scalable_nb.magics.completion import batches
from scalable_nb.magics.run_selection import RUN, visited_session
from scalable_nb.magics.subcommand import (
    Argument,
    Context,
    Example,
    InvalidUsageError,
    Option,
    Subcommand,
    Text,
)

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Mapping


def _run(context: Context, options: Namespace) -> Text:
    if options.batches and options.all:
        raise InvalidUsageError(f"{' '.join(options.batches)} and --all: give one of them.")
    with visited_session(context, options.run) as session:
        if not (options.batches or options.all or options.paused):
            return _choice(context.surface.prompt, session.unfinished())
        count = session.cancel(*options.batches, only_paused=options.paused)
    paused = "paused " if options.paused else ""
    done = "was cancelled" if count == 1 else "were cancelled"
    return Text(f"{count or 'No'} {paused}task{'' if count == 1 else 's'} {done}.")


def _choice(prompt: str, unfinished: Mapping[str, Counter[str]]) -> Text:
    """What there is to cancel, where nobody said what."""
    if not unfinished:
        return Text("Nothing to cancel: every task is done.")
    lines = ["Nothing was cancelled. Not done are:"]
    for name, states in unfinished.items():
        counts = ", ".join(f"{count:,} {state}" for state, count in states.items())
        lines.append(f"  {repr(name) if name else 'single tasks'}: {counts}")
    named = next(filter(None, unfinished), None)
    if named is not None:
        line = f"`{prompt} cancel {shlex.quote(named)}`"
        lines.append(f"{line} cancels a batch, results that are there stay;")
    lines.append(f"`{prompt} cancel --paused` what is paused, `{prompt} cancel --all` all of it.")
    return Text("\n".join(lines))


SUBCOMMAND = Subcommand(
    name="cancel",
    summary="cancel tasks that are not done; results that are there stay",
    run=_run,
    arguments=(Argument("batches", "BATCH", "only these batches", batches, is_repeated=True),),
    options=(
        Option(("--paused", "-p"), "only tasks that are paused"),
        Option(("--all", "-a"), "every task that is not done"),
        RUN,
    ),
    examples=(
        Example("cancel", "show what could be cancelled, cancel nothing"),
        Example("cancel sweep", "what is not done of the batch `sweep`"),
        Example("cancel --paused", "the paused rest of batches that only failed"),
        Example("cancel --all", "whatever is not done"),
    ),
    python="session.cancel('sweep', only_paused=True)",
    on_command_line=True,
)
