// How long it takes, and what takes too long.
import assert from "node:assert/strict";
import { test } from "node:test";

import { countSlow, estimate, isSlow, slowLimits } from "../../scalable_nb/widgets/static/task_table/estimate.mjs";
import { FAILED, RUNNING, SUCCEEDED } from "../../scalable_nb/widgets/static/task_table/states.mjs";
import { storeOf } from "./made_frames.mjs";

const QUEUED = 2;

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
  const { elapsed, remaining } = estimate(store, 99_999);
  assert.deepEqual([elapsed, remaining], [50, 0]);
});

test("nothing is promised before enough has ended", async () => {
  const store = await storeOf([{ submitted_at: 990, state: RUNNING }, { submitted_at: 990 }]);
  assert.ok(Number.isNaN(estimate(store, 1000).remaining));
});

test("the more has ended, the less uncertain is what is left", async () => {
  const half = async (tasks) => estimate(await storeOf(Array.from({ length: tasks }, (_, i) => ({
    submitted_at: 940,
    state: i % 2 ? QUEUED : SUCCEEDED,
    started_at: i % 2 ? 0 : 940 + (60 * i) / tasks,
    duration_s: 0.001,
    attempt: 1,
  }))), 1000);
  const [few, many] = [await half(20), await half(2000)];
  for (const { remaining, low, high } of [few, many]) {
    assert.ok(low < remaining && remaining < high);
    assert.ok(low < 60 && high > 60); // what is true lies within
  }
  assert.ok(many.high - many.low < (few.high - few.low) / 4);
  assert.ok(Math.abs(many.rate - 1000 / 60) < 1);
});

test("a task is slow beyond three times the median of its own kind, and only while it runs", async () => {
  const done = (kind, duration_s) => ({ function: kind, state: SUCCEEDED, attempt: 1, duration_s });
  const running = (kind, since) => ({ function: kind, state: RUNNING, started_at: 1000 - since });
  const store = await storeOf(
    [
      ...[1, 1, 2, 2, 90].map((seconds) => done(1, seconds)),
      ...[100, 100, 100, 100, 100].map((seconds) => done(2, seconds)),
      done(3, 1),
      running(1, 5.9), running(1, 6.1), running(2, 250), running(3, 900),
      { function: 1, state: FAILED, attempt: 1, duration_s: 500 },
    ],
    { strings: ["quick", "long", "rare"] },
  );
  const limits = slowLimits(store);
  assert.deepEqual([...limits.subarray(1)], [6, 300, NaN]);
  const slow = Array.from({ length: store.size }, (_, row) => row)
    .filter((row) => isSlow(store, row, 1000, limits));
  assert.deepEqual(slow, [12]);
  assert.equal(countSlow(store, 1000, limits), 1);
  assert.equal(countSlow(store, 1051, limits), 3);
});
