// @ts-check
/**
 * The live table of tasks.
 *
 * The kernel pushes frames (see row_stream.py): a header and binary columns. They are kept in
 * typed arrays, one place per task; everything a person does (sorting, filtering, scrolling,
 * looking) happens here, because a kernel that runs a cell answers nobody. Only the attempts of a
 * task are asked for, and the page says so while the kernel is busy.
 *
 * One file, because that is what anywidget loads. From top to bottom: words, frames, the table in
 * memory, pure calculations, the parts of the view, the wiring.
 */

// --- words ---------------------------------------------------------------------------------------

/**
 * States by their number in the ledger (telemetry/records.py). `mark` tells them apart without
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
  { name: "succeeded", mark: "✓", rank: 9, loud: false, final: true },
  { name: "cached", mark: "◆", rank: 8, loud: false, final: true },
  { name: "failed", mark: "✕", rank: 0, loud: true, final: true },
  { name: "cancelled", mark: "⊘", rank: 7, loud: true, final: true },
];
export const RUNNING = 3;
export const RETRYING = 4;
export const FAILED = 8;
/** From what is done to what has not begun: the order of the bar and of the buttons. */
const ORDER = [6, 7, 8, 9, 3, 4, 5, 2, 1, 0];

const STATUS_TEXT = {
  live: "",
  finished: "",
  lost: "lost contact with the host",
  closed: "the session has ended",
};
const BUSY_TEXT = "The kernel is busy; attempts appear when the cell ends.";

const BUSY_CHOICE_TEXT = "The kernel is busy; this happens when the cell ends."
  + " In a terminal, `scalable resume` or `scalable cancel --paused` does it now.";

/** A snapshot whose clock is further away than this was saved, not sent. */
const SAVED_AFTER_S = 600;

// --- frames --------------------------------------------------------------------------------------

/**
 * @typedef {object} Header
 * @property {string} stream     names the table; another one starts again from a snapshot
 * @property {number} seq        number of the frame
 * @property {number | null} base  the number it continues; null for a snapshot
 * @property {number} size       rows of the table
 * @property {number} now_at     the host's clock, seconds since the epoch
 * @property {number} first_string  where `strings` go
 * @property {boolean} packed    whether the sections are deflated
 * @property {[string, string, number][]} sections  name, type code, length in bytes
 *
 * @typedef {object} Frame
 * @property {Header} header
 * @property {Record<string, any>} sections  typed arrays, or parsed JSON
 */

/** @type {Record<string, any>} Type codes of Python's array module. */
const ARRAYS = {
  B: Uint8Array,
  H: Uint16Array,
  i: Int32Array,
  I: Uint32Array,
  f: Float32Array,
  d: Float64Array,
};

/**
 * Read a frame's header, and where its sections begin.
 * @param {DataView} view
 * @returns {{ header: Header, start: number }}
 */
export function readHeader(view) {
  const length = view.getUint32(0, true);
  const bytes = new Uint8Array(view.buffer, view.byteOffset + 4, length);
  return { header: JSON.parse(new TextDecoder().decode(bytes)), start: 4 + length };
}

/**
 * Read a frame. The arrays may be views of the message's memory.
 * @param {DataView} view
 * @returns {Promise<Frame>}
 */
export async function decodeFrame(view) {
  const { header, start } = readHeader(view);
  let bytes = new Uint8Array(view.buffer, view.byteOffset + start, view.byteLength - start);
  if (header.packed) bytes = await inflate(bytes);
  // Typed arrays want their offset to be a multiple of the item's size; a message's buffer can
  // begin anywhere.
  if (bytes.byteOffset % 8) bytes = bytes.slice();
  /** @type {Record<string, any>} */
  const sections = {};
  let at = 0;
  for (const [name, code, length] of header.sections) {
    if (code === "J") {
      sections[name] = JSON.parse(new TextDecoder().decode(bytes.subarray(at, at + length)));
    } else {
      const type = ARRAYS[code];
      sections[name] = new type(
        bytes.buffer,
        bytes.byteOffset + at,
        length / type.BYTES_PER_ELEMENT,
      );
    }
    at += length + (-length & 7);
  }
  return { header, sections };
}

/**
 * @param {Uint8Array} bytes
 * @returns {Promise<Uint8Array>}
 */
async function inflate(bytes) {
  const stream = new Blob([/** @type {any} */ (bytes)])
    .stream()
    .pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

// --- the table in memory -------------------------------------------------------------------------

/** @type {Record<string, any>} The columns that are kept, and their types. */
const KEPT = {
  state: Uint8Array,
  attempt: Uint16Array,
  attempts_allowed: Uint16Array,
  worker: Int32Array,
  error: Int32Array,
  function: Int32Array,
  task: Int32Array,
  component: Int32Array,
  submitted_at: Float64Array,
  started_at: Float64Array,
  retry_at: Float64Array,
  duration_s: Float32Array,
};

/** All tasks of the table, as columns. */
export class TaskStore {
  constructor() {
    this.stream = "";
    this.seq = -1;
    this.size = 0;
    /** @type {Record<string, any>} */
    this.columns = {};
    /** @type {string[]} */
    this.labels = [];
    this.labelsVersion = 0;
    /** @type {string[]} */
    this.strings = [];
    this.counts = new Int32Array(STATES.length);
    this.#reset();
    /** What the host's clock is ahead of the page's, in seconds. */
    this.clockOffset = 0;
    /** Set while the clock stands: the session has ended, or the table was saved. */
    this.stoppedAt = /** @type {number | null} */ (null);
    this.isSaved = false;
    /** Counts changes, so that a view knows whether it is up to date. */
    this.version = 0;
  }

  #reset() {
    this.size = 0;
    for (const [name, type] of Object.entries(KEPT)) this.columns[name] = new type(0);
    this.labels = [];
    this.labelsVersion++;
    this.strings = [""];
    this.counts.fill(0);
  }

  /**
   * Whether a frame would be a step forward.
   * @param {Header} header
   * @returns {"next" | "old" | "gap"}
   */
  judge(header) {
    if (header.base === null) {
      return header.stream === this.stream && header.seq <= this.seq ? "old" : "next";
    }
    if (header.stream !== this.stream || header.base > this.seq) return "gap";
    return header.seq <= this.seq ? "old" : "next";
  }

  /**
   * Take in a frame that `judge` called the next one.
   * @param {Frame} frame
   * @param {number} [pageTime]  the page's clock, seconds since the epoch
   */
  apply({ header, sections }, pageTime = Date.now() / 1000) {
    if (header.base === null) this.#reset();
    this.#grow(header.size);
    const rows = sections.rows;
    const { state } = this.columns;
    for (let i = 0; i < rows.length; i++) {
      const row = rows[i];
      this.counts[state[row]]--;
      this.counts[sections.state[i]]++;
    }
    for (const name of Object.keys(KEPT)) {
      const column = this.columns[name];
      const values = sections[name];
      if (values) for (let i = 0; i < rows.length; i++) column[rows[i]] = values[i];
    }
    this.#name(sections);
    for (let i = 0; i < sections.strings.length; i++) {
      this.strings[header.first_string + i] = sections.strings[i];
    }
    this.stream = header.stream;
    this.seq = header.seq;
    this.clockOffset = header.now_at - pageTime;
    // A message takes seconds at most: such an age means that the notebook was saved.
    this.isSaved = header.base === null && Math.abs(this.clockOffset) > SAVED_AFTER_S;
    this.stoppedAt = this.isSaved ? header.now_at : null;
    this.version++;
  }

  /** @param {number} size */
  #grow(size) {
    if (size <= this.size) return;
    const capacity = this.columns.state.length;
    if (size > capacity) {
      const room = Math.max(size, Math.min(capacity * 2, capacity + 100_000));
      for (const [name, type] of Object.entries(KEPT)) {
        const grown = new type(room);
        grown.set(this.columns[name]);
        this.columns[name] = grown;
      }
    }
    this.counts[0] += size - this.size; // rows begin as zeros: pending
    this.size = size;
  }

  /** @param {Record<string, any>} sections */
  #name({ named, labels }) {
    if (!labels.length) return;
    if (named) for (let i = 0; i < labels.length; i++) this.labels[named[i]] = labels[i];
    else this.labels = labels;
    this.labelsVersion++;
  }

  /**
   * The host's clock now, seconds since the epoch.
   * @param {number} [pageTime]
   */
  now(pageTime = Date.now() / 1000) {
    return this.stoppedAt ?? pageTime + this.clockOffset;
  }

  /** Let the clock stand, so that nothing counts on after the end. */
  stop() {
    this.stoppedAt ??= this.now();
  }

  /**
   * @param {string} column
   * @param {number} row
   */
  text(column, row) {
    return this.strings[this.columns[column][row]] ?? "";
  }

  /** @param {number} row */
  label(row) {
    return this.labels[row] ?? "";
  }

  /**
   * Execution time of the last attempt, of the present one where it runs; NaN before the first.
   * @param {number} row
   * @param {number} now
   */
  duration(row, now) {
    const { state, started_at, duration_s, attempt } = this.columns;
    if (state[row] === RUNNING) {
      return started_at[row] > 0 ? Math.max(0, now - started_at[row]) : NaN;
    }
    return attempt[row] > 0 || duration_s[row] > 0 ? duration_s[row] : NaN;
  }

  /**
   * Seconds until the next attempt may begin; NaN where none is to come.
   * @param {number} row
   * @param {number} now
   */
  retryIn(row, now) {
    const { state, retry_at } = this.columns;
    return state[row] === RETRYING && retry_at[row] > 0 ? Math.max(0, retry_at[row] - now) : NaN;
  }

  /** Tasks with which nothing more will happen by itself. */
  get done() {
    return STATES.reduce((sum, state, i) => sum + (state.final ? this.counts[i] : 0), 0);
  }
}

