"""Settings: the environment says first, then the manifest, then a default.

Read when they are needed and never cached.
"""

from __future__ import annotations

import hashlib
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from scalable_nb.errors import SettingsError
from scalable_nb.trusted_paths import Flaw, find_flaw

logger = logging.getLogger(__name__)

_HOME: Final = ".scalable"

#: Folders that were trusted; each is checked again before something is written to it. Others are
#: not remembered, because they may have been changed since.
_trusted: Final[set[Path]] = set()
_reported: Final[set[Path]] = set()


@dataclass(frozen=True)
class Settings:
    """What holds now.

    Attributes
    ----------
    manifest : Path or None
        ``SCALABLE_MANIFEST``: the manifest to use.
    target : str or None
        ``SCALABLE_TARGET``: the target to start.
    runs_dir : Path
        ``SCALABLE_RUNS_DIR``: where run folders go; ``.scalable/runs``, or a folder below
        ``XDG_STATE_HOME`` if other users can change the project folder.
    cache_dir : Path
        ``SCALABLE_CACHE_DIR``, else ``project: {local_cache: ...}``: where stored results go;
        ``.scalable/cache``, or likewise.
    start_timeout_s : float
        ``SCALABLE_START_TIMEOUT_S``: how long a host may take to come up; 60.
    linger_s : float
        ``SCALABLE_LINGER_S``, else the target's ``linger_s:``: how long a host without client
        and work stays; 600.
    """

    manifest: Path | None
    target: str | None
    runs_dir: Path
    cache_dir: Path
    start_timeout_s: float
    linger_s: float


def load_settings(*, local_cache: str | None = None, linger_s: float | None = None) -> Settings:
    """Read the settings; relative folders start at the working directory.

    Parameters
    ----------
    local_cache : str, optional
        What the manifest says of ``cache_dir``.
    linger_s : float, optional
        What the manifest says of ``linger_s``.

    Raises
    ------
    SettingsError
        When a number is not one.
    """
    manifest = os.environ.get("SCALABLE_MANIFEST")
    return Settings(
        manifest=Path(manifest).expanduser().absolute() if manifest else None,
        target=os.environ.get("SCALABLE_TARGET") or None,
        runs_dir=_folder("SCALABLE_RUNS_DIR", None, "runs"),
        cache_dir=_folder("SCALABLE_CACHE_DIR", local_cache, "cache"),
        start_timeout_s=_seconds("SCALABLE_START_TIMEOUT_S", 60.0),
        linger_s=_seconds("SCALABLE_LINGER_S", 600.0 if linger_s is None else linger_s),
    )


def _folder(name: str, in_manifest: str | None, purpose: str) -> Path:
    given = os.environ.get(name) or in_manifest
    if given:
        return Path(given).expanduser().absolute()
    folder = Path(_HOME, purpose).absolute()
    if folder in _trusted:
        return folder
    flaw = find_flaw(folder)
    if flaw is None:
        _trusted.add(folder)
        return folder
    instead = state_folder(Path.cwd())
    _report(folder.parent, instead, flaw)
    return instead / purpose


def state_folder(project: Path) -> Path:
    """Return the folder of runs and cache of a project folder that other users can change."""
    base = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    digest = hashlib.blake2b(os.fsencode(project.resolve()), digest_size=8).hexdigest()
    return Path(base).expanduser().absolute() / "scalable_nb" / digest


def _report(unsafe: Path, instead: Path, flaw: Flaw) -> None:
    # Before the first start there, and once in a process.
    if unsafe in _reported or instead.exists():
        return
    _reported.add(unsafe)
    command = f", or run `{flaw.remedy}`" if flaw.remedy else ""
    logger.warning(
        "%s: runs and cache of this project are in %s instead of %s. Set SCALABLE_RUNS_DIR and "
        "SCALABLE_CACHE_DIR to use other folders%s.", flaw, instead, unsafe, command,
    )  # fmt: skip


def _seconds(name: str, default: float) -> float:
    text = os.environ.get(name)
    if not text:
        return default
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise SettingsError(
            f"{name}={text!r} is not a number of seconds; expected e.g. {name}={default:g}"
        )
    return value
