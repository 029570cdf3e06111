// The copy button: copies without the kernel, and shows the text where it may not copy.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

// Loaded from memory, as anywidget does it; so no package.json must say that it is a module.
const file = new URL("../../scalable_nb/widgets/static/clipboard.js", import.meta.url);
const { default: clipboard } = await import(
  `data:text/javascript;base64,${readFileSync(file).toString("base64")}`
);

/** Just enough of a page. */
function pageWith(writeText) {
  const made = [];
  globalThis.document = {
    createElement: (name) => {
      const listeners = {};
      const element = {
        name,
        selected: false,
        style: {},
        addEventListener: (event, listener) => (listeners[event] = listener),
        removeEventListener: (event) => delete listeners[event],
        select: () => (element.selected = true),
        click: () => listeners.click?.(),
      };
      made.push(element);
      return element;
    },
  };
  Object.defineProperty(globalThis, "navigator", {
    value: { clipboard: { writeText } },
    configurable: true,
  });
  return made;
}

/** A model with a text, that tells of its change. */
function modelWith(values) {
  const listeners = {};
  return {
    get: (name) => values[name],
    on: (event, listener) => (listeners[event] = listener),
    off: (event) => delete listeners[event],
    change: (name, value) => {
      values[name] = value;
      listeners[`change:${name}`]?.();
    },
    listeners,
  };
}

test("a click copies the text as it is now", async () => {
  const copied = [];
  const made = pageWith(async (text) => void copied.push(text));
  const model = modelWith({ label: "Copy", text: "first" });
  clipboard.render({ model, el: { append: () => {} } });
  const [button] = made;
  model.change("text", "<b>second</b>");
  await button.click();
  assert.deepEqual(copied, ["<b>second</b>"]);
  assert.equal(button.textContent, "Copied");
  model.change("text", "third");
  assert.equal(button.textContent, "Copy");
});

test("where the page may not copy, the text is shown to be copied by hand", async () => {
  const made = pageWith(async () => {
    throw new Error("not allowed");
  });
  const model = modelWith({ label: "Copy", text: "by hand" });
  clipboard.render({ model, el: { append: () => {} } });
  const [button, area] = made;
  await button.click();
  assert.equal(area.hidden, false);
  assert.equal(area.value, "by hand");
  assert.ok(area.selected);
});

test("what is taken away leaves no listener", () => {
  const made = pageWith(async () => {});
  const model = modelWith({ label: "Copy", text: "" });
  const remove = clipboard.render({ model, el: { append: () => {} } });
  remove();
  assert.deepEqual(model.listeners, {});
  assert.equal(made[0].click(), undefined); // nobody listens
});
