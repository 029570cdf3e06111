// @ts-check
/** The view: all parts, and when they are painted. */

import { Card } from "./card.mjs";
import { Context, make, setText } from "./dom.mjs";
import { Feed } from "./feed.mjs";
import { Grid } from "./grid.mjs";
import { Pauses } from "./pauses.mjs";
import { Strip } from "./strip.mjs";
import { Summary } from "./summary.mjs";
import { visibleText } from "./words.mjs";

/** @typedef {import("./feed.mjs").Model} Model */

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
    this.current = feed.ui.current;
    const context = new Context(feed, signal, () => this.request());
    this.summary = new Summary(context);
    this.pauses = new Pauses(context);
    this.strip = new Strip(context);
    this.grid = new Grid(context);
    this.card = new Card(context);
    this.problem = make("div", { class: "snb-problem", role: "alert", hidden: true });
    root.classList.add("scalable-table");
    /** A line is the summary alone, for who only waits. */
    this.isLine = feed.model.get("form") === "line";
    root.classList.toggle("snb-line-form", this.isLine);
    const parts = this.isLine ? [] : [this.strip, this.grid, this.card];
    root.replaceChildren(this.summary.element, this.pauses.element,
      ...parts.map(({ element }) => element), this.problem);
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
    this.feed.watch(onFeed, signal);
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
    if (!this.isLine) this.#paintParts();
    const problem = feed.model.get("problem") || feed.problem;
    this.problem.hidden = !problem;
    setText(this.problem, visibleText(problem));
  }

  #paintParts() {
    const { ui } = this.feed;
    this.strip.paint();
    this.grid.paint();
    if (ui.current !== this.current) {
      this.current = ui.current;
      this.grid.reveal(this.current);
    }
    this.card.paint();
  }

  /** What moves by itself: running durations, countdowns, the time that is left. */
  #tick() {
    if (!this.isInView || !this.root.isConnected || document.hidden) return;
    const { store } = this.feed;
    if (this.grid.order.isBehind || this.feed.isWaiting) this.request();
    this.summary.speak();
    if (store.stoppedAt !== null || store.done === store.total) return;
    this.summary.paintTime();
    if (this.isLine) return;
    this.grid.paintRows();
    this.card.paint();
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
