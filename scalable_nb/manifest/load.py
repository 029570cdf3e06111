"""Finding, reading and resolving the manifest of a session."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from dask.system import CPU_COUNT

from scalable_nb.errors import ManifestError, UnknownNameError
from scalable_nb.manifest.checks import merged
from scalable_nb.manifest.config_sources import ConfigSources, find_config_sources, leaves, only
from scalable_nb.manifest.discovery import discover
from scalable_nb.manifest.schema import PROVIDERS, Manifest, Target
from scalable_nb.manifest.start_plan import Origin
from scalable_nb.manifest.yaml_document import KeyPath
from scalable_nb.paths import MANIFEST_NAME
from scalable_nb.settings import load_settings
from scalable_nb.telemetry.sanitize import plain_text


@dataclass(frozen=True)
class LoadedManifest:
    """A manifest, resolved for one of its targets.

    Attributes
    ----------
    manifest : Manifest
        With the target's overlay applied.
    target_name : str
    target : Target
    source : Path or None
        The file that goes before the others; None for the embedded default.
    text : str
        The resolved manifest as YAML, defaults filled in. Loading it for the same target
        gives the same manifest and the same text.
    sha256 : str
        Digest of `text`: the lock.
    defaulted : bool
        Whether this is the embedded default, because there is no file.
    discovered : str
        What was found out for a target that no file describes, in words; empty elsewhere.
    origins : tuple of Origin
        Of each value that a file or the embedded default gives for this target.
    """

    manifest: Manifest
    target_name: str
    target: Target
    source: Path | None
    text: str
    sha256: str
    defaulted: bool
    discovered: str = ""
    origins: tuple[Origin, ...] = ()


def load_manifest(
    path: str | os.PathLike[str] | None = None, *, target: str | None = None
) -> LoadedManifest:
    """Find, read, check and resolve the manifest that holds here.

    Parameters
    ----------
    path : path, optional
        The project's file. None: ``SCALABLE_MANIFEST``, else the nearest ``scalable.yaml`` of the
        working directory and the folders above it. What it leaves out is taken from
        ``~/.config/scalable_nb/scalable.yaml``, then ``/etc/scalable_nb/scalable.yaml``, then
        from an embedded default with one local target.
    target : str, optional
        Name of the target. None: ``SCALABLE_TARGET``, else the only one, else ``local``.
        Without a file, the name of a batch system is one, too.

    Raises
    ------
    ManifestError
        Lists everything that is wrong with the files, or the targets to choose from.
    UnknownNameError
        When there is no target of that name.
    StartError
        When there is no file and the batch system asked for is not to be found.
    """
    sources = find_config_sources(path)
    if not sources.has_project:
        sources = sources.over(_default(Path.cwd()))
    return _resolve(sources, target)


def load_resolved(path: Path, *, target: str) -> LoadedManifest:
    """The manifest of a run as its start resolved it: nothing else holds for it."""
    return _resolve(only(path), target)


def _resolve(sources: ConfigSources, target: str | None) -> LoadedManifest:
    wanted = target or load_settings().target
    # Keys and values of a file may act on a terminal.
    problems = [plain_text(problem) for problem in sources.check()]
    if problems:
        raise ManifestError("\n".join(problems), problems)
    data, discovered = sources.data, ""
    if not sources.files and wanted in PROVIDERS and wanted != "local":
        found = discover(wanted)
        data["targets"][wanted] = found.target
        discovered = found.notice
    target_name = _choose(target, list(data["targets"]), sources.files)
    overlay = (data["targets"][target_name] or {}).get("overlay")
    if overlay is not None:
        data = merged(data, data["overlays"][overlay])
    manifest = Manifest.model_validate(data)
    text = yaml.safe_dump(
        manifest.model_dump(mode="json", exclude_none=True), sort_keys=False, allow_unicode=True
    )
    return LoadedManifest(
        manifest=manifest,
        target_name=target_name,
        target=manifest.targets[target_name],
        source=sources.files[0] if sources.files else None,
        text=text,
        sha256=hashlib.sha256(text.encode()).hexdigest(),
        defaulted=not sources.files,
        discovered=discovered,
        origins=_origins(sources, target_name, overlay),
    )


def project_name(folder: Path) -> str:
    """A project's name made from the name of its folder."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", folder.absolute().name).strip("-.") or "project"


def _origins(sources: ConfigSources, target_name: str, overlay: str | None) -> tuple[Origin, ...]:
    """Where the values come from that hold on a target."""
    base = {path: path for path, _ in leaves(sources.data)}
    if overlay is not None:
        start: KeyPath = ("overlays", overlay)
        base |= {path: (*start, *path) for path, _ in leaves(sources.data["overlays"][overlay])}
    return tuple(
        Origin(".".join(map(str, path)), *sources.origin(given_path, path))
        for path, given_path in base.items()
        if path[0] not in ("version", "overlays")
        and (path[0] != "targets" or path[1:2] == (target_name,))
    )


def _default(folder: Path) -> dict[str, Any]:
    return {
        "version": 1,
        "project": {"name": project_name(folder)},
        "targets": {"local": {"provider": "local", "max_workers": min(4, CPU_COUNT)}},
        "components": {"default": {}},
    }


def _choose(target: str | None, known: Iterable[str], files: Iterable[Path]) -> str:
    names = list(known)
    defined = " and ".join(map(str, files))
    wanted = target or load_settings().target
    if wanted in names:
        return wanted
    if wanted is not None:
        hint = (
            f"They are defined in {defined}."
            if defined
            else f"There is no {MANIFEST_NAME} here: `%scalable init` writes one."
        )
        if target is None:
            hint += " SCALABLE_TARGET asks for it."
        raise UnknownNameError("target", wanted, names, hint)
    if len(names) == 1:
        return names[0]
    if "local" in names:
        return "local"
    raise ManifestError(
        f"{defined} has the targets {', '.join(names)}: name one, e.g. "
        f"`%scalable start --target {names[0]}`, or set SCALABLE_TARGET"
    )
