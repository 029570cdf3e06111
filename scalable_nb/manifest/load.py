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
from scalable_nb.manifest.check import check, merged
from scalable_nb.manifest.discover import discover
from scalable_nb.manifest.document import read_document
from scalable_nb.manifest.schema import PROVIDERS, Manifest, Target
from scalable_nb.paths import MANIFEST_NAME
from scalable_nb.settings import load_settings


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
        The file; None for the embedded default.
    text : str
        The resolved manifest as YAML, defaults filled in. Loading it for the same target
        gives the same manifest and the same text.
    sha256 : str
        Digest of `text`: the lock.
    defaulted : bool
        Whether this is the embedded default, because there is no file.
    discovered : str
        What was found out for a target that no file describes, in words; empty elsewhere.
    """

    manifest: Manifest
    target_name: str
    target: Target
    source: Path | None
    text: str
    sha256: str
    defaulted: bool
    discovered: str = ""


def load_manifest(
    path: str | os.PathLike[str] | None = None, *, target: str | None = None
) -> LoadedManifest:
    """Read, check and resolve a manifest.

    Parameters
    ----------
    path : path, optional
        The file. None: ``SCALABLE_MANIFEST``, else ``scalable.yaml`` in the working
        directory, else an embedded default with one local target.
    target : str, optional
        Name of the target. None: ``SCALABLE_TARGET``, else the only one, else ``local``.
        Without a file, the name of a batch system is one, too.

    Raises
    ------
    ManifestError
        Lists everything that is wrong with the file, or the targets to choose from.
    UnknownNameError
        When there is no target of that name.
    StartError
        When there is no file and the batch system asked for is not to be found.
    """
    source = _find(path)
    data = _default(Path.cwd()) if source is None else _read(source)
    wanted = target or load_settings().target
    discovered = ""
    if source is None and wanted in PROVIDERS and wanted != "local":
        found = discover(wanted)
        data["targets"][wanted] = found.target
        discovered = found.notice
    target_name = _choose(target, list(data["targets"]), source)
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
        source=source,
        text=text,
        sha256=hashlib.sha256(text.encode()).hexdigest(),
        defaulted=source is None,
        discovered=discovered,
    )


def project_name(folder: Path) -> str:
    """A project's name made from the name of its folder."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", folder.absolute().name).strip("-.") or "project"


def _find(path: str | os.PathLike[str] | None) -> Path | None:
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
    return beside if beside.exists() else None


def _read(source: Path) -> dict[str, Any]:
    document = read_document(source)
    if document.root is None:
        line = f"{document.name} is empty; `%scalable init --force` writes a commented one"
        raise ManifestError(line, [line])
    problems = [f"{document.name}:{problem}" for problem in check(document)]
    if problems:
        raise ManifestError("\n".join(problems), problems)
    data: dict[str, Any] = document.data
    return data


def _default(folder: Path) -> dict[str, Any]:
    return {
        "version": 1,
        "project": {"name": project_name(folder)},
        "targets": {"local": {"provider": "local", "max_workers": min(4, CPU_COUNT)}},
        "components": {"default": {}},
    }


def _choose(target: str | None, known: Iterable[str], source: Path | None) -> str:
    names = list(known)
    wanted = target or load_settings().target
    if wanted in names:
        return wanted
    if wanted is not None:
        hint = (
            f"They are defined in {source}."
            if source is not None
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
        f"{source} has the targets {', '.join(names)}: name one, e.g. "
        f"`%scalable start --target {names[0]}`, or set SCALABLE_TARGET"
    )
