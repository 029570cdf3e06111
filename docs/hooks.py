"""What pages of the documentation take from the code and from other files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from scalable_nb.magics.commands import NOTEBOOK, SUBCOMMANDS
from scalable_nb.magics.commands.help import usage
from scalable_nb.magics.subcommand import Option, Subcommand

_ROOT = Path(__file__).parents[1]


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Fill in what a page asks for."""
    if "<!-- subcommands -->" in markdown:
        subcommands = "\n".join(
            line for subcommand in SUBCOMMANDS.values() for line in _subcommand(subcommand)
        )
        markdown = markdown.replace("<!-- subcommands -->", subcommands)
    if "<!-- architecture -->" in markdown:
        text = (_ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
        text = text.replace("](docs/", "](../").removeprefix("# Architecture\n")
        markdown = markdown.replace("<!-- architecture -->", text)
    return markdown


def _subcommand(subcommand: Subcommand) -> Iterator[str]:
    """One subcommand of the table, as Markdown."""
    where = "cell magic" if subcommand.takes_cell else "notebook"
    where += " and shell" if subcommand.on_command_line else ""
    yield f"## {subcommand.name}\n"
    yield f"{subcommand.summary[0].upper()}{subcommand.summary[1:]}. *({where})*\n"
    yield f"```text\n{usage(subcommand, NOTEBOOK)}\n```\n"
    rows = [(f"`{argument.value}`", argument.summary) for argument in subcommand.arguments]
    rows += [(_spelled(option), option.summary) for option in subcommand.options]
    if rows:
        yield "| word | what it does |\n|---|---|"
    for word, summary in rows:
        yield f"| {word} | {_cell(summary)} |"
    start = NOTEBOOK.line(subcommand).removesuffix(subcommand.name)
    yield "\n```text"
    width = max(len(example.line) for example in subcommand.examples)
    for example in subcommand.examples:
        yield f"{start}{example.line:<{width}}  # {example.effect}"
    yield f"```\n\nIn Python: `{subcommand.python}`\n"


def _spelled(option: Option) -> str:
    spelled = ", ".join(f"`{name}`" for name in option.names)
    return f"{spelled} `{option.value}`" if option.value else spelled


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
