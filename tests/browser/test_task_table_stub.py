"""The live table in chromium, its kernel played by the test."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest
from playwright.sync_api import expect
from stub_page import StubPage
from synthetic_run import EVIL, Run

from scalable_nb.telemetry.rows import TaskState

SCREENSHOTS = Path(__file__).parents[2] / "out" / "screenshots"


def shown_rows(stub: StubPage) -> list[int]:
    """The rows in the page from top to bottom."""
    rows: list[int] = stub.page.evaluate(
        """() => [...document.querySelectorAll(".snb-body .snb-row:not([hidden])")]
            .sort((a, b) => a.ariaRowIndex - b.ariaRowIndex).map(row => Number(row.dataset.row))"""
    )
    return rows


def test_100000_tasks_appear_with_few_elements_and_scroll_to_the_last(stub: StubPage) -> None:
    """A table of 100,000 tasks is there at once, holds few rows, and reaches the last one."""
    run = Run(100_000)
    run.work_off(0.6)
    stub.open(run.snapshot(), title="sweep")
    counts = run.ledger.count()
    expect(stub.table.get_by_text(f"{counts['failed']:,}", exact=True)).to_be_visible()
    expect(stub.table.locator(".snb-share")).to_have_text(re.compile(r"of 100,000 done"))
    grid = stub.page.get_by_role("grid", name="Tasks")
    expect(grid).to_have_attribute("aria-rowcount", "100001")
    for share in (0.25, 0.5, 1.0):
        grid.evaluate("(grid, share) => { grid.scrollTop = grid.scrollHeight * share }", share)
        expect(stub.table.locator(".snb-body .snb-row").first).to_be_attached()
        assert stub.table.locator(".snb-row").count() < 200
    expect(grid.get_by_text("simulate(scenario=99999)")).to_be_visible()


def test_deltas_change_counts_rows_and_progress(stub: StubPage) -> None:
    """What the kernel pushes is seen in the counts, the bar and the rows."""
    run = Run(200)
    stub.open(run.snapshot(), title="sweep")
    expect(stub.table.get_by_role("button", name="queued")).to_contain_text("200")
    run.become(3, TaskState.RUNNING, attempt=2, worker="node-é", started_at=time.time() - 65)
    run.become(0, TaskState.SUCCEEDED, attempt=1, worker="worker-1", duration_s=1.25)
    run.become(1, TaskState.FAILED, attempt=4, worker="worker-2", error="ValueError")
    stub.send_delta(run.delta())
    expect(stub.table.get_by_role("button", name="queued")).to_contain_text("197")
    expect(stub.table.get_by_role("button", name="failed")).to_contain_text("1")
    expect(stub.table.get_by_role("progressbar")).to_have_attribute("aria-valuenow", "1")
    failed, running = (stub.table.locator(f'[data-row="{row}"]') for row in (1, 3))
    for text in ("failed", "4/4", "worker-2", "ValueError"):
        expect(failed).to_contain_text(text)
    for text in ("running", "2/4", "node-é", "1 min"):
        expect(running).to_contain_text(text)
    before = running.locator(".snb-duration").inner_text()
    expect(running.locator(".snb-duration")).not_to_have_text(before)  # it counts by itself


def test_a_retry_counts_down(stub: StubPage) -> None:
    """A task between two attempts says when the next one may begin, and the time runs."""
    run = Run(3)
    run.become(
        1, TaskState.RETRYING, attempt=1, error="ConnectionError", retry_at=time.time() + 300
    )
    stub.open(run.snapshot())
    cell = stub.table.locator('[data-row="1"] .snb-retry')
    expect(cell).to_have_text(re.compile(r"^[45] min \d\d s$"))
    before = cell.inner_text()
    expect(cell).not_to_have_text(before)
    assert cell.inner_text() < before


def test_headers_sort_up_down_and_back(stub: StubPage) -> None:
    """A click on a header sorts up, a second one down, a third one gives the table's order."""
    run = Run(50)
    for row in range(50):
        run.become(row, TaskState.SUCCEEDED, attempt=1, duration_s=(row * 37) % 50 + 1)
    stub.open(run.snapshot())
    expect(stub.table.locator(".snb-body .snb-row").first).to_be_visible()
    head = stub.page.get_by_role("columnheader", name="Execution")
    by_duration = sorted(range(50), key=lambda row: (row * 37) % 50)
    for order, expected in (
        ("ascending", by_duration),
        ("descending", by_duration[::-1]),
        ("none", list(range(50))),
    ):
        head.get_by_role("button").click()
        expect(head).to_have_attribute("aria-sort", order)
        shown = shown_rows(stub)
        assert shown == expected[: len(shown)]


