"""Files that a cached result refers to: noted when it is stored, compared at each hit."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Collection, Iterable, Iterator
from pathlib import PurePath
from typing import Any, Final

from scalable_nb.cache.content import Directory, File
from scalable_nb.cache.invisible_inputs import looks_like_path

#: The entry of a result's meta: kind, path and digest of each file.
OUTPUTS: Final = "outputs"

_MARK: Final = f'"{OUTPUTS}"'.encode()
_KINDS: Final = {"File": File, "Directory": Directory}
_MAX_ITEMS: Final = 100
#: File systems take their times from a clock that advances in steps.
_CLOCK_STEP_S: Final = 0.02


def describe_outputs(contents: Iterable[File | Directory]) -> dict[str, Any]:
    """Return the files that a result contains as an entry of its meta; empty without any.

    Raises
    ------
    OSError
        If one does not exist or cannot be read.
    """
    unique = {(type(each).__name__, str(each)): each for each in contents}
    described = [[*name, each.content_digest().hex()] for name, each in unique.items()]
    return {OUTPUTS: described} if described else {}


def find_changed_output(meta: bytes) -> str:
    """Return which file of a stored result is not what it was, as a clause; empty if none.

    Parameters
    ----------
    meta : bytes
        Of the result, as JSON.
    """
    if _MARK not in meta:
        return ""
    for kind, path, digest in json.loads(meta).get(OUTPUTS, ()):
        content = _KINDS[kind](path)
        try:
            if content.content_digest().hex() != digest:
                return f"{content!r}, which has changed since"
        except FileNotFoundError:
            return f"{content!r}, which no longer exists"
        except OSError as error:
            return f"{content!r}, which cannot be read: {error}"
    return ""


def find_written_path(result: object, since: float, allow: Collection[str] = ()) -> str:
    """Return a path in a result that names a file written after a time, or an empty text.

    Parameters
    ----------
    result : object
        Checked with the items of a list, tuple or dict, not deeper.
    since : float
        Seconds since the epoch.
    allow : collection of str
        Paths that are passed over.
    """
    for text in _paths(result):
        try:
            info = os.stat(text)  # noqa: PTH116 - a Path costs more than the call
        except (OSError, ValueError):
            continue
        is_written = stat.S_ISREG(info.st_mode) and info.st_mtime >= since - _CLOCK_STEP_S
        if is_written and text not in allow:
            return text
    return ""


def written_path_message(path: str) -> str:
    """Return the warning about a call that returned the path of a file that it wrote."""
    return (
        f"it returned the path {path!r} of a file that it wrote, and a cached result does not "
        f"notice when that is removed or changed: return File({path!r})"
    )


def _paths(result: object) -> Iterator[str]:
    items: Iterable[object] = (result,)
    if isinstance(result, list | tuple):
        items = result[:_MAX_ITEMS]
    elif isinstance(result, dict):
        items = list(result.values())[:_MAX_ITEMS] if len(result) <= _MAX_ITEMS else ()
    for item in items:
        if isinstance(item, PurePath):
            yield str(item)
        elif isinstance(item, str) and looks_like_path(item):
            yield item
