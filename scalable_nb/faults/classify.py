"""Which category an exception belongs to, and whether a rule of the user's names it.

Nothing here raises, whatever is wrong with the exception: it is called where a task has
just failed, and must not hide why.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any, Final, Literal, TypeAlias

from scalable_nb.errors import RemoteError
from scalable_nb.faults.categories import (
    BY_CLASS,
    BY_ERRNO,
    BY_PHRASE,
    THROTTLING,
    TRANSIENT_STATUSES,
    Category,
)
from scalable_nb.faults.tracebacks import safe_message

__all__ = ["Category", "Rule", "Verdict", "classify", "matches", "verdict"]

#: An exception type, a type's name (``"ValueError"``, ``"pkg.mod.Error"``) or a predicate.
Rule: TypeAlias = type[BaseException] | str | Callable[[BaseException], bool]
Verdict: TypeAlias = Literal["retry_on", "give_up_on"]

#: Of chained and grouped exceptions no more than these are looked at.
_MAX_EXCEPTIONS: Final = 200
_MAX_DEPTH: Final = 20

#: In a group the next attempt meets all members again, so the hardest one counts.
_HARDEST_FIRST: Final = (
    Category.PERMANENT,
    Category.RESOURCE,
    Category.TIMEOUT,
    Category.INFRASTRUCTURE,
    Category.TRANSIENT,
    Category.UNKNOWN,
)


def classify(error: BaseException) -> Category:
    """The category of an exception.

    Asked of the exception itself, in this order: its HTTP status (requests, urllib,
    httpx, aiohttp, botocore and whatever looks like them), its errno, the nearest of its
    base classes that is known.

    Where that says nothing (a RuntimeError, a class of the user's), its causes are asked
    in turn. So ``RuntimeError("failed") from ConnectionResetError()`` is transient, and
    ``ValueError("bad reply") from ConnectionError()`` is permanent: whoever raised it
    chose to say that the value is wrong. An exception that was merely being handled
    (``__context__``) may make an error anything but permanent: ``try: cache[key]`` /
    ``except KeyError: compute()`` does not turn the errors of ``compute`` into that of a
    missing key. A group is as hard as its hardest member.

    Where all that says nothing, the messages are searched for a few well-known phrases.
    """
    try:
        return _categorise(error, set(), 0) or Category.UNKNOWN
    except Exception:  # noqa: BLE001 - whatever is wrong with it, it is what is to be reported
        return Category.UNKNOWN


def verdict(
    error: BaseException, retry_on: Iterable[Rule], give_up_on: Iterable[Rule]
) -> Verdict | None:
    """Which of the two lists names `error`; `give_up_on` wins where both do.

    None leaves the decision to the error's category.
    """
    if any(matches(rule, error) for rule in give_up_on):
        return "give_up_on"
    if any(matches(rule, error) for rule in retry_on):
        return "retry_on"
    return None


def matches(rule: Rule, error: BaseException) -> bool:
    """Whether a rule names this error; like an ``except`` clause, it does not ask for causes.

    A type also matches by its name, because a class of the notebook is another object
    once its cell ran again. A name is that of the error's class or of one of its base
    classes: the bare name, the full one, or any package on the way to it
    (``"requests.ConnectionError"`` is ``requests.exceptions.ConnectionError``).

    A predicate that raises counts as "no", with a note on `error` that says so: it must
    not hide the error it was asked about.
    """
    try:
        if isinstance(rule, str):
            return any(_is_name_of(rule, full_name) for full_name in _class_names(error))
        if isinstance(rule, type):
            return isinstance(error, rule) or _full_name(rule) in _class_names(error)
        return bool(rule(error))
    except BaseException as trouble:  # noqa: BLE001 - `error` is what the person must see
        name = getattr(rule, "__qualname__", type(rule).__name__)
        note = f"(the rule {name} raised {type(trouble).__name__}: {safe_message(trouble, 200)})"
        with suppress(Exception):
            error.add_note(note)
        return False


def _is_name_of(name: str, full_name: str) -> bool:
    if full_name == name or full_name.endswith(f".{name}"):
        return True
    package, _, last = name.rpartition(".")
    return bool(package) and full_name.startswith(f"{package}.") and full_name.endswith(f".{last}")


# --- the exception and what led to it ------------------------------------------


def _categorise(error: BaseException, seen: set[int], depth: int) -> Category | None:
    chain = list(_chain(error, seen))
    for link, is_incidental in chain:
        category = _own_category(link)
        if category is None and depth < _MAX_DEPTH:
            category = _group_category(link, seen, depth)
        if category is not None and not (is_incidental and category is Category.PERMANENT):
            return category
    found = (_phrase_category(link) for link, _ in chain)
    return next((category for category in found if category is not None), None)


def _chain(error: BaseException, seen: set[int]) -> Iterator[tuple[BaseException, bool]]:
    """The error and what led to it; with each, whether it was merely being handled."""
    link: BaseException | None = error
    is_incidental = False
    while link is not None and id(link) not in seen and len(seen) < _MAX_EXCEPTIONS:
        seen.add(id(link))
        yield link, is_incidental
        # urllib's URLError and urllib3's errors carry their cause as `reason`.
        cause = _exception(link, "__cause__", "reason")
        if cause is None and not _read_attribute(link, "__suppress_context__"):
            cause, is_incidental = _exception(link, "__context__"), True
        link = cause


def _group_category(error: BaseException, seen: set[int], depth: int) -> Category | None:
    if not isinstance(error, BaseExceptionGroup):
        return None
    found = {_categorise(member, seen, depth + 1) for member in error.exceptions}
    return next((category for category in _HARDEST_FIRST if category in found), None)


# --- one exception -------------------------------------------------------------


def _own_category(error: BaseException) -> Category | None:
    status = _http_status(error)
    if status is not None:
        passes = status >= 500 or status in TRANSIENT_STATUSES
        return Category.TRANSIENT if passes else Category.PERMANENT
    if isinstance(error, OSError):
        number = _read_attribute(error, "errno")
        if isinstance(number, int) and number in BY_ERRNO:
            return BY_ERRNO[number]
    known = (BY_CLASS.get(name) for name in _class_names(error))
    return next((category for category in known if category is not None), None)


def _http_status(error: BaseException) -> int | None:
    if isinstance(error, SystemExit):  # its `code` is another kind of code
        return None
    response = _read_attribute(error, "response")
    if isinstance(response, Mapping):  # botocore
        return _aws_status(response)
    for owner in (response, error):
        for name in ("status_code", "status", "code"):
            status = _read_attribute(owner, name)
            if isinstance(status, int) and 400 <= status <= 599:
                return int(status)
    return None


def _aws_status(response: Mapping[Any, Any]) -> int | None:
    try:
        if any(word in response["Error"]["Code"] for word in THROTTLING):
            return 429
        status = response["ResponseMetadata"]["HTTPStatusCode"]
    except (KeyError, TypeError):
        return None
    return status if isinstance(status, int) and 400 <= status <= 599 else None


def _phrase_category(error: BaseException) -> Category | None:
    text = safe_message(error).lower()
    for category, phrases in BY_PHRASE:
        if any(phrase in text for phrase in phrases):
            return category
    return None


def _class_names(error: BaseException) -> list[str]:
    """Full names of the error's class and its base classes, the nearest first."""
    names = [_full_name(base) for base in type(error).__mro__]
    if isinstance(error, RemoteError):  # stands in for a class that is known by name only
        name = error.type_name
        names.insert(0, name if "." in name else f"builtins.{name}")
    return names


def _full_name(base: type) -> str:
    return f"{base.__module__}.{base.__qualname__}"


def _exception(error: BaseException, *names: str) -> BaseException | None:
    values = (_read_attribute(error, name) for name in names)
    return next((value for value in values if isinstance(value, BaseException)), None)


def _read_attribute(owner: object, name: str) -> Any:
    """An attribute, or None; a property of the user's may raise anything."""
    try:
        return getattr(owner, name, None)
    except Exception:  # noqa: BLE001 - an error must not hide the one it is asked about
        return None
