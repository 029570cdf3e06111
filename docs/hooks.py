"""What pages of the documentation take from the code and from other files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from scalable_nb.magics.commands.help import usage
from scalable_nb.magics.verb import Option, Verb
from scalable_nb.magics.verb_registry import NOTEBOOK, VERBS

_ROOT = Path(__file__).parents[1]


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Fill in what a page asks for."""
    if "<!-- verbs -->" in markdown:
        verbs = "\n".join(line for verb in VERBS.values() for line in _verb(verb))
        markdown = markdown.replace("<!-- verbs -->", verbs)
    if "<!-- architecture -->" in markdown:
        text = (_ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
        text = text.replace("](docs/", "](../").removeprefix("# Architecture\n")
        markdown = markdown.replace("<!-- architecture -->", text)
    return markdown


def _verb(verb: Verb) -> Iterator[str]:
    """One verb of the table, as Markdown."""
    where = "cell magic" if verb.takes_cell else "notebook"
    where += " and shell" if verb.on_command_line else ""
    yield f"## {verb.name}\n"
    yield f"{verb.summary[0].upper()}{verb.summary[1:]}. *({where})*\n"
    yield f"```text\n{usage(verb, NOTEBOOK)}\n```\n"
    rows = [(f"`{argument.value}`", argument.summary) for argument in verb.arguments]
    rows += [(_spelled(option), option.summary) for option in verb.options]
    if rows:
        yield "| word | what it does |\n|---|---|"
    for word, summary in rows:
        yield f"| {word} | {_cell(summary)} |"
    start = NOTEBOOK.line(verb).removesuffix(verb.name)
    yield "\n```text"
    width = max(len(example.line) for example in verb.examples)
    for example in verb.examples:
        yield f"{start}{example.line:<{width}}  # {example.effect}"
    yield f"```\n\nIn Python: `{verb.python}`\n"


def _spelled(option: Option) -> str:
    spelled = ", ".join(f"`{name}`" for name in option.names)
    return f"{spelled} `{option.value}`" if option.value else spelled


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