def test_words_and_states_filter_without_the_kernel(stub: StubPage) -> None:
    """Words typed and states pressed narrow the table, and nothing is asked of the kernel."""
    run = Run(1000)
    run.become(7, TaskState.FAILED, attempt=1, worker="node-é", error="ValueError")
    run.become(77, TaskState.FAILED, attempt=1, worker="worker-1", error="ValueError")
    run.become(78, TaskState.SUCCEEDED, attempt=1, worker="node-é")
    stub.open(run.snapshot())
    stub.table.get_by_role("button", name="failed").click()
    expect(stub.table.locator(".snb-shown")).to_have_text("2 of 1,000 shown")
    stub.table.get_by_role("searchbox").fill("NODE-É 7)")
    expect(stub.table.locator(".snb-shown")).to_have_text("1 of 1,000 shown")
    assert shown_rows(stub) == [7]
    stub.table.get_by_role("searchbox").fill("nothing of the kind")
    expect(stub.table.get_by_text("No task matches the filter.")).to_be_visible()
    stub.table.get_by_role("button", name="Show all").click()
    expect(stub.table.locator(".snb-shown")).to_have_text("1,000 tasks")
    assert stub.sent == []


def test_sorted_and_filtered_rows_follow_what_comes_in(stub: StubPage) -> None:
    """A filter by state takes in tasks that reach that state later."""
    run = Run(100)
    run.become(5, TaskState.FAILED, attempt=1, error="ValueError")
    stub.open(run.snapshot())
    stub.table.get_by_role("button", name="failed").click()
    expect(stub.table.locator(".snb-shown")).to_have_text("1 of 100 shown")
    run.become(50, TaskState.FAILED, attempt=1, error="ValueError")
    stub.send_delta(run.delta())
    expect(stub.table.locator(".snb-shown")).to_have_text("2 of 100 shown")


def test_selecting_asks_for_attempts_and_says_that_the_kernel_is_busy(stub: StubPage) -> None:
    """A chosen task shows its attempts when the kernel answers, and until then why it waits."""
    run = Run(10)
    run.become(2, TaskState.FAILED, attempt=2, error="ValueError")
    stub.open(run.snapshot())
    stub.table.locator('[data-row="2"]').click()
    details = stub.page.get_by_role("region", name="Task details")
    expect(details.get_by_text("The kernel is busy; attempts appear when the cell ends.")
    ).to_be_visible()  # fmt: skip
    assert stub.sent == [{"type": "attempts", "row": 2}]
    rows = [
        {"attempt": 1, "failure_class": "ConnectionError", "message": "503", "will_retry": True,
         "retry_in_s": 2.0, "category": "transient", "duration_s": 0.3, "worker": "worker-1"},
        {"attempt": 2, "failure_class": EVIL, "message": f"{EVIL}{'x' * 10_000}",
         "is_final": True, "traceback": f"File {EVIL}", "category": "permanent"},
    ]  # fmt: skip
    stub.send(type="attempts", row=2, key="key-2", rows=rows)
    expect(details.get_by_role("article")).to_have_count(2)
    for text in ("Attempt 1", "503", "tried again after 2.0 s", "key-2", EVIL, f"File {EVIL}"):
        expect(details).to_contain_text(text)
    expect(details.locator(".snb-message").last).to_have_text(f"{EVIL}{'x' * 10_000}")
    assert len(stub.sent) == 1
    stub.page.get_by_role("grid").press("Escape")
    expect(details).to_be_hidden()


def test_a_task_that_fails_again_is_asked_for_again(stub: StubPage) -> None:
    """Attempts shown are those of now: a further failure of the chosen task asks once more."""
    run = Run(4)
    run.become(1, TaskState.RETRYING, attempt=1, error="ValueError", retry_at=time.time() + 60)
    stub.open(run.snapshot())
    stub.table.locator('[data-row="1"]').click()
    stub.wait_until_sent(1)
    stub.send(type="attempts", row=1, key="key-1", rows=[{"attempt": 1, "failure_class": "A"}])
    expect(stub.page.get_by_role("article")).to_have_count(1)
    run.become(1, TaskState.FAILED, attempt=2, error="ValueError")
    stub.send_delta(run.delta())
    stub.wait_until_sent(2)


