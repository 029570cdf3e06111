// @ts-check
/** The states of a task, and in which orders they are shown. */

/**
 * States by their number in the ledger (telemetry/rows.py). `mark` tells them apart without
 * colour, `rank` sorts what needs attention first, `loud` ones stay visible where few of them are
 * among many.
 */
export const STATES = [
  { name: "pending", mark: "·", rank: 6, loud: false, final: false },
  { name: "waiting", mark: "…", rank: 5, loud: false, final: false },
  { name: "queued", mark: "○", rank: 4, loud: false, final: false },
  { name: "running", mark: "▸", rank: 2, loud: true, final: false },
  { name: "retrying", mark: "↻", rank: 1, loud: true, final: false },
  { name: "paused", mark: "‖", rank: 3, loud: true, final: false },
  { name: "succeeded", mark: "✓", rank: 11, loud: false, final: true },
  { name: "cached", mark: "◆", rank: 10, loud: false, final: true },
  { name: "failed", mark: "✕", rank: 0, loud: true, final: true },
  { name: "cancelled", mark: "⊘", rank: 8, loud: true, final: true },
  { name: "left out", mark: "⊖", rank: 7, loud: true, final: true },
  { name: "never ran", mark: "◌", rank: 9, loud: false, final: true },
];
export const RUNNING = 3;
export const RETRYING = 4;
export const SUCCEEDED = 6;
export const CACHED = 7;
export const FAILED = 8;
export const CANCELLED = 9;
/** From what is done to what has not begun: the order of the bar and of the buttons. */
export const ORDER = [6, 7, 8, 10, 9, 11, 3, 4, 5, 2, 1, 0];
