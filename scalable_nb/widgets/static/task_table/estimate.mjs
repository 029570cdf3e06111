// @ts-check
/** How far the work is, how long it will take, and what takes unusually long; pure. */

import { RUNNING, STATES, SUCCEEDED } from "./states.mjs";

/** @typedef {import("./store.mjs").TaskStore} TaskStore */

/**
 * @typedef {object} Estimate  seconds and tasks per second; NaN where not known
 * @property {number} elapsed
 * @property {number} rate       tasks that ended per second, of late
 * @property {number} remaining
 * @property {number} low        with 95 % confidence it takes at least this long
 * @property {number} high       and at most this long
 */

/** Fewer ends say nothing about those to come. */
const LEAST_ENDED = 3;
const SIGMAS = 1.96;

/**
 * How long it takes until all is done, from what ended lately.
 *
 * Counts what was executed in the last quarter of the run, at least half a minute. Cached tasks
 * say nothing about those to come. Where `n` tasks ended and `m` are left, both numbers vary by
 * their roots, which gives the range.
 * @param {TaskStore} store
 * @param {number} now
 * @returns {Estimate}
 */
export function estimate(store, now) {
  const { first, last, left } = spanOf(store);
  const unknown = { elapsed: NaN, rate: NaN, remaining: NaN, low: NaN, high: NaN };
  if (first === Infinity) return unknown;
  if (!left) return { ...unknown, elapsed: Math.max(0, last - first), remaining: 0 };
  const elapsed = Math.max(0, now - first);
  const window = Math.min(elapsed, Math.max(30, elapsed / 4));
  const ended = endedSince(store, now - window);
  if (ended < LEAST_ENDED || !(window > 0)) return { ...unknown, elapsed };
  const rate = ended / window;
  const remaining = left / rate;
  const factor = Math.exp(SIGMAS * Math.sqrt(1 / ended + 1 / left));
  return { elapsed, rate, remaining, low: remaining / factor, high: remaining * factor };
}

/**
 * When the first task was submitted and the last one ended, and how many have not ended.
 * @param {TaskStore} store
 */
function spanOf(store) {
  const { state, submitted_at, started_at, duration_s } = store.columns;
  let first = Infinity;
  let last = 0;
  let left = 0;
  for (let row = 0; row < store.size; row++) {
    if (submitted_at[row] > 0 && submitted_at[row] < first) first = submitted_at[row];
    if (STATES[state[row]].final) {
      last = Math.max(last, started_at[row] + duration_s[row], submitted_at[row]);
    } else {
      left++;
    }
  }
  return { first, last, left };
}

/**
 * Tasks that were executed to their end after a point in time.
 * @param {TaskStore} store
 * @param {number} since
 */
function endedSince(store, since) {
  const { state, started_at, duration_s } = store.columns;
  let ended = 0;
  for (let row = 0; row < store.size; row++) {
    if (STATES[state[row]].final && started_at[row] > 0) {
      if (started_at[row] + duration_s[row] > since) ended++;
    }
  }
  return ended;
}

/** A running task is slow when it has taken this many times the median of its kind. */
export const SLOW_FACTOR = 3;
const LEAST_SUCCEEDED = 5;

/**
 * From which execution time on a task of each function is slow, in seconds.
 * @param {TaskStore} store
 * @returns {Float64Array}  by the function's number among the strings; NaN where not known
 */
export function slowLimits(store) {
  const { state, duration_s } = store.columns;
  const kind = store.columns.function;
  /** @type {Map<number, number[]>} */
  const durations = new Map();
  for (let row = 0; row < store.size; row++) {
    if (state[row] !== SUCCEEDED) continue;
    const known = durations.get(kind[row]);
    if (known) known.push(duration_s[row]);
    else durations.set(kind[row], [duration_s[row]]);
  }
  const limits = new Float64Array(store.strings.length).fill(NaN);
  for (const [code, all] of durations) {
    if (all.length >= LEAST_SUCCEEDED) limits[code] = SLOW_FACTOR * median(all);
  }
  return limits;
}

/** @param {number[]} values */
function median(values) {
  const sorted = Float64Array.from(values).sort();
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

/**
 * Whether a task runs unusually long.
 * @param {TaskStore} store
 * @param {number} row
 * @param {number} now
 * @param {Float64Array} limits  from `slowLimits`
 */
export function isSlow(store, row, now, limits) {
  const { state } = store.columns;
  return state[row] === RUNNING && store.duration(row, now) > limits[store.columns.function[row]];
}

/**
 * How many tasks run unusually long.
 * @param {TaskStore} store
 * @param {number} now
 * @param {Float64Array} limits
 */
export function countSlow(store, now, limits) {
  if (!store.counts[RUNNING]) return 0;
  let slow = 0;
  for (let row = 0; row < store.size; row++) if (isSlow(store, row, now, limits)) slow++;
  return slow;
}
