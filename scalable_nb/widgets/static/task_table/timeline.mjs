// @ts-check
/** When a task stood in line, ran and waited; pure. */

import { durationText } from "./words.mjs";

/**
 * @typedef {object} Segment
 * @property {"queue" | "run" | "wait"} kind
 * @property {number} attempt  for a wait: the attempt before it
 * @property {string} outcome  of the attempt
 * @property {number} seconds
 */

/**
 * The parts of a task's life, oldest first; gaps that nobody explains are waits.
 * @param {any[]} rows  as `client.attempts` gives them
 * @param {number} now  seconds since the epoch
 * @returns {Segment[]}
 */
export function segmentsOf(rows, now) {
  /** @type {Segment[]} */
  const segments = [];
  rows.forEach((row, i) => {
    const { attempt, outcome } = row;
    const { begin, end } = spanOfAttempt(row, now);
    const queued = Number(row.queued_s ?? 0);
    if (queued > 0) segments.push({ kind: "queue", attempt, outcome, seconds: queued });
    segments.push({ kind: "run", attempt, outcome, seconds: Math.max(0, end - begin) });
    const next = rows[i + 1];
    const until = next ? spanOfAttempt(next, now).begin - Number(next.queued_s ?? 0)
      : row.will_retry ? Math.min(now, end + Number(row.retry_in_s ?? 0)) : NaN;
    if (until > end) segments.push({ kind: "wait", attempt, outcome, seconds: until - end });
  });
  return segments;
}

/**
 * @param {any} row
 * @param {number} now
 */
function spanOfAttempt(row, now) {
  const started = Date.parse(row.started_at) / 1000;
  const ended = Date.parse(row.ended_at ?? row.timestamp) / 1000;
  const duration = Number(row.duration_s ?? 0);
  const begin = Number.isNaN(started) ? ended - duration : started;
  return { begin, end: row.outcome === "running" ? Math.max(now, begin) : begin + duration };
}

const KINDS = { queue: "in line", run: "ran", wait: "waited" };

/** @param {Segment} segment */
export function segmentText({ kind, attempt, outcome, seconds }) {
  const what = kind === "run" ? `${KINDS[kind]} (${outcome})` : KINDS[kind];
  return kind === "wait" ? `${what} ${durationText(seconds)} after attempt ${attempt}`
    : `attempt ${attempt}: ${what} ${durationText(seconds)}`;
}
