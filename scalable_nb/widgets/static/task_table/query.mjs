// @ts-check
/** Which tasks are shown, and in which order; pure. */

import { COLUMNS, columnOf } from "./columns.mjs";
import { isSlow, slowLimits } from "./estimate.mjs";
import { filterOf } from "./filters.mjs";

/** @typedef {import("./store.mjs").TaskStore} TaskStore */

/**
 * @typedef {object} Query
 * @property {string} text               every word must occur in the task's texts
 * @property {Set<number>} states        states to show; all where empty
 * @property {Record<string, string>} filters  by column: what its cells must be like
 * @property {[number, number] | null} range  rows of the table, from the first to before the end
 * @property {boolean} isSlow            only those that run unusually long
 * @property {string} column             what to sort by; "index" for the table's own order
 * @property {boolean} descending
 */

/** @returns {Query} */
export function everything() {
  return { text: "", states: new Set(), filters: {}, range: null, isSlow: false,
    column: "index", descending: false };
}

/**
 * Whether a query leaves tasks out.
 * @param {Query} query
 */
export function isNarrow(query) {
  return Boolean(query.text.trim()) || query.states.size > 0 || query.range !== null
    || query.isSlow || Object.values(query.filters).some((filter) => filter.trim());
}

/**
 * The rows that a query shows, in its order; null for all rows in their own order.
 * @param {TaskStore} store
 * @param {Query} query
 * @param {number} now
 * @returns {Uint32Array | null}
 */
export function selectRows(store, query, now) {
  const isOrdered = query.column === "index";
  if (!isNarrow(query) && isOrdered && !query.descending) return null;
  const [first, end] = query.range ?? [0, store.size];
  const tests = testsOf(store, query, now);
  const rows = new Uint32Array(Math.max(0, Math.min(end, store.size) - first));
  let length = 0;
  for (let row = first; row < end && row < store.size; row++) {
    if (tests.every((test) => test(row))) rows[length++] = row;
  }
  const found = rows.subarray(0, length);
  if (isOrdered) return query.descending ? found.reverse() : found;
  return sortRows(found, sortKeys(store, query.column, now), query.descending);
}

/**
 * What a row must pass to be shown.
 * @param {TaskStore} store
 * @param {Query} query
 * @param {number} now
 * @returns {((row: number) => boolean)[]}
 */
function testsOf(store, query, now) {
  const tests = [];
  if (query.states.size) {
    const { state } = store.columns;
    tests.push((/** @type {number} */ row) => query.states.has(state[row]));
  }
  if (query.isSlow) {
    const limits = slowLimits(store);
    tests.push((/** @type {number} */ row) => isSlow(store, row, now, limits));
  }
  for (const [id, text] of Object.entries(query.filters)) {
    if (text.trim()) tests.push(filterOf(store, columnOf(id), text.trim(), now));
  }
  for (const word of query.text.toLowerCase().split(/\s+/).filter(Boolean)) {
    tests.push(wordMatcher(store, word));
  }
  return tests;
}

/** Columns of strings that the search looks at. */
const SEARCHED = ["worker", "host", "job", "error", "function", "task", "component"];

/**
 * @param {TaskStore} store
 * @param {string} word  in lower case
 * @returns {(row: number) => boolean}
 */
function wordMatcher(store, word) {
  // Few strings, many rows: each string is looked at once.
  const hits = store.strings.map((text) => text !== "" && text.toLowerCase().includes(word));
  const columns = SEARCHED.map((name) => store.columns[name]);
  const labels = store.loweredLabels();
  return (row) =>
    (labels[row] ?? "").includes(word) || columns.some((column) => hits[column[row]]);
}

const collator = new Intl.Collator("en", { numeric: true });

/**
 * Place of each text in their order; NaN for empty ones.
 * @param {string[]} texts
 * @param {number} size
 */
