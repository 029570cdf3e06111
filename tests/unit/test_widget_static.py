"""What a saved notebook and a terminal show of a table of tasks, and of a session."""

from __future__ import annotations

import re
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_mirror import FakeMirror
from hypothesis import given
from hypothesis import strategies as st

from scalable_nb.faults.circuit_breaker import Pause
from scalable_nb.session.status import SessionStatus, browser_link
from scalable_nb.telemetry.rows import TaskState
from scalable_nb.widgets.session_card import card_html, card_text
from scalable_nb.widgets.task_table.static_html import column_heights, summary_html
from scalable_nb.widgets.task_table.summary import (
    TableSummary,
    duration_text,
    summarize_table,
    summary_text,
)

EVIL = "<script>alert(1)</script><img src=x onerror=alert(1)>"
STATES = st.lists(st.sampled_from(list(TaskState)), max_size=300)


class Tags(HTMLParser):
    """Which tags a text has, and what a person reads."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.words += data


def summary_of(states: list[TaskState], **options: Any) -> TableSummary:
    mirror = FakeMirror()
    mirror.add(len(states))
    for row, state in enumerate(states):
        mirror.change(row, state)
    return summarize_table(mirror.ledger, at=time.time(), **options)


@given(STATES)
def test_counts_always_add_up_to_the_number_of_tasks(states: list[TaskState]) -> None:
    """Whatever the states, their counts add up, and the HTML says each of them."""
    summary = summary_of(states)
    assert sum(summary.counts.values()) == len(states)
    words = Tags(summary_html(summary)).words.replace("\xa0", " ")
    for state in TaskState:
        assert summary.counts.get(state, 0) == states.count(state)
        assert (f"{state.label} {states.count(state)}" in words) == (state in states)


@given(STATES)
def test_a_share_is_never_rounded_to_all_or_nothing(states: list[TaskState]) -> None:
    """The text says 100 % only when all is done and 0 % only when nothing is."""
    summary = summary_of(states)
    found = re.search(r"(\d+) % done", summary_text(summary))
    if not states:
        assert found is None
        return
    assert found is not None
    assert (found[1] == "100") == (summary.done == len(states))
    assert (found[1] == "0") == (summary.done == 0)


def test_the_texts_of_others_are_escaped() -> None:
    """Markup in labels, workers, error names and titles reaches the page as text."""
    mirror = FakeMirror()
    mirror.add(1)
    mirror.ledger.labels[0] = EVIL
    mirror.change(0, TaskState.FAILED, attempt=1, worker=EVIL, error=EVIL)
    found = Tags(summary_html(summarize_table(mirror.ledger, title=EVIL, at=0)))
    assert not {"script", "img"} & set(found.tags)
    assert found.words.count("<script>alert(1)</script>") == 4


def test_100000_tasks_stay_below_30_kb() -> None:
    """The saved form is small however many tasks there are and however long their texts."""
    mirror = FakeMirror()
    mirror.add(100_000)
    for row in range(0, 100_000, 3):
        mirror.ledger.labels[row] = "&" * 10_000 if row < 300 else "é" * 200
        mirror.change(
            row, TaskState(row % 10), attempt=4, worker="&" * 1000, error="&" * 1000, duration_s=9e9
        )
    saved = summary_html(summarize_table(mirror.ledger, title="&" * 5000, at=time.time()))
    assert len(saved.encode()) < 30_000
    assert "100,000 tasks" in saved


def test_failed_tasks_come_first_and_the_rest_is_counted() -> None:
    """The rows that need attention are listed, failures before retries, and no more than fit."""
    states = [TaskState.RETRYING] * 10 + [TaskState.SUCCEEDED] * 10 + [TaskState.FAILED] * 10
    summary = summary_of(states)
    assert [line.position for line in summary.lines] == [*range(20, 30), 0, 1]
    assert summary.hidden == 8
    assert "8 more" in summary_html(summary)
    assert "8 more" in summary_text(summary)


def test_a_table_of_chosen_tasks_shows_only_these_in_their_order() -> None:
    """Rows chosen are the rows shown; what the ledger does not know yet counts as pending."""
    mirror = FakeMirror()
    mirror.add(10)
    mirror.change(7, TaskState.FAILED, attempt=2, worker="w", error="ValueError", duration_s=65.2)
    summary = summarize_table(mirror.ledger, [3, -1, 7], title="sweep", status="closed", at=0)
    assert summary_text(summary).splitlines() == [
        "sweep: 3 tasks, 33 % done (the session has ended)",
        "  1 failed, 1 queued, 1 pending",
        "  [2] simulate(scenario=7): failed, attempt 2/4, 1 min 05 s, ValueError on w",
    ]


def test_a_table_counts_inputs_and_lists_tasks() -> None:
    """Inputs that share a task count each; a task is listed once, and not if it was replaced."""
    mirror = FakeMirror()
    mirror.add(4)
    mirror.change(0, TaskState.SUCCEEDED, inputs=2)
    mirror.change(1, TaskState.FAILED, attempt=1, error="ValueError", inputs=3)
    mirror.change(2, TaskState.FAILED, attempt=1, error="ValueError", inputs=0)
    summary = summarize_table(mirror.ledger, at=0)
    assert summary_text(summary).splitlines()[:2] == [
        "6 tasks, 83 % done",
        "  2 succeeded, 3 failed, 1 queued",
    ]
    assert [line.label for line in summary.lines] == ["simulate(scenario=1)"]
    chosen = summarize_table(mirror.ledger, [1, 0, 1], at=0)
    assert chosen.counts == {TaskState.SUCCEEDED: 1, TaskState.FAILED: 2}
    assert [line.position for line in chosen.lines] == [0]


@given(STATES.filter(bool), st.integers(1, 40))
def test_columns_of_many_tasks_are_full_and_hide_no_failure(
    states: list[TaskState], columns: int
) -> None:
    """Every column is filled by its tasks' states, and one failed task of many is seen."""
    heights = column_heights(np.array(states, np.uint8), columns, 42)
    assert len(heights) <= columns
    assert (heights.sum(axis=1) == 42).all()
    assert (heights >= 0).all()
    per_column = -(-len(states) // columns)
    for column, parts in enumerate(heights):
        part = states[column * per_column : (column + 1) * per_column]
        assert (parts[TaskState.FAILED] > 0) == (TaskState.FAILED in part)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 ms"),
        (0.9994, "999 ms"),
        (0.9999, "1.0 s"),
        (9.96, "10 s"),
        (59.6, "1 min 00 s"),
        (3599.7, "1 h 00 min"),
        (400_000, "111 h 06 min"),
    ],
)
def test_durations_read_as_a_person_says_them(seconds: float, text: str) -> None:
    """Each length of time has the unit that suits it."""
    assert duration_text(seconds) == text


