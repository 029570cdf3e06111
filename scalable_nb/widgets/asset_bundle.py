"""The modules of a view as the one text that anywidget loads."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

_IMPORT: Final = re.compile(r'^import \{([^}]*)\} from "\./([\w.-]+)";\n', re.M)
_EXPORT: Final = re.compile(r"^export (?!default )", re.M)
# Every notebook that shows the view carries the text: comments that fill lines stay at home.
_COMMENT: Final = re.compile(r"^ */\*\*.*?\*/\n|^ *//[^\n]*\n", re.M | re.S)


def bundle_modules(entry: Path) -> str:
    """One ECMAScript module out of a module and those that it imports.

    They share one scope, so their top-level names differ, and nothing is renamed on import.
    Only what ``entry`` exports as its default is exported. No template literal may hold a
    line that begins like a comment.

    Parameters
    ----------
    entry : Path
        Imports others, in its own folder, by ``import { name } from "./other.mjs";``.

    Raises
    ------
    ValueError
        When an import has another form, or modules import each other in a circle.
    """
    texts: dict[str, str] = {}
    _collect(entry, texts, ())
    return "\n".join(texts.values())


def bundle_styles(folder: Path) -> str:
    """One style sheet out of all in a folder, in the order of their names."""
    return "\n".join(path.read_text("utf-8") for path in sorted(folder.glob("*.css")))


def _collect(path: Path, texts: dict[str, str], importers: tuple[str, ...]) -> None:
    if path.name in texts:
        return
    if path.name in importers:
        raise ValueError(f"modules import each other: {' -> '.join((*importers, path.name))}")
    text = path.read_text("utf-8")
    for names, other in _IMPORT.findall(text):
        if " as " in names:
            raise ValueError(f"{path.name} renames what it imports: {{{names}}}; expected names")
        _collect(path.with_name(other), texts, (*importers, path.name))
    text = _IMPORT.sub("", text)
    if strange := re.search(r"^import .*", text, re.M):
        raise ValueError(
            f'{path.name}: {strange[0]!r}; expected `import {{ name }} from "./other.mjs";`'
        )
    texts[path.name] = _COMMENT.sub("", _EXPORT.sub("", text)).strip()
