"""The kernel's counter of kills is found where cgroup v1 and v2 have it."""

from __future__ import annotations

from pathlib import Path

import pytest

from scalable_nb.worker.peak_memory import OomKills

V1 = "9:cpu,cpuacct:/elsewhere\n4:memory:/job/7\n0::/\n"
V2 = "0::/user.slice/job-7\n"


@pytest.mark.parametrize(
    ("entries", "counter", "limit"),
    [
        (V1, "memory/job/7/memory.oom_control", "memory.limit_in_bytes"),
        (V2, "user.slice/job-7/memory.events", "memory.max"),
    ],
    ids=["v1", "v2"],
)
def test_a_kill_is_noticed_once(tmp_path: Path, entries: str, counter: str, limit: str) -> None:
    """Kills from before do not count, nor does the same one twice; the limit is told."""
    (tmp_path / "self").write_text(entries)
    file = tmp_path / counter
    file.parent.mkdir(parents=True)
    file.write_text("low 0\noom 5\noom_kill 2\n")
    file.with_name(limit).write_text("900000000\n")
    kills = OomKills(tmp_path / "self", tmp_path)
    assert not kills.has_grown()
    file.write_text("low 0\noom 6\noom_kill 3\n")
    assert kills.has_grown()
    assert not kills.has_grown()
    assert kills.limit_bytes() == 900_000_000


@pytest.mark.parametrize("text", ["max\n", "9223372036854771712\n"])
def test_no_limit_is_none(tmp_path: Path, text: str) -> None:
    """Neither word for "no limit" is taken for a number of bytes."""
    (tmp_path / "self").write_text(V1)
    folder = tmp_path / "memory" / "job" / "7"
    folder.mkdir(parents=True)
    (folder / "memory.oom_control").write_text("oom_kill 0\n")
    (folder / "memory.limit_in_bytes").write_text(text)
    assert OomKills(tmp_path / "self", tmp_path).limit_bytes() is None


@pytest.mark.parametrize("entries", [None, "", V1, V2])
def test_a_system_that_does_not_say_has_no_kills(tmp_path: Path, entries: str | None) -> None:
    """Without the files nothing is claimed and nothing fails."""
    if entries is not None:
        (tmp_path / "self").write_text(entries)
    kills = OomKills(tmp_path / "self", tmp_path)
    assert not kills.has_grown()
    assert kills.limit_bytes() is None
