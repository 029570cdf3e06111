// @ts-check
/** The columns of the table: what stands in a cell, how it sorts and how it filters; pure. */

import { CACHED, RUNNING, STATES } from "./states.mjs";
import { durationText, tickingText, timeText } from "./words.mjs";

/** @typedef {import("./store.mjs").TaskStore} TaskStore */

/**
 * @typedef {object} Column
 * @property {string} id
 * @property {string} title
 * @property {number} width     in pixels, at least
 * @property {number} grow      its share of the room that is left
 * @property {number} priority  the lower, the longer it stays where there is little room
 * @property {boolean} [isRight]
 * @property {string} [coded]   the column of strings that it shows
 * @property {(store: TaskStore, row: number, now: number) => string} text
 * @property {(store: TaskStore, row: number, now: number) => number} [value]  sorts and compares;
 *   NaN where there is none
 */

/**
 * A column of strings.
 * @param {string} name
 * @returns {{ coded: string, text: Column["text"] }}
 */
function coded(name) {
  return { coded: name, text: (store, row) => store.text(name, row) };
}

/** @type {Column[]} */
export const COLUMNS = [
  { id: "index", title: "#", width: 60, grow: 0, priority: 7, isRight: true,
    text: (_, row) => String(row), value: (_, row) => row },
  { id: "label", title: "Name", width: 150, grow: 2.6, priority: 0,
    text: (store, row) => store.label(row) },
  { id: "task", title: "Task", width: 90, grow: 0.6, priority: 10, ...coded("task") },
  { id: "component", title: "Component", width: 96, grow: 0.6, priority: 11,
    ...coded("component") },
  { id: "state", title: "State", width: 106, grow: 0, priority: 1,
    text: (store, row) => (store.isReplaced(row) ? "replaced"
      : STATES[store.columns.state[row]].name),
    value: (store, row) => STATES[store.columns.state[row]].rank },
  { id: "attempt", title: "Attempt", width: 86, grow: 0, priority: 2, isRight: true,
    text: attemptText, value: (store, row) => store.columns.attempt[row] || NaN },
  { id: "retry", title: "Next retry", width: 92, grow: 0, priority: 4, isRight: true,
    text: (store, row, now) => tickingText(Math.ceil(store.retryIn(row, now))),
    value: (store, row, now) => store.retryIn(row, now) },
  { id: "worker", title: "Worker", width: 84, grow: 0.8, priority: 6, ...coded("worker") },
  { id: "host", title: "Host / job", width: 110, grow: 0.8, priority: 9, text: placeText },
  { id: "started", title: "Started", width: 96, grow: 0, priority: 12, isRight: true,
    text: (store, row) => timeText(store.columns.started_at[row]),
    value: (store, row) => store.columns.started_at[row] || NaN },
  { id: "duration", title: "Execution", width: 96, grow: 0, priority: 3, isRight: true,
    text: executionText, value: (store, row, now) => store.duration(row, now) },
  { id: "error", title: "Error", width: 130, grow: 1.2, priority: 5, ...coded("error") },
  { id: "cached", title: "Cached", width: 76, grow: 0, priority: 8,
    text: (store, row) => (store.columns.state[row] === CACHED ? "yes" : ""),
    value: (store, row) => (store.columns.state[row] === CACHED ? 0 : NaN) },
];

/** @type {Map<string, Column>} */
const BY_ID = new Map(COLUMNS.map((column) => [column.id, column]));

/** @param {string} id */
export function columnOf(id) {
  const column = BY_ID.get(id);
  if (!column) throw new RangeError(`no column ${id}`);
  return column;
}

/**
 * @param {TaskStore} store
 * @param {number} row
 */
export function attemptText(store, row) {
  const { attempt, attempts_allowed } = store.columns;
  if (!attempt[row]) return "";
  return `${attempt[row]}/${Math.max(attempts_allowed[row], attempt[row])}`;
}

/**
 * @param {TaskStore} store
 * @param {number} row
 * @param {number} now
 */
function executionText(store, row, now) {
  const duration = store.duration(row, now);
  return store.columns.state[row] === RUNNING ? tickingText(duration) : durationText(duration);
}

/**
 * Where the last attempt ran: the machine, and the job where there is one.
 * @param {TaskStore} store
 * @param {number} row
 */
function placeText(store, row) {
  return [store.text("host", row), store.text("job", row)].filter(Boolean).join(" / ");
}

/** Columns that are left away where they say nothing about any task. */
const SILENT_WHEN_EMPTY = ["task", "component", "host", "cached", "error", "retry"];

/**
 * Which columns say something about any task.
 * @param {TaskStore} store
 * @returns {Set<string>}
 */
export function telling(store) {
  const found = new Set(COLUMNS.map(({ id }) => id));
  const { columns, size } = store;
  const has = (/** @type {string} */ name) => {
    for (let row = 0; row < size; row++) if (columns[name][row]) return true;
    return false;
  };
  for (const id of SILENT_WHEN_EMPTY) {
    const isTelling = id === "cached" ? store.counts[CACHED] > 0
      : id === "host" ? has("host") || has("job")
        : has(id === "retry" ? "retry_at" : id);
    if (!isTelling) found.delete(id);
  }
  return found;
}

/**
 * The columns to show: those a person chose, else as many as there is room for.
 * @param {number} width      of the table, in pixels
 * @param {Set<string>} told  from `telling`
 * @param {Map<string, boolean>} chosen  what a person switched on or off
 * @returns {Column[]}
 */
export function visibleColumns(width, told, chosen) {
  const shown = new Set();
  let room = width;
  for (const column of [...COLUMNS].sort((a, b) => a.priority - b.priority)) {
    const choice = chosen.get(column.id);
    const isWanted = choice ?? (told.has(column.id) && (column.priority < 2 || room >= column.width));
    if (!isWanted) continue;
    shown.add(column.id);
    room -= column.width;
  }
  return COLUMNS.filter(({ id }) => shown.has(id));
}