// --- pure calculations ---------------------------------------------------------------------------

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
 * How long it takes until all is done, from what ended lately.
 *
 * Counts what was executed in the last quarter of the run, at least half a minute. Cached tasks
 * say nothing about those to come.
 * @param {TaskStore} store
 * @param {number} now
 * @returns {{ elapsed: number, remaining: number }}  seconds; NaN where not known
 */
export function estimate(store, now) {
  const { state, submitted_at, started_at, duration_s } = store.columns;
  let first = Infinity;
  let last = 0;
  for (let row = 0; row < store.size; row++) {
    if (submitted_at[row] > 0 && submitted_at[row] < first) first = submitted_at[row];
    if (STATES[state[row]].final) {
      last = Math.max(last, started_at[row] + duration_s[row], submitted_at[row]);
    }
  }
  if (first === Infinity) return { elapsed: NaN, remaining: NaN };
  const left = store.size - store.done;
  if (!left) return { elapsed: Math.max(0, last - first), remaining: 0 };
  const elapsed = Math.max(0, now - first);
  const window = Math.min(elapsed, Math.max(30, elapsed / 4));
  let ended = 0;
  for (let row = 0; row < store.size; row++) {
    if (STATES[state[row]].final && started_at[row] > 0) {
      if (started_at[row] + duration_s[row] > now - window) ended++;
    }
  }
  return { elapsed, remaining: ended >= 3 && window > 0 ? (left * window) / ended : NaN };
}

/**
 * @typedef {object} Query
 * @property {string} text               every word must occur in the task's texts
 * @property {Set<number>} states        states to show; all where empty
 * @property {string} column             what to sort by; "index" for the table's own order
 * @property {boolean} descending
 */

/** Columns that hold indices of strings. */
const CODED = ["worker", "error", "function", "task", "component"];

/**
 * The rows that a query shows, in its order; null for all rows in their own order.
 * @param {TaskStore} store
 * @param {Query} query
 * @param {number} now
 * @param {string[]} lowered  labels in lower case
 * @returns {Uint32Array | null}
 */
export function selectRows(store, query, now, lowered) {
  const words = query.text.toLowerCase().split(/\s+/).filter(Boolean);
  if (!words.length && !query.states.size && query.column === "index" && !query.descending) {
    return null;
  }
  const rows = new Uint32Array(store.size);
  let length = 0;
  const { state } = store.columns;
  const matches = words.map((word) => wordMatcher(store, word, lowered));
  for (let row = 0; row < store.size; row++) {
    if (query.states.size && !query.states.has(state[row])) continue;
    if (matches.every((match) => match(row))) rows[length++] = row;
  }
  const found = rows.subarray(0, length);
  if (query.column === "index") return query.descending ? found.reverse() : found;
  return sortRows(found, sortKeys(store, query.column, now), query.descending);
}

/**
 * @param {TaskStore} store
 * @param {string} word  in lower case
 * @param {string[]} lowered
 * @returns {(row: number) => boolean}
 */
