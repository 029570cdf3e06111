// One task: its columns, its time line, and what can be done with it.
import assert from "node:assert/strict";
import { test } from "node:test";

import { actionsFor } from "../../scalable_nb/widgets/static/task_table/actions.mjs";
import { attemptFacts } from "../../scalable_nb/widgets/static/task_table/attempt.mjs";
import {
  COLUMNS, telling, visibleColumns,
} from "../../scalable_nb/widgets/static/task_table/columns.mjs";
import { actText } from "../../scalable_nb/widgets/static/task_table/feed.mjs";
import { FAILED, RETRYING, RUNNING, SUCCEEDED } from "../../scalable_nb/widgets/static/task_table/states.mjs";
import { segmentText, segmentsOf } from "../../scalable_nb/widgets/static/task_table/timeline.mjs";
import { storeOf } from "./made_frames.mjs";

test("the wider the table, the more columns; a person's choice comes first", () => {
  const all = new Set(COLUMNS.map(({ id }) => id));
  const ids = (width, told = all, chosen = new Map()) =>
    visibleColumns(width, told, chosen).map(({ id }) => id);
  assert.deepEqual(ids(2000), [...all]);
  assert.deepEqual(ids(100), ["label", "state"]);
  let before = 0;
  for (let width = 100; width < 2000; width += 50) {
    assert.ok(ids(width).length >= before);
    before = ids(width).length;
  }
  assert.ok(!ids(2000, new Set(["label", "state", "worker"])).includes("cached"));
  const chosen = new Map([["cached", true], ["state", false]]);
  assert.deepEqual(ids(100, new Set(["label"]), chosen), ["label", "cached"]);
});

test("a column that says nothing of any task is left away", async () => {
  const store = await storeOf([{ label: "f(1)", error: 1 }], { strings: ["ValueError"] });
  const told = telling(store);
  assert.ok(told.has("error") && told.has("worker"));
  for (const id of ["task", "component", "host", "cached", "retry"]) assert.ok(!told.has(id), id);
});

test("a button is there for the tasks for which it makes sense", async () => {
  const store = await storeOf([
    { state: RETRYING }, { state: RUNNING }, { state: FAILED }, { state: SUCCEEDED },
  ]);
  const every = ["retry_now", "give_up", "cancel", "resubmit", "reproduce"];
  const names = (rows, isSingle, possible = every) => actionsFor(store, rows, possible, isSingle)
    .map(({ action, rows: those }) => `${action}:${those}`);
  assert.deepEqual(names([0], true), ["retry_now:0", "give_up:0", "cancel:0", "reproduce:0"]);
  assert.deepEqual(names([1], true), ["cancel:1"]);
  assert.deepEqual(names([2], true), ["resubmit:2", "reproduce:2"]);
  assert.deepEqual(names([3, -1, 99], true), []);
  assert.deepEqual(names([0, 1, 2, 3], false),
    ["retry_now:0", "give_up:0", "cancel:0,1", "resubmit:2"]);
  assert.deepEqual(names([2], true, ["reproduce"]), ["reproduce:2"]);
});

test("the time line joins standing in line, running and waiting", () => {
  const at = (seconds) => new Date((1000 + seconds) * 1000).toISOString();
  const rows = [
    { attempt: 1, outcome: "failed", queued_s: 2, started_at: at(2), duration_s: 3,
      ended_at: at(5), will_retry: true, retry_in_s: 4 },
    { attempt: 2, outcome: "running", started_at: at(10), queued_s: 1 },
  ];
  const segments = segmentsOf(rows, 1030);
  assert.deepEqual(segments.map(({ kind, seconds }) => [kind, Math.round(seconds)]),
    [["queue", 2], ["run", 3], ["wait", 4], ["queue", 1], ["run", 20]]);
  assert.equal(segmentText(segments[1]), "attempt 1: ran (failed) 3.0 s");
  assert.equal(segmentText(segments[2]), "waited 4.0 s after attempt 1");
  const waiting = segmentsOf(rows.slice(0, 1), 1007);
  assert.deepEqual(waiting.at(-1), { kind: "wait", attempt: 1, outcome: "failed", seconds: 2 });
  // Rows of other packages have no start.
  const [only] = segmentsOf([{ attempt: 1, timestamp: at(5), duration_s: 3 }], 1030);
  assert.equal(only.seconds, 3);
});

test("an attempt says where it ran, what it used and what came after", () => {
  const facts = attemptFacts({ outcome: "failed", category: "infrastructure", queued_s: 0.5,
    duration_s: 12, worker: "worker-1", host: "n1", pid: 7, exit_code: -9, job_id: "4711",
    job_state: "OUT_OF_MEMORY", memory_bytes: 2 ** 30, memory_limit_bytes: 2 ** 31,
    will_retry: true, retry_in_s: 2 });
  assert.deepEqual(facts, ["infrastructure", "500 ms in line", "ran 12 s", "worker-1", "n1",
    "process 7", "exit code -9", "job 4711 OUT_OF_MEMORY", "1.0 GiB of 2.0 GiB memory",
    "tried again after 2.0 s"]);
  assert.deepEqual(attemptFacts({ outcome: "succeeded", worker: "w" }), ["w"]);
});

test("a press says that it waits for the kernel, then what came of it", () => {
  const act = { at: 1000, isPending: true, text: "" };
  assert.equal(actText(null, 0), "");
  assert.equal(actText(act, 1100), "");
  assert.match(actText(act, 2000), /this happens when the cell ends/);
  assert.equal(actText({ ...act, isPending: false, text: "1 task hurried" }, 2000),
    "1 task hurried");
});