def test_texts_of_others_are_shown_as_text(stub: StubPage) -> None:
    """Markup in labels, workers, errors and problems is text in the page."""
    run = Run(2)
    run.ledger.labels[0] = EVIL
    run.become(0, TaskState.FAILED, attempt=1, worker=EVIL, error=EVIL)
    stub.open(run.snapshot(), title=EVIL)
    row = stub.table.locator('[data-row="0"]')
    for part in (".snb-label", ".snb-worker", ".snb-error"):
        expect(row.locator(part)).to_have_text(EVIL)
    expect(stub.table.locator(".snb-title")).to_have_text(EVIL)
    stub.set("problem", f"the kernel could not answer: {EVIL}")
    expect(stub.page.get_by_role("alert")).to_contain_text(EVIL)


def test_a_lost_frame_is_noticed_and_healed_by_a_snapshot(stub: StubPage) -> None:
    """A gap makes the page say that it catches up and ask once; a snapshot sets it right."""
    run = Run(20)
    stub.open(run.snapshot())
    expect(stub.table.get_by_role("button", name="queued")).to_contain_text("20")
    for row in range(3):
        run.become(row, TaskState.SUCCEEDED, attempt=1)
        frame = run.delta()
        if row != 1:  # the second one is lost
            stub.send_delta(frame)
    expect(stub.table.get_by_text("catching up")).to_be_visible()
    assert stub.sent == [{"type": "resync"}]
    stub.send_snapshot(run.snapshot())
    expect(stub.table.get_by_role("button", name="succeeded")).to_contain_text("3")
    expect(stub.table.get_by_text("catching up")).to_have_count(0)
    run.become(3, TaskState.SUCCEEDED, attempt=1)
    stub.send_delta(run.delta())
    expect(stub.table.get_by_role("button", name="succeeded")).to_contain_text("4")


def test_a_paused_batch_says_why_and_a_person_decides(stub: StubPage) -> None:
    """Each batch has a banner with its reason as text; a button tells the kernel, once."""
    run = Run(40)
    for row in range(10, 40):
        run.become(row, TaskState.PAUSED)
    stub.open(run.snapshot())
    why = f"30 tasks of 'sweep' are paused: 20 in a row failed with ValueError: {EVIL}"
    stub.set("pauses", [{"batch": "sweep", "text": why}, {"batch": "b", "text": "the other one"}])
    banner, other = (stub.table.locator(".snb-pause").nth(at) for at in (0, 1))
    expect(banner.locator(".snb-why")).to_have_text(f"‖ {why}")
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    stub.page.screenshot(path=SCREENSHOTS / "task-table-paused.png", full_page=True)

    banner.get_by_role("button", name="Go on").click()
    expect(banner.get_by_text("The kernel is busy; this happens when the cell ends.")
    ).to_be_visible()  # fmt: skip
    for name in ("Go on", "Cancel the rest"):
        expect(banner.get_by_role("button", name=name)).to_be_disabled()
        expect(other.get_by_role("button", name=name)).to_be_enabled()
    stub.send(type="decided", batch="sweep")
    expect(banner.get_by_text("going on …")).to_be_visible()
    stub.set("pauses", [{"batch": "b", "text": "the other one"}])
    expect(stub.table.locator(".snb-pause")).to_have_count(1)
    stub.table.get_by_role("button", name="Cancel the rest").click()
    assert stub.sent == [{"type": "resume", "batch": "sweep"}, {"type": "cancel", "batch": "b"}]
    stub.set("problem", "the kernel could not answer the table: no host")
    expect(stub.table.get_by_role("button", name="Cancel the rest")).to_be_enabled()
    stub.set("status", "closed")
    expect(stub.table.locator(".snb-pause")).to_have_count(0)


def test_the_keyboard_reaches_every_task(stub: StubPage) -> None:
    """Arrows, Page Down and End move through the rows, and the active one is announced."""
    run = Run(500)
    stub.open(run.snapshot())
    grid = stub.page.get_by_role("grid")
    expect(stub.table.locator('[data-row="0"]')).to_be_visible()
    for key, row in (
        ("ArrowDown", 0),
        ("ArrowDown", 1),
        ("End", 499),
        ("ArrowUp", 498),
        ("Home", 0),
    ):
        grid.press(key)
        active = stub.table.locator('.snb-row[aria-selected="true"]')
        expect(active).to_have_attribute("data-row", str(row))
        expect(active).to_be_in_viewport()
        expect(grid).to_have_attribute("aria-activedescendant", active.get_attribute("id") or "")


