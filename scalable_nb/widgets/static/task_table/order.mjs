// @ts-check
/** The tasks that are shown, in their order, sorted and filtered again where that is due. */

import { isNarrow, selectRows } from "./query.mjs";

/** @typedef {import("./dom.mjs").Context} Context */

const SELECT_EVERY_MS = 1000;
/** What comes in is sorted in at most this share of the page's time. */
const SORTING_SHARE = 0.1;

export class Order {
  /** @param {Context} context */
  constructor(context) {
    this.context = context;
    /** @type {Uint32Array | null} Null for all tasks in their own order. */
    this.rows = null;
    this.query = context.ui.query;
    this.version = -1;
    this.madeAt = -Infinity;
    this.cost = 0;
  }

  get length() {
    return this.rows ? this.rows.length : this.context.store.size;
  }

  /** Whether tasks are left out. */
  get isNarrow() {
    return isNarrow(this.query);
  }

  /** @param {number} place */
  rowAt(place) {
    return this.rows ? this.rows[place] : place;
  }

  /** @param {number} row */
  placeOf(row) {
    return this.rows ? this.rows.indexOf(row) : row;
  }

  /**
   * The tasks between two places, both included.
   * @param {number} one
   * @param {number} other
   */
  between(one, other) {
    const [first, last] = [Math.min(one, other), Math.max(one, other)];
    return Array.from({ length: last - first + 1 }, (_, i) => this.rowAt(first + i));
  }

  /** All tasks that are shown. */
  all() {
    return this.length ? this.between(0, this.length - 1) : [];
  }

  /** Whether what is shown waits for being sorted again. */
  get isBehind() {
    return this.rows !== null && this.version !== this.context.store.version;
  }

  /** At once for what a person wants, seldom for what comes in. */
  update() {
    const { store, ui } = this.context;
    const isAsked = ui.query !== this.query;
    const isOld = store.version !== this.version;
    const rest = Math.max(SELECT_EVERY_MS, this.cost / SORTING_SHARE);
    const isDue = performance.now() > this.madeAt + rest;
    if (!isAsked && !(isOld && (this.rows === null || isDue))) return;
    if (isAsked && this.query.text !== ui.query.text) ui.scrollTop = 0;
    const began = performance.now();
    this.query = ui.query;
    this.version = store.version;
    this.rows = selectRows(store, ui.query, store.now());
    this.madeAt = performance.now();
    this.cost = this.madeAt - began;
  }
}
