"""The lines of a log that belong to a span of time."""

from __future__ import annotations

from datetime import datetime

from scalable_nb.widgets.task_table.actions import lines_between

LOG = """\
2026-03-01 12:00:00,000 INFO the worker started
2026-03-01 12:00:05,100 - distributed.worker - WARNING - Compute Failed
Key: x
  a traceback
2026-03-01 12:00:06,000 INFO later
a line of its
""".splitlines()


def at(text: str) -> float:
    return datetime.fromisoformat(f"2026-03-01 {text}").timestamp()


def test_lines_without_a_time_belong_to_the_one_before() -> None:
    """A span holds whole entries, however many lines they have."""
    assert lines_between(LOG, at("12:00:05"), at("12:00:05.500")) == LOG[1:4]
    assert lines_between(LOG, at("12:00:06"), float("inf")) == LOG[4:]
    assert lines_between(LOG, at("13:00:00"), float("inf")) == []
    assert lines_between(LOG, 0, float("inf")) == LOG
    assert lines_between(["no time at all"], 0, float("inf")) == []
