"""How far some futures are, in one line that moves: in a notebook and in a terminal."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from distributed import Future
from distributed.client import futures_of
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from scalable_nb.client.futures import FutureList
from scalable_nb.telemetry.sanitize import one_line

_POLL_S: Final = 0.1

_WORDS: Final = {
    "finished": "succeeded",
    "error": "failed",
    "cancelled": "cancelled",
    "lost": "lost",
}


def progress(*futures: Any) -> None:
    """Show how far some futures are; failures are counted and end nothing.

    In a notebook the line below the cell is live and the cell goes on at once. In a terminal,
    or for futures of a plain Dask client, it waits until all are done; Ctrl-C stops the
    waiting and leaves the tasks alone.

    Parameters
    ----------
    *futures : Future, FutureList or collection of futures

    Examples
    --------
    >>> progress(client.map(simulate, range(1000), retries=3))
    """
    from scalable_nb.widgets.display import is_of_one_session, table
    from scalable_nb.widgets.task_table.saved_output import in_notebook

    name = futures[0].name if len(futures) == 1 and isinstance(futures[0], FutureList) else ""
    listed = FutureList(_flat(futures), name=name)
    if in_notebook() and is_of_one_session(listed):
        from IPython.display import display

        display(table(listed, form="line"))
    elif listed:
        draw(listed, name or "tasks", Console())


def draw(futures: Sequence[Future[Any]], name: str, console: Console) -> None:
    """Draw the bar in a terminal until all futures are done."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[outcomes]}", markup=False),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bar:
        line = bar.add_task(one_line(name, 40), total=len(futures), outcomes="")
        while True:
            counts = Counter(str(future.status) for future in futures)
            done = len(futures) - counts["pending"]
            bar.update(line, completed=done, outcomes=outcomes_text(counts))
            if done == len(futures):
                return
            time.sleep(_POLL_S)


def count_line(futures: Sequence[Future[Any]]) -> str:
    """How far the futures are, as in ``31 of 41 done: 29 succeeded, 2 failed``."""
    counts = Counter(str(future.status) for future in futures)
    outcomes = outcomes_text(counts)
    done = len(futures) - counts["pending"]
    return f"{done:,} of {len(futures):,} done{': ' if outcomes else ''}{outcomes}"


def outcomes_text(counts: Counter[str]) -> str:
    """How futures ended, as in ``29 succeeded, 2 failed``."""
    found = [f"{counts[status]:,} {word}" for status, word in _WORDS.items() if counts[status]]
    return ", ".join(found)


def _flat(values: Iterable[Any]) -> Iterator[Future[Any]]:
    for value in values:
        yield from [value] if isinstance(value, Future) else futures_of(value)
