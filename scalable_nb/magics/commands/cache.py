"""``cache``: which results are stored, intact and trusted, and why a call was not found."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING, Any

from scalable_nb.magics.run_selection import live_session
from scalable_nb.magics.subcommand import (
    Argument,
    Context,
    Example,
    InvalidUsageError,
    Option,
    Subcommand,
    Text,
)

if TYPE_CHECKING:
    from scalable_nb.cache.store import ResultStore

_ACTIONS = ("info", "verify", "clear", "trust", "why")


def _run(context: Context, options: Namespace) -> object:
    from scalable_nb.cache.maintenance import cache_info, clear_cache, trust_cache, verify_cache

    action, *words = options.words or ["info"]
    store = _store(context)
    if action == "why":
        return _explain(context, words)
    if words:
        raise InvalidUsageError(f"`cache {action}` takes nothing more, not {words[0]!r}.")
    if action == "info":
        return _with_rate(context, cache_info(store))
    if action == "verify":
        return verify_cache(store)
    if action == "trust":
        return trust_cache(store)
    if action == "clear":
        removed = clear_cache(store, options.function)
        return Text(f"Removed: {removed}")
    from scalable_nb.errors import UnknownNameError

    raise InvalidUsageError(str(UnknownNameError("action of `cache`", action, _ACTIONS)))


def _actions(words: list[str]) -> tuple[str, ...]:
    return _ACTIONS


def _store(context: Context) -> ResultStore:
    from scalable_nb.cache.store import ResultStore
    from scalable_nb.paths import check_folder
    from scalable_nb.settings import load_settings

    session = live_session(context)
    return ResultStore(check_folder((session.settings if session else load_settings()).cache_dir))


def _with_rate(context: Context, info: object) -> object:
    from dataclasses import replace

    from scalable_nb.cache.maintenance import CacheInfo
    from scalable_nb.telemetry.journal_reader import read_rows

    session = live_session(context)
    if session is None or session.paths is None or not isinstance(info, CacheInfo):
        return info
    session.failures()  # has the host write what it has not written yet
    events = [row.get("event_type") for row in read_rows(session.paths.cache).rows]
    return replace(info, hits=events.count("cache-hit"), misses=events.count("cache-kept"))


def _explain(context: Context, words: list[str]) -> Text:
    """``why NAME [VALUE ...]``: values are Python, names of the notebook among them."""
    from scalable_nb.cache.maintenance import explain_miss

    variables = context.variables
    if variables is None or not words:
        raise InvalidUsageError(
            "`cache why` takes a call in a notebook: `cache why simulate 3 scale=2`."
        )
    function = variables.get(words[0])
    if not callable(function):
        raise InvalidUsageError(f"cache why {words[0]}: the notebook has no function of this name.")
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    for word in words[1:]:
        name, is_named, text = word.partition("=")
        if is_named and name.isidentifier():
            kwargs[name] = _value(text)
        else:
            args.append(_value(word))
    return Text(explain_miss(function, *args, **kwargs))


def _value(text: str) -> object:
    import ast

    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


SUBCOMMAND = Subcommand(
    name="cache",
    summary="stored results: info, verify, clear, trust, or why a call was not found",
    run=_run,
    arguments=(
        Argument(
            "words",
            "ACTION",
            "info, verify, clear, trust or why",
            lambda words: _ACTIONS,
            is_repeated=True,
        ),
    ),
    options=(Option(("--function", "-f"), "clear results of this function only", "NAME"),),
    examples=(
        Example("cache", "number and size of the kept results, hits of this run"),
        Example("cache verify", "read them all; damaged ones are set aside"),
        Example("cache clear --function simulate", "remove those of one function"),
        Example("cache trust", "use results of another home folder or an earlier version"),
        Example("cache why simulate 3 scale=2.5", "what differs from the nearest kept call"),
    ),
    python=(
        "from scalable_nb.cache.maintenance import explain_miss; "
        "print(explain_miss(simulate, 3, scale=2.5))"
    ),
    on_command_line=True,
)