#: What a screen reader finds: names and roles of everything that can be reached or is told.
READ_ALOUD = """
- progressbar "Tasks done"
- group "Show only tasks that are":
  - button "succeeded 1"
  - button "failed 1"
  - button "queued 2"
- status: "50 % done: 1 succeeded, 1 failed, 2 queued"
- 'img "Tasks in order: 1 succeeded, 1 failed, 2 queued"'
- searchbox "Search in all columns"
- button "Filter columns"
- group: Columns
- button "Copy as CSV"
- grid "Tasks":
  - rowgroup:
    - row "# Name State Attempt Worker Started Execution Error":
      - columnheader "State":
        - button "State"
  - rowgroup:
    - row "0 simulate(scenario=0) succeeded 1/4 0 ms"
    - row "1 simulate(scenario=1) failed 4/4 0 ms ValueError":
      - gridcell "failed"
"""


def test_everything_is_told_to_a_screen_reader_and_reached_by_keyboard(stub: StubPage) -> None:
    """All has a role and a name, Tab finds it, Enter presses it, and new counts are announced."""
    run = Run(4)
    run.become(0, TaskState.SUCCEEDED, attempt=1)
    run.become(1, TaskState.FAILED, attempt=4, error="ValueError")
    stub.page.clock.install()
    stub.open(run.snapshot(), title="sweep")
    expect(stub.table).to_match_aria_snapshot(READ_ALOUD)

    focused = stub.page.locator(":focus")
    keyboard = stub.page.keyboard
    keyboard.press("Tab")
    expect(focused).to_have_accessible_name("succeeded 1")
    keyboard.press("Tab")
    keyboard.press("Enter")
    expect(focused).to_have_accessible_name("failed 1")
    expect(focused).to_have_attribute("aria-pressed", "true")
    expect(stub.table.locator(".snb-shown")).to_have_text("1 of 4 shown")
    for name in ("queued 2", "Search in all columns", "Show all", "Filter columns"):
        keyboard.press("Tab")
        expect(focused).to_have_accessible_name(name)
    keyboard.press("Tab")
    expect(focused).to_have_text("Columns")
    for name in ("Copy as CSV", "Tasks"):
        keyboard.press("Tab")
        expect(focused).to_have_accessible_name(name)
    keyboard.press("ArrowDown")
    card = stub.table.get_by_role("region", name="Task details")
    expect(card).to_contain_text("#1 simulate(scenario=1)")
    card.get_by_role("button", name="Close").press("Enter")
    expect(card).to_be_hidden()

    # Once in ten seconds, and the end is not left out.
    for row in (2, 3):
        run.become(row, TaskState.SUCCEEDED, attempt=1)
        stub.send_delta(run.delta())
    expect(stub.table.get_by_role("progressbar")).to_have_attribute("aria-valuenow", "100")
    stub.page.clock.fast_forward(10_000)
    reported = stub.table.get_by_role("status").filter(has_text="100 % done: 3 succeeded, 1 failed")
    expect(reported).to_have_attribute("aria-live", "polite")


def test_the_strip_tells_and_selects_a_task(stub: StubPage) -> None:
    """The cell below the pointer says its task, and a click on it shows the task."""
    run = Run(300)
    run.become(0, TaskState.FAILED, attempt=4, error="ValueError")
    stub.open(run.snapshot())
    strip = stub.table.locator("canvas")
    strip.hover(position={"x": 4, "y": 4})
    tip = stub.table.locator(".snb-tip")
    for text in ("#0", "simulate(scenario=0)", "failed", "4/4", "ValueError"):
        expect(tip).to_contain_text(text)
    strip.click(position={"x": 4, "y": 4})
    expect(stub.table.locator('[data-row="0"]')).to_have_attribute("aria-selected", "true")


