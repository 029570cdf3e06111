// Where the cells of the strip lie.
import assert from "node:assert/strict";
import { test } from "node:test";

import { FAILED, RETRYING, RUNNING, STATES, SUCCEEDED } from "../../scalable_nb/widgets/static/task_table/states.mjs";
import { layoutStrip, mostNotable, rangeBetween, shareHeights } from "../../scalable_nb/widgets/static/task_table/strip_layout.mjs";

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

test("a brush takes whole columns, in both directions and beyond the edges", () => {
  const few = { perCell: 1, cells: 10, rows: 3, columns: 4, cellWidth: 10, cellHeight: 10 };
  assert.deepEqual(rangeBetween(few, 10, 12, 25), [3, 9]);
  assert.deepEqual(rangeBetween(few, 10, 25, 12), [3, 9]);
  assert.deepEqual(rangeBetween(few, 10, -50, 500), [0, 10]);
  const many = layoutStrip(100_000, 900, 56);
  assert.deepEqual(rangeBetween(many, 100_000, 0, 900), [0, 100_000]);
  const [first, end] = rangeBetween(many, 100_000, 450, 450);
  assert.equal(end - first, many.perCell);
});
