// Frames and the table in memory.
import assert from "node:assert/strict";
import { test } from "node:test";

import { decodeFrame, readHeader } from "../../scalable_nb/widgets/static/task_table/frames.mjs";
import { FAILED, RETRYING, RUNNING, SUCCEEDED } from "../../scalable_nb/widgets/static/task_table/states.mjs";
import { TaskStore } from "../../scalable_nb/widgets/static/task_table/store.mjs";
import { frameOf, storeOf } from "./made_frames.mjs";

const QUEUED = 2;

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

test("counts are of inputs, which may share a task or have another one by now", async () => {
  const store = await storeOf([
    { state: SUCCEEDED, inputs: 3 }, { state: FAILED }, { state: QUEUED },
  ]);
  assert.equal(store.total, 5);
  store.apply(await decodeFrame(
    frameOf({ base: 0, seq: 1, size: 4 }, [
      { row: 1, state: FAILED, inputs: 0 },
      { row: 3, state: SUCCEEDED, label: "corrected" },
    ]),
  ));
  assert.deepEqual([store.counts[SUCCEEDED], store.counts[FAILED], store.done], [4, 0, 4]);
  assert.deepEqual([store.total, store.size], [5, 4]);
  assert.deepEqual([0, 1, 3].map((row) => store.isReplaced(row)), [false, true, false]);
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
