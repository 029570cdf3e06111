// @ts-check
/** Title, counts, progress, time. */

import { make, setText } from "./dom.mjs";
import { ORDER, RETRYING, RUNNING, STATES } from "./states.mjs";
import {
  countText, countsText, durationText, leftText, percentDone, rateText, tickingText, visibleText,
} from "./words.mjs";

/** @typedef {import("./dom.mjs").Context} Context */

/** @type {Record<string, string>} */
const STATUS_TEXT = {
  live: "",
  finished: "",
  lost: "lost contact with the host",
  closed: "the session has ended",
};
const SPOKEN_EVERY_MS = 10_000;

/** Title, counts, progress, time. */
export class Summary {
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
    this.slow = this.#slowButton();
    this.spoken = make("div", { class: "snb-spoken", role: "status", "aria-live": "polite" });
    this.spokenAt = -Infinity;
    this.element = make("div", { class: "snb-summary" },
      make("div", { class: "snb-line" }, this.title, this.badge,
        make("span", { class: "snb-fill" }), this.share, this.time),
      this.bar,
      make("div", { class: "snb-counts", role: "group", "aria-label": "Show only tasks that are" },
        ...this.buttons.map(({ element }) => element), this.slow.element),
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
      const states = new Set(this.context.ui.query.states);
      if (!states.delete(state)) states.add(state);
      this.context.ask({ states });
    });
    return { element, count, state };
  }

  #slowButton() {
    const count = make("b");
    const element = make("button", { type: "button", class: "snb-count snb-slow",
      "aria-pressed": "false", hidden: true,
      title: "Show only tasks that run longer than three times the median of their kind" },
      make("span", { class: "snb-mark", "aria-hidden": "true" }, "◷"), " slow ", count);
    this.context.listen(element, "click", () =>
      this.context.ask({ isSlow: !this.context.ui.query.isSlow }));
    return { element, count };
  }

  paint() {
    const { store, feed, ui } = this.context;
    setText(this.title, visibleText(feed.model.get("title") || "Tasks"));
    const percent = percentDone(store.done, store.total);
    setText(this.share, `${countText(store.done)} of ${countText(store.total)} done`);
    this.bar.setAttribute("aria-valuenow", String(percent));
    this.bar.setAttribute("aria-valuetext", `${percent} %, ${countsText(store.counts)}`);
    ORDER.forEach((state, i) => {
      const isShown = STATES[state].final || state === RUNNING || state === RETRYING;
      const share = isShown && store.total ? store.counts[state] / store.total : 0;
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
    this.speak();
  }

  #rest() {
    const { store } = this.context;
    const begun = store.done + store.counts[RUNNING] + store.counts[RETRYING];
    return store.total ? 1 - begun / store.total : 1;
  }

  paintTime() {
    const { store, feed, ui } = this.context;
    const { estimate, slow } = feed.pace.look();
    const { elapsed, remaining, rate } = estimate;
    setText(this.slow.count, countText(slow));
    this.slow.element.setAttribute("aria-pressed", String(ui.query.isSlow));
    this.slow.element.hidden = !slow && !ui.query.isSlow;
    const percent = percentDone(store.done, store.total);
    const parts = store.size ? [`${percent} %`] : [];
    if (Number.isFinite(elapsed)) {
      parts.push(store.done === store.total ? `in ${durationText(elapsed)}` : tickingText(elapsed));
    }
    if (remaining > 0 && store.stoppedAt === null) parts.push(rateText(rate), leftText(estimate));
    setText(this.time, parts.join(" · "));
    const [word, kind] = this.#status(feed.model.get("status"));
    setText(this.badge, word);
    this.badge.dataset.status = kind;
  }

  /**
   * @param {string} status
   * @returns {[string, string]}
   */
  #status(status) {
    const { store, feed } = this.context;
    if (feed.isCatchingUp) return ["catching up", "late"];
    if (STATUS_TEXT[status]) return [STATUS_TEXT[status], status];
    if (store.size && store.done === store.total) return ["done", "done"];
    if (store.isSaved) {
      return [`as saved ${new Date(store.now() * 1000).toLocaleString()}`, "closed"];
    }
    return status === "live" ? ["live", "live"] : ["", status];
  }

  /** Announces the counts, when they are new and the last time is some seconds ago. */
  speak() {
    const { store } = this.context;
    const text = `${percentDone(store.done, store.total)} % done: ${countsText(store.counts)}`;
    const now = performance.now();
    if (text === this.spoken.textContent || now < this.spokenAt + SPOKEN_EVERY_MS) return;
    this.spokenAt = now;
    setText(this.spoken, text);
  }
}