# --- the card of a session -----------------------------------------------------


def a_status(**fields: Any) -> SessionStatus:
    """The status of a session that has nothing to tell but what is given."""
    nothing: dict[str, Any] = {
        "run_id": "run-20260301T120000Z-demo-0123abcd",
        "target": "local",
        "state": "running",
        "host_pid": 4711,
        "workers": [],
        "counts": {},
        "dashboard_link": "http://127.0.0.1:40123/3f1c/status",
        "folder": Path("/tmp/runs/run-1"),
        "started_at": "2026-03-01T12:00:00.000+00:00",
    }
    return SessionStatus(**{**nothing, **fields})


def test_a_card_tells_workers_tasks_and_where_to_look() -> None:
    """The card has workers by state with threads and memory, counts, folder, and how to get to
    the dashboard, whose secret link it does not have."""
    worker = {"threads": 2, "memory_bytes": 2**30, "memory_limit_bytes": 2**31}
    status = a_status(
        workers=[{**worker, "state": "busy"}, {**worker, "state": "idle"}],
        counts={"succeeded": 1200, "failed": 0, "running": 3},
    )
    for text in (card_text(status), Tags(card_html(status)).words):
        for part in (
            "2 (1 busy, 1 idle), 4 threads",
            "2.00 GiB of 4.00 GiB used",
            "1,200 succeeded, 3 running",
            "/tmp/runs/run-1",
            "`session.dashboard_link`",
        ):
            assert part in text
        assert "3f1c" not in text


def test_a_card_of_an_empty_session_says_so_and_escapes_names() -> None:
    """Nothing there yet is said in words; names are text."""
    status = a_status(target=EVIL, folder=Path(EVIL), dashboard_link="javascript:alert(1)")
    found = Tags(card_html(status))
    assert not {"script", "img", "a"} & set(found.tags)
    assert found.words.count("none yet") == 2
    assert "paused" not in found.words


def test_a_card_tells_kinds_of_workers_what_the_queue_says_and_what_was_used() -> None:
    """Workers by component, jobs by phase with what they wait for, core-hours."""
    worker = {"threads": 1, "memory_bytes": 0, "memory_limit_bytes": 0, "state": "idle"}
    waiting = {"phase": "pending", "reason": f"Resources {EVIL}", "estimated_start_at": None}
    started = {"phase": "busy", "reason": "", "estimated_start_at": None}
    status = a_status(
        workers=[{**worker, "component": name} for name in ("small", "big", "small")],
        jobs=[waiting, waiting, started],
        core_hours=12.345,
    )
    for text in (card_text(status), Tags(card_html(status)).words):
        for part in (
            "big: 1 (1 idle), small: 2 (2 idle), 3 threads",
            f"2 pending, 1 busy, waiting for Resources {EVIL}",
            "12.3 core-hours",
        ):
            assert part in text
    assert not {"script", "img"} & set(Tags(card_html(status)).tags)


def test_a_card_says_what_is_paused_and_why() -> None:
    """A paused batch is told with its reason, whatever the error's text is."""
    pause = Pause(batch="sweep", count=12, limit=20, failure_class="ValueError", message=EVIL)
    status = a_status(pauses=[pause])
    why = f"12 tasks of 'sweep' are paused: 20 in a row failed with ValueError: {EVIL}"
    assert why in card_text(status)
    found = Tags(card_html(status))
    assert why in found.words
    assert not {"script", "img"} & set(found.tags)


def test_the_dashboard_is_reached_through_the_hub() -> None:
    """Behind JupyterHub the link leads through the person's own server, elsewhere directly."""
    link = "http://127.0.0.1:40123/3f1c/status"
    hub = {"JUPYTERHUB_SERVICE_PREFIX": "/user/ada/"}
    assert browser_link(link, hub) == "/user/ada/proxy/40123/3f1c/status"
    assert browser_link(link, {}) == link
    assert browser_link("", hub) == ""
