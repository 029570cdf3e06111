"""A YAML file as plain values, each of which still knows the line it stands on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from yaml.composer import ComposerError
from yaml.constructor import ConstructorError

from scalable_nb.errors import ManifestError

#: Where a value is: keys of mappings and indices of lists, from the top.
KeyPath = tuple[str | int, ...]

_TAG = "tag:yaml.org,2002:"
_PLAIN_TAGS = {_TAG + kind for kind in ("null", "bool", "int", "float", "str", "seq", "map")}
_MERGE_TAG = _TAG + "merge"


@dataclass(frozen=True, order=True)
class Problem:
    """Something wrong in a manifest: ``line`` counts from 1, ``path`` is the key."""

    line: int
    path: KeyPath
    text: str

    def __str__(self) -> str:
        where = ".".join(map(str, self.path))
        return f"{self.line}: {where}: {self.text}" if where else f"{self.line}: {self.text}"


@dataclass(frozen=True)
class Document:
    """A parsed YAML file.

    Attributes
    ----------
    name : str
        The file as messages show it.
    data : object
        Its content as plain values; every key is a string.
    root : yaml.Node or None
        The syntax tree; None when the file is empty.
    problems : tuple of Problem
        Doubled keys and tags that are not allowed.
    """

    name: str
    data: Any
    root: yaml.Node | None
    problems: tuple[Problem, ...] = ()

    def line(self, path: KeyPath) -> int:
        """The line of the deepest part of ``path`` that is in the file."""
        node, line = self.root, 1
        for part in path:
            found = _child(node, part)
            if found is None:
                break
            line, node = found
        return line

    def has(self, path: KeyPath) -> bool:
        """Whether the whole of ``path`` is in the file."""
        node = self.root
        for part in path:
            found = _child(node, part)
            if found is None:
                return False
            node = found[1]
        return True


def read_document(path: Path) -> Document:
    """Read and parse a YAML file.

    Raises
    ------
    ManifestError
        When there is no such file, it cannot be read, or it is not YAML.
    """
    name = _shown(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ManifestError(f"there is no manifest {name!r}; `%scalable init` writes one") from None
    except UnicodeDecodeError as error:
        raise ManifestError(f"{name}: not text in UTF-8 (byte {error.start})") from None
    except OSError as error:
        raise ManifestError(f"{name}: cannot be read: {error.strerror or error}") from error
    return parse_document(text, name)


def parse_document(text: str, name: str) -> Document:
    """Parse YAML text; ``name`` stands for the file in messages.

    Raises
    ------
    ManifestError
        With line and column, when the text is not YAML.
    """
    loader: yaml.SafeLoader | None = None
    try:
        loader = yaml.SafeLoader(text)
        root = loader.get_single_node()
        if root is None:
            return Document(name, None, None)
        problems = _tidy(root)
        return Document(name, loader.construct_document(root), root, tuple(problems))
    except yaml.YAMLError as error:
        line = f"{name}:{_yaml_sentence(error, text)}"
        raise ManifestError(line, [line]) from None
    except (RecursionError, ValueError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        line = f"{name}: not valid YAML: {reason}"
        raise ManifestError(line, [line]) from None
    finally:
        if loader is not None:
            loader.dispose()


def _tidy(root: yaml.Node) -> list[Problem]:
    """Make keys text and refuse what a manifest has no use for, in place."""
    problems: list[Problem] = []
    done: set[int] = set()
    above: set[int] = set()

    def visit(node: yaml.Node, path: KeyPath) -> None:
        if id(node) in above:
            raise ComposerError(None, None, "this value contains itself", node.start_mark)
        if id(node) in done:
            return
        above.add(id(node))
        if isinstance(node, yaml.ScalarNode):
            _tidy_scalar(node)
        problems.extend(_refused_tag(node, path))
        for key, child in _children(node):
            visit(child, (*path, key))
        problems.extend(_duplicate_keys(node, path))
        above.discard(id(node))
        done.add(id(node))

    visit(root, ())
    return problems


def _tidy_scalar(node: yaml.ScalarNode) -> None:
    # YAML 1.1 reads `walltime: 12:00:00` as the number 43200, `2026-01-31` as a date and
    # `=` as something of its own. In a manifest all of them are text.
    is_base_60 = node.tag in (_TAG + "int", _TAG + "float") and ":" in node.value
    if is_base_60 or node.tag in (_TAG + "timestamp", _TAG + "value"):
        node.tag = _TAG + "str"


def _children(node: yaml.Node) -> Iterable[tuple[str | int, yaml.Node]]:
    if isinstance(node, yaml.SequenceNode):
        yield from enumerate(node.value)
    elif isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise ConstructorError(None, None, "a key must be plain text", key.start_mark)
            if key.tag != _MERGE_TAG:
                key.tag = _TAG + "str"  # `on:` and `1:` are names, too
            yield key.value, value


def _refused_tag(node: yaml.Node, path: KeyPath) -> Iterable[Problem]:
    if node.tag not in _PLAIN_TAGS:
        tag = node.tag.replace(_TAG, "!!")
        text = f"the tag {tag!r} is not allowed; expected plain text, numbers, lists and mappings"
        yield Problem(node.start_mark.line + 1, path, text)
        is_map, is_list = isinstance(node, yaml.MappingNode), isinstance(node, yaml.SequenceNode)
        node.tag = _TAG + ("map" if is_map else "seq" if is_list else "str")


def _duplicate_keys(node: yaml.Node, path: KeyPath) -> Iterable[Problem]:
    if isinstance(node, yaml.MappingNode):
        first: dict[str, int] = {}
        for key, _ in node.value:
            line = key.start_mark.line + 1
            if key.value in first:
                text = f"is given twice, first in line {first[key.value]}"
                yield Problem(line, (*path, key.value), text)
            first.setdefault(key.value, line)


def _child(node: yaml.Node | None, part: str | int) -> tuple[int, yaml.Node] | None:
    if isinstance(node, yaml.MappingNode):
        # From the end: what a merge key (`<<`) brings in stands first and is overridden.
        for key, value in reversed(node.value):
            if key.value == part:
                return key.start_mark.line + 1, value
    elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        child = node.value[part]
        return child.start_mark.line + 1, child
    return None


def _yaml_sentence(error: yaml.YAMLError, text: str) -> str:
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        words = " ".join(filter(None, [error.context, error.problem]))
        where = f"{mark.line + 1}:{mark.column + 1}: " if mark else " "
        hint = " (YAML is indented with spaces, not tabs)" if "'\\t'" in words else ""
        return f"{where}not valid YAML: {words}{hint}"
    position = getattr(error, "position", 0)
    line = text.count("\n", 0, position) + 1
    column = position - text.rfind("\n", 0, position)
    return f"{line}:{column}: not valid YAML: {getattr(error, 'reason', error)}"


def _shown(path: Path) -> str:
    """``path`` as a person would type it from here."""
    absolute = path.absolute()
    here = Path.cwd()
    return str(absolute.relative_to(here) if absolute.is_relative_to(here) else absolute)
