// @ts-check
/** What can be done with tasks in their present states; pure. */

import { FAILED, RETRYING, STATES } from "./states.mjs";

/** @typedef {import("./store.mjs").TaskStore} TaskStore */

const UNFINISHED = STATES.map((_, state) => state).filter((state) => !STATES[state].final);

/** In the order of their buttons; `isSingle` ones are for one task at a time. */
export const ACTIONS = [
  { action: "retry_now", title: "Retry now", states: [RETRYING], isSingle: false },
  { action: "give_up", title: "Give up", states: [RETRYING], isSingle: false },
  { action: "cancel", title: "Cancel", states: UNFINISHED, isSingle: false },
  { action: "resubmit", title: "Resubmit", states: [FAILED], isSingle: false },
  { action: "reproduce", title: "Reproduce here", states: [FAILED, RETRYING], isSingle: true },
];

/**
 * The actions that make sense for some tasks, each with those it makes sense for.
 * @param {TaskStore} store
 * @param {Iterable<number>} rows
 * @param {string[]} possible  what the session or the run can do
 * @param {boolean} isSingle
 * @returns {{ action: string, title: string, rows: number[] }[]}
 */
export function actionsFor(store, rows, possible, isSingle) {
  const { state } = store.columns;
  const all = [...rows].filter((row) => row >= 0 && row < store.size);
  return ACTIONS.filter((each) => possible.includes(each.action) && (isSingle || !each.isSingle))
    .map(({ action, title, states }) =>
      ({ action, title, rows: all.filter((row) => states.includes(state[row])) }))
    .filter((each) => each.rows.length);
}
