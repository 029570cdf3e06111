// The pure parts of the live table: frames, the table in memory, selection, estimates, the strip.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { deflateSync } from "node:zlib";

// Loaded from memory, as anywidget does it; so no package.json must say that it is a module.
const file = new URL("../../scalable_nb/widgets/static/task_table.js", import.meta.url);
const {
  FAILED,
  RETRYING,
  RUNNING,
  STATES,
  TaskStore,
  choiceText,
  countsText,
  decodeFrame,
  durationText,
  estimate,
  layoutStrip,
  mostNotable,
  percentDone,
  ranks,
  readHeader,
  roughText,
  selectRows,
  shareHeights,
  sortRows,
  tickingText,
  visibleText,
} = await import(`data:text/javascript;base64,${readFileSync(file).toString("base64")}`);

const SUCCEEDED = 6;
const QUEUED = 2;
const TYPES = { B: Uint8Array, H: Uint16Array, i: Int32Array, I: Uint32Array, f: Float32Array,
  d: Float64Array };
const CODES = { state: "B", attempt: "H", attempts_allowed: "H", worker: "i", error: "i",
  function: "i", task: "i", component: "i", submitted_at: "d", started_at: "d", retry_at: "d",
  duration_s: "f" };

/** Bytes of a frame as row_stream.py writes it, at an offset that no typed array likes. */
function encode(header, sections, { packed = false, offset = 0 } = {}) {
  const pieces = [];
  const table = [];
  for (const [name, code, values] of sections) {
    const bytes = code === "J"
      ? new TextEncoder().encode(JSON.stringify(values))
      : new Uint8Array(TYPES[code].from(values).buffer);
    table.push([name, code, bytes.length]);
    pieces.push(bytes, new Uint8Array(-bytes.length & 7));
  }
  let body = Buffer.concat(pieces);
  if (packed) body = deflateSync(body);
  let text = JSON.stringify({ stream: "s", size: 0, now_at: 1000, first_string: 1, packed,
    ...header, sections: table });
  text += " ".repeat(-(text.length + 4) & 7);
  const length = Buffer.alloc(4);
  length.writeUInt32LE(text.length);
  const all = Buffer.concat([length, Buffer.from(text), body]);
  const memory = new ArrayBuffer(all.length + offset);
  new Uint8Array(memory, offset).set(all);
  return new DataView(memory, offset, all.length);
}

/** A frame with these tasks; values not given are 0. */
function frameOf(header, tasks, options) {
  const sections = [["rows", "I", tasks.map((task, i) => task.row ?? i)]];
  for (const [name, code] of Object.entries(CODES)) {
    sections.push([name, code, tasks.map((task) => task[name] ?? 0)]);
  }
  const named = tasks.map((task, i) => [task.row ?? i, task.label]).filter(([, label]) => label);
  if (header.base !== null) sections.push(["named", "I", named.map(([row]) => row)]);
  sections.push(["labels", "J", named.map(([, label]) => label)]);
  sections.push(["strings", "J", header.strings ?? []]);
  return encode({ size: tasks.length, base: null, seq: 0, ...header }, sections, options);
}

async function storeOf(tasks, header = {}) {
  const store = new TaskStore();
  const frame = await decodeFrame(frameOf({ base: null, ...header }, tasks));
  store.apply(frame, frame.header.now_at);
  return store;
}

const query = (change = {}) => ({ text: "", states: new Set(), column: "index", descending: false,
  ...change });
const select = (store, change, now = 1000) => {
  const lowered = store.labels.map((label) => label.toLowerCase());
  const rows = selectRows(store, query(change), now, lowered);
  return rows && [...rows];
};

test("a frame is read the same wherever it lies in memory, deflated or not", async () => {
  const task = { state: RUNNING, attempt: 2, worker: -7, started_at: 1.5e9 + 0.25, duration_s: 0.5 };
  for (const packed of [false, true]) {
    for (const offset of [0, 1, 3, 4, 8]) {
      const view = frameOf({ base: null, seq: 5 }, [task], { packed, offset });
      assert.equal(readHeader(view).header.seq, 5);
      const { sections } = await decodeFrame(view);
      assert.deepEqual([...sections.rows], [0]);
      assert.deepEqual([...sections.state], [RUNNING]);
      assert.deepEqual([...sections.worker], [-7]);
      assert.deepEqual([...sections.started_at], [1.5e9 + 0.25]);
      assert.deepEqual([...sections.duration_s], [0.5]);
    }
  }
});

