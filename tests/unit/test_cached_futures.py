"""Futures of calls that stored results answer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fake_client import FakeClient

from scalable_nb.cache.store import ResultStore
from scalable_nb.client.cached_futures import CachedFutures
from scalable_nb.client.host_api import HostApi, ObservedKeys
from scalable_nb.client.submission import PackedCall, SchedulingOptions, Submission
from scalable_nb.client.submitter import Submitter
from scalable_nb.protocol.call import Call
from scalable_nb.protocol.messages import BatchMessage


class RacingClient(FakeClient):
    """Another thread lets go of a future while a submission with the same key goes on."""

    def send(self, message: Mapping[str, Any]) -> None:
        """Take the report of the answered calls."""
        self.futures.clear()


def test_a_submission_has_a_future_of_a_call_that_another_thread_lets_go_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each answered call has a finished future, whatever becomes of other futures of its key."""
    monkeypatch.setattr(ResultStore, "contained", lambda self, keys: set(keys))
    client = RacingClient()
    log: Any = SimpleNamespace(log_calls=lambda submission, packed: None)
    observed_keys = ObservedKeys(client, HostApi(client))
    submitter = Submitter(client, CachedFutures(client), observed_keys, log, lambda **options: None)
    submission = Submission(
        BatchMessage("batch"), wire={"store": str(tmp_path)}, scheduling=SchedulingOptions()
    )
    packed = {key: PackedCall(Call(b"", b"", f"result-{key}"), (), "") for key in ("a", "b")}
    futures = submitter.submit_packed(submission, packed)
    assert {key: future.status for key, future in futures.items()} == {
        "a": "finished",
        "b": "finished",
    }
