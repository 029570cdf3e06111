// @ts-check
/** Every task as a cell. */

import { attemptText } from "./columns.mjs";
import { make, setText } from "./dom.mjs";
import { fillOf, paintMark } from "./marks.mjs";
import { STATES } from "./states.mjs";
import { layoutStrip, mostNotable, rangeBetween, shareHeights } from "./strip_layout.mjs";
import { countText, countsText, visibleText } from "./words.mjs";

/** @typedef {import("./dom.mjs").Context} Context */
/** @typedef {import("./strip_layout.mjs").Layout} Layout */

const STRIP_MAX_HEIGHT = 56;
/** From top to bottom, where a column of the strip stands for many tasks. */
const STACK = [0, 1, 2, 5, 4, 3, 6, 7, 9, 8];
const BRUSH_FROM_PX = 5;
const MARKED_FROM_PX = 8; // smaller cells have no room for a shape

/** Every task as a cell. */
export class Strip {
  /** @param {Context} context */
  constructor(context) {
    this.context = context;
    this.canvas = make("canvas", { role: "img" });
    this.tip = make("div", { class: "snb-tip", hidden: true });
    this.band = make("div", { class: "snb-band", hidden: true });
    this.element = make("div", { class: "snb-strip" }, this.canvas, this.band, this.tip);
    /** Where the pointer went down, in pixels; null while it is up. */
    this.pressedAt = /** @type {number | null} */ (null);
    this.painted = "";
    /** @type {Layout | null} */
    this.layout = null;
    context.listen(this.canvas, "pointermove", (event) => this.#hover(event));
    context.listen(this.canvas, "pointerleave", () => (this.tip.hidden = true));
    context.listen(this.canvas, "pointerdown", (event) => this.#press(event));
    context.listen(this.canvas, "pointerup", (event) => this.#release(event));
    context.listen(this.canvas, "pointercancel", () => (this.pressedAt = null));
  }

  /** @param {PointerEvent} event */
  #press(event) {
    if (event.button !== 0) return;
    this.pressedAt = event.offsetX;
    this.canvas.setPointerCapture(event.pointerId);
  }

  /**
   * A click chooses a task, a brush shows the tasks below it alone.
   * @param {PointerEvent} event
   */
  #release(event) {
    const { store, ui } = this.context;
    const range = this.#brushed(event);
    this.pressedAt = null;
    if (range) return this.context.ask({ range });
    const cell = this.#rangeAt(event);
    if (cell) this.context.select(mostNotable(store.columns.state, ...cell));
    else if (ui.query.range) this.context.ask({ range: null });
  }

  /**
   * The rows below a brush; null while the pointer has hardly moved.
   * @param {PointerEvent} event
   */
  #brushed(event) {
    if (this.pressedAt === null || !this.layout) return null;
    if (Math.abs(event.offsetX - this.pressedAt) < BRUSH_FROM_PX) return null;
    return rangeBetween(this.layout, this.context.store.size, this.pressedAt, event.offsetX);
  }

