"""One short name for all failures that have the same cause."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import Final

from scalable_nb.faults.tracebacks import Frame, safe_message, user_frames

# Only the beginning of a message is looked at, so that its size costs nothing, and of
# what is normalised a smaller part counts: where the cut falls in a long number or path
# must not show.
_READ_CHARS: Final = 4000
_COUNTED_CHARS: Final = 500

_QUOTED_PATH: Final = r"""(?P<quote>['"])[^'"/\\\n]*[/\\][^'"\n]*(?P=quote)"""
_URL: Final = r"\b[a-z][a-z0-9+.-]{1,15}://[^\s'\"<>]+"
_PATH: Final = r"(?<![\w.~+-])(?:[A-Za-z]:)?[\w.~+-]*(?:[/\\][\w.~+@%=:-]*)+"
_PATHS: Final = re.compile(f"{_QUOTED_PATH}|{_URL}|{_PATH}")

_UUID: Final = r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"
_ADDRESS: Final = r"0[xX][0-9a-fA-F]+"
# Of eight digits or more, letters and figures both: neither a number nor a word.
_HEX: Final = r"(?<![0-9A-Za-z])(?=[0-9]*[a-fA-F])(?=[a-fA-F]*[0-9])[0-9a-fA-F]{8,}(?![0-9A-Za-z])"
_UNIT: Final = r"(?:\s?(?:(?:[kKMGTP]i?)?B|[Bb]ytes)\b)?"
_NUMBER: Final = rf"(?:(?<!\w)[-+])?\d+(?:[.,_]\d+)*\.?(?:[eE][-+]?\d+)?{_UNIT}"
_IDS: Final = re.compile(f"{_UUID}|{_ADDRESS}|{_HEX}|{_NUMBER}")

_NUMBER_LIST: Final = re.compile(r"#(?:[\s,;x]+#)+")
_CELL: Final = re.compile(r"[/\\]ipykernel_\d+[/\\]|^<ipython-input")


def fingerprint(class_name: str, message: str, frames: Sequence[Frame]) -> str:
    """16 hex digits that are equal for failures of the same cause.

    Made of the class, the innermost of the user's frames (file name and function: a line
    moves with every edit above it) and the normalised message.

    Parameters
    ----------
    class_name : str
        As in ``failure_class``, e.g. ``"ValueError"``.
    message : str
        Of any length.
    frames : sequence of Frame
        From `user_frames`; may be empty.
    """
    place = _place(frames[-1]) if frames else ""
    parts = (class_name, place, normalise_message(message))
    text = "\x1f".join(parts).encode("utf-8", "backslashreplace")
    return hashlib.sha256(text).hexdigest()[:16]


def fingerprint_of(error: BaseException) -> str:
    """The fingerprint of an exception where it was raised."""
    message = safe_message(error, _READ_CHARS)
    return fingerprint(type(error).__name__, message, user_frames(error.__traceback__))


def normalise_message(message: str) -> str:
    """A message without what differs from task to task.

    Paths and URLs become ``<path>``; numbers with their units, ids (UUIDs, hex digests)
    and addresses become ``#``, lists of them one ``#``. Other quoted words stay: the
    name of a missing key, column or module tells causes apart.

    Examples
    --------
    >>> normalise_message("cannot allocate 4.2 GiB for scenario_47 at 0x7f3a, see /tmp/a/b.log")
    'cannot allocate # for scenario_# at #, see <path>'
    """
    text = _PATHS.sub("<path>", message[:_READ_CHARS])
    text = _NUMBER_LIST.sub("#", _IDS.sub("#", text))
    return " ".join(text.split())[:_COUNTED_CHARS]


def _place(frame: Frame) -> str:
    # A cell's file is named after its text and the kernel's process.
    file = "<cell>" if _CELL.search(frame.file) else re.split(r"[/\\]", frame.file)[-1]
    return f"{file}:{frame.function}"
