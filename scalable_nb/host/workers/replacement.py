"""Replaces workers that ended by themselves, and says when it gives that up."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from time import time
from typing import Final

from scalable_nb.host.notices import Notices
from scalable_nb.manifest.load import LoadedManifest
from scalable_nb.targets.fleet import Fleet, WorkerGroup, WorkerKind

#: So many in a row that end before they have a worker: something is wrong with all of them.
_STILLBORN_LIMIT: Final = 3

#: Such an end is no fault of the script.
_BLAMELESS: Final = ("BOOT_FAIL", "CANCELLED", "NODE_FAIL", "PREEMPTED", "REQUEUED")


@dataclass(frozen=True)
class ReplacementLimits:
    """What a target says about replacing.

    Attributes
    ----------
    max_replacements : int or None
        Lost workers that are replaced; None: all.
    max_core_hours : float or None
        Budget after which no worker is added.
    pending_timeout_s : float or None
        After which a component that has no worker yet is given up for its fallback.
    fallback : dict of str to str
        By component.
    """

    max_replacements: int | None
    max_core_hours: float | None
    pending_timeout_s: float | None
    fallback: dict[str, str]

    @classmethod
    def of(cls, loaded: LoadedManifest) -> ReplacementLimits:
        """Return the limits of the target of a manifest."""
        target = loaded.target
        return cls(
            max_replacements=target.max_worker_replacements,
            max_core_hours=target.max_core_hours,
            pending_timeout_s=target.pending_timeout_s,
            fallback={
                name: component.fallback
                for name, component in loaded.manifest.components.items()
                if component.fallback is not None
            },
        )


class WorkerReplacement:
    """The account of what ended by itself.

    Parameters
    ----------
    fleet : Fleet
    limits : ReplacementLimits
    notices : Notices
    """

    def __init__(self, fleet: Fleet, limits: ReplacementLimits, notices: Notices) -> None:
        self._fleet = fleet
        self._notices = notices
        self.limits = limits
        self.replaced = 0
        self.core_hours = 0.0
        self._stillborn: Counter[str] = Counter()
        self._stopped: set[str] = set()  # kinds that get no more workers
        self._counted_at = time()
        self._reported: set[str] = set()

    def may_open(self, kind: WorkerKind) -> bool:
        """Whether a further worker of this kind may be asked for."""
        return not (kind.name in self._stopped or self.is_spent or self._is_worn_out)

    @property
    def is_spent(self) -> bool:
        """Whether the budget of core hours is used up."""
        limit = self.limits.max_core_hours
        return limit is not None and self.core_hours >= limit

    @property
    def _is_worn_out(self) -> bool:
        limit = self.limits.max_replacements
        return limit is not None and self.replaced > limit

    def reset(self, kind: WorkerKind) -> None:
        """Start counting again: the user requests workers of this kind, after a fix perhaps."""
        self._stopped.discard(kind.name)
        self._stillborn[kind.name] = 0
        self.replaced = 0
        self._reported.clear()

    def refuse(self, kind: WorkerKind, reason: str) -> None:
        """Request no more workers of a kind until the user does; report the reason."""
        if kind.name not in self._stopped:
            self._stopped.add(kind.name)
            self._notices.notify(reason)

    def count(self) -> None:
        """Add what has been used since the last time, also by a job that has no worker yet."""
        now = time()
        cores = sum(e.kind.cores for e in self._fleet.entries.values() if e.is_running)
        self.core_hours += cores * (now - self._counted_at) / 3600
        self._counted_at = now
        for entry in self._fleet.entries.values():
            if entry.is_connected:
                self._stillborn[entry.kind.name] = 0
        if self.is_spent:
            self._notify_once(
                "budget",
                f"the budget of {self.limits.max_core_hours:g} core hours is used up: no worker is "
                "added, the others end when the tasks they run are done. Tasks that are left wait; "
                "`max_core_hours:` of the target allows more, `%scalable resubmit --last` goes on.",
            )

    def find_ended(self) -> list[WorkerGroup]:
        """The entries that ended by themselves since the last time."""
        ended = []
        for entry in self._fleet.entries.values():
            how = self._fleet.how_ended(entry)
            if how is not None:
                ended.append(entry)
                if not entry.is_leaving:
                    self._account(entry, how)
        return ended

    def _account(self, entry: WorkerGroup, how: str) -> None:
        kind = entry.kind
        is_stillborn = entry.began_at is None and not how.startswith(_BLAMELESS)
        self._stillborn[kind.name] += is_stillborn
        self.replaced += 1
        if self._stillborn[kind.name] >= _STILLBORN_LIMIT:
            self._stop(entry, how)
        elif self._is_worn_out:
            self._notify_once(
                "replacements",
                f"{self.replaced} workers were lost; no more are replaced than "
                f"max_worker_replacements: {self.limits.max_replacements}. `%scalable scale N` "
                "asks for new ones.",
            )

    def _stop(self, entry: WorkerGroup, how: str) -> None:
        kind = entry.kind
        if kind.name in self._stopped:
            return
        self._stopped.add(kind.name)
        excerpt = self._fleet.log_excerpt(entry)
        which = f" of component {kind.name!r}" if kind.name else ""
        option = f" --component {kind.name}" if kind.name and len(self._fleet.kinds) > 1 else ""
        job = f" (job {entry.job_id})" if entry.job_id else ""
        self._notices.notify(
            f"{_STILLBORN_LIMIT} workers{which} in a row ended before they could work: no more are "
            f"asked for. The last one{job}: {how}"
            + (f". It said:\n{excerpt}\n" if excerpt else ". ")
            + f"Once that is mended, `%scalable scale N{option}` tries again."
        )

    def _notify_once(self, topic: str, text: str) -> None:
        if topic not in self._reported:
            self._reported.add(topic)
            self._notices.notify(text)

    # --- kinds that cannot be had -----------------------------------------------------

    def find_unavailable(self) -> list[tuple[WorkerKind, WorkerKind]]:
        """Return kinds that have waited too long for their first worker, with their fallbacks."""
        limit_s = self.limits.pending_timeout_s
        if limit_s is None:
            return []
        pairs = []
        for kind in self._fleet.kinds.values():
            entries = self._fleet.of_kind(kind)
            if not entries or any(e.is_connected for e in entries):
                continue
            waited_s = time() - min(e.lost_at or e.asked_at for e in entries)
            if waited_s <= limit_s:
                continue
            fallback = self._fleet.kinds.get(self.limits.fallback.get(kind.name, ""))
            what = f"component {kind.name!r} has had no worker for {waited_s:.0f} s"
            if fallback is None:
                self._notify_once(
                    f"pending {kind.name}",
                    f"{what}; `fallback:` of the component names one to use instead.",
                )
            else:
                pairs.append((kind, fallback))
                self._notices.notify(f"{what}: its tasks run on {fallback.name!r} instead.")
        return pairs
