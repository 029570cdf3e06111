"""The sources of the user's modules that calls import by name, as they travel."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Iterable
from typing import NamedTuple


class ModuleSource(NamedTuple):
    """The source of one module.

    Attributes
    ----------
    name : str
    path : str
        Of its file; for a namespace package, a folder of its modules.
    source : str or None
        None for a namespace package.
    is_package : bool
    """

    name: str
    path: str
    source: str | None
    is_package: bool


def pack_sources(modules: Iterable[ModuleSource]) -> tuple[str, bytes]:
    """Return the digest of a set of modules, and the set as bytes; empty for no modules."""
    rows = sorted(modules)
    if not rows:
        return "", b""
    text = json.dumps(rows).encode()
    return hashlib.blake2b(text, digest_size=16).hexdigest(), zlib.compress(text)


def unpack_sources(packed: bytes) -> dict[str, ModuleSource]:
    """Return the modules that `pack_sources` packed, by name."""
    rows = (ModuleSource(*row) for row in json.loads(zlib.decompress(packed)))
    return {module.name: module for module in rows}