function wordMatcher(store, word, lowered) {
  // Few strings, many rows: each string is looked at once.
  const hits = store.strings.map((text) => text !== "" && text.toLowerCase().includes(word));
  const columns = CODED.map((name) => store.columns[name]);
  return (row) =>
    (lowered[row] ?? "").includes(word) || columns.some((column) => hits[column[row]]);
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
 * @param {string} column
 * @param {number} now
 * @returns {Float64Array}
 */
export function sortKeys(store, column, now) {
  const keys = new Float64Array(store.size);
  const { columns, size } = store;
  if (column === "label") {
    let known = labelRanks.get(store.labels);
    if (known?.version !== store.labelsVersion || known.rank.length !== size) {
      // Half a second for 100,000 labels, so only once for each set of them.
      known = { version: store.labelsVersion, rank: ranks(store.labels, size) };
      labelRanks.set(store.labels, known);
    }
    return known.rank;
  }
  if (column === "worker" || column === "error") {
    const rank = ranks(store.strings, store.strings.length);
    for (let row = 0; row < size; row++) keys[row] = rank[columns[column][row]];
  } else if (column === "state") {
    for (let row = 0; row < size; row++) keys[row] = STATES[columns.state[row]].rank;
  } else if (column === "attempt") {
    for (let row = 0; row < size; row++) keys[row] = columns.attempt[row] || NaN;
  } else if (column === "duration") {
    for (let row = 0; row < size; row++) keys[row] = store.duration(row, now);
  } else {
    for (let row = 0; row < size; row++) keys[row] = store.retryIn(row, now);
  }
  return keys;
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
 * How the strip lays out its cells: by columns, so that work done in order moves to the right.
 *
 * Where there are more tasks than cells, each column is one cell that stands for several tasks.
 * @param {number} tasks
 * @param {number} width   in pixels
 * @param {number} maxHeight
 * @returns {{ perCell: number, cells: number, rows: number, columns: number, cellWidth: number,
 *   cellHeight: number }}
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
 * Counts in words, from done to not begun.
 * @param {ArrayLike<number>} counts
 */
export function countsText(counts) {
  return ORDER.filter((state) => counts[state])
    .map((state) => `${countText(counts[state])} ${STATES[state].name}`)
    .join(", ");
}

/**
 * What stands beside the buttons of a paused batch after a person has pressed one.
 * @param {Choice | undefined} choice
 * @param {number} now  page time in ms
 */
export function choiceText(choice, now) {
  if (!choice) return "";
  if (!choice.isPending) return choice.type === "resume" ? "going on …" : "being cancelled …";
  return now > choice.at + ANSWER_WITHIN_MS ? BUSY_CHOICE_TEXT : "";
}

// --- the feed ------------------------------------------------------------------------------------

/**
 * @typedef {object} Model  what anywidget gives
 * @property {(name: string) => any} get
 * @property {(name: string, callback: (...values: any[]) => void) => void} on
 * @property {(name: string, callback: (...values: any[]) => void) => void} off
 * @property {(content: any) => void} send
 *
 * @typedef {object} Asked
 * @property {number} at          page time in ms
 * @property {boolean} isPending
 * @property {string} about       what the task looked like when it was asked
 * @property {string} key
 * @property {any[] | null} rows  as in failures.jsonl
 *
 * @typedef {object} Choice  what a person wants of a paused batch
 * @property {"resume" | "cancel"} type
 * @property {number} at          page time in ms
 * @property {boolean} isPending  whether the kernel has not answered yet
 */

const ANSWER_WITHIN_MS = 400;

const RESYNC_EVERY_MS = 5000;

/** Keeps the store in step with the kernel, for all views of one model. */
class Feed {
  /** @param {Model} model */
  constructor(model) {
    this.model = model;
    this.store = new TaskStore();
    /** @type {Set<() => void>} */
    this.listeners = new Set();
    /** @type {Map<number, Asked>} */
    this.asked = new Map();
    /** @type {Map<string, Choice>} */
    this.choices = new Map();
    this.isCatchingUp = false;
    this.problem = "";
    /** What a person did, kept here so that a view that is drawn anew looks the same. */
    this.ui = {
      /** @type {Query} */
      query: { text: "", states: new Set(), column: "index", descending: false },
      selected: -1,
      scrollTop: 0,
    };
    this.resyncAt = -Infinity;
    this.queue = Promise.resolve();
  }

  /** @returns {() => void} */
  start() {
    const onMessage = (/** @type {any} */ content, /** @type {DataView[]} */ buffers) => {
      if (content?.type === "delta") this.#take(buffers[0]);
      if (content?.type === "attempts") this.#takeAttempts(content);
      if (content?.type === "decided") this.#takeDecision(content.batch);
    };
    const onSnapshot = () => this.#take(this.model.get("snapshot"));
    const onTrait = () => {
      if (this.model.get("status") !== "live") this.store.stop();
      this.#tell();
    };
    const onEnd = () => this.choices.clear(); // done, or refused and told as a problem
    this.model.on("change:pauses", onEnd);
    this.model.on("change:problem", onEnd);
    const traits = ["change:status", "change:problem", "change:title", "change:can_ask",
      "change:pauses"];
    this.model.on("msg:custom", onMessage);
    this.model.on("change:snapshot", onSnapshot);
    for (const name of traits) this.model.on(name, onTrait);
    onSnapshot();
    return () => {
      this.model.off("msg:custom", onMessage);
      this.model.off("change:snapshot", onSnapshot);
      for (const name of traits) this.model.off(name, onTrait);
      this.model.off("change:pauses", onEnd);
      this.model.off("change:problem", onEnd);
      this.listeners.clear();
    };
  }

  /** @param {DataView | undefined} view */
  #take(view) {
    // One after the other: inflating takes a while, and the order counts.
    this.queue = this.queue
      .then(() => (view?.byteLength ? this.#apply(view) : undefined))
      .catch((error) => {
        this.problem = `The page could not read an update: ${error}`;
        this.#tell();
      });
  }

  /** @param {DataView} view */
  async #apply(view) {
    const { header } = readHeader(view);
    const step = this.store.judge(header);
    if (step === "gap") this.#ask_again();
    if (step !== "next") return;
    this.store.apply(await decodeFrame(view));
    this.isCatchingUp = false;
    if (this.model.get("status") !== "live") this.store.stop();
    this.#tell();
  }

  #ask_again() {
    this.isCatchingUp = true;
    if (performance.now() > this.resyncAt + RESYNC_EVERY_MS) {
      this.resyncAt = performance.now();
      this.model.send({ type: "resync" });
    }
    this.#tell();
  }

  #tell() {
    for (const listener of this.listeners) listener();
  }

  /** @param {any} content */
  #takeAttempts({ row, key, rows }) {
    const asked = this.asked.get(row);
    if (asked) Object.assign(asked, { isPending: false, key, rows });
    this.#tell();
  }

  /**
   * Ask the kernel to let a paused batch go on, or to cancel its rest.
   * @param {string} batch
   * @param {"resume" | "cancel"} type
   */
  choose(batch, type) {
    this.choices.set(batch, { type, at: performance.now(), isPending: true });
    this.model.send({ type, batch });
    this.#tell();
  }

  /** @param {string} batch */
  #takeDecision(batch) {
    const choice = this.choices.get(batch);
    if (choice) choice.isPending = false;
    this.#tell();
  }

  /**
   * The attempts of a task as far as they are known; asks where they are not, or not any more.
   * @param {number} row
   * @returns {Asked}
   */
  attempts(row) {
    const { attempt, error, state } = this.store.columns;
    const about = [attempt[row], error[row], state[row]].join();
    let asked = this.asked.get(row);
    if (!asked || (!asked.isPending && asked.about !== about)) {
      asked = {
        at: performance.now(),
        isPending: true,
        about,
        key: asked?.key ?? "",
        rows: asked?.rows ?? null,
      };
      this.asked.set(row, asked);
      this.model.send({ type: "attempts", row });
    }
    return asked;
  }
}

// --- parts of the view ---------------------------------------------------------------------------

/**
 * An element; texts are text, never markup.
 * @param {string} tag
 * @param {Record<string, any>} [attributes]
 * @param {...(Node | string)} children
 * @returns {any}
 */
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== false) element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children);
  return element;
}

/**
 * @param {Node} node
 * @param {string} text
 */
function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** What a part of the view may use. */
class Context {
  /**
   * @param {Feed} feed
   * @param {AbortSignal} signal  ends every listener
   * @param {() => void} request  asks for a new painting
   */
  constructor(feed, signal, request) {
    this.feed = feed;
    this.store = feed.store;
    this.ui = feed.ui;
    this.signal = signal;
    this.request = request;
    this.id = `snb-${Math.random().toString(36).slice(2)}`;
  }

  /**
   * @param {EventTarget} target
   * @param {string} type
   * @param {(event: any) => void} handler
   */
  listen(target, type, handler) {
    target.addEventListener(type, handler, { signal: this.signal });
  }