test("counts add up to the number of tasks through snapshot, changes and growth", async () => {
  const store = await storeOf([{ state: QUEUED, label: "a" }, { state: RUNNING, label: "b" }]);
  const grown = await decodeFrame(
    frameOf({ base: 0, seq: 1, size: 5 }, [
      { row: 1, state: FAILED },
      { row: 4, state: SUCCEEDED, label: "e" },
    ]),
  );
  assert.equal(store.judge(grown.header), "next");
  store.apply(grown);
  assert.equal(store.size, 5);
  assert.equal(store.counts.reduce((sum, count) => sum + count), 5);
  assert.equal(store.counts[FAILED], 1);
  assert.equal(store.counts[0], 2); // rows 2 and 3 are not known yet
  assert.equal(store.done, 2);
  assert.deepEqual([store.label(0), store.label(2), store.label(4)], ["a", "", "e"]);
});

test("a missing frame is noticed, an old one ignored, and a snapshot heals", async () => {
  const store = await storeOf([{}, {}], { seq: 3 });
  const header = (base, seq, stream = "s") => ({ base, seq, stream });
  assert.equal(store.judge(header(3, 4)), "next");
  assert.equal(store.judge(header(4, 5)), "gap");
  assert.equal(store.judge(header(2, 3)), "old");
  assert.equal(store.judge(header(3, 4, "another table")), "gap");
  assert.equal(store.judge(header(null, 3)), "old");
  assert.equal(store.judge(header(null, 5)), "next");
  assert.equal(store.judge(header(null, 0, "another table")), "next");
});

test("strings of a frame that overlaps a snapshot keep their places", async () => {
  const store = await storeOf([{ worker: 1 }], { strings: ["w1", "w2"] });
  const next = await decodeFrame(
    frameOf({ base: 0, seq: 1, size: 1, first_string: 2, strings: ["w2", "w3"] }, [{ worker: 3 }]),
  );
  store.apply(next);
  assert.deepEqual(store.strings, ["", "w1", "w2", "w3"]);
  assert.equal(store.text("worker", 0), "w3");
});

test("a snapshot from long ago stands still until something new arrives", async () => {
  const store = new TaskStore();
  const saved = await decodeFrame(
    frameOf({ base: null, now_at: 1000 }, [{ state: RUNNING, started_at: 990, attempt: 1 }]),
  );
  store.apply(saved, 100_000);
  assert.equal(store.now(100_500), 1000);
  assert.equal(store.duration(0, store.now(100_500)), 10);
  const live = await decodeFrame(frameOf({ base: 0, seq: 1, size: 1, now_at: 100_501 }, []));
  store.apply(live, 100_500);
  assert.equal(store.now(100_502), 100_503);
});

test("durations run while a task runs and retries count down", async () => {
  const store = await storeOf([
    { state: RUNNING, attempt: 1, started_at: 990, duration_s: 3 },
    { state: RETRYING, attempt: 1, started_at: 990, duration_s: 3, retry_at: 1005 },
    { state: QUEUED },
    { state: SUCCEEDED, attempt: 1, started_at: 990, duration_s: 3 },
  ]);
  assert.equal(store.duration(0, 1000), 10);
  assert.equal(store.retryIn(1, 1000), 5);
  assert.equal(store.retryIn(1, 1010), 0);
  assert.ok(Number.isNaN(store.retryIn(0, 1000)));
  assert.ok(Number.isNaN(store.duration(2, 1000)));
  assert.equal(store.duration(3, 1000), 3);
});

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

test("the time left follows what ended lately", async () => {
  const tasks = Array.from({ length: 100 }, (_, i) => ({ submitted_at: 900, state: QUEUED }));
  for (let i = 0; i < 50; i++) {
    Object.assign(tasks[i], { state: SUCCEEDED, attempt: 1, started_at: 950 + i, duration_s: 1 });
  }
  const { elapsed, remaining } = estimate(await storeOf(tasks), 1000.5);
  assert.equal(Math.round(elapsed), 101); // since 900, shown live
  assert.ok(remaining > 40 && remaining < 60, `${remaining}`); // one a second
});

