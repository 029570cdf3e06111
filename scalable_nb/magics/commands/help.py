"""``help``: all verbs, or one."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterable

from scalable_nb.magics.help_text import overview, verb_help
from scalable_nb.magics.verb import Argument, Context, Example, Text, Verb


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
