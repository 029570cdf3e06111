"""Everything that is wrong with a manifest, found in one go and said in words."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from typing import Any, Protocol, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from scalable_nb.manifest import job_options
from scalable_nb.manifest.schema import PROVIDERS, Manifest, Target
from scalable_nb.manifest.yaml_document import KeyPath, Problem

#: Key and what is wrong with it, not yet tied to a line.
Finding = tuple[KeyPath, str]

#: What an overlay may change.
OVERLAY_SECTIONS = ("project", "targets", "components", "tasks", "defaults")

_MISSING = {
    "version": "`version: 1`",
    "project": "e.g. `project: {name: demo}`",
    "name": "e.g. `name: demo`",
    "targets": "e.g. `targets: {local: {provider: local}}`",
    "components": "e.g. `components: {analysis: {cpus: 1, memory: 1G}}`",
    "provider": f"one of: {', '.join(PROVIDERS)}",
}

_WORDS = {
    "int_type": "is not a whole number; expected e.g. 2",
    "int_from_float": "is not a whole number; expected e.g. 2",
    "float_type": "is not a number; expected e.g. 1.5",
    "finite_number": "is not a finite number; expected e.g. 1.5",
    "bool_type": "is neither true nor false; expected true or false",
    "string_type": "is not text; expected text, in quotes where it looks like something else",
    "string_too_short": "is empty; expected some text",
    "dict_type": "is not a mapping; expected `key: value` lines",
    "model_type": "is not a mapping; expected `key: value` lines",
    "tuple_type": "is not a list; expected e.g. [a, b]",
    "too_short": "is empty; expected at least one entry",
    "greater_than": "is too small; expected more than {gt}",
    "greater_than_equal": "is too small; expected at least {ge}",
    "less_than_equal": "is too large; expected at most {le}",
    "refused": "{reason}",
}


class Checkable(Protocol):
    """A document, or several that hold together."""

    @property
    def data(self) -> Any:
        """The content as plain values."""
        ...

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What is wrong already."""
        ...

    def line(self, path: KeyPath) -> int:
        """The line of the deepest part of ``path`` that is there."""
        ...

    def has(self, path: KeyPath) -> bool:
        """Whether the whole of ``path`` is there."""
        ...


def check(document: Checkable) -> list[Problem]:
    """All problems of a manifest, in the order of its lines.

    Every overlay is checked too, by merging it into the rest, whether or not the target
    that is about to start uses it.
    """
    data = document.data
    if not isinstance(data, dict):
        text = f"{_value(data)} is not a manifest; expected the keys {_listed(_keys_at(()))}"
        return [Problem(1, (), text)]
    if data.get("version", 1) != 1:
        # Nothing else can be said about a file in a format that is not ours.
        return [_located(document, found) for found in _findings(data) if found[0] == ("version",)]
    base = dict.fromkeys(_findings(data))
    read_wrong = {problem.path for problem in document.problems}
    problems = set(document.problems)
    problems.update(_located(document, found) for found in base if found[0] not in read_wrong)
    for name in _bodies(data, "overlays"):
        own = dict(_overlay_findings(data, name))
        problems.update(_located(document, found) for found in own.items())
        for found in _findings(merged(data, data["overlays"][name])):
            inside = ("overlays", name, *found[0])
            is_known = found in base or any(inside[: len(path)] == path for path in own)
            if not is_known:
                problems.add(_located(document, found, name))
    return sorted(problems, key=lambda problem: (problem.line, str(problem)))


def merged(base: Any, change: Any) -> Any:
    """``base`` with an overlay's ``change``: mappings are merged, all else is replaced.

    Nothing (null) unsets a value but leaves a mapping as it is. Merging the same change
    a second time alters nothing.
    """
    if not isinstance(base, dict):
        return change
    if change is None:
        return base
    if not isinstance(change, dict):
        return change
    return base | {key: merged(base.get(key), value) for key, value in change.items()}


def suggestion(name: object, known: Iterable[str]) -> str:
    """The end of a message about a wrong name: the closest valid one, or all of them."""
    names = list(known)
    close = difflib.get_close_matches(str(name), names, n=1)
    return f"did you mean {close[0]!r}?" if close else f"expected one of: {_listed(names)}"


# --- findings ------------------------------------------------------------------------


def _findings(data: dict[str, Any]) -> Iterator[Finding]:
    try:
        Manifest.model_validate(data)
    except ValidationError as error:
        for details in error.errors(include_url=False):
            path = tuple(part for part in details["loc"] if part != "[key]")
            yield path, _sentence(path, details)
    yield from _option_findings(data)
    yield from _reference_findings(data)
    yield from _contradictions(data)


def _option_findings(data: dict[str, Any]) -> Iterator[Finding]:
    """Keys of targets that the schema leaves to the provider."""
    for name, body in _bodies(data, "targets").items():
        provider = body.get("provider")
        if provider not in PROVIDERS:
            continue
        is_queue = provider != "local"
        options = job_options.option_names(provider) if is_queue else frozenset()
        known = sorted(Target.model_fields) + sorted(options)
        for key, value in body.items():
            path: KeyPath = ("targets", name, key)
            if key in Target.model_fields:
                continue
            if is_queue and key in job_options.SESSION_OPTIONS:
                yield path, "is set by the session itself; remove it"
            elif key not in options:
                yield path, f"unknown key for provider {provider}; {suggestion(key, known)}"
            elif not isinstance(value, list | None) and job_options.is_list_option(provider, key):
                yield path, f"{_value(value)} is not a list; expected e.g. [{value}]"


