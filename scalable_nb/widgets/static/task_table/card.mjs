// @ts-check
/** One task: what is known of it, its attempts, and what can be done with it. */

import { actionsFor } from "./actions.mjs";
import { makeAttempt } from "./attempt.mjs";
import { attemptText, columnOf } from "./columns.mjs";
import { make, setText } from "./dom.mjs";
import { ANSWER_WITHIN_MS, actText } from "./feed.mjs";
import { STATES } from "./states.mjs";
import { segmentText, segmentsOf } from "./timeline.mjs";
import { countText, durationText, tickingText, timeText, visibleText } from "./words.mjs";

/** @typedef {import("./dom.mjs").Context} Context */
/** @typedef {import("./feed.mjs").Act} Act */

const BUSY_TEXT = "The kernel is busy; attempts appear when the cell ends.";
const LONGEST_NAME = 2000;

export class Card {
  /** @param {Context} context */
  constructor(context) {
    this.context = context;
    this.title = make("strong", { class: "snb-name" });
    this.close = make("button", { type: "button", class: "snb-close", "aria-label": "Close" },
      "✕");
    this.facts = make("div", { class: "snb-facts" });
    this.actions = make("div", { class: "snb-actions", role: "group",
      "aria-label": "What to do with this task" });
    this.outcome = make("div", { class: "snb-outcome", role: "status", hidden: true });
    this.timeline = make("div", { class: "snb-timeline", role: "img", hidden: true });
    this.attempts = make("div", { class: "snb-attempts" });
    this.element = make("section", { class: "snb-card", "aria-label": "Task details",
      hidden: true, "data-lm-suppress-shortcuts": "true" },
      make("div", { class: "snb-line" }, this.title, make("span", { class: "snb-fill" }),
        this.close),
      this.facts, this.actions, this.outcome, this.timeline, this.attempts);
    this.painted = { actions: "", outcome: "", attempts: "",
      rows: /** @type {any[] | null} */ (null) };
    context.listen(this.close, "click", () => context.select(-1));
    context.listen(this.actions, "click", ({ target }) => {
      const { action } = target.closest("button")?.dataset ?? {};
      if (action) context.feed.act(action, [context.ui.current]);
    });
  }

  paint() {
    const { store, ui } = this.context;
    const row = ui.current;
    this.element.hidden = row < 0 || row >= store.size;
    if (this.element.hidden) return;
    setText(this.title, visibleText(`#${row}  ${store.label(row)}`).slice(0, LONGEST_NAME));
    this.#paintFacts(row);
    this.#paintActions(row);
    this.#paintAttempts(row);
  }

  /** @param {number} row */
  #paintFacts(row) {
    const { store, feed } = this.context;
    const now = store.now();
    const { state, inputs, submitted_at, started_at } = store.columns;
    const { name, mark } = STATES[state[row]];
    /** @type {[string, string][]} */
    const facts = [
      ["state", store.isReplaced(row) ? `${mark} ${name}, replaced` : `${mark} ${name}`],
      ["inputs", inputs[row] > 1 ? countText(inputs[row]) : ""],
      ["next retry in", tickingText(Math.ceil(store.retryIn(row, now)))],
      ["attempt", attemptText(store, row)],
      ["execution", durationText(store.duration(row, now))],
      ["worker", store.text("worker", row)],
      ["host / job", columnOf("host").text(store, row, now)],
      ["component", store.text("component", row)],
      ["task", store.text("task", row)],
      ["submitted", timeText(submitted_at[row])],
      ["started", timeText(started_at[row])],
      ["key", feed.asked.get(row)?.key ?? ""],
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
  #paintActions(row) {
    const { feed, store } = this.context;
    const actions = actionsFor(store, [row], feed.possible, true);
    const act = feed.lastAct?.rows.length === 1 && feed.lastAct.rows[0] === row
      ? feed.lastAct : null;
    const isPending = Boolean(feed.lastAct?.isPending);
    const told = actText(act, performance.now());
    const wanted = JSON.stringify([row, isPending, told, actions.map(({ action }) => action)]);
    if (wanted !== this.painted.actions) {
      this.painted.actions = wanted;
      this.actions.replaceChildren(...actions.map(({ action, title }) => make("button",
        { type: "button", class: "snb-button", "data-action": action, disabled: isPending },
        title)));
    }
    this.#paintOutcome(row, told, act);
  }

