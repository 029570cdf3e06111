"""The blocks of code in the documentation, as a reader finds them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
#: Every page of the site that is written by hand, and what else a newcomer reads.
PAGES = [
    path
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    if "adr" not in path.parts
]


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, the line it begins in, its text."""

    page: Path
    language: str
    line: int
    text: str


def blocks(page: Path, language: str) -> list[Block]:
    """The blocks of a page in one language."""
    found = []
    text = page.read_text(encoding="utf-8")
    for match in re.finditer(r"^```(\S*)[^\n]*\n(.*?)^```$", text, re.M | re.S):
        if match[1] == language:
            line = text.count("\n", 0, match.start()) + 2
            found.append(Block(page, language, line, match[2]))
    return found