  /** @param {number} row */
  select(row) {
    this.ui.selected = row;
    this.request();
  }
}

const SPOKEN_EVERY_MS = 10_000;

/** Title, counts, progress, time. */
class Summary {
  /** @param {Context} context */
  constructor(context) {
    this.context = context;
    this.title = make("strong", { class: "snb-title" });
    this.badge = make("span", { class: "snb-badge" });
    this.share = make("span", { class: "snb-share" });
    this.time = make("span", { class: "snb-time" });
    this.bar = make("div", { class: "snb-bar", role: "progressbar", "aria-valuemin": 0,
      "aria-valuemax": 100, "aria-label": "Tasks done" });
    this.segments = ORDER.map((state) =>
      this.bar.appendChild(make("div", { "data-state": STATES[state].name })),
    );
    this.buttons = ORDER.map((state) => this.#button(state));
    this.spoken = make("div", { class: "snb-spoken", role: "status", "aria-live": "polite" });
    this.spokenAt = -Infinity;
    this.element = make("div", { class: "snb-summary" },
      make("div", { class: "snb-line" }, this.title, this.badge,
        make("span", { class: "snb-fill" }), this.share, this.time),
      this.bar,
      make("div", { class: "snb-counts", role: "group", "aria-label": "Show only tasks that are" },
        ...this.buttons.map(({ element }) => element)),
      this.spoken,
    );
  }

  /** @param {number} state */
  #button(state) {
    const { name, mark } = STATES[state];
    const count = make("b");
    const element = make("button", { type: "button", class: "snb-count", "data-state": name,
      "aria-pressed": "false", title: `Show only ${name} tasks` },
      make("span", { class: "snb-mark", "aria-hidden": "true" }, mark), ` ${name} `, count);
    this.context.listen(element, "click", () => {
      const { states } = this.context.ui.query;
      if (!states.delete(state)) states.add(state);
      this.context.ui.query = { ...this.context.ui.query };
      this.context.request();
    });
    return { element, count, state };
  }

  paint() {
    const { store, feed, ui } = this.context;
    setText(this.title, visibleText(feed.model.get("title") || "Tasks"));
    const percent = percentDone(store.done, store.size);
    setText(this.share, `${countText(store.done)} of ${countText(store.size)} done`);
    this.bar.setAttribute("aria-valuenow", String(percent));
    this.bar.setAttribute("aria-valuetext", `${percent} %, ${countsText(store.counts)}`);
    ORDER.forEach((state, i) => {
      const isShown = STATES[state].final || state === RUNNING || state === RETRYING;
      const share = isShown && store.size ? store.counts[state] / store.size : 0;
      this.segments[i].style.flexGrow = String(share);
      this.segments[i].classList.toggle("snb-none", !share);
    });
    this.bar.style.setProperty("--snb-rest", String(this.#rest()));
    for (const { element, count, state } of this.buttons) {
      setText(count, countText(store.counts[state]));
      element.setAttribute("aria-pressed", String(ui.query.states.has(state)));
      element.hidden = !store.counts[state] && !ui.query.states.has(state);
    }
    this.paintTime();
    this.#speak(percent);
  }

  #rest() {
    const { store } = this.context;
    const begun = store.done + store.counts[RUNNING] + store.counts[RETRYING];
    return store.size ? 1 - begun / store.size : 1;
  }

  paintTime() {
    const { store, feed } = this.context;
    const { elapsed, remaining } = estimate(store, store.now());
    const percent = percentDone(store.done, store.size);
    const parts = store.size ? [`${percent} %`] : [];
    if (Number.isFinite(elapsed)) {
      parts.push(store.done === store.size ? `in ${durationText(elapsed)}` : tickingText(elapsed));
    }
    if (remaining > 0 && store.stoppedAt === null) {
      parts.push(`about ${roughText(remaining)} left`);
    }
    setText(this.time, parts.join(" · "));
    const [word, kind] = this.#status(feed.model.get("status"));
    setText(this.badge, word);
    this.badge.dataset.status = kind;
  }

  /**
   * @param {"live" | "finished" | "lost" | "closed"} status
   * @returns {[string, string]}
   */
  #status(status) {
    const { store, feed } = this.context;
    if (feed.isCatchingUp) return ["catching up", "late"];
    if (STATUS_TEXT[status]) return [STATUS_TEXT[status], status];
    if (store.size && store.done === store.size) return ["done", "done"];
    if (store.isSaved) {
      return [`as saved ${new Date(store.now() * 1000).toLocaleString()}`, "closed"];
    }
    return status === "live" ? ["live", "live"] : ["", status];
  }

  /** @param {number} percent */
  #speak(percent) {
    const now = performance.now();
    if (now < this.spokenAt + SPOKEN_EVERY_MS) return;
    this.spokenAt = now;
    setText(this.spoken, `${percent} % done: ${countsText(this.context.store.counts)}`);
  }
}

/** The batches that are paused, why, and what a person can do about it. */
class Pauses {
  /** @param {Context} context */
  constructor(context) {
    this.context = context;
    this.element = make("div", { class: "snb-pauses", role: "status", hidden: true });
    this.painted = "";
    context.listen(this.element, "click", ({ target }) => {
      const button = target.closest("button");
      if (button) this.context.feed.choose(this.#batches[button.dataset.at], button.dataset.type);
    });
  }

  get #pauses() {
    const { feed, store } = this.context;
    const isLive = feed.model.get("status") === "live" && !store.isSaved;
    return isLive ? feed.model.get("pauses") ?? [] : [];
  }