def _reference_findings(data: dict[str, Any]) -> Iterator[Finding]:
    for section, key, other in (
        ("targets", "overlay", "overlays"),
        ("components", "fallback", "components"),
        ("tasks", "component", "components"),
    ):
        known = data.get(other) or {}
        if not isinstance(known, dict):
            continue
        for name, body in _bodies(data, section).items():
            value = body.get(key)
            if isinstance(value, str) and value not in known:
                hint = suggestion(value, known) if known else f"there are no {other}"
                yield (section, name, key), f"no {other[:-1]} named {value!r}; {hint}"


def _contradictions(data: dict[str, Any]) -> Iterator[Finding]:
    fallback = {name: body.get("fallback") for name, body in _bodies(data, "components").items()}
    for name in fallback:
        chain = [name]
        while isinstance(following := fallback.get(chain[-1]), str):
            is_round = following in chain
            chain.append(following)
            if following == name:
                text = f"leads back to itself: {' -> '.join(chain)}"
                yield ("components", name, "fallback"), text
            if is_round:
                break
    for name, body in _bodies(data, "tasks").items():
        retries = body.get("retries")
        if body.get("idempotent") is False and isinstance(retries, int) and retries > 0:
            text = "a task that is not idempotent is never retried; expected 0"
            yield ("tasks", name, "retries"), text
    for name, body in _bodies(data, "targets").items():
        limits = body.get("adaptive")
        if isinstance(limits, dict):
            low, high = limits.get("minimum"), limits.get("maximum", body.get("max_workers"))
            if isinstance(low, int) and isinstance(high, int) and low > high:
                text = f"{low} is more than the maximum of {high}"
                yield ("targets", name, "adaptive", "minimum"), text
        if body.get("host") == "job" and body.get("provider") == "local":
            text = "'job' takes a batch system; on provider local expected 'here' or 'auto'"
            yield ("targets", name, "host"), text
        if body.get("host_job") is not None and body.get("host") != "job":
            yield ("targets", name, "host_job"), "is used with `host: job` only; add that"


def _overlay_findings(data: dict[str, Any], name: str) -> Iterator[Finding]:
    """What can be said about an overlay before merging it."""
    for section, changes in _bodies(data, "overlays")[name].items():
        path: KeyPath = ("overlays", name, section)
        if section not in OVERLAY_SECTIONS:
            yield path, f"unknown key; {suggestion(section, OVERLAY_SECTIONS)}"
        elif section in ("targets", "components", "tasks") and isinstance(changes, dict):
            known = data.get(section)
            for entry, change in changes.items():
                if isinstance(known, dict) and entry not in known:
                    text = f"no {section[:-1]} named {entry!r}; {suggestion(entry, known)}"
                    yield (*path, entry), text
                elif section == "targets" and isinstance(change, dict) and "overlay" in change:
                    yield (*path, entry, "overlay"), "an overlay cannot choose another one"


def _bodies(data: dict[str, Any], section: str) -> dict[str, dict[str, Any]]:
    """The entries of a section, wrong ones left out: others report them."""
    entries = data.get(section)
    if not isinstance(entries, dict):
        return {}
    bodies = {name: {} if body is None else body for name, body in entries.items()}
    return {name: body for name, body in bodies.items() if isinstance(body, dict)}


# --- words ---------------------------------------------------------------------------


def _located(document: Checkable, found: Finding, overlay: str | None = None) -> Problem:
    path, text = found
    if overlay is not None:
        inside = ("overlays", overlay, *path)
        if document.has(inside):
            path = inside
        else:
            text = f"{text} (with overlay {overlay!r})"
    return Problem(document.line(path), path, text)


def _sentence(path: KeyPath, details: ErrorDetails) -> str:
    kind, context = details["type"], details.get("ctx", {})
    value = details["input"]
    if kind == "missing":
        return f"is missing; expected {_MISSING[str(path[-1])]}"
    if kind == "extra_forbidden":
        return f"unknown key; {suggestion(path[-1], _keys_at(path[:-1]))}"
    if kind == "literal_error":
        if path == ("version",):
            return f"{_value(value)} is not a version that can be read here; expected 1"
        choices = get_args(_model_at(path[:-1]).model_fields[str(path[-1])].annotation)
        words = [word for choice in choices for word in (get_args(choice) or (choice,))]
        known = [word for word in words if isinstance(word, str)]
        return f"{_value(value)} is not valid; {suggestion(value, known)}"
    sentence = _WORDS.get(kind)
    if sentence is None:
        return f"{_value(value)} cannot be used: {details['msg']}"
    return f"{_value(value)} {sentence.format(**context)}"


def _model_at(path: KeyPath) -> type[BaseModel]:
    """The model that describes the mapping at ``path``."""
    model: type[BaseModel] = Manifest
    parts = iter(path)
    for part in parts:
        annotation = model.model_fields[str(part)].annotation
        types = (annotation, *get_args(annotation))
        model = next(t for t in types if isinstance(t, type) and issubclass(t, BaseModel))
        if get_origin(annotation) is dict:
            next(parts, None)  # the name of the entry
    return model


def _keys_at(path: KeyPath) -> list[str]:
    return list(_model_at(path).model_fields)


def _value(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "nothing", True: "true", False: "false"}[value]
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)
