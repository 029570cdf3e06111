// @ts-check
/** The rows, of which only those in view exist. */

import { COLUMNS, telling, visibleColumns } from "./columns.mjs";
import { make, setText } from "./dom.mjs";
import { isSlow } from "./estimate.mjs";
import { Header } from "./header.mjs";
import { Order } from "./order.mjs";
import { CANCELLED, STATES } from "./states.mjs";
import { Toolbar } from "./toolbar.mjs";
import { visibleText } from "./words.mjs";

/** @typedef {import("./dom.mjs").Context} Context */
/** @typedef {import("./columns.mjs").Column} Column */
/** @typedef {{ element: any, cells: any[], mark: any, word: any }} Slot */

const ROW_PX = 26; // as in the style sheet
const SPARE_ROWS = 6;
const LONGEST_TIP = 1000;
const SCROLLBAR_PX = 16;

export class Grid {
  /** @param {Context} context */
  constructor(context) {
    this.context = context;
    this.order = new Order(context);
    this.toolbar = new Toolbar(context, this.order);
    this.header = new Header(context);
    /** @type {Slot[]} */
    this.pool = [];
    /** @type {Column[]} */
    this.visible = [];
    this.told = { columns: telling(context.store), version: -1 };
    this.body = make("div", { class: "snb-body", role: "rowgroup" });
    this.empty = make("div", { class: "snb-empty", hidden: true });
    this.scroller = make("div", { class: "snb-grid", role: "grid", tabindex: 0,
      "aria-label": "Tasks", "aria-colcount": COLUMNS.length, "aria-multiselectable": "true",
      "data-lm-suppress-shortcuts": "true" }, this.header.element, this.body, this.empty);
    this.element = make("div", {}, this.toolbar.element, this.scroller);
    this.#listen();
  }

  #listen() {
    const { context } = this;
    context.listen(this.scroller, "scroll", () => {
      context.ui.scrollTop = this.scroller.scrollTop;
      context.ui.scrollLeft = this.scroller.scrollLeft;
      this.paintRows();
    });
    context.listen(this.body, "mousedown", (event) => {
      if (event.shiftKey) event.preventDefault(); // else the page's text is selected
    });
    context.listen(this.body, "click", (event) => {
      const row = event.target.closest("[data-row]")?.dataset.row;
      if (row !== undefined) this.#choose(Number(row), event);
    });
    context.listen(this.scroller, "keydown", (event) => this.#key(event));
  }