  /**
   * @param {number} row
   * @param {string} told
   * @param {Act | null} act
   */
  #paintOutcome(row, told, act) {
    const details = act?.details ?? "";
    const wanted = JSON.stringify([row, told, details]);
    if (wanted === this.painted.outcome) return;
    this.painted.outcome = wanted;
    this.outcome.hidden = !told && !details;
    this.outcome.replaceChildren(make("span", {}, visibleText(told)));
    if (details) this.outcome.append(make("pre", { tabindex: 0 }, visibleText(details)));
  }

  /** @param {number} row */
  #paintAttempts(row) {
    const { store, feed } = this.context;
    const { attempt, error } = store.columns;
    if (!error[row] && !attempt[row]) return this.#say("No attempt has begun.", `${row}:none`);
    if (!feed.model.get("has_controls") || store.isSaved) {
      return this.#say("The attempts of a task are not at hand in this view.", `${row}:cannot`);
    }
    const asked = feed.attempts(row);
    if (asked.rows) return this.#list(row, asked.rows, asked.logs);
    const isLate = performance.now() > asked.at + ANSWER_WITHIN_MS;
    this.#say(isLate ? BUSY_TEXT : "Asking the kernel …", `${row}:${isLate}`);
  }

  /**
   * @param {string} text
   * @param {string} what
   */
  #say(text, what) {
    if (this.painted.attempts === what) return;
    this.painted.attempts = what;
    this.timeline.hidden = true;
    this.attempts.replaceChildren(make("p", { role: "status" }, text));
  }

  /**
   * @param {number} row
   * @param {any[]} rows
   * @param {Map<number, string[]>} logs
   */
  #list(row, rows, logs) {
    if (!rows.length) return this.#say("No attempt is recorded yet.", `${row}:empty`);
    this.#paintTimeline(rows);
    const what = `${row}:${[...logs.keys()]}`;
    if (this.painted.attempts === what && this.painted.rows === rows) return;
    this.painted.attempts = what;
    this.painted.rows = rows;
    const { feed } = this.context;
    const open = this.#openParts();
    this.attempts.replaceChildren(...rows.map((each, i) => makeAttempt(each, {
      isLast: i === rows.length - 1,
      open: open.get(String(each.attempt)),
      log: logs.get(each.attempt),
      askLog: () => feed.askLog(row, each.attempt),
    })));
  }

  /** Which parts of which attempts a person has opened. */
  #openParts() {
    /** @type {Map<string, Set<string>>} */
    const open = new Map();
    for (const part of this.attempts.querySelectorAll("details[open]")) {
      const { attempt } = part.closest("[data-attempt]").dataset;
      open.set(attempt, (open.get(attempt) ?? new Set()).add(part.dataset.part));
    }
    return open;
  }

  /** @param {any[]} rows */
  #paintTimeline(rows) {
    const segments = segmentsOf(rows, this.context.store.now());
    const texts = segments.map(segmentText);
    this.timeline.hidden = !segments.length;
    this.timeline.setAttribute("aria-label", `Time line. ${texts.join("; ")}`);
    while (this.timeline.children.length > segments.length) this.timeline.lastChild.remove();
    segments.forEach(({ kind, attempt, outcome, seconds }, i) => {
      const part = this.timeline.children[i] ?? this.timeline.appendChild(make("div"));
      part.className = `snb-part snb-part-${kind}`;
      part.dataset.outcome = outcome;
      part.style.flexGrow = String(Math.max(seconds, 1e-3));
      part.title = texts[i];
      setText(part, kind === "run" ? String(attempt) : "");
    });
  }
}
