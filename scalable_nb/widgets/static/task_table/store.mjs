// @ts-check
/** All tasks of the table in memory, as columns: one place per task in typed arrays. */

import { RETRYING, RUNNING, STATES } from "./states.mjs";

/** @typedef {import("./frames.mjs").Header} Header */
/** @typedef {import("./frames.mjs").Frame} Frame */

/** A snapshot whose clock is further away than this was saved, not sent. */
const SAVED_AFTER_S = 600;

/** @type {Record<string, any>} The columns that are kept, and their types. */
const KEPT = {
  state: Uint8Array,
  attempt: Uint16Array,
  attempts_allowed: Uint16Array,
  worker: Int32Array,
  host: Int32Array,
  job: Int32Array,
  error: Int32Array,
  function: Int32Array,
  task: Int32Array,
  component: Int32Array,
  inputs: Uint32Array,
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
    this.lowered = [];
    this.loweredVersion = -1;
    /** @type {string[]} */
    this.strings = [];
    /** Inputs of batches by state: they may share a task; plain tasks of Dask count one each. */
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
    const { state, inputs } = this.columns;
    for (let i = 0; i < rows.length; i++) {
      const row = rows[i];
      this.counts[state[row]] -= inputs[row];
      // Tables that were saved by an earlier version have no numbers of inputs.
      this.counts[sections.state[i]] += sections.inputs ? sections.inputs[i] : inputs[row];
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
        if (name === "inputs") grown.fill(1);
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

  /** All labels in lower case, made when somebody searches. */
  loweredLabels() {
    if (this.loweredVersion !== this.labelsVersion) {
      this.loweredVersion = this.labelsVersion;
      this.lowered = this.labels.map((label) => (label ?? "").toLowerCase());
    }
    return this.lowered;
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

  /**
   * Whether a task was replaced by one of corrected code: it no longer computes an input.
   * @param {number} row
   */
  isReplaced(row) {
    return this.columns.inputs[row] === 0;
  }

  /** Number of inputs. */
  get total() {
    return this.counts.reduce((sum, count) => sum + count, 0);
  }

  /** Inputs with which nothing more will happen by itself. */
  get done() {
    return STATES.reduce((sum, state, i) => sum + (state.final ? this.counts[i] : 0), 0);
  }
}

