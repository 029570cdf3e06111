"""Questions about all stored results at once, and commands for all of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dask.utils import format_bytes

from scalable_nb.cache.function import CacheableFunction
from scalable_nb.cache.index import IndexBusyError, ResultIndex
from scalable_nb.cache.keys import KEY_FORMAT, CallKeys
from scalable_nb.cache.store import CorruptResultError, ResultStore, ResultStoreError, StoredResult
from scalable_nb.errors import NotCacheableError
from scalable_nb.settings import load_settings
from scalable_nb.telemetry.rows import utc_iso
from scalable_nb.trusted_paths import owner_text


@dataclass(frozen=True)
class CacheInfo:
    """Number and size of the stored results, also by function.

    Attributes
    ----------
    folder : str
    count : int
        Number of results.
    nbytes : int
        Size of their files in bytes.
    by_function : dict of str to (int, int)
        Function -> number and size in bytes; ``""`` where a file does not say.
    hits, misses : int
        Of the run that was looked at.
    stale : int
        Results under keys of an earlier version, which no call finds.
    """

    folder: str
    count: int
    nbytes: int
    by_function: dict[str, tuple[int, int]] = field(default_factory=dict)
    hits: int = 0
    misses: int = 0
    stale: int = 0

    def __str__(self) -> str:
        noun = "result" if self.count == 1 else "results"
        lines = [f"{self.count:,} kept {noun}, {format_bytes(self.nbytes)}, in {self.folder}"]
        for name, (count, nbytes) in sorted(self.by_function.items()):
            lines.append(f"  {name or '(not recorded)'}: {count:,}, {format_bytes(nbytes)}")
        if self.stale:
            lines.append(
                f"{self.stale:,} of them are stale: keys have changed with a version of "
                "scalable_nb, and no call finds them"
            )
        looked = self.hits + self.misses
        if looked:
            share = self.hits / looked
            lines.append(f"this run: {self.hits:,} of {looked:,} calls were kept ({share:.0%})")
        return "\n".join(lines)

    __repr__ = __str__


@dataclass(frozen=True)
class Verified:
    """The outcome of reading every stored result.

    Attributes
    ----------
    whole : int
        Results that can be read.
    unsigned : int
        Those of them that are not signed with this user's key, and not used.
    damaged : tuple of str
        What is wrong with the others; their files were set aside.
    unreadable : tuple of str
        Files that are whole, but cannot be read by this process.
    """

    whole: int
    damaged: tuple[str, ...]
    unreadable: tuple[str, ...]
    unsigned: int = 0

    def __str__(self) -> str:
        lines = [f"{self.whole:,} kept results are whole, {len(self.damaged):,} are damaged"]
        if self.unsigned:
            lines.append(
                f"{self.unsigned:,} are not signed with your key and not used: `cache trust`"
            )
        return "\n".join([*lines, *self.damaged, *self.unreadable])

    __repr__ = __str__


def cache_info(store: ResultStore) -> CacheInfo:
    """Count the stored results.

    This machine's index remembers what its files said before; where another process has it,
    the files are read.
    """
    try:
        with ResultIndex(store) as index:
            index.update()
            return _summed(store, list(index.entries()))
    except (IndexBusyError, OSError):
        return _summed(store, list(_from_files(store)))


def verify_cache(store: ResultStore) -> Verified:
    """Read every stored result and set damaged ones aside."""
    whole = unsigned = 0
    damaged: list[str] = []
    unreadable: list[str] = []
    for key in list(store.iter_keys()):
        try:
            unsigned += not store.check(key)
        except CorruptResultError as error:
            damaged.append(str(error))
        except KeyError:
            continue  # removed meanwhile
        except OSError as error:
            unreadable.append(str(error))
        else:
            whole += 1
    return Verified(whole, tuple(damaged), tuple(unreadable), unsigned)


@dataclass(frozen=True)
class Trusted:
    """The outcome of signing stored results.

    Attributes
    ----------
    folder : str
    count : int
        Results that were signed.
    nbytes : int
        Size of their files in bytes.
    owner : str
        Of the folder.
    oldest_at, newest_at : float
        When the first and the last of them were stored, seconds since the epoch.
    unreadable : tuple of str
        Files that are damaged or cannot be read.
    """

    folder: str
    count: int
    nbytes: int
    owner: str
    oldest_at: float
    newest_at: float
    unreadable: tuple[str, ...]

    def __str__(self) -> str:
        if not self.count:
            lines = [f"all results in {self.folder} that can be read are signed with your key"]
        else:
            dates = " to ".join(
                dict.fromkeys(utc_iso(at)[:10] for at in (self.oldest_at, self.newest_at))
            )
            noun = "result" if self.count == 1 else "results"
            lines = [
                f"signed: {self.count:,} {noun}, {format_bytes(self.nbytes)}, in {self.folder} "
                f"(owner: {self.owner}; stored {dates})",
                "they are used from now on, and reading them runs their authors' code with your "
                "rights; if you do not trust them: `cache clear`",
            ]
        return "\n".join([*lines, *self.unreadable])

    __repr__ = __str__


def trust_cache(store: ResultStore) -> Trusted:
    """Sign all stored results that are not signed with this user's key."""
    signed: list[StoredResult] = []
    unreadable: list[str] = []
    for key in list(store.iter_keys()):
        try:
            entry = store.meta(key)
            if store.trust(key):
                signed.append(entry)
        except KeyError:
            continue  # removed meanwhile
        except (CorruptResultError, OSError) as error:
            unreadable.append(str(error))
    times = [float(entry.meta.get("created_at") or 0) for entry in signed]
    return Trusted(
        folder=str(store.folder),
        count=len(signed),
        nbytes=sum(entry.nbytes for entry in signed),
        owner=owner_text(store.folder.stat().st_uid) if signed else "",
        oldest_at=min(times, default=0.0),
        newest_at=max(times, default=0.0),
        unreadable=tuple(unreadable),
    )


