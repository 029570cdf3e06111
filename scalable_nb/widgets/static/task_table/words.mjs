// @ts-check
/** Figures, times and other people's texts as a person reads them. */

import { ORDER, STATES } from "./states.mjs";

/**
 * A duration as a person reads it.
 * @param {number} seconds
 */
export function durationText(seconds) {
  if (!Number.isFinite(seconds)) return "";
  if (seconds < 0.9995) return `${Math.round(Math.max(seconds, 0) * 1000)} ms`;
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  const pad = (/** @type {number} */ value) => String(value).padStart(2, "0");
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${pad(whole % 60)} s`;
  return `${countText(Math.floor(whole / 3600))} h ${pad(Math.floor((whole % 3600) / 60))} min`;
}

/**
 * A duration that moves: whole seconds, so that it does not flicker.
 * @param {number} seconds
 */
export function tickingText(seconds) {
  if (!Number.isFinite(seconds)) return "";
  return seconds < 59.5 ? `${Math.floor(seconds)} s` : durationText(seconds);
}

/** @param {number} count */
export function countText(count) {
  return count.toLocaleString("en-US");
}

/**
 * How much a table has: inputs may share a task, and tasks that were replaced have no input.
 * @param {number} inputs
 * @param {number} tasks
 */
export function sizeText(inputs, tasks) {
  const shown = `${countText(tasks)} tasks`;
  return inputs === tasks ? shown : `${countText(inputs)} inputs, ${shown}`;
}

/**
 * Text that somebody else wrote, with what would hide or reverse it made visible.
 * @param {string} text
 */
export function visibleText(text) {
  return text.replace(
    /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff]/g,
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}

/**
 * Share done in whole percent: never 100 while one is missing, never 0 once something is done.
 * @param {number} done
 * @param {number} total
 */
export function percentDone(done, total) {
  if (!total || !done) return 0;
  return Math.max(1, Math.floor((100 * done) / total));
}

/**
 * Counts in words, from done to not begun.
 * @param {ArrayLike<number>} counts
 */
export function countsText(counts) {
  return ORDER.filter((state) => counts[state])
    .map((state) => `${countText(counts[state])} ${STATES[state].name}`)
    .join(", ");
}

/**
 * A time to come, no more exact than it is known.
 * @param {number} seconds
 */
export function roughText(seconds) {
  if (seconds < 10) return `${Math.max(1, Math.round(seconds))} s`;
  if (seconds < 60) return `${Math.round(seconds / 5) * 5} s`;
  if (seconds < 600) return `${Math.round(seconds / 30) / 2} min`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return `${Math.round(seconds / 1800) / 2} h`;
}

/** @param {number} at  seconds since the epoch */
export function timeText(at) {
  return at > 0 ? new Date(at * 1000).toLocaleTimeString() : "";
}

/**
 * A number of tasks per time, in the unit that gives a small number.
 * @param {number} rate  per second
 */
export function rateText(rate) {
  if (!(rate > 0)) return "";
  const [value, unit] = rate >= 1 ? [rate, "s"] : rate * 60 >= 1 ? [rate * 60, "min"]
    : [rate * 3600, "h"];
  return `${value >= 100 ? countText(Math.round(value)) : value.toPrecision(2)} / ${unit}`;
}

/**
 * A time to come with its uncertainty, as in `about 4 min left (3 to 6 min)`.
 * @param {{ remaining: number, low: number, high: number }} estimate
 */
export function leftText({ remaining, low, high }) {
  if (!(remaining > 0)) return "";
  const [from, to] = [roughText(low), roughText(high)];
  const about = `about ${roughText(remaining)} left`;
  if (from === to) return about;
  const [number, unit] = from.split(" ");
  return `${about} (${to.endsWith(` ${unit}`) ? number : from} to ${to})`;
}

/**
 * A size as a person reads it.
 * @param {number} bytes
 */
export function bytesText(bytes) {
  const units = ["B", "kiB", "MiB", "GiB", "TiB"];
  let [value, unit] = [Number(bytes), 0];
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit++;
  }
  return `${unit && value < 100 ? value.toPrecision(2) : Math.round(value)} ${units[unit]}`;
}