def test_the_end_of_the_session_is_told_and_time_stands_still(stub: StubPage) -> None:
    """A table whose session ended or was lost says so, and nothing in it counts on."""
    run = Run(5)
    run.become(1, TaskState.RUNNING, attempt=1, started_at=time.time() - 5)
    stub.open(run.snapshot())
    expect(stub.table.get_by_text("live")).to_be_visible()
    stub.set("status", "lost")
    expect(stub.table.get_by_text("lost contact with the host")).to_be_visible()
    cell = stub.table.locator('[data-row="1"] .snb-duration')
    before = cell.inner_text()
    stub.page.wait_for_function(
        "began => performance.now() > began + 2500", arg=stub.page.evaluate("performance.now()")
    )
    assert cell.inner_text() == before
    stub.set("status", "closed")
    expect(stub.table.get_by_text("the session has ended")).to_be_visible()


def test_a_view_drawn_again_keeps_its_filter_and_a_closed_one_leaves_nothing(
    stub: StubPage,
) -> None:
    """Jupyter draws a widget anew when its output changes: what a person did stays."""
    run = Run(100)
    run.become(9, TaskState.FAILED, attempt=1, error="ValueError")
    stub.open(run.snapshot())
    stub.table.get_by_role("searchbox").fill("scenario=9)")
    expect(stub.table.locator(".snb-shown")).to_have_text("1 of 100 shown")
    stub.table.locator('[data-row="9"]').click()
    stub.page.evaluate("stub.draw_again()")
    expect(stub.table).to_have_count(1)
    expect(stub.table.locator(".snb-shown")).to_have_text("1 of 100 shown")
    expect(stub.table.get_by_role("searchbox")).to_have_value("scenario=9)")
    expect(stub.page.get_by_role("region", name="Task details")).to_be_visible()
    stub.page.evaluate("stub.close()")
    expect(stub.table).to_have_count(0)
    assert stub.page.evaluate("stub.model.listeners()") == 0


def test_filters_of_columns_narrow_the_table_together(stub: StubPage) -> None:
    """A word, its absence or a comparison above each column; all must be met."""
    run = Run(100)
    for row in range(100):
        worker = "worker-1" if row % 2 else "worker-2"
        run.become(row, TaskState.SUCCEEDED, attempt=1, worker=worker, duration_s=float(row))
    stub.open(run.snapshot())
    stub.table.get_by_role("button", name="Filter columns").click()
    stub.table.get_by_role("textbox", name="Filter by execution").fill("> 1 min")
    shown = stub.table.locator(".snb-shown")
    expect(shown).to_have_text("39 of 100 shown")
    stub.table.get_by_role("textbox", name="Filter by worker").fill("!worker-1")
    expect(shown).to_have_text("19 of 100 shown")
    assert shown_rows(stub)[:2] == [62, 64]
    stub.table.get_by_role("button", name="Show all").click()
    expect(shown).to_have_text("100 tasks")
    expect(stub.table.get_by_role("textbox", name="Filter by worker")).to_have_value("")


def test_a_brush_over_the_strip_filters_the_table(stub: StubPage) -> None:
    """The tasks below a brush are shown alone, and a band says which they are."""
    run = Run(100_000)
    stub.open(run.snapshot())
    canvas = stub.table.locator("canvas")
    box = canvas.bounding_box()
    assert box
    middle = box["y"] + box["height"] / 2
    mouse = stub.page.mouse
    mouse.move(box["x"] + box["width"] / 4, middle)
    mouse.down()
    mouse.move(box["x"] + box["width"] / 2, middle, steps=5)
    expect(stub.table.locator(".snb-tip")).to_contain_text("queued")
    mouse.up()
    expect(stub.table.locator(".snb-shown")).to_have_text(re.compile("^25,[0-9]+ of 100,000 shown"))
    expect(stub.table.locator(".snb-band")).to_be_visible()
    assert abs(shown_rows(stub)[0] - 25_000) < 1_000
    stub.table.get_by_role("button", name="Show all").click()
    expect(stub.table.locator(".snb-band")).to_be_hidden()


