"""What a person may want to know, or do, about all kept results at once."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from dask.utils import format_bytes

from scalable_nb.cache.index import IndexBusyError, ResultIndex
from scalable_nb.cache.store import CorruptResultError, ResultStore, ResultStoreError, StoredResult


@dataclass(frozen=True)
class CacheInfo:
    """How much is kept, and of what.

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
    """

    folder: str
    count: int
    nbytes: int
    by_function: dict[str, tuple[int, int]] = field(default_factory=dict)
    hits: int = 0
    misses: int = 0

    def __str__(self) -> str:
        noun = "result" if self.count == 1 else "results"
        lines = [f"{self.count:,} kept {noun}, {format_bytes(self.nbytes)}, in {self.folder}"]
        for name, (count, nbytes) in sorted(self.by_function.items()):
            lines.append(f"  {name or '(not recorded)'}: {count:,}, {format_bytes(nbytes)}")
        looked = self.hits + self.misses
        if looked:
            share = self.hits / looked
            lines.append(f"this run: {self.hits:,} of {looked:,} calls were kept ({share:.0%})")
        return "\n".join(lines)

    __repr__ = __str__


@dataclass(frozen=True)
class Verified:
    """What a look at every kept result found.

    Attributes
    ----------
    whole : int
        Results that can be read.
    damaged : tuple of str
        What is wrong with the others; their files were set aside.
    unreadable : tuple of str
        Files that are whole, but cannot be read by this process.
    """

    whole: int
    damaged: tuple[str, ...]
    unreadable: tuple[str, ...]

    def __str__(self) -> str:
        lines = [f"{self.whole:,} kept results are whole, {len(self.damaged):,} are damaged"]
        return "\n".join([*lines, *self.damaged, *self.unreadable])

    __repr__ = __str__


def cache_info(store: ResultStore) -> CacheInfo:
    """Count what is kept.

    This machine's index remembers what its files said before; where another process has it,
    the files are read.
    """
    try:
        with ResultIndex(store) as index:
            index.catch_up()
            return _summed(store, list(index.entries()))
    except (IndexBusyError, OSError):
        return _summed(store, list(_from_files(store)))


def verify_cache(store: ResultStore) -> Verified:
    """Read every kept result; those that are damaged are set aside."""
    whole = 0
    damaged: list[str] = []
    unreadable: list[str] = []
    for key in list(store.iter_keys()):
        try:
            store.check(key)
        except CorruptResultError as error:
            damaged.append(str(error))
        except KeyError:
            continue  # removed meanwhile
        except OSError as error:
            unreadable.append(str(error))
        else:
            whole += 1
    return Verified(whole, tuple(damaged), tuple(unreadable))


def clear_cache(store: ResultStore, function: str | None = None) -> CacheInfo:
    """Remove all kept results, or those of one function; gives what was removed."""
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
    )


def _function(entry: StoredResult) -> str:
    return str(entry.meta.get("function") or "")
