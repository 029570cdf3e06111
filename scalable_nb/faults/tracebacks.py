"""Tracebacks and messages as a person wants to read them: the user's part, of bounded size.

Nothing here raises, and nothing grows with the size of a message or the depth of a stack.
"""

from __future__ import annotations

import functools
import os
import re
import sysconfig
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NamedTuple

#: Of one stack at most so many entries are shown, half of them from each end.
_MAX_ENTRIES: Final = 60
_FRAME: Final = re.compile(r'  File "([^"]*)", line \d+')

_HERE: Final = f"{Path(__file__).parents[1].absolute()}{os.sep}"
_STDLIB: Final = f"{sysconfig.get_path('stdlib')}{os.sep}"
_INSTALLED: Final = re.compile(r"[/\\](?:site|dist)-packages[/\\]")
_CALLER: Final = re.compile(
    r"[/\\](?:site|dist)-packages[/\\](?:cloudpickle|dask|distributed|tornado)[/\\]"
)
_STDLIB_CALLERS: Final = tuple(
    f"{_STDLIB}{name}"
    for name in (f"asyncio{os.sep}", f"concurrent{os.sep}", "pickle.py", "threading.py")
)


class Frame(NamedTuple):
    """A place in the code: file as the interpreter knows it, line, qualified function."""

    file: str
    line: int
    function: str


def safe_message(error: BaseException, max_chars: int = 2000) -> str:
    """The message of an exception, at most `max_chars` long, fit for UTF-8 and JSON.

    Parameters
    ----------
    error : BaseException
        Its ``__str__`` may raise whatever it likes.
    max_chars : int
        Of a longer message the beginning and the end are kept.
    """
    try:
        text = shorten(str(error), max_chars)
    except BaseException as trouble:  # noqa: BLE001 - whatever a `__str__` of the user's does
        text = f"<no message: its __str__ raised {type(trouble).__name__}>"[:max_chars]
    return _encodable(text, max_chars)


def shorten(text: str, max_chars: int) -> str:
    """The beginning and the end of a text, with a word on how much is left out between."""
    if len(text) <= max_chars:
        return text
    mark = f" ... [{len(text) - max_chars:,} characters left out] ... "
    room = max_chars - len(mark)
    if room <= 0:
        return text[:max_chars]
    tail = room // 3
    return text[: room - tail] + mark + text[len(text) - tail :]


def user_frames(tb: TracebackType | None) -> list[Frame]:
    """The user's own frames, the innermost last.

    Where there are none (the task is a function of a library) those of the libraries;
    where the failure lies in what calls the task, all.
    """
    frames = list(_frames(tb))
    own = [frame for frame in frames if not _is_library(frame.file)]
    return own or frames[_callers(frame.file for frame in frames) :]


def format_traceback(error: BaseException, max_chars: int = 20_000) -> str:
    """The traceback, causes and groups included, as Python prints it but for two things.

    What called the task (this package, Dask, thread pools) is taken off the top of every
    stack, and the whole is at most `max_chars` long: of deep stacks, long messages and
    long chains the beginning and the end are kept.

    Parameters
    ----------
    error : BaseException
    max_chars : int
    """
    try:
        report = traceback.TracebackException.from_exception(
            error, lookup_lines=False, compact=True
        )
        _trim(report)
        # One chunk may be a message of many megabytes: cut before they are joined.
        text = "".join(shorten(chunk, max_chars // 4) for chunk in report.format())
    except Exception as trouble:  # noqa: BLE001 - the attempt's own error comes first
        text = (
            f"{type(error).__name__}: {safe_message(error)}\n"
            f"(its traceback cannot be shown: {type(trouble).__name__})\n"
        )
    return _encodable(shorten(text, max_chars), max_chars)


def user_frames_first(text: str) -> str:
    """A formatted traceback with what a person wrote on top, and libraries' frames below.

    Only where both occur, and within one stack; what a chain or a group of exceptions says
    depends on the order, which stays.
    """
    if text.count("Traceback (most recent call last)") != 1:
        return text
    lines = text.splitlines()
    begins = [place for place, line in enumerate(lines) if _FRAME.match(line)]
    if not begins:
        return text
    end = next(
        (p for p in range(begins[-1] + 1, len(lines)) if lines[p][:1] not in (" ", "")), len(lines)
    )
    frames = [lines[a:b] for a, b in zip(begins, [*begins[1:], end], strict=True)]
    own = [frame for frame in frames if not _is_library(_FRAME.match(frame[0])[1])]  # type: ignore[index]
    others = [frame for frame in frames if frame not in own]
    if not own or not others:
        return text
    parts = [*lines[end:], "", "In your code (most recent call last):"]
    parts += [line for frame in own for line in frame]
    parts += ["", "Below it, in libraries:", *(line for frame in others for line in frame)]
    return "\n".join(parts)


# --- whose frame is it ---------------------------------------------------------


def _frames(tb: TracebackType | None) -> Iterator[Frame]:
    while tb is not None:
        code = tb.tb_frame.f_code
        yield Frame(code.co_filename, tb.tb_lineno or 0, code.co_qualname)
        tb = tb.tb_next


def _callers(files: Iterator[str]) -> int:
    """How many frames at the top belong to what called the task; 0 where all do."""
    for count, file in enumerate(files):
        if not _is_caller(file):
            return count
    return 0


@functools.lru_cache(maxsize=1024)
def _is_caller(file: str) -> bool:
    return file.startswith((_HERE, "<frozen importlib", *_STDLIB_CALLERS)) or bool(
        _CALLER.search(file)
    )


@functools.lru_cache(maxsize=1024)
def _is_library(file: str) -> bool:
    # Code of a notebook cell has no file or one in a temporary folder; a name in angle
    # brackets is generated code, except where a person typed it.
    if file.startswith("<"):
        return not file.startswith(("<ipython-input", "<stdin>", "<string>"))
    return file.startswith((_HERE, _STDLIB)) or bool(_INSTALLED.search(file))


# --- bounded size --------------------------------------------------------------


class _BoundedStack(traceback.StackSummary):
    """Leaves out the middle of a deep stack; repetitions are collapsed before that."""

    def format(self, **options: Any) -> list[str]:
        entries = super().format(**options)
        if len(entries) <= _MAX_ENTRIES:
            return entries
        half = _MAX_ENTRIES // 2
        mark = f"  ... [{len(entries) - 2 * half:,} calls left out] ...\n"
        return [*entries[:half], mark, *entries[-half:]]


def _trim(report: traceback.TracebackException) -> None:
    todo: list[traceback.TracebackException | None] = [report]
    while todo:
        part = todo.pop()
        if part is None:
            continue
        stack = _BoundedStack()
        stack.extend(part.stack[_callers(frame.filename for frame in part.stack) :])
        part.stack = stack
        todo += [part.__cause__, part.__context__, *(part.exceptions or ())]


def _encodable(text: str, max_chars: int) -> str:
    """Without lone surrogates (of undecodable file names), which neither JSON nor UTF-8 takes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")[:max_chars]