  get #batches() {
    return this.#pauses.map((/** @type {any} */ { batch }) => batch);
  }

  /** Whether the kernel has yet to answer. */
  get isWaiting() {
    return [...this.context.feed.choices.values()].some(({ isPending }) => isPending);
  }

  paint() {
    const pauses = this.#pauses;
    const { choices } = this.context.feed;
    const now = performance.now();
    const told = pauses.map((/** @type {any} */ pause) => choiceText(choices.get(pause.batch), now));
    const wanted = JSON.stringify([pauses, told, [...choices.keys()]]);
    if (wanted === this.painted) return;
    this.painted = wanted;
    this.element.hidden = !pauses.length;
    this.element.replaceChildren(...pauses.map((/** @type {any} */ pause, /** @type {number} */ at) =>
      this.#banner(pause, at, told[at], choices.has(pause.batch))));
  }

  /**
   * @param {{ batch: string, text: string }} pause
   * @param {number} at
   * @param {string} told
   * @param {boolean} isChosen
   */
  #banner({ text }, at, told, isChosen) {
    const button = (/** @type {string} */ type, /** @type {string} */ word) => make("button",
      { type: "button", "data-type": type, "data-at": at, disabled: isChosen }, word);
    return make("div", { class: "snb-pause" },
      make("div", { class: "snb-why" }, `‖ ${visibleText(text)}`),
      make("div", { class: "snb-line" }, button("resume", "Go on"),
        button("cancel", "Cancel the rest"), make("span", { class: "snb-faint" }, told)));
  }
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

const STRIP_MAX_HEIGHT = 56;
/** From top to bottom, where a column of the strip stands for many tasks. */
const STACK = [0, 1, 2, 5, 4, 3, 6, 7, 9, 8];
const MARKED_FROM_PX = 8; // smaller cells have no room for a shape

/** Every task as a cell. */
class Strip {
  /** @param {Context} context */
  constructor(context) {
    this.context = context;
    this.canvas = make("canvas", { role: "img" });
    this.tip = make("div", { class: "snb-tip", hidden: true });
    this.element = make("div", { class: "snb-strip" }, this.canvas, this.tip);
    this.painted = "";
    /** @type {ReturnType<typeof layoutStrip> | null} */
    this.layout = null;
    context.listen(this.canvas, "pointermove", (event) => this.#hover(event));
    context.listen(this.canvas, "pointerleave", () => (this.tip.hidden = true));
    context.listen(this.canvas, "click", (event) => {
      const range = this.#rangeAt(event);
      if (range) context.select(mostNotable(context.store.columns.state, ...range));
    });
  }

  /** Colours or size may have changed. */
  forget() {
    this.painted = "";
  }

  paint() {
    const { store, ui } = this.context;
    this.element.hidden = !store.size;
    const width = this.element.clientWidth;
    const ratio = window.devicePixelRatio || 1;
    const wanted = [store.version, ui.selected, width, ratio].join();
    if (!width || wanted === this.painted) return;
    this.painted = wanted;
    const layout = layoutStrip(store.size, width, STRIP_MAX_HEIGHT);
    this.layout = layout;
    const height = layout.rows * layout.cellHeight;
    this.canvas.width = Math.round(width * ratio);
    this.canvas.height = Math.round(height * ratio);
    this.canvas.style.height = `${height}px`;
    this.canvas.setAttribute("aria-label", `Tasks in order: ${countsText(store.counts)}`);
    const pen = this.canvas.getContext("2d");
    pen.scale(ratio, ratio);
    const colours = this.#colours(pen);
    if (layout.perCell === 1) this.#paintTasks(pen, layout, colours);
    else this.#paintShares(pen, layout, colours);
    if (ui.selected >= 0 && ui.selected < store.size) this.#paintSelected(pen, layout);
  }

  /** @param {CanvasRenderingContext2D} pen */
  #colours(pen) {
    const style = getComputedStyle(this.element);
    return STATES.map(({ name }) => {
      pen.fillStyle = style.getPropertyValue(`--snb-${name}`).trim() || "#888";
      return String(pen.fillStyle); // as #rrggbb
    });
  }

  /**
   * @param {ReturnType<typeof layoutStrip>} layout
   * @param {number} cell
   * @returns {[number, number, number, number]}
   */
  #box({ perCell, rows, cellWidth, cellHeight }, cell) {
    // On whole pixels of the screen, or neighbours show a seam.
    const ratio = window.devicePixelRatio || 1;
    const snap = (/** @type {number} */ value) => Math.round(value * ratio) / ratio;
    const gap = perCell === 1 && cellHeight > 4 ? snap(1) : 0;
    const [column, line] = [Math.floor(cell / rows), cell % rows];
    const [left, right] = [snap(column * cellWidth), snap((column + 1) * cellWidth)];
    const [top, bottom] = [snap(line * cellHeight), snap((line + 1) * cellHeight)];
    return [left, top, Math.max(0.5, right - left - gap), bottom - top - gap];
  }

  /**
   * @param {CanvasRenderingContext2D} pen
   * @param {ReturnType<typeof layoutStrip>} layout
   * @param {string[]} colours
   */
  #paintTasks(pen, layout, colours) {
    const { store } = this.context;
    const { state } = store.columns;
    const isMarked = layout.cellHeight >= MARKED_FROM_PX;
    const paper = getComputedStyle(this.element).getPropertyValue("--snb-paper").trim() || "#fff";
    for (let row = 0; row < store.size; row++) {
      const box = this.#box(layout, row);
      pen.fillStyle = colours[state[row]];
      pen.fillRect(...box);
      if (isMarked) paintMark(pen, state[row], box, paper);
    }
  }

  /**
   * @param {CanvasRenderingContext2D} pen
   * @param {ReturnType<typeof layoutStrip>} layout
   * @param {string[]} colours
   */
  #paintShares(pen, layout, colours) {
    const { store } = this.context;
    for (let cell = 0; cell < layout.cells; cell++) {
      const [x, y, width, height] = this.#box(layout, cell);
      const heights = shareHeights(this.#count(...this.#rangeOf(layout, cell)), height);
      let top = y;
      // What has not begun above what is done; what failed lies at the bottom.
      for (const state of STACK) {
        pen.fillStyle = colours[state];
        pen.fillRect(x, top, width, heights[state]);
        top += heights[state];
      }
    }
  }

  /**
   * @param {ReturnType<typeof layoutStrip>} layout
   * @param {number} cell
   * @returns {[number, number]}
   */
  #rangeOf({ perCell }, cell) {
    return [cell * perCell, Math.min(this.context.store.size, (cell + 1) * perCell)];
  }

  /**
   * @param {number} first
   * @param {number} end
   */
  #count(first, end) {
    const { state } = this.context.store.columns;
    const counts = new Int32Array(STATES.length);
    for (let row = first; row < end; row++) counts[state[row]]++;
    return counts;
  }

  /**
   * @param {CanvasRenderingContext2D} pen
   * @param {ReturnType<typeof layoutStrip>} layout
   */
  #paintSelected(pen, layout) {
    const [x, y, width, height] = this.#box(
      layout,
      Math.floor(this.context.ui.selected / layout.perCell),
    );
    pen.strokeStyle = getComputedStyle(this.element).color;
    pen.lineWidth = 2;
    pen.strokeRect(x, Math.max(1, y), width, height);
  }

  /**
   * The rows below the pointer.
   * @param {MouseEvent} event
   * @returns {[number, number] | null}
   */
  #rangeAt(event) {
    if (!this.layout) return null;
    const { cells, rows, cellWidth, cellHeight } = this.layout;
    const column = Math.floor(event.offsetX / cellWidth);
    const line = Math.floor(event.offsetY / cellHeight);
    const cell = column * rows + line;
    if (line < 0 || line >= rows || cell < 0 || cell >= cells) return null;
    return this.#rangeOf(this.layout, cell);
  }

  /** @param {PointerEvent} event */
  #hover(event) {
    const range = this.#rangeAt(event);
    this.tip.hidden = !range;
    if (!range) return;
    setText(this.tip, this.#describe(...range));
    const room = this.element.clientWidth - this.tip.offsetWidth;
    this.tip.style.left = `${Math.max(0, Math.min(event.offsetX + 10, room))}px`;
    this.tip.style.top = `${event.offsetY + 18}px`;
  }

  /**
   * @param {number} first
   * @param {number} end
   */
  #describe(first, end) {
    const { store } = this.context;
    if (end - first > 1) {
      const counts = countsText(this.#count(first, end));
      return `#${countText(first)} to #${countText(end - 1)}: ${counts}`;
    }
    const { name, mark } = STATES[store.columns.state[first]];
    const error = store.text("error", first);
    const parts = [`#${first}`, store.label(first), `${mark} ${name}`, attemptText(store, first)];
    return visibleText([...parts, error].filter(Boolean).join(" · ")).slice(0, 200);
  }
}

