"""``help``: all verbs, or one."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterable

from scalable_nb.magics.verb import Argument, Context, Example, Option, Surface, Text, Verb


def _run(context: Context, options: Namespace) -> Text:
    from scalable_nb.magics.verb_registry import find_verb

    if options.verb is None:
        return overview(context.surface)
    return verb_help(find_verb(options.verb, context.surface), context.surface)


def _verbs(words: list[str]) -> Iterable[str]:
    from scalable_nb.magics.verb_registry import VERBS

    return VERBS


VERB = Verb(
    name="help",
    summary="list the verbs, or explain one",
    run=_run,
    arguments=(Argument("verb", "VERB", "the verb to explain", _verbs),),
    examples=(Example("help", "list all verbs"), Example("help report", "explain one")),
    python="import scalable_nb; help(scalable_nb)",
    on_command_line=True,
)


def overview(surface: Surface) -> Text:
    """One line per verb."""
    rows = [(verb.name, verb.summary) for verb in surface.verbs.values()]
    shared = " ".join(option.usage for option in surface.shared)
    return Text(
        f"{surface.prompt} VERB [options]\n\n{_columns(rows)}\n\n"
        f"Every verb takes {shared}.\n"
        f"`{surface.prompt} VERB --help` explains a verb with examples."
    )


def verb_help(verb: Verb, surface: Surface) -> Text:
    """Everything about one verb: usage, options, examples, the same in Python."""
    parts = [usage(verb, surface), verb.summary[0].upper() + verb.summary[1:] + "."]
    if verb.arguments:
        parts.append(_section("arguments", [(a.value, a.summary) for a in verb.arguments]))
    options = [(_spellings(option), option.summary) for option in surface.options(verb)]
    parts.append(_section("options", options))
    start = surface.line(verb).removesuffix(verb.name)
    examples = [(start + e.line, f"# {e.effect}") for e in verb.examples]
    parts.append(_section("examples", examples))
    parts.append(f"in Python:\n  {verb.python}")
    return Text("\n\n".join(parts))


def usage(verb: Verb, surface: Surface) -> str:
    """The verb with its arguments and options on one line."""
    arguments = [argument.usage for argument in verb.arguments]
    options = [option.usage for option in verb.options]
    return " ".join([surface.line(verb), *arguments, *options])


def _spellings(option: Option) -> str:
    short = [name for name in option.names if not name.startswith("--")]
    long = [name for name in option.names if name.startswith("--")]
    return " ".join(word for word in (", ".join([*short, *long]), option.value) if word)


def _section(title: str, rows: Iterable[tuple[str, str]]) -> str:
    return f"{title}:\n{_columns(rows)}"


def _columns(rows: Iterable[tuple[str, str]]) -> str:
    rows = list(rows)
    width = max(len(left) for left, _ in rows)
    return "\n".join(f"  {left:<{width}}  {right}" for left, right in rows)
