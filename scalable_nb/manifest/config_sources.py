"""The manifest files that hold together: the project's, the user's own and the system's.

Each may leave out what one further down says: the project's file goes before the user's, which
goes before the system's. What the system's file lists under ``locked:`` the others may not change.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final

import yaml

from scalable_nb.errors import ManifestError
from scalable_nb.manifest.checks import check, merged, suggestion
from scalable_nb.manifest.schema import Manifest
from scalable_nb.manifest.yaml_document import (
    Document,
    KeyPath,
    Problem,
    parse_document,
    read_document,
)
from scalable_nb.paths import MANIFEST_NAME, system_manifest, user_manifest
from scalable_nb.settings import load_settings
from scalable_nb.trusted_paths import require_trusted

_LOCKED: Final = "locked"
#: What holds where no file says anything.
BUILT_IN: Final = "the built-in defaults"
#: What stands for a value that no file has.
_NOTHING: Final = object()


@dataclass(frozen=True)
class ConfigSources:
    """Manifest files as one document; the one that goes first stands first.

    Parameters
    ----------
    documents : tuple of Document
    files : tuple of Path
        Where they were read.
    locks : Document or None
        The system's file, where there is one; it is among the documents, too.
    has_project : bool
        Whether one of them is the project's.
    """

    documents: tuple[Document, ...]
    files: tuple[Path, ...]
    locks: Document | None = None
    has_project: bool = False

    def over(self, default: dict[str, Any]) -> ConfigSources:
        """These files with what holds where none of them says it."""
        given = self.data if isinstance(self.data, dict) else {}
        missing = {
            key: value for key, value in default.items() if key == "project" or not given.get(key)
        }
        text = yaml.safe_dump(missing, sort_keys=False, allow_unicode=True)
        return replace(self, documents=(*self.documents, parse_document(text, BUILT_IN)))

    @property
    def data(self) -> Any:
        """What the files say together."""
        data: Any = {}
        for document in reversed(self.documents):
            content = _content(document) if document is self.locks else document.data
            data = merged(data, content)
        return data

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What is wrong in a file by itself."""
        return tuple(problem for document in self.documents for problem in document.problems)

    def has(self, path: KeyPath) -> bool:
        """Whether a file says the whole of ``path``."""
        return any(document.has(path) for document in self.documents)

    def line(self, path: KeyPath) -> int:
        """The line of the deepest part of ``path``, in the file that `_file_of` returns."""
        return self._document_of(path).line(path)

    def origin(self, given: KeyPath, path: KeyPath) -> tuple[str, bool]:
        """The file in which a value is said, and whether what it is about is locked."""
        is_locked = self.locks is not None and _is_locked(path, _patterns(self.locks))
        return self._document_of(given).name, is_locked

    def check(self) -> list[str]:
        """Everything that is wrong with the files, as sentences with file and line."""
        alone = [document for document in self.documents if not _is_readable(document)]
        if alone:
            return [f"{each.name}:{problem}" for each in alone for problem in check(each)]
        found = [(self._file_of(problem), problem) for problem in check(self)]
        if self.locks is not None:
            found += [(self.locks.name, problem) for problem in _lock_problems(self.locks)]
            for document in self.documents:
                if document is not self.locks:
                    found += [(document.name, each) for each in _changes(document, self.locks)]
        names = [document.name for document in self.documents]
        return [f"{name}:{problem}" for name, problem in sorted(found, key=_by_file(names))]

    def _file_of(self, problem: Problem) -> str:
        for document in self.documents:
            if problem in document.problems:
                return document.name
        return self._document_of(problem.path).name

    def _document_of(self, path: KeyPath) -> Document:
        for end in range(len(path), 0, -1):
            for document in self.documents:
                if document.has(path[:end]):
                    return document
        return self.documents[0]


def find_config_sources(path: str | os.PathLike[str] | None = None) -> ConfigSources:
    """The files that hold here, read but not checked; there may be none.

    Parameters
    ----------
    path : path, optional
        The project's file. None: ``SCALABLE_MANIFEST``, else the nearest ``scalable.yaml`` of the
        working directory and the folders above it.

    Raises
    ------
    ManifestError
        When a file that is named does not exist, or one cannot be read or is no YAML.
    RunFolderError
        When other users could change a file that is not named.
    """
    project = _project_file(path)
    below = [file for file in (user_manifest(), system_manifest()) if file.exists()]
    for file in below:
        require_trusted(file, "Move it to a folder that only you can write, or remove it.")
    if project is not None and any(_is_same(project, file) for file in below):
        project = None
    files = [project, *below] if project is not None else below
    documents = [read_document(file) for file in files]
    for document, file in zip(documents, files, strict=True):
        if document.root is None and file is project:
            line = f"{document.name} is empty; `%scalable init --force` writes a commented one"
            raise ManifestError(line, [line])
    locks = documents[-1] if files and files[-1] == system_manifest() else None
    return ConfigSources(tuple(documents), tuple(files), locks, project is not None)