def test_several_tasks_are_selected_copied_and_acted_on(stub: StubPage) -> None:
    """Shift and Ctrl select more tasks; they are copied as CSV, and one press acts on all."""
    stub.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    run = Run(50)
    for row in range(20):
        run.become(row, TaskState.FAILED, attempt=4, worker="worker-1", error="ValueError")
    stub.open(run.snapshot())
    rows = stub.table.locator(".snb-body .snb-row")
    row_of = lambda number: stub.table.locator(f'[data-row="{number}"]')  # noqa: E731
    row_of(0).click()
    row_of(4).click(modifiers=["Shift"])
    row_of(2).click(modifiers=["Control"])
    expect(stub.table.get_by_text("4 selected")).to_be_visible()
    assert rows.and_(stub.page.locator('[aria-selected="true"]')).count() == 4
    stub.table.get_by_role("button", name="Copy as CSV").click()
    expect(stub.table.get_by_text("4 rows copied")).to_be_visible()
    copied = stub.page.evaluate("navigator.clipboard.readText()").splitlines()
    assert copied[0].startswith("index,name,task,component,state,attempt,")
    assert [line.split(",")[0] for line in copied[1:]] == ["0", "1", "3", "4"]
    stub.table.get_by_role("button", name="Resubmit (4)").click()
    expect(stub.table.get_by_text("The kernel is busy; this happens when the cell ends.")
    ).to_be_visible()  # fmt: skip
    (asked,) = [message for message in stub.sent if message["type"] == "act"]
    assert (asked["action"], asked["rows"]) == ("resubmit", [0, 1, 3, 4])
    stub.send(type="acted", id=asked["id"], text="4 tasks submitted again", details="")
    expect(stub.table.get_by_text("4 tasks submitted again")).to_be_visible()


ATTEMPTS = [
    {"attempt": 1, "outcome": "failed", "failure_class": "ConnectionError", "message": "503",
     "category": "transient", "queued_s": 0.4, "started_at": "2026-03-01T12:00:01+00:00",
     "ended_at": "2026-03-01T12:00:03+00:00", "duration_s": 2.0, "will_retry": True,
     "retry_in_s": 1.5, "worker": "worker-1", "host": "n1", "pid": 71, "traceback": "Traceback 1",
     "args_preview": "scenario=2", "job_id": "4711", "job_state": "RUNNING"},
    {"attempt": 2, "outcome": "failed", "failure_class": "ValueError", "message": EVIL,
     "category": "permanent", "queued_s": 0.1, "started_at": "2026-03-01T12:00:05+00:00",
     "ended_at": "2026-03-01T12:00:06+00:00", "duration_s": 1.0, "is_final": True,
     "worker": "worker-2", "host": "n2", "memory_bytes": 2**30, "traceback": f"Traceback {EVIL}"},
]  # fmt: skip


def test_the_card_tells_a_tasks_attempts_and_reproduces_the_last(stub: StubPage) -> None:
    """A time line, each attempt with its facts, log and traceback, and what a button brought."""
    run = Run(10)
    run.become(2, TaskState.FAILED, attempt=2, error="ValueError")
    stub.open(run.snapshot())
    stub.table.locator('[data-row="2"]').click()
    stub.wait_until_sent(1)
    stub.send(type="attempts", row=2, key="key-2", rows=ATTEMPTS)
    card = stub.page.get_by_role("region", name="Task details")
    line = card.get_by_role("img", name=re.compile("^Time line"))
    expect(line).to_have_attribute(
        "aria-label", re.compile("attempt 1: ran .failed. 2.0 s; waited 1.9 s after attempt 1")
    )
    first, second = (card.get_by_role("article").nth(at) for at in (0, 1))
    for text in ("transient", "400 ms in line", "ran 2.0 s", "worker-1", "n1", "process 71",
                 "job 4711 RUNNING", "tried again after 1.5 s"):  # fmt: skip
        expect(first).to_contain_text(text)
    for text in (EVIL, "permanent", "1.0 GiB memory", f"Traceback {EVIL}", "final"):
        expect(second).to_contain_text(text)
    first.get_by_text("Worker's log").click()
    stub.wait_until_sent(2)
    assert stub.sent[-1] == {"type": "log", "row": 2, "attempt": 1}
    stub.send(type="log", row=2, attempt=1, lines=[f"12:00:02 WARNING {EVIL}"])
    expect(first.get_by_text(f"12:00:02 WARNING {EVIL}")).to_be_visible()

    card.get_by_role("button", name="Reproduce here").click()
    stub.wait_until_sent(3)
    asked = stub.sent[-1]
    assert (asked["action"], asked["rows"]) == ("reproduce", [2])
    expect(card.get_by_role("button", name="Resubmit")).to_be_disabled()
    stub.send(type="acted", id=asked["id"], text="Running in a child process …", details="")
    expect(card.get_by_text("Running in a child process …")).to_be_visible()
    stub.send(type="acted", id=asked["id"], text="raised ValueError", details=f"Fatal {EVIL}")
    expect(card.locator(".snb-outcome")).to_contain_text(f"Fatal {EVIL}")
    expect(card.get_by_role("button", name="Resubmit")).to_be_enabled()
    stub.set("actions", ["reproduce"])  # of a run that is over, nothing else can be done
    stub.set("status", "finished")
    expect(card.get_by_role("button", name="Resubmit")).to_have_count(0)
    expect(card.get_by_role("button", name="Reproduce here")).to_be_enabled()


