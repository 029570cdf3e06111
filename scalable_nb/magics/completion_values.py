"""Names that exist here and now, for the Tab key.

A completion must never fail: where a manifest or a folder cannot be read, there is
nothing to offer, and the subcommand itself will say what is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scalable_nb.session.session import ScalableSession


def targets(words: list[str]) -> Iterable[str]:
    """The targets of the manifest that the line uses."""
    from scalable_nb.errors import ScalableError, UnknownNameError
    from scalable_nb.manifest.load import load_manifest

    named = dict(pairwise(words))
    path = named.get("--manifest") or named.get("-m")
    try:
        # No target can have this name, and the error lists those that exist: also where the
        # manifest has several and a plain load would ask for a choice.
        load_manifest(path, target="?")
    except UnknownNameError as error:
        return error.known
    except (ScalableError, OSError):
        return []
    return []


def run_ids(words: list[str]) -> Iterable[str]:
    """The runs of the runs folder, newest first."""
    from scalable_nb.errors import ScalableError
    from scalable_nb.paths import list_runs
    from scalable_nb.settings import load_settings

    try:
        return [paths.run_id for paths in reversed(list_runs(load_settings().runs_dir))]
    except (ScalableError, OSError):
        return []


def log_names(words: list[str]) -> Iterable[str]:
    """The logs of the run that the line names, else of the newest one."""
    from scalable_nb.errors import ScalableError
    from scalable_nb.paths import find_run
    from scalable_nb.settings import load_settings

    named = dict(pairwise(words))
    run = named.get("--run") or named.get("-r") or "last"
    try:
        return find_run(load_settings().runs_dir, run).log_files()
    except (ScalableError, OSError):
        return []


def batches(words: list[str]) -> Iterable[str]:
    """The batches of the live session that have tasks to do."""
    return _of_live_session(lambda session: session.unfinished())


def paused_batches(words: list[str]) -> Iterable[str]:
    """The batches of the live session that are paused."""
    return _of_live_session(
        lambda session: [name for name, states in session.unfinished().items() if states["paused"]]
    )


def tasks(words: list[str]) -> Iterable[str]:
    """The tasks of the live session's manifest."""
    return _of_live_session(lambda session: session.manifest.manifest.tasks)


def components(words: list[str]) -> Iterable[str]:
    """The components of the live session's manifest."""
    return _of_live_session(lambda session: session.manifest.manifest.components)


def failures(words: list[str]) -> Iterable[str]:
    """The categories of failures, and the classes of those in the live session."""
    from scalable_nb.faults.categories import Category

    classes = _of_live_session(lambda session: {row["failure_class"] for row in session.failures()})
    return [*Category, *classes]


def _of_live_session(read: Callable[[ScalableSession], Iterable[str]]) -> list[str]:
    """What the newest live session answers, sorted; nothing where it cannot."""
    from scalable_nb.errors import ScalableError
    from scalable_nb.session.session import live_sessions

    try:
        names = {name for session in live_sessions()[-1:] for name in read(session)}
    except (ScalableError, OSError):
        return []
    return sorted(filter(None, names))
