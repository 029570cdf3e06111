// @ts-check
/** Elements, and what every part of the view may use. */

/** @typedef {import("./feed.mjs").Feed} Feed */

/**
 * An element; texts are text, never markup.
 * @param {string} tag
 * @param {Record<string, any>} [attributes]
 * @param {...(Node | string)} children
 * @returns {any}
 */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== false) element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children);
  return element;
}

/**
 * @param {Node} node
 * @param {string} text
 */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** What a part of the view may use. */
export class Context {
  /**
   * @param {Feed} feed
   * @param {AbortSignal} signal  ends every listener
   * @param {() => void} request  asks for a new painting
   */
  constructor(feed, signal, request) {
    this.feed = feed;
    this.store = feed.store;
    this.ui = feed.ui;
    this.signal = signal;
    this.request = request;
    this.id = `snb-${Math.random().toString(36).slice(2)}`;
  }

  /**
   * @param {EventTarget} target
   * @param {string} type
   * @param {(event: any) => void} handler
   */
  listen(target, type, handler) {
    target.addEventListener(type, handler, { signal: this.signal });
  }

  /**
   * Choose one task alone and show its card; -1 for none.
   * @param {number} row
   */
  select(row) {
    this.ui.current = row;
    this.ui.chosen = row < 0 ? new Set() : new Set([row]);
    this.ui.anchor = row;
    this.request();
  }

  /** @param {Partial<import("./query.mjs").Query>} change */
  ask(change) {
    this.ui.query = { ...this.ui.query, ...change };
    this.request();
  }
}

const TYPING_MS = 120;

/**
 * Call a function when somebody has typed and paused.
 * @param {Context} context
 * @param {HTMLInputElement} input
 * @param {() => void} handler
 */
export function whenTyped(context, input, handler) {
  let timer = 0;
  context.listen(input, "input", () => {
    window.clearTimeout(timer);
    timer = window.setTimeout(handler, TYPING_MS);
  });
  context.signal.addEventListener("abort", () => window.clearTimeout(timer));
}

/**
 * Put a text on the clipboard; works without a permission and on pages without TLS.
 * @param {string} text
 * @returns {boolean}  whether the browser let it
 */
export function copyText(text) {
  let isDone = false;
  const onCopy = (/** @type {ClipboardEvent} */ event) => {
    event.clipboardData?.setData("text/plain", text);
    event.preventDefault();
    event.stopImmediatePropagation();
    isDone = event.clipboardData !== null;
  };
  document.addEventListener("copy", onCopy, { capture: true });
  document.execCommand("copy");
  document.removeEventListener("copy", onCopy, { capture: true });
  return isDone;
}
