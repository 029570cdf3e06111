// @ts-check
/** What a whole table says of its pace, looked up no more often than it costs. */

import { countSlow, estimate, slowLimits } from "./estimate.mjs";

/** @typedef {import("./store.mjs").TaskStore} TaskStore */

const LEAST_AGE_MS = 500;
/** Of the page's time, this share at most. */
const COST_SHARE = 0.05;

export class Pace {
  /** @param {TaskStore} store */
  constructor(store) {
    this.store = store;
    this.dueAt = -Infinity;
    this.stream = "";
    this.estimate = estimate(store, 0);
    this.limits = slowLimits(store);
    this.slow = 0;
  }

  /** Brought up to date where that is due. */
  look() {
    const began = performance.now();
    if (began < this.dueAt && this.store.stream === this.stream) return this;
    this.stream = this.store.stream;
    const now = this.store.now();
    this.estimate = estimate(this.store, now);
    this.limits = slowLimits(this.store);
    this.slow = this.store.stoppedAt === null ? countSlow(this.store, now, this.limits) : 0;
    const cost = performance.now() - began;
    this.dueAt = began + Math.max(LEAST_AGE_MS, cost / COST_SHARE);
    return this;
  }
}
