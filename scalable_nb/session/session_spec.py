"""The specification of a session: a manifest and its target."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from scalable_nb.manifest.load import LoadedManifest, load_manifest, load_resolved
from scalable_nb.manifest.planner import make_plan
from scalable_nb.manifest.schema import Target
from scalable_nb.manifest.start_plan import Plan
from scalable_nb.paths import RunPaths
from scalable_nb.settings import Settings, load_settings


@dataclass(frozen=True)
class SessionSpec:
    """A manifest with a target, and what follows from them; nothing of a running session.

    Attributes
    ----------
    loaded : LoadedManifest
    """

    loaded: LoadedManifest

    @classmethod
    def from_yaml(cls, path: str | Path | None = None, *, target: str | None = None) -> Self:
        """Return the spec of a manifest; see `ScalableSession.from_yaml`."""
        return cls(load_manifest(None if path is None else Path(path), target=target))

    @classmethod
    def of_run(cls, paths: RunPaths, target: str) -> Self:
        """Return the spec that a run was started from."""
        return cls(load_resolved(paths.manifest_yaml, target=target))

    @property
    def target(self) -> Target:
        """The target."""
        return self.loaded.target

    @property
    def target_name(self) -> str:
        """The target's name in the manifest."""
        return self.loaded.target_name

    @property
    def settings(self) -> Settings:
        """The settings as they are now, with those of the manifest."""
        return load_settings(
            local_cache=self.loaded.manifest.project.local_cache,
            linger_s=self.target.linger_s,
        )

    @property
    def worker_threads(self) -> int:
        """Slots of one worker."""
        return self.plan().threads_per_worker

    def plan(self) -> Plan:
        """Return what a start requests; starts nothing."""
        return make_plan(self.loaded)