def test_slow_tasks_are_marked_and_found(stub: StubPage) -> None:
    """A task that runs longer than three times the median of its kind says so, and is found."""
    run = Run(40)
    for row in range(30):
        run.become(row, TaskState.SUCCEEDED, attempt=1, duration_s=2.0, started_at=run.began_at)
    for row, since in ((30, 2.0), (31, 90.0)):
        run.become(row, TaskState.RUNNING, attempt=1, started_at=time.time() - since)
    stub.open(run.snapshot())
    stub.table.get_by_role("button", name="slow").click()
    expect(stub.table.locator(".snb-shown")).to_have_text("1 of 40 shown")
    expect(stub.table.locator('[data-row="31"] .snb-state')).to_have_text("◷ slow")


def test_a_person_chooses_the_columns(stub: StubPage) -> None:
    """The menu takes columns away and brings them back, also where there is little room."""
    stub.page.set_viewport_size({"width": 420, "height": 800})
    stub.open(Run(20).snapshot())
    head = stub.page.get_by_role("columnheader", name="Attempt")
    expect(stub.page.get_by_role("columnheader", name="Name")).to_be_visible()
    expect(stub.page.get_by_role("columnheader", name="Worker")).to_be_hidden()
    stub.table.get_by_text("Columns", exact=True).click()
    stub.table.get_by_role("checkbox", name="Attempt").uncheck()
    expect(head).to_be_hidden()
    stub.table.get_by_role("checkbox", name="Worker").check()
    expect(stub.page.get_by_role("columnheader", name="Worker")).to_be_visible()


def test_a_line_shows_progress_alone(stub: StubPage) -> None:
    """The one-line form has counts, bar and time, and neither strip nor rows."""
    run = Run(1000)
    run.work_off(0.5)
    stub.open(run.snapshot(), title="sweep", form="line")
    expect(stub.table.get_by_role("progressbar")).to_be_visible()
    expect(stub.table.locator(".snb-time")).to_contain_text(re.compile(r"\d / s · about .* left"))
    expect(stub.table.locator("canvas, .snb-grid")).to_have_count(0)


def test_the_kernel_hears_who_looks(stub: StubPage) -> None:
    """A view says that it is there, and the last one that it goes."""
    stub.open(Run(5).snapshot())
    kinds = "stub.model.sent.map(({ type }) => type)"
    assert stub.page.evaluate(kinds) == ["watch"]
    stub.page.evaluate("stub.close()")
    assert stub.page.evaluate(kinds) == ["watch", "unwatch"]


@pytest.mark.parametrize("is_dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("tasks", [1_000, 100_000])
def test_it_can_be_looked_at(stub: StubPage, tasks: int, is_dark: bool) -> None:
    """In both themes every state is there in words, and a picture is kept for people."""
    run = Run(tasks)
    run.work_off(0.62)
    stub.dress(is_dark=is_dark)
    stub.open(run.snapshot(), title="simulate")
    stub.table.get_by_role("columnheader", name="State").get_by_role("button").click()
    stub.table.locator(".snb-body .snb-row").first.click()
    stub.wait_until_sent(1)
    row = stub.sent[0]["row"]
    stub.send(type="attempts", row=row, key="simulate-3f1c", rows=ATTEMPTS)
    expect(stub.page.get_by_role("article")).to_have_count(2)
    for word in ("succeeded", "cached", "failed", "running", "retrying", "queued"):
        expect(stub.table.get_by_role("button", name=re.compile(f"{word} [0-9]"))).to_be_visible()
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    theme = "dark" if is_dark else "light"
    stub.page.screenshot(path=SCREENSHOTS / f"task-table-{tasks}-{theme}.png", full_page=True)
