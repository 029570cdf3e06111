// @ts-check
/** The head of the table: a title for each column, by which it sorts, and its filter. */

import { COLUMNS } from "./columns.mjs";
import { make, whenTyped } from "./dom.mjs";

/** @typedef {import("./dom.mjs").Context} Context */
/** @typedef {import("./columns.mjs").Column} Column */

const HINT = "a word, !word for its absence, or > 5, <= 2 min, = 3 for numbers";

export class Header {
  /** @param {Context} context */
  constructor(context) {
    this.context = context;
    this.heads = COLUMNS.map((column, i) => this.#head(column, i));
    this.filters = COLUMNS.map((column) => this.#filter(column));
    this.titles = make("div", { class: "snb-row snb-head", role: "row", "aria-rowindex": 1 },
      ...this.heads);
    this.inputs = make("div", { class: "snb-row snb-filters", role: "row", "aria-rowindex": 2,
      hidden: true }, ...this.filters.map(({ cell }) => cell));
    this.element = make("div", { class: "snb-header", role: "rowgroup" }, this.titles,
      this.inputs);
  }

  /**
   * @param {Column} column
   * @param {number} i
   */
  #head({ id, title, isRight }, i) {
    const button = make("button", { type: "button" }, title,
      make("span", { class: "snb-arrow", "aria-hidden": "true" }));
    this.context.listen(button, "click", () => {
      const { column, descending } = this.context.ui.query;
      // Up, down, and back to the table's own order.
      if (column !== id) this.context.ask({ column: id, descending: false });
      else if (!descending) this.context.ask({ descending: true });
      else this.context.ask({ column: "index", descending: false });
    });
    return make("div", { class: `snb-${id}${isRight ? " snb-right" : ""}`, role: "columnheader",
      "aria-colindex": i + 1, "data-column": id }, button);
  }

  /** @param {Column} column */
  #filter({ id, title }) {
    const input = make("input", { type: "text", spellcheck: "false", title: HINT,
      "aria-label": `Filter by ${title.toLowerCase()}: ${HINT}`, placeholder: "filter" });
    whenTyped(this.context, input, () => this.#ask());
    return { id, input, cell: make("div", { role: "gridcell", "data-column": id }, input) };
  }

  #ask() {
    const typed = this.filters.filter(({ input }) => input.value.trim());
    this.context.ask({
      filters: Object.fromEntries(typed.map(({ id, input }) => [id, input.value])),
    });
  }

  /** @param {Column[]} visible */
  paint(visible) {
    const { query, isFiltering } = this.context.ui;
    const shown = new Set(visible.map(({ id }) => id));
    const isDefault = query.column === "index" && !query.descending;
    const order = query.descending ? "descending" : "ascending";
    for (const head of this.heads) {
      head.hidden = !shown.has(head.dataset.column);
      const isSorted = head.dataset.column === query.column && !isDefault;
      head.setAttribute("aria-sort", isSorted ? order : "none");
    }
    this.inputs.hidden = !isFiltering;
    for (const { id, input, cell } of this.filters) {
      cell.hidden = !shown.has(id);
      const text = query.filters[id] ?? "";
      if (input.value.trim() !== text.trim() && document.activeElement !== input) input.value = text;
    }
  }
}