def only(path: Path) -> ConfigSources:
    """One file by itself: a manifest that was resolved before."""
    return ConfigSources((read_document(path),), (path,), has_project=True)


def leaves(data: Any, path: KeyPath = ()) -> Iterator[tuple[KeyPath, Any]]:
    """The values of a manifest that are no mappings, each with its place."""
    if isinstance(data, dict) and data:
        for key, value in data.items():
            yield from leaves(value, (*path, key))
    else:
        yield path, data


# --- which files ---------------------------------------------------------------------


def _project_file(path: str | os.PathLike[str] | None) -> Path | None:
    if path is not None:
        return Path(path).expanduser().absolute()
    from_settings = load_settings().manifest
    if from_settings is not None:
        if not from_settings.exists():
            raise ManifestError(
                f"there is no manifest {str(from_settings)!r}, which SCALABLE_MANIFEST names; "
                "unset it, or `%scalable init` writes one"
            )
        return from_settings
    beside = Path.cwd() / MANIFEST_NAME
    above = (folder / MANIFEST_NAME for folder in Path.cwd().parents)
    found = beside if beside.exists() else next((file for file in above if _is_own(file)), None)
    if found is not None:
        # A manifest starts programs.
        require_trusted(
            found,
            "If you trust everyone who can write there, name the manifest: `--manifest "
            f"{found}`, or SCALABLE_MANIFEST.",
        )
    return found


def _is_own(file: Path) -> bool:
    """Return whether a file above counts at all: not another user's in /tmp."""
    try:
        return file.stat().st_uid in (os.getuid(), 0)
    except OSError:
        return False


def _is_same(one: Path, other: Path) -> bool:
    return one.exists() and one.samefile(other)


# --- locks ---------------------------------------------------------------------------


def _content(document: Document) -> Any:
    """What a file says, but for what it locks."""
    if not isinstance(document.data, dict):
        return {} if document.data is None else document.data
    return {key: value for key, value in document.data.items() if key != _LOCKED}


def _is_readable(document: Document) -> bool:
    """Whether a file can be taken together with others."""
    content = _content(document)
    return isinstance(content, dict) and content.get("version", 1) == 1


def _patterns(locks: Document) -> list[str]:
    given = (locks.data or {}).get(_LOCKED) or []
    return [str(each) for each in given] if isinstance(given, list) else []


def _lock_problems(locks: Document) -> Iterator[Problem]:
    given = (locks.data or {}).get(_LOCKED) or []
    if not isinstance(given, list):
        text = f"{given!r} is not a list; expected e.g. [targets.slurm.account]"
        yield Problem(locks.line((_LOCKED,)), (_LOCKED,), text)
        return
    known = [name for name in Manifest.model_fields if name not in ("version", "overlays")]
    for index, each in enumerate(given):
        section = str(each).partition(".")[0]
        if section not in known:
            text = f"{str(each)!r} is no key of a manifest; {suggestion(section, known)}"
            yield Problem(locks.line((_LOCKED, index)), (_LOCKED,), text)


def _changes(document: Document, locks: Document) -> Iterator[Problem]:
    """Where a file says something else than what is locked, also in an overlay."""
    patterns = _patterns(locks)
    for path, value in leaves(_content(document)):
        held = path[2:] if path[0] == "overlays" else path
        if not _is_locked(held, patterns):
            continue
        prescribed = _at(locks.data, held)
        leaves_as_it_is = value in (None, {}) and isinstance(prescribed, dict)
        if value == prescribed or leaves_as_it_is:
            continue
        if prescribed is _NOTHING:
            reason = f"is locked by {locks.name}:{locks.line((_LOCKED,))}; remove it"
        else:
            reason = f"is locked to {prescribed!r} by {locks.name}:{locks.line(held)}; remove it"
        yield Problem(document.line(path), path, reason)


def _is_locked(path: KeyPath, patterns: Iterable[str]) -> bool:
    beginnings = [".".join(map(str, path[: end + 1])) for end in range(len(path))]
    return any(fnmatchcase(each, pattern) for pattern in patterns for each in beginnings)


def _at(data: Any, path: KeyPath) -> Any:
    for part in path:
        if not isinstance(data, dict) or part not in data:
            return _NOTHING
        data = data[part]
    return data


def _by_file(names: list[str]) -> Any:
    return lambda found: (names.index(found[0]), found[1].line, str(found[1]))
