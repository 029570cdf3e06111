// @ts-check
/** The batches that are paused, why, and what a person can do about it. */

import { make } from "./dom.mjs";
import { choiceText } from "./feed.mjs";
import { visibleText } from "./words.mjs";

/** @typedef {import("./dom.mjs").Context} Context */

/** The batches that are paused, why, and what a person can do about it. */
export class Pauses {
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
      { type: "button", class: "snb-button", "data-type": type, "data-at": at, disabled: isChosen }, word);
    return make("div", { class: "snb-pause" },
      make("div", { class: "snb-why" }, `‖ ${visibleText(text)}`),
      make("div", { class: "snb-line" }, button("resume", "Go on"),
        button("cancel", "Cancel the rest"), make("span", { class: "snb-faint" }, told)));
  }
}
