"""``scale``: more or fewer workers, while everything runs."""

from __future__ import annotations

from argparse import Namespace

from scalable_nb.magics.completion import components
from scalable_nb.magics.run_selection import RUN, visited_session
from scalable_nb.magics.subcommand import (
    Argument,
    Context,
    Example,
    InvalidUsageError,
    Option,
    Subcommand,
    Text,
    whole_number,
)


def _run(context: Context, options: Namespace) -> Text:
    is_adaptive = options.min is not None or options.max is not None
    if is_adaptive and options.count is not None:
        raise InvalidUsageError(
            f"{options.count} and --min or --max: a fixed number, or limits between which the work "
            "decides. Give one of them."
        )
    if not is_adaptive and options.count is None:
        raise InvalidUsageError(
            f"how many workers? `{context.surface.prompt} scale 4` is a fixed number, "
            f"`{context.surface.prompt} scale --min 0 --max 10` lets the work decide."
        )
    count = None if options.count is None else _count(options.count)
    with visited_session(context, options.run) as session:
        if count is None:
            wanted = session.adapt(options.min or 0, options.max, options.component)
            beginning = "The work decides how many workers there are. Now wanted"
        else:
            wanted = session.scale(count, options.component)
            beginning = "Wanted"
    listed = ", ".join(
        f"{number} worker{'' if number == 1 else 's'}{f' of {name}' if name else ''}"
        for name, number in wanted.items()
    )
    return Text(f"{beginning}: {listed}.")


def _count(text: str) -> int:
    try:
        return whole_number(text)
    except ValueError as error:
        raise InvalidUsageError(f"{text!r} is no number of workers: {error}.") from None


SUBCOMMAND = Subcommand(
    name="scale",
    summary="ask for more or fewer workers; none is ended that executes a task",
    run=_run,
    arguments=(Argument("count", "N", "how many workers"),),
    options=(
        Option(("--component", "-c"), "workers of this component", "NAME", candidates=components),
        Option(("--min",), "follow the work, but keep so many", "N", whole_number),
        Option(("--max",), "follow the work, but not beyond", "N", whole_number),
        RUN,
    ),
    examples=(
        Example("scale 10", "ten workers, shared by the components"),
        Example("scale 2 --component big", "two workers of the component `big`"),
        Example("scale --min 0 --max 20", "as many as there is work for"),
    ),
    python="session.scale(10); session.adapt(0, 20, component='big')",
    on_command_line=True,
)
