"""Sign the records of a run that came from elsewhere, or from an earlier version."""

from __future__ import annotations

import logging

from scalable_nb.cache.maintenance import trust_cache
from scalable_nb.cache.store import ResultStore
from scalable_nb.client.call_log import read_call_log, sign_call_log
from scalable_nb.paths import RunPaths
from scalable_nb.protocol.connection_file import sign_state
from scalable_nb.session.host_job import sign_host_job
from scalable_nb.session.host_launcher import sign_manifest
from scalable_nb.telemetry.journal_reader import read_object
from scalable_nb.trusted_paths import owner_text

logger = logging.getLogger(__name__)


def trust_run(paths: RunPaths) -> None:
    """Sign what a run recorded with the user's key, after a warning that describes the run.

    Jobs of its workers stay unsigned: those of a run from elsewhere are never cancelled.
    """
    trust_host(paths)
    sign_manifest(paths)
    sign_call_log(paths.calls)
    trust_cache(ResultStore(paths.results))


def trust_host(paths: RunPaths) -> None:
    """Sign how to reach the host of a run, after a warning that describes the run.

    The call log stays: another kernel may be writing it.
    """
    logger.warning("%s", _describe(paths))
    sign_state(paths)
    sign_host_job(paths)


def _describe(paths: RunPaths) -> str:
    about = read_object(paths.run_json)
    calls = len(read_call_log(paths.calls).tasks)
    started = str(about.get("started_at") or "an unknown time")[:19]
    return (
        f"signed with your key: {paths.folder} (owner: {owner_text(paths.folder.stat().st_uid)}), "
        f"started {started} by {about.get('user') or 'an unknown user'!r} on "
        f"{about.get('hostname') or 'an unknown machine'!r}, {calls:,} calls. To attach to it or "
        "to resubmit it runs its code with your rights"
    )
