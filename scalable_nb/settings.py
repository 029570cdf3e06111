"""Settings: the environment says first, then the manifest, then a default.

Read when they are needed and never cached.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from scalable_nb.errors import SettingsError


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
        ``SCALABLE_RUNS_DIR``: where run folders go; ``.scalable/runs``.
    cache_dir : Path
        ``SCALABLE_CACHE_DIR``, else ``project: {local_cache: ...}``: where stored results go;
        ``.scalable/cache``.
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
        runs_dir=_folder("SCALABLE_RUNS_DIR", ".scalable/runs"),
        cache_dir=_folder("SCALABLE_CACHE_DIR", local_cache or ".scalable/cache"),
        start_timeout_s=_seconds("SCALABLE_START_TIMEOUT_S", 60.0),
        linger_s=_seconds("SCALABLE_LINGER_S", 600.0 if linger_s is None else linger_s),
    )


def _folder(name: str, default: str) -> Path:
    return Path(os.environ.get(name) or default).expanduser().absolute()


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