export function ranks(texts, size) {
  const order = new Uint32Array(size).map((_, i) => i);
  order.sort((a, b) => collator.compare(texts[a] ?? "", texts[b] ?? "") || a - b);
  const rank = new Float64Array(size);
  let previous = -1;
  for (let i = 0; i < size; i++) {
    const text = texts[order[i]] ?? "";
    const isSame = i > 0 && text === (texts[order[i - 1]] ?? "");
    if (!isSame) previous = i;
    rank[order[i]] = text === "" ? NaN : previous;
  }
  return rank;
}

/** @type {WeakMap<string[], { version: number, rank: Float64Array }>} */
const labelRanks = new WeakMap();

/**
 * A number for each row by which a column sorts; NaN comes last.
 * @param {TaskStore} store
 * @param {string} id  of the column
 * @param {number} now
 * @returns {Float64Array}
 */
export function sortKeys(store, id, now) {
  if (id === "label") return rankOfLabels(store);
  const { coded, value, text } = columnOf(id);
  const { columns, size } = store;
  const keys = new Float64Array(size);
  if (coded) {
    const rank = ranks(store.strings, store.strings.length);
    for (let row = 0; row < size; row++) keys[row] = rank[columns[coded][row]];
  } else if (value) {
    for (let row = 0; row < size; row++) keys[row] = value(store, row, now);
  } else {
    return ranks(Array.from({ length: size }, (_, row) => text(store, row, now)), size);
  }
  return keys;
}

/** @param {TaskStore} store */
function rankOfLabels(store) {
  let known = labelRanks.get(store.labels);
  if (known?.version !== store.labelsVersion || known.rank.length !== store.size) {
    // Half a second for 100,000 labels, so only once for each set of them.
    known = { version: store.labelsVersion, rank: ranks(store.labels, store.size) };
    labelRanks.set(store.labels, known);
  }
  return known.rank;
}

/**
 * Sort rows by their keys, equal ones in the table's order, NaN last in both directions.
 * @param {Uint32Array} rows
 * @param {Float64Array} keys
 * @param {boolean} descending
 */
export function sortRows(rows, keys, descending) {
  const sorted = new Uint32Array(rows.length);
  let filled = 0;
  for (const row of rows) if (!Number.isNaN(keys[row])) sorted[filled++] = row;
  let rest = filled;
  for (const row of rows) if (Number.isNaN(keys[row])) sorted[rest++] = row;
  const sign = descending ? -1 : 1;
  sorted.subarray(0, filled).sort((a, b) => sign * (keys[a] - keys[b]) || a - b);
  return sorted;
}

/**
 * Rows as comma-separated values (RFC 4180), with raw numbers and UTC times.
 * @param {TaskStore} store
 * @param {Iterable<number>} rows
 * @param {number} now
 */
export function csvText(store, rows, now) {
  const lines = [COLUMNS.map(({ id }) => CSV_NAMES[id] ?? id).join(",")];
  for (const row of rows) {
    lines.push(COLUMNS.map((column) => csvCell(rawText(store, column, row, now))).join(","));
  }
  return lines.join("\r\n") + "\r\n";
}

/** @type {Record<string, string>} Names with units, as in the journal. */
const CSV_NAMES = { label: "name", retry: "retry_in_s", started: "started_at",
  duration: "duration_s" };

/**
 * @param {TaskStore} store
 * @param {import("./columns.mjs").Column} column
 * @param {number} row
 * @param {number} now
 */
function rawText(store, { id, text, value }, row, now) {
  if (id !== "retry" && id !== "duration" && id !== "started") return text(store, row, now);
  const number = /** @type {NonNullable<typeof value>} */ (value)(store, row, now);
  if (Number.isNaN(number)) return "";
  return id === "started" ? new Date(number * 1000).toISOString() : String(+number.toFixed(3));
}

/** @param {string} text */
function csvCell(text) {
  // A spreadsheet would run what begins like this, and an error's text is anybody's.
  const harmless = /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
  return /[",\r\n]/.test(harmless) ? `"${harmless.replaceAll('"', '""')}"` : harmless;
}
