"""Find the distribution of an installed module, and its version."""

from __future__ import annotations

import functools
import importlib.metadata
import platform
import sys


@functools.lru_cache(maxsize=10_000)
def distribution_of(module_name: str) -> str:
    """Return the distribution and version of a module, as ``"numpy 2.4.6"``.

    Of the standard library, that is Python and its version; of a module that no distribution
    claims, its top-level name alone.
    """
    top = module_name.partition(".")[0]
    if top in sys.stdlib_module_names or top in sys.builtin_module_names:
        return f"python {platform.python_version()}"
    return _distribution_of_top(top)


@functools.lru_cache(maxsize=10_000)
def _distribution_of_top(top: str) -> str:
    try:
        return f"{top} {importlib.metadata.version(top)}"
    except importlib.metadata.PackageNotFoundError:
        found = {
            f"{each.name} {each.version}"
            for each in importlib.metadata.distributions()
            if _has_module(each, top)
        }
    version = getattr(sys.modules.get(top), "__version__", "")
    return ", ".join(sorted(found)) or f"{top} {version}".rstrip()


def _has_module(distribution: importlib.metadata.Distribution, top: str) -> bool:
    """Return whether a top-level module belongs to a distribution.

    `importlib.metadata.packages_distributions` takes seconds: it makes a path of each file.
    """
    if top in (distribution.read_text("top_level.txt") or "").split():
        return True
    files = "\n" + (distribution.read_text("RECORD") or "")
    return f"\n{top}/" in files or f"\n{top}.py," in files