/**
 * The shape that tells a state without its colour.
 * @param {CanvasRenderingContext2D} pen
 * @param {number} state
 * @param {[number, number, number, number]} box
 * @param {string} paper
 */
function paintMark(pen, state, [x, y, width, height], paper) {
  const { name } = STATES[state];
  const size = Math.min(width, height);
  const half = Math.max(2, Math.ceil(size * 0.2));
  const cx = x + width / 2;
  const cy = y + height / 2;
  pen.strokeStyle = pen.fillStyle = paper;
  pen.lineWidth = Math.max(1, size / 8);
  pen.beginPath();
  if (name === "failed") {
    pen.moveTo(cx - half, cy - half);
    pen.lineTo(cx + half, cy + half);
    pen.moveTo(cx + half, cy - half);
    pen.lineTo(cx - half, cy + half);
    pen.stroke();
  } else if (name === "cancelled") {
    pen.moveTo(cx + half, cy - half);
    pen.lineTo(cx - half, cy + half);
    pen.stroke();
  } else if (name === "running") {
    pen.moveTo(cx - half * 0.8, cy - half);
    pen.lineTo(cx + half, cy);
    pen.lineTo(cx - half * 0.8, cy + half);
    pen.fill();
  } else if (name === "retrying") {
    pen.arc(cx, cy, half, 0, 2 * Math.PI);
    pen.stroke();
  } else if (name === "cached") {
    pen.fillRect(cx - half / 2, cy - half / 2, half, half);
  } else if (name === "paused") {
    pen.fillRect(cx - half, cy - half, half * 0.7, 2 * half);
    pen.fillRect(cx + half * 0.3, cy - half, half * 0.7, 2 * half);
  }
}

/**
 * @param {TaskStore} store
 * @param {number} row
 */
function attemptText(store, row) {
  const { attempt, attempts_allowed } = store.columns;
  if (!attempt[row]) return "";
  return `${attempt[row]}/${Math.max(attempts_allowed[row], attempt[row])}`;
}

const COLUMNS = [
  { id: "index", title: "#" },
  { id: "label", title: "Task" },
  { id: "state", title: "State" },
  { id: "attempt", title: "Attempt" },
  { id: "worker", title: "Worker" },
  { id: "duration", title: "Duration" },
  { id: "error", title: "Error" },
  { id: "retry", title: "Retry in" },
];
const ROW_PX = 26; // as in the style sheet
const SPARE_ROWS = 6;
const SELECT_EVERY_MS = 1000;
const TYPING_MS = 120;

/** The rows, of which only those in view exist. */
class Grid {
  /** @param {Context} context */
  constructor(context) {
    this.context = context;
    /** @type {Uint32Array | null} */
    this.order = null;
    this.query = context.ui.query;
    this.orderVersion = -1;
    this.orderAt = -Infinity;
    this.orderCost = 0;
    /** @type {string[]} */
    this.lowered = [];
    this.loweredVersion = -1;
    /** @type {any[]} */
    this.heads = [];
    /** @type {{ element: any, cells: any[], mark: any, word: any }[]} */
    this.pool = [];
    this.#build();
  }

  #build() {
    const { context } = this;
    this.search = make("input", { type: "search", class: "snb-search", spellcheck: "false",
      placeholder: "Filter by task, worker or error", "aria-label": "Filter tasks",
      "data-lm-suppress-shortcuts": "true" });
    this.search.value = context.ui.query.text;
    this.shown = make("span", { class: "snb-shown" });
    this.clear = make("button", { type: "button", class: "snb-clear" }, "Show all");
    this.heads = COLUMNS.map(({ id, title }) => this.#head(id, title));
    this.head = make("div", { class: "snb-row snb-head", role: "row", "aria-rowindex": 1 },
      ...this.heads);
    this.body = make("div", { class: "snb-body", role: "rowgroup" });
    this.empty = make("div", { class: "snb-empty", hidden: true });
    this.scroller = make("div", { class: "snb-grid", role: "grid", tabindex: 0,
      "aria-label": "Tasks", "aria-colcount": COLUMNS.length,
      "data-lm-suppress-shortcuts": "true" }, this.head, this.body, this.empty);
    this.element = make("div", {},
      make("div", { class: "snb-tools" }, this.search, this.shown, this.clear), this.scroller);
    this.#listen();
  }

  #listen() {
    const { context } = this;
    let timer = 0;
    context.listen(this.search, "input", () => {
      window.clearTimeout(timer);
      timer = window.setTimeout(() => this.#ask({ text: this.search.value }), TYPING_MS);
    });
    context.signal.addEventListener("abort", () => window.clearTimeout(timer));
    context.listen(this.clear, "click", () => {
      this.search.value = "";
      this.#ask({ text: "", states: new Set() });
    });
    context.listen(this.scroller, "scroll", () => {
      context.ui.scrollTop = this.scroller.scrollTop;
      this.paintRows();
    });
    context.listen(this.body, "click", (event) => {
      const row = event.target.closest("[data-row]")?.dataset.row;
      if (row !== undefined) context.select(Number(row));
    });
    context.listen(this.scroller, "keydown", (event) => this.#key(event));
  }

  /**
   * @param {string} id
   * @param {string} title
   */
  #head(id, title) {
    const button = make("button", { type: "button" }, title,
      make("span", { class: "snb-arrow", "aria-hidden": "true" }));
    this.context.listen(button, "click", () => {
      const { column, descending } = this.context.ui.query;
      // Up, down, and back to the table's own order.
      if (column !== id) this.#ask({ column: id, descending: false });
      else if (!descending) this.#ask({ descending: true });
      else this.#ask({ column: "index", descending: false });
    });
    return make("div", { class: `snb-${id}`, role: "columnheader", "data-column": id }, button);
  }

