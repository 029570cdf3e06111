// Figures, times and texts as a person reads them.
import assert from "node:assert/strict";
import { test } from "node:test";

import { choiceText } from "../../scalable_nb/widgets/static/task_table/feed.mjs";
import { FAILED, STATES, SUCCEEDED } from "../../scalable_nb/widgets/static/task_table/states.mjs";
import { bytesText, countsText, durationText, leftText, percentDone, rateText, roughText, tickingText, visibleText } from "../../scalable_nb/widgets/static/task_table/words.mjs";

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

test("rates, times to come and sizes are no more exact than they are known", () => {
  assert.equal(rateText(1234.5), "1,235 / s");
  assert.equal(rateText(2.34), "2.3 / s");
  assert.equal(rateText(0.05), "3.0 / min");
  assert.equal(rateText(0.001), "3.6 / h");
  assert.equal(rateText(NaN), "");
  assert.equal(leftText({ remaining: 240, low: 180, high: 360 }), "about 4 min left (3 to 6 min)");
  assert.equal(leftText({ remaining: 50, low: 40, high: 70 }), "about 50 s left (40 s to 1 min)");
  assert.equal(leftText({ remaining: 5, low: 5, high: 5.2 }), "about 5 s left");
  assert.equal(leftText({ remaining: NaN, low: NaN, high: NaN }), "");
  assert.equal(bytesText(512), "512 B");
  assert.equal(bytesText(3.4 * 2 ** 30), "3.4 GiB");
  assert.equal(bytesText(734 * 2 ** 20), "734 MiB");
});
