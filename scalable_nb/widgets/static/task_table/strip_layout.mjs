// @ts-check
/** Where the cells of the strip lie; pure. */

import { STATES } from "./states.mjs";

/**
 * @typedef {object} Layout
 * @property {number} perCell  tasks that a cell stands for
 * @property {number} cells
 * @property {number} rows     cells above each other
 * @property {number} columns
 * @property {number} cellWidth   in pixels
 * @property {number} cellHeight
 */

/**
 * How the strip lays out its cells: by columns, so that work done in order moves to the right.
 *
 * Where there are more tasks than cells, each column is one cell that stands for several tasks.
 * @param {number} tasks
 * @param {number} width   in pixels
 * @param {number} maxHeight
 * @returns {Layout}
 */
export function layoutStrip(tasks, width, maxHeight) {
  const smallest = 3;
  const columnsFor = (/** @type {number} */ size) => Math.max(1, Math.floor(width / size));
  const rowsFor = (/** @type {number} */ size) => Math.max(1, Math.floor(maxHeight / size));
  if (tasks > columnsFor(smallest) * rowsFor(smallest)) {
    const perCell = Math.ceil(tasks / columnsFor(smallest));
    const cells = Math.ceil(tasks / perCell);
    return { perCell, cells, rows: 1, columns: cells, cellWidth: width / cells,
      cellHeight: maxHeight };
  }
  let size = 14;
  while (size > smallest && columnsFor(size) * rowsFor(size) < tasks) size--;
  const rows = Math.max(1, Math.ceil(tasks / columnsFor(size)));
  const columns = Math.ceil(tasks / rows);
  // Few tasks: wide cells, but not bars.
  const cellWidth = Math.min(width / Math.max(columns, 1), 2 * size);
  return { perCell: 1, cells: tasks, rows, columns, cellWidth, cellHeight: size };
}

const LEAST_PX = 2;

/**
 * Heights of a column's parts: by share, but what needs attention is never too thin to be seen.
 * @param {ArrayLike<number>} counts  tasks of the column in each state
 * @param {number} height
 * @returns {number[]}  for each state; they add up to the height
 */
export function shareHeights(counts, height) {
  const total = STATES.reduce((sum, _, state) => sum + counts[state], 0);
  const heights = STATES.map((_, state) => (total ? (height * counts[state]) / total : 0));
  let missing = 0;
  let spare = 0;
  STATES.forEach(({ loud }, state) => {
    if (loud && counts[state] && heights[state] < LEAST_PX) {
      missing += LEAST_PX - heights[state];
      heights[state] = LEAST_PX;
    } else if (heights[state] > LEAST_PX) spare += heights[state] - LEAST_PX;
  });
  const kept = spare > 0 ? Math.max(0, 1 - missing / spare) : 1;
  return heights.map((own) => (own > LEAST_PX ? LEAST_PX + (own - LEAST_PX) * kept : own));
}

/**
 * Of the rows of a cell, the one that most needs attention.
 * @param {Uint8Array} states
 * @param {number} first
 * @param {number} end
 */
export function mostNotable(states, first, end) {
  let best = first;
  for (let row = first + 1; row < end; row++) {
    if (STATES[states[row]].rank < STATES[states[best]].rank) best = row;
  }
  return best;
}

/**
 * The tasks in the columns between two places, as the first one and the one after the last.
 * @param {Layout} layout
 * @param {number} size  of the table
 * @param {number} from  in pixels
 * @param {number} to    likewise, on either side
 * @returns {[number, number]}
 */
export function rangeBetween({ perCell, rows, columns, cellWidth }, size, from, to) {
  const column = (/** @type {number} */ x) =>
    Math.min(Math.max(Math.floor(x / cellWidth), 0), columns - 1);
  const perColumn = perCell * rows;
  const first = column(Math.min(from, to)) * perColumn;
  return [first, Math.min(size, (column(Math.max(from, to)) + 1) * perColumn)];
}