  /** @param {Partial<Query>} change */
  #ask(change) {
    this.context.ui.query = { ...this.context.ui.query, ...change };
    this.context.request();
  }

  get length() {
    return this.order ? this.order.length : this.context.store.size;
  }

  /** @param {number} at */
  #rowAt(at) {
    return this.order ? this.order[at] : at;
  }

  /** @param {KeyboardEvent} event */
  #key(event) {
    if (event.target !== this.scroller || event.ctrlKey || event.metaKey || event.altKey) return;
    const page = Math.max(1, Math.floor(this.#viewHeight() / ROW_PX) - 1);
    const at = this.#placeOf(this.context.ui.selected);
    /** @type {Record<string, number>} */
    const goals = {
      ArrowDown: at + 1,
      ArrowUp: at < 0 ? 0 : at - 1,
      PageDown: at + page,
      PageUp: at - page,
      Home: 0,
      End: this.length - 1,
    };
    if (event.key === "Escape") this.context.select(-1);
    else if (event.key in goals && this.length) {
      const goal = Math.min(Math.max(goals[event.key], 0), this.length - 1);
      this.context.select(this.#rowAt(goal));
      this.#scrollTo(goal);
    } else return;
    event.preventDefault();
  }

  /** @param {number} row */
  #placeOf(row) {
    return this.order ? this.order.indexOf(row) : row;
  }

  /** @param {number} row */
  reveal(row) {
    const at = this.#placeOf(row);
    if (at >= 0) this.#scrollTo(at);
  }

  /** @param {number} at */
  #scrollTo(at) {
    const top = at * ROW_PX;
    const view = this.#viewHeight();
    if (top < this.scroller.scrollTop) this.scroller.scrollTop = top;
    else if (top + ROW_PX > this.scroller.scrollTop + view) {
      this.scroller.scrollTop = top + ROW_PX - view;
    }
  }

  #viewHeight() {
    return this.scroller.clientHeight - this.head.offsetHeight;
  }

  paint() {
    const { store, ui } = this.context;
    this.#select();
    const { query } = ui;
    for (const head of this.heads) {
      const isSorted = head.dataset.column === query.column;
      const isDefault = query.column === "index" && !query.descending;
      const order = query.descending ? "descending" : "ascending";
      head.setAttribute("aria-sort", isSorted && !isDefault ? order : "none");
    }
    const isFiltered = Boolean(query.text.trim()) || query.states.size > 0;
    this.clear.hidden = !isFiltered;
    setText(this.shown, isFiltered
      ? `${countText(this.length)} of ${countText(store.size)} shown`
      : `${countText(store.size)} tasks`);
    this.scroller.setAttribute("aria-rowcount", String(this.length + 1));
    this.body.style.height = `${this.length * ROW_PX}px`;
    this.scroller.style.setProperty("--snb-rows", String(Math.max(store.size, 1)));
    this.empty.hidden = this.length > 0;
    setText(this.empty, store.size ? "No task matches the filter." : "No tasks yet.");
    if (this.scroller.scrollTop !== ui.scrollTop) this.scroller.scrollTop = ui.scrollTop;
    this.paintRows();
  }

  /** Sort and filter again where it is due: at once for a person, seldom for what comes in. */
  #select() {
    const { store, ui } = this.context;
    const isAsked = ui.query !== this.query;
    const isOld = store.version !== this.orderVersion;
    const isDue = performance.now() > this.orderAt + Math.max(SELECT_EVERY_MS, 10 * this.orderCost);
    if (!isAsked && !(isOld && (this.order === null || isDue))) return;
    if (isAsked && this.query.text !== ui.query.text) ui.scrollTop = 0;
    const began = performance.now();
    this.query = ui.query;
    this.orderVersion = store.version;
    if (ui.query.text && this.loweredVersion !== store.labelsVersion) {
      this.loweredVersion = store.labelsVersion;
      this.lowered = store.labels.map((label) => (label ?? "").toLowerCase());
    }
    this.order = selectRows(store, ui.query, store.now(), this.lowered);
    this.orderAt = performance.now();
    this.orderCost = this.orderAt - began;
  }

  /** Whether what is shown waits for being sorted again. */
  get isBehind() {
    return this.order !== null && this.orderVersion !== this.context.store.version;
  }

  paintRows() {
    const { store, ui } = this.context;
    const first = Math.max(0, Math.floor(this.scroller.scrollTop / ROW_PX) - SPARE_ROWS);
    const room = Math.ceil(this.scroller.clientHeight / ROW_PX) + 2 * SPARE_ROWS;
    const count = Math.min(room, this.length - first);
    const now = store.now();
    while (this.pool.length < count) this.pool.push(this.#makeRow(this.pool.length));
    let active = "";
    this.pool.forEach((slot, i) => {
      slot.element.hidden = i >= count;
      if (i >= count) return slot.element.removeAttribute("data-row");
      const row = this.#rowAt(first + i);
      if (row === ui.selected) active = slot.element.id;
      this.#paintRow(slot, first + i, row, now);
    });
    if (active) this.scroller.setAttribute("aria-activedescendant", active);
    else this.scroller.removeAttribute("aria-activedescendant");
  }

  /** @param {number} number */
  #makeRow(number) {
    const mark = make("span", { class: "snb-mark", "aria-hidden": "true" });
    const word = make("span");
    const cells = COLUMNS.map(({ id }, i) =>
      make("div", { class: `snb-${id}`, role: "gridcell", "aria-colindex": i + 1 }));
    cells[2].append(mark, " ", word);
    const element = make("div", { class: "snb-row", role: "row",
      id: `${this.context.id}-row-${number}` }, ...cells);
    this.body.append(element);
    return { element, cells, mark, word };
  }

  /**
   * @param {{ element: any, cells: any[], mark: any, word: any }} slot
   * @param {number} at
   * @param {number} row
   * @param {number} now
   */
  #paintRow({ element, cells, mark, word }, at, row, now) {
    const { store, ui } = this.context;
    const state = store.columns.state[row];
    const { name } = STATES[state];
    element.style.transform = `translateY(${at * ROW_PX}px)`;
    element.dataset.row = String(row);
    element.dataset.state = name;
    element.setAttribute("aria-rowindex", String(at + 2));
    element.setAttribute("aria-selected", String(row === ui.selected));
    element.classList.toggle("snb-odd", at % 2 === 1);
    const label = visibleText(store.label(row));
    setText(cells[0], String(row));
    setText(cells[1], label);
    cells[1].title = label.slice(0, 1000);
    setText(mark, STATES[state].mark);
    setText(word, name);
    setText(cells[3], attemptText(store, row));
    setText(cells[4], visibleText(store.text("worker", row)));
    const duration = store.duration(row, now);
    setText(cells[5], state === RUNNING ? tickingText(duration) : durationText(duration));
    const error = visibleText(store.text("error", row));
    setText(cells[6], error);
    cells[6].title = error;
    setText(cells[7], tickingText(Math.ceil(store.retryIn(row, now))));
  }
}

/** The chosen task and its failed attempts. */
class Details {
  /** @param {Context} context */
  constructor(context) {
    this.context = context;
    this.title = make("strong", { class: "snb-name" });
    this.close = make("button", { type: "button", class: "snb-close", "aria-label": "Close" },
      "✕");
    this.facts = make("div", { class: "snb-facts" });
    this.attempts = make("div", { class: "snb-attempts" });
    this.element = make("section", { class: "snb-details", "aria-label": "Task details",
      hidden: true, "data-lm-suppress-shortcuts": "true" },
      make("div", { class: "snb-line" }, this.title, make("span", { class: "snb-fill" }),
        this.close),
      this.facts, this.attempts);
    this.painted = "";
    context.listen(this.close, "click", () => context.select(-1));
  }

  paint() {
    const { store, ui } = this.context;
    const row = ui.selected;
    this.element.hidden = row < 0 || row >= store.size;
    if (this.element.hidden) return;
    setText(this.title, visibleText(`#${row}  ${store.label(row)}`).slice(0, 2000));
    this.#paintFacts(row);
    this.#paintAttempts(row);
  }