test("the time of a finished table ends with its last task", async () => {
  const store = await storeOf([
    { submitted_at: 100, started_at: 110, duration_s: 5, state: SUCCEEDED },
    { submitted_at: 100, started_at: 120, duration_s: 30, state: FAILED },
  ]);
  assert.deepEqual(estimate(store, 99_999), { elapsed: 50, remaining: 0 });
});

test("nothing is promised before enough has ended", async () => {
  const store = await storeOf([{ submitted_at: 990, state: RUNNING }, { submitted_at: 990 }]);
  assert.ok(Number.isNaN(estimate(store, 1000).remaining));
});

test("every task has a place on the strip, and the strip keeps to its room", () => {
  for (const tasks of [1, 7, 40, 150, 1000, 3600, 10_000, 99_999, 100_000, 1_000_000]) {
    for (const width of [200, 640, 900, 1600]) {
      const { perCell, cells, rows, columns, cellWidth, cellHeight } = layoutStrip(tasks, width, 56);
      const what = `${tasks} tasks in ${width} pixels`;
      assert.ok(cells * perCell >= tasks, what);
      assert.ok((cells - 1) * perCell < tasks, what);
      assert.ok(rows * columns >= cells, what);
      assert.ok(rows * cellHeight <= 56, what);
      assert.ok(columns * cellWidth <= width + 1e-6, what);
      assert.ok(cellHeight >= 3 && cellWidth >= 2.9, what);
    }
  }
});

test("what needs attention is seen among any number of others, and shares fill the column", () => {
  const counts = new Int32Array(STATES.length);
  for (const failed of [0, 1, 500, 99_999, 100_000]) {
    counts[FAILED] = failed;
    counts[SUCCEEDED] = 100_000 - failed;
    counts[RETRYING] = 1;
    const heights = shareHeights(counts, 56);
    assert.ok(Math.abs(heights.reduce((sum, own) => sum + own) - 56) < 1e-9);
    assert.ok(heights[RETRYING] >= 2);
    assert.ok(heights[FAILED] >= (failed ? 2 : 0));
    assert.ok(heights.every((own) => own >= 0));
  }
});

test("of many tasks, a click takes the one that most needs attention", () => {
  const states = new Uint8Array(30).fill(SUCCEEDED);
  states[17] = FAILED;
  states[13] = RUNNING;
  assert.equal(mostNotable(states, 10, 20), 17);
  assert.equal(mostNotable(states, 0, 10), 0);
});

test("figures and times read as a person says them", () => {
  assert.equal(durationText(0.0123), "12 ms");
  assert.equal(durationText(9.94), "9.9 s");
  assert.equal(durationText(59.4), "59 s");
  assert.equal(durationText(125), "2 min 05 s");
  assert.equal(durationText(3840), "1 h 04 min");
  assert.equal(durationText(NaN), "");
  assert.equal(tickingText(3.9), "3 s");
  assert.equal(tickingText(59.6), "1 min 00 s");
  assert.equal(roughText(47), "45 s");
  assert.equal(roughText(100), "1.5 min");
  assert.equal(percentDone(999, 1000), 99);
  assert.equal(percentDone(1, 1000), 1);
  assert.equal(percentDone(0, 0), 0);
  const counts = new Int32Array(STATES.length);
  counts[FAILED] = 1200;
  counts[SUCCEEDED] = 3;
  assert.equal(countsText(counts), "3 succeeded, 1,200 failed");
});

test("text that would hide or reverse itself is made visible", () => {
  assert.equal(visibleText("a\u202eb\u0007 <b>"), "a\\u202eb\\u0007 <b>");
});

test("a choice about a paused batch says that it waits for the kernel, then what happens", () => {
  const choice = { type: "resume", at: 1000, isPending: true };
  assert.equal(choiceText(undefined, 1000), "");
  assert.equal(choiceText(choice, 1100), "");
  assert.match(choiceText(choice, 2000), /^The kernel is busy; this happens when the cell ends/);
  assert.equal(choiceText({ ...choice, isPending: false }, 2000), "going on …");
  assert.equal(choiceText({ ...choice, type: "cancel", isPending: false }, 0), "being cancelled …");
});
