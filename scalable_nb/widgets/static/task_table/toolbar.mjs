// @ts-check
/** Search, columns, copying, and what can be done with several tasks at once. */

import { actionsFor } from "./actions.mjs";
import { COLUMNS } from "./columns.mjs";
import { copyText, make, setText, whenTyped } from "./dom.mjs";
import { actText } from "./feed.mjs";
import { csvText, everything } from "./query.mjs";
import { countText, sizeText, visibleText } from "./words.mjs";

/** @typedef {import("./dom.mjs").Context} Context */
/** @typedef {import("./order.mjs").Order} Order */

export class Toolbar {
  /**
   * @param {Context} context
   * @param {Order} order
   */
  constructor(context, order) {
    this.context = context;
    this.order = order;
    this.search = make("input", { type: "search", class: "snb-search", spellcheck: "false",
      placeholder: "Search in all columns", "aria-label": "Search in all columns" });
    this.search.value = context.ui.query.text;
    this.shown = make("span", { class: "snb-shown" });
    this.clear = make("button", { type: "button", class: "snb-link" }, "Show all");
    this.filter = make("button", { type: "button", class: "snb-button" }, "Filter columns");
    this.copy = make("button", { type: "button", class: "snb-button" }, "Copy as CSV");
    this.columns = this.#columnMenu();
    this.bulk = make("div", { class: "snb-bulk", role: "group", hidden: true,
      "aria-label": "Selected tasks" });
    this.said = make("span", { class: "snb-faint", role: "status" });
    this.element = make("div", { class: "snb-tools", "data-lm-suppress-shortcuts": "true" },
      this.search, this.shown, this.clear, make("span", { class: "snb-fill" }), this.filter,
      this.columns, this.copy, this.bulk, this.said);
    this.painted = "";
    this.#listen();
  }

  #listen() {
    const { context } = this;
    whenTyped(context, this.search, () => context.ask({ text: this.search.value }));
    context.listen(this.clear, "click", () => {
      this.search.value = "";
      const { column, descending } = context.ui.query;
      context.ask({ ...everything(), column, descending });
    });
    context.listen(this.filter, "click", () => {
      context.ui.isFiltering = !context.ui.isFiltering;
      if (!context.ui.isFiltering) context.ask({ filters: {} });
      context.request();
    });
    context.listen(this.copy, "click", () => this.copyRows());
    context.listen(this.bulk, "click", ({ target }) => {
      const { action } = target.closest("button")?.dataset ?? {};
      const found = this.#actions().find((each) => each.action === action);
      if (found) context.feed.act(found.action, found.rows);
    });
  }

  #columnMenu() {
    const boxes = COLUMNS.filter(({ id }) => id !== "label").map(({ id, title }) => {
      const box = make("input", { type: "checkbox", "data-column": id });
      this.context.listen(box, "change", () => {
        this.context.ui.columns.set(id, box.checked);
        this.context.request();
      });
      return make("label", {}, box, ` ${title}`);
    });
    return make("details", { class: "snb-menu" }, make("summary", { class: "snb-button" },
      "Columns"), make("div", { class: "snb-sheet" }, ...boxes));
  }

  /** Put the selected tasks, else all that are shown, on the clipboard. */
  copyRows() {
    const { store, ui } = this.context;
    const rows = ui.chosen.size > 1 ? [...ui.chosen].sort((a, b) => a - b) : this.order.all();
    const isDone = copyText(csvText(store, rows, store.now()));
    setText(this.said, isDone ? `${countText(rows.length)} rows copied`
      : "The browser does not let the page copy.");
  }

  #actions() {
    const { feed, store, ui } = this.context;
    return ui.chosen.size > 1 ? actionsFor(store, ui.chosen, feed.possible, false) : [];
  }

  /** @param {Set<string>} visible  the columns that are shown */
  paint(visible) {
    const { store, ui } = this.context;
    const { length, isNarrow } = this.order;
    this.clear.hidden = !isNarrow;
    setText(this.shown, isNarrow ? `${countText(length)} of ${countText(store.size)} shown`
      : sizeText(store.total, store.size));
    this.filter.setAttribute("aria-pressed", String(ui.isFiltering));
    for (const box of this.columns.querySelectorAll("input")) {
      box.checked = visible.has(box.dataset.column);
    }
    this.#paintBulk();
  }

  #paintBulk() {
    const { feed, ui } = this.context;
    const isSeveral = ui.chosen.size > 1;
    const actions = this.#actions();
    const act = feed.lastAct && feed.lastAct.rows.length > 1 ? feed.lastAct : null;
    const told = actText(act, performance.now());
    const wanted = JSON.stringify([ui.chosen.size, told, Boolean(act?.isPending),
      actions.map(({ action, rows }) => [action, rows.length])]);
    if (wanted === this.painted) return;
    this.painted = wanted;
    this.bulk.hidden = !isSeveral && !told;
    const buttons = actions.map(({ action, title, rows }) => make("button", { type: "button",
      class: "snb-button", "data-action": action, disabled: Boolean(act?.isPending) },
      `${title} (${countText(rows.length)})`));
    const count = isSeveral ? [make("strong", {}, `${countText(ui.chosen.size)} selected`)] : [];
    this.bulk.replaceChildren(...count, ...buttons,
      make("span", { class: "snb-faint", role: "status" }, visibleText(told)));
  }
}