  /** @param {number} row */
  #paintFacts(row) {
    const { store } = this.context;
    const now = store.now();
    const { state, submitted_at, started_at } = store.columns;
    const { name, mark } = STATES[state[row]];
    const retry = store.retryIn(row, now);
    /** @type {[string, string][]} */
    const facts = [
      ["state", `${mark} ${name}`],
      ["retry in", tickingText(Math.ceil(retry))],
      ["attempt", attemptText(store, row)],
      ["duration", durationText(store.duration(row, now))],
      ["worker", store.text("worker", row)],
      ["component", store.text("component", row)],
      ["task", store.text("task", row)],
      ["submitted", timeText(submitted_at[row])],
      ["started", timeText(started_at[row])],
      ["key", this.context.feed.asked.get(row)?.key ?? ""],
    ];
    const shown = facts.filter(([, value]) => value);
    while (this.facts.children.length > shown.length) this.facts.lastChild.remove();
    shown.forEach(([term, value], i) => {
      const pair = this.facts.children[i] ?? this.facts.appendChild(
        make("div", {}, make("span", { class: "snb-term" }), make("span", { class: "snb-value" })));
      setText(pair.children[0], term);
      setText(pair.children[1], visibleText(value));
    });
  }

  /** @param {number} row */
  #paintAttempts(row) {
    const { store, feed } = this.context;
    const { attempt, error, state } = store.columns;
    if (!error[row] && attempt[row] < 2 && state[row] !== FAILED) {
      return this.#say("No failed attempts.", `${row}:none`);
    }
    if (!feed.model.get("can_ask") || store.isSaved) {
      return this.#say("The attempts of a task are not at hand in this view.", `${row}:cannot`);
    }
    const asked = feed.attempts(row);
    if (asked.rows) return this.#list(asked.rows, `${row}:${asked.about}:${asked.isPending}`);
    const isLate = performance.now() > asked.at + ANSWER_WITHIN_MS;
    this.#say(isLate ? BUSY_TEXT : "Asking the kernel …", `${row}:${isLate}`);
  }

  /** Whether an answer of the kernel is missing. */
  get isWaiting() {
    return this.context.feed.asked.get(this.context.ui.selected)?.isPending ?? false;
  }

  /**
   * @param {string} text
   * @param {string} what
   */
  #say(text, what) {
    if (this.painted === what) return;
    this.painted = what;
    this.attempts.replaceChildren(make("p", { role: "status" }, text));
  }

  /**
   * @param {any[]} rows
   * @param {string} what
   */
  #list(rows, what) {
    if (this.painted === what) return;
    this.painted = what;
    if (!rows.length) return this.#say("No failed attempt is recorded yet.", what + ":none");
    this.attempts.replaceChildren(
      ...rows.map((row, i) => makeAttempt(row, i === rows.length - 1)),
    );
  }
}

/**
 * One failed attempt.
 * @param {any} row  a row of failures.jsonl
 * @param {boolean} isOpen
 */
function makeAttempt(row, isOpen) {
  const text = (/** @type {any} */ value) => visibleText(String(value ?? ""));
  const next = row.will_retry
    ? `tried again after ${durationText(Number(row.retry_in_s ?? 0))}`
    : row.is_final ? "final" : "";
  const facts = [
    row.category,
    row.duration_s == null ? "" : durationText(Number(row.duration_s)),
    row.worker,
    row.job_id ? `job ${row.job_id}${row.job_state ? ` ${row.job_state}` : ""}` : "",
    next,
  ];
  const article = make("article", { class: "snb-attempt" },
    make("div", { class: "snb-line" },
      make("strong", {}, `Attempt ${text(row.attempt)}`),
      make("span", { class: "snb-class" }, text(row.failure_class)),
      make("span", { class: "snb-faint" }, facts.filter(Boolean).map(text).join(" · "))),
    make("div", { class: "snb-message" }, text(row.message).slice(0, 2000)));
  if (row.traceback) {
    article.append(make("details", { open: isOpen }, make("summary", {}, "Traceback"),
      make("pre", { tabindex: 0 }, text(row.traceback))));
  }
  return article;
}

/** @param {number} at  seconds since the epoch */
function timeText(at) {
  return at > 0 ? new Date(at * 1000).toLocaleTimeString() : "";
}

// --- the wiring ----------------------------------------------------------------------------------

const TICK_MS = 500;

/** Draws a feed into an element until the signal says stop. */
class View {
  /**
   * @param {Feed} feed
   * @param {HTMLElement} root
   * @param {AbortSignal} signal
   */
  constructor(feed, root, signal) {
    this.feed = feed;
    this.root = root;
    this.frame = 0;
    this.isInView = true;
    this.selected = feed.ui.selected;
    const context = new Context(feed, signal, () => this.request());
    this.summary = new Summary(context);
    this.pauses = new Pauses(context);
    this.strip = new Strip(context);
    this.grid = new Grid(context);
    this.details = new Details(context);
    this.problem = make("div", { class: "snb-problem", role: "alert", hidden: true });
    root.classList.add("scalable-table");
    root.replaceChildren(this.summary.element, this.pauses.element, this.strip.element, this.grid.element,
      this.details.element, this.problem);
    this.#watch(signal);
    this.request();
  }

  /** @param {AbortSignal} signal */
  #watch(signal) {
    const onFeed = () => this.request();
    const onLook = () => {
      this.strip.forget();
      this.request();
    };
    this.feed.listeners.add(onFeed);
    const sizes = new ResizeObserver(onFeed);
    sizes.observe(this.root);
    sizes.observe(this.grid.scroller);
    // JupyterLab takes cells that are scrolled away out of the page and puts them back.
    const sight = new IntersectionObserver((entries) => {
      this.isInView = entries[entries.length - 1].isIntersecting;
      if (this.isInView) this.request();
    });
    sight.observe(this.root);
    const theme = new MutationObserver(onLook);
    theme.observe(document.body, {
      attributes: true,
      attributeFilter: ["class", "data-jp-theme-light", "data-jp-theme-name"],
    });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", onLook, { signal });
    const timer = window.setInterval(() => this.#tick(), TICK_MS);
    signal.addEventListener("abort", () => {
      this.feed.listeners.delete(onFeed);
      sizes.disconnect();
      sight.disconnect();
      theme.disconnect();
      window.clearInterval(timer);
      window.cancelAnimationFrame(this.frame);
    });
  }

  request() {
    if (this.frame || !this.isInView) return;
    this.frame = window.requestAnimationFrame(() => {
      this.frame = 0;
      this.#paint();
    });
  }

  #paint() {
    if (!this.root.isConnected) return;
    const { feed } = this;
    this.summary.paint();
    this.pauses.paint();
    this.strip.paint();
    this.grid.paint();
    if (feed.ui.selected !== this.selected) {
      this.selected = feed.ui.selected;
      this.grid.reveal(this.selected);
    }
    this.details.paint();
    const problem = feed.model.get("problem") || feed.problem;
    this.problem.hidden = !problem;
    setText(this.problem, visibleText(problem));
  }

  /** What moves by itself: running durations, countdowns, the time that is left. */
  #tick() {
    if (!this.isInView || !this.root.isConnected || document.hidden) return;
    const { store } = this.feed;
    if (this.grid.isBehind || this.details.isWaiting || this.pauses.isWaiting) this.request();
    if (store.stoppedAt !== null || store.done === store.size) return;
    this.summary.paintTime();
    this.grid.paintRows();
    this.details.paint();
  }
}

/** Called by anywidget once for each model. */
export default () => {
  /** @type {Feed} */
  let feed;
  return {
    /** @param {{ model: Model }} host */
    initialize({ model }) {
      feed = new Feed(model);
      return feed.start();
    },
    /** @param {{ el: HTMLElement }} host */
    render({ el }) {
      const ended = new AbortController();
      const root = make("div");
      el.append(root);
      new View(feed, root, ended.signal);
      return () => {
        ended.abort();
        root.remove();
      };
    },
  };
};
