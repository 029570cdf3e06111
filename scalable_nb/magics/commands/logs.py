"""``logs``: what the host, the workers and the jobs of a run wrote."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING, Final

from scalable_nb.magics.completion import log_names
from scalable_nb.magics.run_selection import LAST, RUN, chosen_run, live_session
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
from scalable_nb.trusted_paths import read_last_lines

if TYPE_CHECKING:
    from pathlib import Path

    from scalable_nb.paths import RunPaths

_LINES: Final = 40
_MAX_BYTES: Final = 1 << 24


def _run(context: Context, options: Namespace) -> Text:
    run = chosen_run(context, options)
    if options.task is not None:
        if options.names:
            raise InvalidUsageError(
                f"{options.names[0]} and --task {options.task}: give one of them."
            )
        return Text(_of_task(context, run, options.task, options.lines))
    files = run.log_files()
    if not options.names:
        return Text(_listed(run, files, context.surface.prompt))
    return Text("\n\n".join(_end_of(name, files, options.lines) for name in options.names))


def _listed(run: RunPaths, files: dict[str, Path], prompt: str) -> str:
    from dask.utils import format_bytes

    if not files:
        return f"Run {run.run_id} has written no logs."
    width = max(map(len, files))
    lines = [
        f"  {name:<{width}}  {format_bytes(path.stat().st_size)}" for name, path in files.items()
    ]
    head = f"Logs of run {run.run_id}; `{prompt} logs {next(iter(files))}` shows the end of one:"
    return "\n".join([head, *lines])


def _end_of(name: str, files: dict[str, Path], count: int) -> str:
    from scalable_nb.errors import UnknownNameError

    if name not in files:
        raise UnknownNameError("log", name, files, "Without a name, `logs` lists them.")
    last = read_last_lines(files[name], count, _MAX_BYTES)
    return f"{name}: the last {len(last)} lines of {files[name]}\n" + "\n".join(last).rstrip()


def _of_task(context: Context, run: RunPaths, task_id: str, count: int) -> str:
    """What a task's worker wrote during its last attempt."""
    from scalable_nb.widgets.task_table.actions import Controls, RunControls, SessionControls

    session = live_session(context)
    is_ours = session is not None and session.run_id == run.run_id
    controls: Controls = (
        SessionControls(session, session.client.host_api)
        if session and is_ours
        else RunControls(run)
    )
    attempts = controls.attempts(task_id)
    if not attempts:
        raise InvalidUsageError(
            f"run {run.run_id} has no attempt of a task {task_id!r}; expected a key as "
            f"`{context.surface.prompt} tasks` shows it."
        )
    number = int(attempts[-1].get("attempt", 1))
    lines = controls.log(task_id, number)[-count:]
    head = f"{task_id}, attempt {number} on {attempts[-1].get('worker') or 'an unknown worker'}"
    return "\n".join([f"{head}:", *lines]) if lines else f"{head}: nothing was logged."


SUBCOMMAND = Subcommand(
    name="logs",
    summary="show what the host, the workers and the jobs of a run wrote",
    run=_run,
    arguments=(
        Argument("names", "LOG", "the end of these; without one, all are listed", log_names, True),
    ),
    options=(
        Option(("--task",), "what was written during the last attempt of this task", "KEY"),
        Option(("--lines", "-n"), f"so many lines; {_LINES}", "N", whole_number, default=_LINES),
        RUN,
        LAST,
    ),
    examples=(
        Example("logs", "which logs there are"),
        Example("logs worker-0 --lines 100", "the end of what a worker wrote, also when it died"),
        Example("logs --task simulate-0123abcd", "while this task was executed"),
        Example("logs host --last", "of the newest run, also when its session is gone"),
    ),
    python="session.paths.log_files()",
    on_command_line=True,
)
