// @ts-check
/** What is typed above a column, as a test of its cells; pure. */

/** @typedef {import("./store.mjs").TaskStore} TaskStore */
/** @typedef {import("./columns.mjs").Column} Column */

/** @type {Record<string, number>} */
const UNITS = { ms: 0.001, s: 1, m: 60, min: 60, h: 3600 };

/** @type {Record<string, (value: number, bound: number) => boolean>} */
const COMPARISONS = {
  "<": (value, bound) => value < bound,
  "<=": (value, bound) => value <= bound,
  ">": (value, bound) => value > bound,
  ">=": (value, bound) => value >= bound,
  "=": (value, bound) => value === bound,
};

/**
 * A comparison such as `> 5`, `<=2 min`, `= 3`.
 * @param {string} text
 * @returns {((value: number) => boolean) | null}  null where it is none
 */
export function comparisonOf(text) {
  const found = /^(<=|>=|<|>|=)\s*(\d+(?:\.\d+)?)\s*(ms|s|min|m|h)?$/.exec(text);
  if (!found) return null;
  const [, sign, number, unit] = found;
  const compare = COMPARISONS[sign];
  const bound = Number(number) * (unit ? UNITS[unit] : 1);
  return (value) => compare(value, bound);
}

/**
 * The test that a column's filter puts to a row.
 *
 * `word` must occur, `!word` must not, and `> 5`, `<= 2 min`, `= 3` compare what is a number.
 * @param {TaskStore} store
 * @param {Column} column
 * @param {string} text  not empty
 * @param {number} now
 * @returns {(row: number) => boolean}
 */
export function filterOf(store, column, text, now) {
  const compare = column.value && column.id !== "state" ? comparisonOf(text) : null;
  const { value } = column;
  if (compare && value) return (row) => compare(value(store, row, now));
  const isForbidden = text.startsWith("!") && text.length > 1;
  const word = (isForbidden ? text.slice(1) : text).trim().toLowerCase();
  const has = occurrence(store, column, word, now);
  return isForbidden ? (row) => !has(row) : has;
}

/**
 * @param {TaskStore} store
 * @param {Column} column
 * @param {string} word  in lower case
 * @param {number} now
 * @returns {(row: number) => boolean}
 */
function occurrence(store, column, word, now) {
  if (column.id === "label") {
    const labels = store.loweredLabels();
    return (row) => (labels[row] ?? "").includes(word);
  }
  if (column.coded) {
    const hits = store.strings.map((text) => text.toLowerCase().includes(word));
    const codes = store.columns[column.coded];
    return (row) => hits[codes[row]];
  }
  return (row) => column.text(store, row, now).toLowerCase().includes(word);
}
