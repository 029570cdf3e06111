// @ts-check
/** Keeps the tasks in step with the kernel, and carries what a person wants there. */

import { decodeFrame, readHeader } from "./frames.mjs";
import { Pace } from "./pace.mjs";
import { everything } from "./query.mjs";
import { TaskStore } from "./store.mjs";

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
 * @property {any[] | null} rows  as `client.attempts` gives them
 * @property {Map<number, string[]>} logs  by attempt: lines of its worker's log
 *
 * @typedef {object} Choice  what a person wants of a paused batch
 * @property {"resume" | "cancel"} type
 * @property {number} at          page time in ms
 * @property {boolean} isPending  whether the kernel has not answered yet
 *
 * @typedef {object} Act  what a person wants of tasks
 * @property {number} id
 * @property {string} action
 * @property {number[]} rows
 * @property {number} at          page time in ms
 * @property {boolean} isPending  whether the kernel has not answered yet
 * @property {string} text        what came of it
 * @property {string} details     a traceback or what was printed; empty where there is none
 */

export const ANSWER_WITHIN_MS = 400;
const RESYNC_EVERY_MS = 5000;
/** The kernel stops sending when it has not heard this for a while (viewers.py). */
const WATCH_EVERY_MS = 20_000;

const TRAITS = ["status", "problem", "title", "has_controls", "actions", "pauses"];

/** Keeps the store in step with the kernel, for all views of one model. */
export class Feed {
  /** @param {Model} model */
  constructor(model) {
    this.model = model;
    this.store = new TaskStore();
    this.pace = new Pace(this.store);
    /** @type {Set<() => void>} */
    this.listeners = new Set();
    /** @type {Map<number, Asked>} */
    this.asked = new Map();
    /** @type {Map<string, Choice>} */
    this.choices = new Map();
    /** @type {Act | null} */
    this.lastAct = null;
    this.isCatchingUp = false;
    this.problem = "";
    /** What a person did, kept here so that a view that is drawn anew looks the same. */
    this.ui = {
      query: everything(),
      /** The task whose card is shown; -1 for none. */
      current: -1,
      /** @type {Set<number>} */
      chosen: new Set(),
      anchor: -1,
      scrollTop: 0,
      scrollLeft: 0,
      /** @type {Map<string, boolean>} Columns that a person switched on or off. */
      columns: new Map(),
      isFiltering: false,
    };
    this.resyncAt = -Infinity;
    this.queue = Promise.resolve();
  }

  /** @returns {() => void} */
  start() {
    const ended = new AbortController();
    this.#hear("msg:custom", (content, buffers) => this.#receive(content, buffers), ended.signal);
    const onSnapshot = () => this.#take(this.model.get("snapshot"));
    this.#hear("change:snapshot", onSnapshot, ended.signal);
    const onTrait = () => {
      if (this.model.get("status") !== "live") this.store.stop();
      this.#tell();
    };
    for (const name of TRAITS) this.#hear(`change:${name}`, onTrait, ended.signal);
    const onEnd = () => this.choices.clear(); // done, or refused and told as a problem
    this.#hear("change:pauses", onEnd, ended.signal);
    this.#hear("change:problem", onEnd, ended.signal);
    onSnapshot();
    return () => {
      ended.abort();
      this.listeners.clear();
    };
  }

  /**
   * @param {string} name
   * @param {(...values: any[]) => void} callback
   * @param {AbortSignal} signal
   */
  #hear(name, callback, signal) {
    this.model.on(name, callback);
    signal.addEventListener("abort", () => this.model.off(name, callback));
  }

  /**
   * Be told of changes, and let the kernel know that somebody looks, until the signal.
   * @param {() => void} listener
   * @param {AbortSignal} signal
   */
  watch(listener, signal) {
    const tell = () => {
      if (!document.hidden) this.model.send({ type: "watch" });
    };
    this.listeners.add(listener);
    tell();
    const timer = window.setInterval(tell, WATCH_EVERY_MS);
    document.addEventListener("visibilitychange", tell, { signal });
    signal.addEventListener("abort", () => {
      window.clearInterval(timer);
      this.listeners.delete(listener);
      if (!this.listeners.size) this.model.send({ type: "unwatch" });
    });
  }

  /**
   * @param {any} content
   * @param {DataView[]} buffers
   */
  #receive(content, buffers) {
    if (content?.type === "delta") return this.#take(buffers[0]);
    if (content?.type === "attempts") {
      const { row, key, rows } = content;
      const asked = this.asked.get(row);
      if (asked) Object.assign(asked, { isPending: false, key, rows });
    } else if (content?.type === "log") {
      this.asked.get(content.row)?.logs.set(content.attempt, content.lines);
    } else if (content?.type === "decided") {
      const choice = this.choices.get(content.batch);
      if (choice) choice.isPending = false;
    } else if (content?.type === "acted" && content.id === this.lastAct?.id) {
      const { text, details } = content;
      Object.assign(this.lastAct ?? {}, { isPending: false, text, details });
    }
    this.#tell();
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
    if (step === "gap") this.#askAgain();
    if (step !== "next") return;
    this.store.apply(await decodeFrame(view));
    this.isCatchingUp = false;
    if (this.model.get("status") !== "live") this.store.stop();
    this.#tell();
  }

  #askAgain() {
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

  // --- what a person wants -----------------------------------------------------------------------

  /**
   * What can be done with tasks here, by name: nothing once their session has ended.
   * @returns {string[]}
   */
  get possible() {
    const { model, store } = this;
    const isAtHand = ["live", "finished"].includes(model.get("status")) && !store.isSaved;
    return isAtHand ? model.get("actions") : [];
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

  /**
   * Ask the kernel to do something with tasks.
   * @param {string} action
   * @param {Iterable<number>} rows
   */
  act(action, rows) {
    const id = (this.lastAct?.id ?? 0) + 1;
    this.lastAct = { id, action, rows: [...rows], at: performance.now(), isPending: true,
      text: "", details: "" };
    this.model.send({ type: "act", id, action, rows: this.lastAct.rows });
    this.#tell();
  }

  /** Whether the kernel has yet to answer a person. */
  get isWaiting() {
    return Boolean(this.lastAct?.isPending)
      || [...this.choices.values()].some(({ isPending }) => isPending)
      || Boolean(this.asked.get(this.ui.current)?.isPending);
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
        logs: asked?.logs ?? new Map(),
      };
      this.asked.set(row, asked);
      this.model.send({ type: "attempts", row });
    }
    return asked;
  }

  /**
   * Ask for what a worker logged during an attempt.
   * @param {number} row
   * @param {number} attempt
   */
  askLog(row, attempt) {
    this.model.send({ type: "log", row, attempt });
  }
}

const WHEN_CELL_ENDS = "The kernel is busy; this happens when the cell ends.";

/**
 * What stands beside the buttons of a paused batch after a person has pressed one.
 * @param {Choice | undefined} choice
 * @param {number} now  page time in ms
 */
export function choiceText(choice, now) {
  if (!choice) return "";
  if (!choice.isPending) return choice.type === "resume" ? "going on …" : "being cancelled …";
  if (now <= choice.at + ANSWER_WITHIN_MS) return "";
  return WHEN_CELL_ENDS
    + " In a terminal, `scalable resume` or `scalable cancel --paused` does it now.";
}

/**
 * What stands beside the buttons of a task after a person has pressed one.
 * @param {Act | null} act
 * @param {number} now  page time in ms
 */
export function actText(act, now) {
  if (!act) return "";
  if (!act.isPending) return act.text;
  return now > act.at + ANSWER_WITHIN_MS ? WHEN_CELL_ENDS : "";
}