  /** @param {[number, number] | null} range */
  #paintBand(range) {
    const { layout } = this;
    this.band.hidden = !range || !layout;
    if (!range || !layout) return;
    const perColumn = layout.perCell * layout.rows;
    const left = Math.floor(range[0] / perColumn) * layout.cellWidth;
    const right = Math.ceil(range[1] / perColumn) * layout.cellWidth;
    this.band.style.left = `${left}px`;
    this.band.style.width = `${right - left}px`;
  }

  /** Colours or size may have changed. */
  forget() {
    this.painted = "";
  }

  paint() {
    const { store, ui } = this.context;
    this.element.hidden = !store.size;
    const width = this.element.clientWidth;
    const ratio = window.devicePixelRatio || 1;
    this.#paintBand(ui.query.range);
    const wanted = [store.version, ui.current, width, ratio].join();
    if (!width || wanted === this.painted) return;
    this.painted = wanted;
    const layout = layoutStrip(store.size, width, STRIP_MAX_HEIGHT);
    this.layout = layout;
    this.#paintBand(ui.query.range);
    const height = layout.rows * layout.cellHeight;
    this.canvas.width = Math.round(width * ratio);
    this.canvas.height = Math.round(height * ratio);
    this.canvas.style.height = `${height}px`;
    this.canvas.setAttribute("aria-label", `Tasks in order: ${countsText(store.counts)}`);
    const pen = this.canvas.getContext("2d");
    pen.scale(ratio, ratio);
    const colours = this.#colours(pen);
    if (layout.perCell === 1) this.#paintTasks(pen, layout, colours);
    else this.#paintShares(pen, layout, colours);
    if (ui.current >= 0 && ui.current < store.size) this.#paintSelected(pen, layout);
  }

  get #paper() {
    return getComputedStyle(this.element).getPropertyValue("--snb-paper").trim() || "#fff";
  }

  /** @param {CanvasRenderingContext2D} pen */
  #colours(pen) {
    const style = getComputedStyle(this.element);
    return STATES.map(({ name }) => {
      const property = `--snb-${name.replace(" ", "-")}`;
      pen.fillStyle = style.getPropertyValue(property).trim() || "#888";
      return String(pen.fillStyle); // as #rrggbb
    });
  }

  /**
   * @param {Layout} layout
   * @param {number} cell
   * @returns {[number, number, number, number]}
   */
  #box({ perCell, rows, cellWidth, cellHeight }, cell) {
    // On whole pixels of the screen, or neighbours show a seam.
    const ratio = window.devicePixelRatio || 1;
    const snap = (/** @type {number} */ value) => Math.round(value * ratio) / ratio;
    const gap = perCell === 1 && cellHeight > 4 ? snap(1) : 0;
    const [column, line] = [Math.floor(cell / rows), cell % rows];
    const [left, right] = [snap(column * cellWidth), snap((column + 1) * cellWidth)];
    const [top, bottom] = [snap(line * cellHeight), snap((line + 1) * cellHeight)];
    return [left, top, Math.max(0.5, right - left - gap), bottom - top - gap];
  }

  /**
   * @param {CanvasRenderingContext2D} pen
   * @param {Layout} layout
   * @param {string[]} colours
   */
  #paintTasks(pen, layout, colours) {
    const { store } = this.context;
    const { state } = store.columns;
    const isMarked = layout.cellHeight >= MARKED_FROM_PX;
    const paper = this.#paper;
    for (let row = 0; row < store.size; row++) {
      const box = this.#box(layout, row);
      pen.fillStyle = colours[state[row]];
      pen.fillRect(...box);
      if (isMarked) paintMark(pen, state[row], box, paper);
    }
  }

  /**
   * @param {CanvasRenderingContext2D} pen
   * @param {Layout} layout
   * @param {string[]} colours
   */
  #paintShares(pen, layout, colours) {
    const fills = colours.map((colour, state) => fillOf(pen, state, colour, this.#paper));
    for (let cell = 0; cell < layout.cells; cell++) {
      const [x, y, width, height] = this.#box(layout, cell);
      const heights = shareHeights(this.#count(...this.#rangeOf(layout, cell)), height);
      let top = y;
      // What has not begun above what is done; what failed lies at the bottom.
      for (const state of STACK) {
        pen.fillStyle = fills[state];
        pen.fillRect(x, top, width, heights[state]);
        top += heights[state];
      }
    }
  }

  /**
   * @param {Layout} layout
   * @param {number} cell
   * @returns {[number, number]}
   */
  #rangeOf({ perCell }, cell) {
    return [cell * perCell, Math.min(this.context.store.size, (cell + 1) * perCell)];
  }

  /**
   * @param {number} first
   * @param {number} end
   */
  #count(first, end) {
    const { state } = this.context.store.columns;
    const counts = new Int32Array(STATES.length);
    for (let row = first; row < end; row++) counts[state[row]]++;
    return counts;
  }

  /**
   * @param {CanvasRenderingContext2D} pen
   * @param {Layout} layout
   */
  #paintSelected(pen, layout) {
    const [x, y, width, height] = this.#box(
      layout,
      Math.floor(this.context.ui.current / layout.perCell),
    );
    pen.strokeStyle = getComputedStyle(this.element).color;
    pen.lineWidth = 2;
    pen.strokeRect(x, Math.max(1, y), width, height);
  }

  /**
   * The rows below the pointer.
   * @param {MouseEvent} event
   * @returns {[number, number] | null}
   */
  #rangeAt(event) {
    if (!this.layout) return null;
    const { cells, rows, cellWidth, cellHeight } = this.layout;
    const column = Math.floor(event.offsetX / cellWidth);
    const line = Math.floor(event.offsetY / cellHeight);
    const cell = column * rows + line;
    if (line < 0 || line >= rows || cell < 0 || cell >= cells) return null;
    return this.#rangeOf(this.layout, cell);
  }

  /** @param {PointerEvent} event */
  #hover(event) {
    const brushed = this.#brushed(event);
    if (brushed) this.#paintBand(brushed);
    const range = brushed ?? this.#rangeAt(event);
    this.tip.hidden = !range;
    if (!range) return;
    setText(this.tip, this.#describe(...range));
    const room = this.element.clientWidth - this.tip.offsetWidth;
    this.tip.style.left = `${Math.max(0, Math.min(event.offsetX + 10, room))}px`;
    this.tip.style.top = `${event.offsetY + 18}px`;
  }

  /**
   * @param {number} first
   * @param {number} end
   */
  #describe(first, end) {
    const { store } = this.context;
    if (end - first > 1) {
      const counts = countsText(this.#count(first, end));
      return `#${countText(first)} to #${countText(end - 1)}: ${counts}`;
    }
    const { name, mark } = STATES[store.columns.state[first]];
    const error = store.text("error", first);
    const parts = [`#${first}`, store.label(first), `${mark} ${name}`, attemptText(store, first)];
    return visibleText([...parts, error].filter(Boolean).join(" · ")).slice(0, 200);
  }
}