  /**
   * Choose a task alone; with Shift all up to it, with Ctrl or Cmd one more or less.
   * @param {number} row
   * @param {MouseEvent | KeyboardEvent} event
   */
  #choose(row, { shiftKey, ctrlKey, metaKey }) {
    const { ui } = this.context;
    if (shiftKey && ui.anchor >= 0) {
      const [from, to] = [ui.anchor, row].map((each) => this.order.placeOf(each));
      if (from < 0) return this.context.select(row);
      ui.chosen = new Set(this.order.between(from, to));
      ui.current = row;
    } else if (ctrlKey || metaKey) {
      ui.chosen = new Set(ui.chosen);
      if (!ui.chosen.delete(row)) ui.chosen.add(row);
      ui.current = ui.anchor = row;
    } else return this.context.select(row);
    this.context.request();
  }

  /** @param {KeyboardEvent} event */
  #key(event) {
    if (event.target !== this.scroller || event.altKey) return;
    const { order, context } = this;
    if (event.ctrlKey || event.metaKey) return this.#shortcut(event);
    const page = Math.max(1, Math.floor(this.#viewHeight() / ROW_PX) - 1);
    const at = order.placeOf(context.ui.current);
    /** @type {Record<string, number>} */
    const goals = {
      ArrowDown: at + 1,
      ArrowUp: at < 0 ? 0 : at - 1,
      PageDown: at + page,
      PageUp: at - page,
      Home: 0,
      End: order.length - 1,
    };
    if (event.key === "Escape") context.select(-1);
    else if (event.key in goals && order.length) {
      const goal = Math.min(Math.max(goals[event.key], 0), order.length - 1);
      this.#choose(order.rowAt(goal), event);
      this.#scrollTo(goal);
    } else return;
    event.preventDefault();
  }

  /** @param {KeyboardEvent} event */
  #shortcut(event) {
    if (event.key === "a") this.context.ui.chosen = new Set(this.order.all());
    else if (event.key === "c") this.toolbar.copyRows();
    else return;
    event.preventDefault();
    this.context.request();
  }

  /** @param {number} row */
  reveal(row) {
    const at = this.order.placeOf(row);
    if (at >= 0) this.#scrollTo(at);
  }

  /** @param {number} at */
  #scrollTo(at) {
    const top = at * ROW_PX;
    const view = this.#viewHeight();
    if (top < this.scroller.scrollTop) this.scroller.scrollTop = top;
    else if (top + ROW_PX > this.scroller.scrollTop + view) {
      this.scroller.scrollTop = top + ROW_PX - view;
    }
  }

  #viewHeight() {
    return this.scroller.clientHeight - this.header.element.offsetHeight;
  }

  paint() {
    const { store, ui } = this.context;
    this.order.update();
    this.#layOut();
    this.header.paint(this.visible);
    this.toolbar.paint(new Set(this.visible.map(({ id }) => id)));
    this.scroller.setAttribute("aria-rowcount", String(this.order.length + 1));
    this.body.style.height = `${this.order.length * ROW_PX}px`;
    this.scroller.style.setProperty("--snb-rows",
      String(Math.max(store.size, 1) + Number(ui.isFiltering)));
    this.empty.hidden = this.order.length > 0;
    setText(this.empty, store.size ? "No task matches the filter." : "No tasks yet.");
    if (this.scroller.scrollTop !== ui.scrollTop) this.scroller.scrollTop = ui.scrollTop;
    if (this.scroller.scrollLeft !== ui.scrollLeft) this.scroller.scrollLeft = ui.scrollLeft;
    this.paintRows();
  }

  /** Which columns are shown, and how wide they are. */
  #layOut() {
    const { store, ui } = this.context;
    if (this.told.version !== store.version) {
      this.told = { columns: telling(store), version: store.version };
    }
    const width = this.element.clientWidth - SCROLLBAR_PX;
    this.visible = visibleColumns(width, this.told.columns, ui.columns);
    const template = this.visible.map(({ width: least, grow }) =>
      (grow ? `minmax(${least}px, ${grow}fr)` : `${least}px`)).join(" ");
    const least = this.visible.reduce((sum, column) => sum + column.width, 0);
    this.scroller.style.setProperty("--snb-columns", template);
    this.scroller.style.setProperty("--snb-least", `${least}px`);
  }

  paintRows() {
    const { store, ui, feed } = this.context;
    const first = Math.max(0, Math.floor(this.scroller.scrollTop / ROW_PX) - SPARE_ROWS);
    const room = Math.ceil(this.scroller.clientHeight / ROW_PX) + 2 * SPARE_ROWS;
    const count = Math.max(0, Math.min(room, this.order.length - first));
    const now = store.now();
    const limits = feed.pace.look().limits;
    while (this.pool.length < count) this.pool.push(this.#makeRow(this.pool.length));
    let active = "";
    this.pool.forEach((slot, i) => {
      slot.element.hidden = i >= count;
      if (i >= count) return slot.element.removeAttribute("data-row");
      const row = this.order.rowAt(first + i);
      if (row === ui.current) active = slot.element.id;
      this.#paintRow(slot, first + i, row, now);
      this.#paintState(slot, row, isSlow(store, row, now, limits));
    });
    if (active) this.scroller.setAttribute("aria-activedescendant", active);
    else this.scroller.removeAttribute("aria-activedescendant");
  }

  /** @param {number} number */
  #makeRow(number) {
    const mark = make("span", { class: "snb-mark", "aria-hidden": "true" });
    const word = make("span");
    const cells = COLUMNS.map(({ id, isRight }, i) =>
      make("div", { class: `snb-${id}${isRight ? " snb-right" : ""}`, role: "gridcell",
        "aria-colindex": i + 1 }));
    cells[COLUMNS.findIndex(({ id }) => id === "state")].append(mark, " ", word);
    const element = make("div", { class: "snb-row", role: "row",
      id: `${this.context.id}-row-${number}` }, ...cells);
    this.body.append(element);
    return { element, cells, mark, word };
  }

  /**
   * @param {Slot} slot
   * @param {number} at
   * @param {number} row
   * @param {number} now
   */
  #paintRow({ element, cells }, at, row, now) {
    const { store, ui } = this.context;
    element.style.transform = `translateY(${at * ROW_PX}px)`;
    element.dataset.row = String(row);
    element.setAttribute("aria-rowindex", String(at + 2));
    element.setAttribute("aria-selected", String(ui.chosen.has(row)));
    element.classList.toggle("snb-current", row === ui.current);
    element.classList.toggle("snb-odd", at % 2 === 1);
    COLUMNS.forEach((column, i) => {
      const isShown = this.visible.includes(column);
      if (cells[i].hidden === isShown) cells[i].hidden = !isShown;
      if (!isShown || column.id === "state") return;
      const text = visibleText(column.text(store, row, now));
      setText(cells[i], text);
      if (column.grow) cells[i].title = text.slice(0, LONGEST_TIP);
    });
  }

  /**
   * @param {Slot} slot
   * @param {number} row
   * @param {boolean} isLate
   */
  #paintState({ element, mark, word }, row, isLate) {
    const { store } = this.context;
    const isReplaced = store.isReplaced(row);
    const { name, mark: sign } = STATES[isReplaced ? CANCELLED : store.columns.state[row]];
    element.dataset.state = name;
    element.classList.toggle("snb-late", isLate);
    setText(mark, isLate ? "◷" : sign);
    setText(word, isLate ? "slow" : isReplaced ? "replaced" : name);
  }
}