def clear_cache(store: ResultStore, function: str | None = None) -> CacheInfo:
    """Delete stored results, optionally of one function; return what was deleted."""
    removed = []
    for entry in _from_files(store):
        is_meant = function is None or _function(entry).rpartition(".")[2] == function
        if is_meant and store.discard(entry.key):
            removed.append(entry)
    return _summed(store, removed)


def _from_files(store: ResultStore) -> list[StoredResult]:
    found = []
    for key in list(store.iter_keys()):
        try:
            found.append(store.meta(key))
        except (KeyError, ResultStoreError, OSError):
            continue  # gone, damaged or unreadable: nothing that could be used
    return found


def _summed(store: ResultStore, entries: list[StoredResult]) -> CacheInfo:
    counts, sizes = Counter(map(_function, entries)), Counter[str]()
    for entry in entries:
        sizes[_function(entry)] += entry.nbytes
    return CacheInfo(
        folder=str(store.folder),
        count=len(entries),
        nbytes=sum(sizes.values()),
        by_function={name: (count, sizes[name]) for name, count in counts.items()},
        stale=sum(map(_is_stale, entries)),
    )


def _is_stale(entry: StoredResult) -> bool:
    # Results that belong to one task have no function's digest.
    return "identity" in entry.meta and entry.meta.get("key_format") != KEY_FORMAT


def _function(entry: StoredResult) -> str:
    return str(entry.meta.get("function") or "")


def explain_miss(
    func: Callable[..., Any],
    *args: Any,
    store: ResultStore | None = None,
    version: str | int | None = None,
    **kwargs: Any,
) -> str:
    """Return a text: whether the result of a call is stored, and if not, what differs.

    Parameters
    ----------
    func : callable
        A `cacheable` function, or one of a task with ``cache: true``.
    *args, **kwargs
        Of the call.
    store : ResultStore, optional
        Where to look; otherwise where the function keeps its results.
    version : str or int, optional
        Of the manifest's task; a `cacheable` function knows its own.
    """
    try:
        if isinstance(func, CacheableFunction):
            keys = func.call_keys()
            store = store or func.store()
            given = func.convert(args, kwargs)
        else:
            keys = CallKeys(func, version=version)
            store = store or ResultStore(load_settings().cache_dir)
            given = args, kwargs
        key = keys.key(*given)
    except NotCacheableError as error:
        return str(error)
    call = keys.describe(*given)
    label = f"{call['function']}()"
    if store.contains(key):
        if not store.is_signed(key):
            return (
                f"the result of this call of {label} is kept, but not signed with your key, so it "
                f"is not used; `cache trust` signs it: {store.path(key)}"
            )
        return f"the result of this call of {label} is kept: {store.path(key)}"
    others = [entry for entry in _entries(store) if entry.meta.get("function") == call["function"]]
    current = [entry for entry in others if not _is_stale(entry)]
    stale = len(others) - len(current)
    note = f"; {stale:,} are stale, under keys of an earlier version" if stale else ""
    if not current:
        return f"no result of {label} is kept in {store.folder}{note}"
    nearest = min(current, key=lambda entry: len(_differences(entry.meta, call)))
    differences = _differences(nearest.meta, call)
    return (
        f"no result of this call of {label} is kept; {len(current):,} of others are{note}. Of the "
        f"nearest one differ: {', '.join(differences) or 'nothing that its file tells'}"
    )


def _differences(stored: Mapping[str, Any], call: Mapping[str, Any]) -> list[str]:
    found = []
    if stored.get("identity") != call["identity"]:
        found += _part_differences(stored.get("parts") or {}, call["parts"])
    if stored.get("version") != call["version"]:
        found.append(
            f"the version ({stored.get('version')!r} was kept, {call['version']!r} is asked)"
        )
    arguments = stored.get("arguments") or {}
    return [*found, *(f"argument {name!r}" for name in _changed(arguments, call["arguments"]))]


def _part_differences(then: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    changed = _changed(then, now)
    if not changed:
        return ["the source of the function"]
    code = [f"`{name.removesuffix('()')}`" for name in changed if name.endswith("()")]
    found = [f"the source of {' and '.join(code)}"] if code else []
    for name in changed:
        # Other code reads other things: these are no cause of their own.
        is_cause = not code or (name in then and name in now)
        if is_cause and not name.endswith("()"):
            old, new = then.get(name, "nothing"), now.get(name, "nothing")
            is_short = not (old.startswith("#") or new.startswith("#"))
            found.append(f"`{name}` ({old} -> {new})" if is_short else f"`{name}`")
    return found


def _changed(then: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    return [name for name in sorted(then.keys() | now.keys()) if then.get(name) != now.get(name)]


def _entries(store: ResultStore) -> Sequence[StoredResult]:
    found = []
    for key in list(store.iter_keys()):
        try:
            found.append(store.meta(key))
        except (KeyError, ResultStoreError, OSError):
            continue  # gone, damaged or unreadable: nothing to compare with
    return found
