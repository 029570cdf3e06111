// Which tasks are shown, in which order, and as what they are copied.
import assert from "node:assert/strict";
import { test } from "node:test";

import { csvText, everything, ranks, selectRows, sortRows } from "../../scalable_nb/widgets/static/task_table/query.mjs";
import { CACHED, FAILED, RETRYING, RUNNING, SUCCEEDED } from "../../scalable_nb/widgets/static/task_table/states.mjs";
import { storeOf } from "./made_frames.mjs";

const QUEUED = 2;
const select = (store, change, now = 1000) => {
  const rows = selectRows(store, { ...everything(), ...change }, now);
  return rows && [...rows];
};

test("without a query the table keeps its own order at no cost", async () => {
  const store = await storeOf([{}, {}]);
  assert.equal(select(store, {}), null);
  assert.deepEqual(select(store, { descending: true }), [1, 0]);
});

test("every word of the filter must be found in one of the task's texts", async () => {
  const store = await storeOf(
    [
      { label: "simulate(x=1)", worker: 1 },
      { label: "simulate(x=2)", worker: 2, error: 3, state: FAILED },
      { label: "reduce(x=1)", worker: 1, error: 3 },
    ],
    { strings: ["node-A", "node-B", "ValueError"] },
  );
  assert.deepEqual(select(store, { text: "SIMULATE" }), [0, 1]);
  assert.deepEqual(select(store, { text: "x=1 node-a" }), [0, 2]);
  assert.deepEqual(select(store, { text: "valueerror" }), [1, 2]);
  assert.deepEqual(select(store, { text: "valueerror", states: new Set([FAILED]) }), [1]);
  assert.deepEqual(select(store, { text: "nothing like it" }), []);
});

test("sorting is numeric where texts hold numbers, stable, and puts what is missing last", async () => {
  const store = await storeOf(
    [
      { label: "f(10)", worker: 2, attempt: 1, duration_s: 5, state: SUCCEEDED },
      { label: "f(9)", worker: 0, attempt: 0, state: QUEUED },
      { label: "f(100)", worker: 1, attempt: 3, duration_s: 1, state: FAILED },
      { label: "f(11)", worker: 2, attempt: 1, state: RUNNING, started_at: 970 },
    ],
    { strings: ["w-2", "w-10"] },
  );
  assert.deepEqual(select(store, { column: "label" }), [1, 0, 3, 2]);
  assert.deepEqual(select(store, { column: "label", descending: true }), [2, 3, 0, 1]);
  assert.deepEqual(select(store, { column: "worker" }), [2, 0, 3, 1]);
  assert.deepEqual(select(store, { column: "worker", descending: true }), [0, 3, 2, 1]);
  assert.deepEqual(select(store, { column: "duration", descending: true }), [3, 0, 2, 1]);
  assert.deepEqual(select(store, { column: "attempt" }), [0, 3, 2, 1]);
  assert.deepEqual(select(store, { column: "state" }), [2, 3, 1, 0]);
});

test("equal texts have equal ranks and empty ones none", () => {
  assert.deepEqual([...ranks(["b", "", "a", "b"], 4)], [2, NaN, 1, 2]);
});

test("sorting never loses or doubles a row", () => {
  const rows = Uint32Array.from({ length: 1000 }, (_, i) => i);
  const keys = Float64Array.from(rows, (row) => (row % 3 ? (row * 7919) % 97 : NaN));
  for (const descending of [false, true]) {
    const sorted = sortRows(rows, keys, descending);
    assert.deepEqual([...sorted].sort((a, b) => a - b), [...rows]);
    const values = [...sorted].map((row) => keys[row]);
    assert.equal(values.findIndex(Number.isNaN), 666);
  }
});

test("filters of several columns must all be met", async () => {
  const store = await storeOf(
    [
      { label: "f(1)", worker: 1, host: 3, state: SUCCEEDED, attempt: 1, duration_s: 150 },
      { label: "f(2)", worker: 2, host: 3, job: 4, state: FAILED, attempt: 4, duration_s: 0.5 },
      { label: "g(2)", worker: 2, state: RETRYING, attempt: 2, duration_s: 3, retry_at: 1040 },
      { label: "f(22)", state: CACHED },
    ],
    { strings: ["w-1", "w-2", "node-7", "4711"] },
  );
  const filtered = (filters) => select(store, { filters });
  assert.deepEqual(filtered({ label: "f(2" }), [1, 3]);
  assert.deepEqual(filtered({ label: "!f(" }), [2]);
  assert.deepEqual(filtered({ label: "f(2", worker: "W-2" }), [1]);
  assert.deepEqual(filtered({ duration: "> 2 min" }), [0]);
  assert.deepEqual(filtered({ duration: "<= 500ms" }), [1]);
  assert.deepEqual(filtered({ attempt: ">1" }), [1, 2]);
  assert.deepEqual(filtered({ attempt: "=4", state: "failed" }), [1]);
  assert.deepEqual(filtered({ retry: "< 1 min" }), [2]);
  assert.deepEqual(filtered({ host: "4711" }), [1]);
  assert.deepEqual(filtered({ host: "node" }), [0, 1]);
  assert.deepEqual(filtered({ cached: "yes" }), [3]);
  assert.deepEqual(filtered({ state: "!succeeded", worker: "w" }), [1, 2]);
  assert.equal(filtered({ label: "  " }), null);
});

test("a range of the strip and slow tasks narrow the table too", async () => {
  const tasks = Array.from({ length: 8 }, () => ({ state: SUCCEEDED, attempt: 1, duration_s: 1 }));
  tasks.push({ state: RUNNING, started_at: 990 }, { state: RUNNING, started_at: 999 });
  const store = await storeOf(tasks);
  assert.deepEqual(select(store, { range: [2, 5] }), [2, 3, 4]);
  assert.deepEqual(select(store, { range: [7, 99], states: new Set([RUNNING]) }), [8, 9]);
  assert.deepEqual(select(store, { isSlow: true }), [8]);
});

test("what is copied has raw numbers, UTC times, and nothing that a spreadsheet would run", async () => {
  const store = await storeOf(
    [
      { label: 'f("a", 1)', worker: 1, error: 2, state: FAILED, attempt: 2, attempts_allowed: 4,
        started_at: 990, duration_s: 1.5 },
      { label: "=cmd()", state: RETRYING, retry_at: 1003 },
    ],
    { strings: ["w,1", "ValueError"] },
  );
  const lines = csvText(store, [1, 0], 1000).split("\r\n");
  assert.equal(lines[0], "index,name,task,component,state,attempt,retry_in_s,worker,host,"
    + "started_at,duration_s,error,cached");
  assert.equal(lines[1], "1,'=cmd(),,,retrying,,3,,,,,,");
  assert.equal(lines[2], '0,"f(""a"", 1)",,,failed,2/4,,"w,1",,1970-01-01T00:16:30.000Z,1.5,'
    + "ValueError,");
  assert.equal(lines[3], "");
});
