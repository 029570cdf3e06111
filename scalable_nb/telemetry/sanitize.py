"""Text that somebody else wrote (messages, tracebacks, arguments), made safe to show.

Error text is untrusted: a message may hold terminal escapes, marks that reverse the
reading direction, or a megabyte of data. What is returned here is plain, visible and
bounded. Markup is a matter of the view: it escapes ``<`` in its own language.
"""

from __future__ import annotations

import re
from typing import Final

# Colours and cursor movement (CSI) and window titles or links (OSC) carry nothing that a
# reader of the text would miss.
_TERMINAL: Final = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?")
# What would act or hide instead of being read: other controls, directional marks,
# zero-width characters, line separators that are no newline, and lone surrogates.
_INVISIBLE: Final = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f"
    "\ufeff\ufff9-\ufffb\ud800-\udfff]"
)


def plain_text(value: object, max_chars: int = 20_000) -> str:
    r"""The text of a value without anything that acts, at most about ``max_chars`` long.

    Terminal escapes are dropped; other invisible characters are shown by their number
    (``\u202e``); newlines and tabs stay.

    Parameters
    ----------
    value : object
        Anything read from a journal; None is the empty text.
    max_chars : int
        Longer texts are cut, and the cut says how many characters are missing.

    Examples
    --------
    >>> plain_text("\x1b[31mred\x1b[0m \u202egnp.exe")
    'red \\u202egnp.exe'
    """
    text = "" if value is None else str(value)
    length = len(text)
    # Cut before and after: the first keeps the work small, the second the outcome, as an
    # invisible character becomes six visible ones.
    text = _TERMINAL.sub("", text[:max_chars].replace("\r\n", "\n"))
    text = _INVISIBLE.sub(_number, text)[:max_chars]
    if length > max_chars:
        text += f"… ({length - max_chars:,} more characters)"
    return text


def one_line(value: object, max_chars: int = 200) -> str:
    """Like `plain_text`, with every run of white space as one space; cut with ``…``."""
    # Four times the room: a message may begin with much white space.
    text = " ".join(plain_text(value, 4 * max_chars).split())
    return text if len(text) <= max_chars else text[: max_chars - 1] + "…"


def escape_json(text: str) -> str:
    """Return JSON in which invisible characters of texts are written as their numbers."""
    return _INVISIBLE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def _number(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
