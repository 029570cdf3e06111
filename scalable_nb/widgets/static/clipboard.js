// @ts-check
/**
 * A button that copies a text. The text is in the page already, so it works while the kernel is
 * busy; where the page may not write to the clipboard, it shows the text to be copied by hand.
 */

/** @param {{model: any, el: HTMLElement}} context */
function render({ model, el }) {
  const button = document.createElement("button");
  button.className = "jupyter-button widget-button";
  button.style.width = "auto"; // as wide as its words
  button.textContent = model.get("label");
  const shown = document.createElement("textarea");
  shown.readOnly = true;
  shown.hidden = true;
  shown.rows = 12;
  shown.style.width = "100%";
  const copy = async () => {
    const text = model.get("text");
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
    } catch {
      shown.value = text;
      shown.hidden = false;
      shown.select();
    }
  };
  const renew = () => {
    button.textContent = model.get("label");
    shown.hidden = true;
  };
  button.addEventListener("click", copy);
  model.on("change:text", renew);
  el.append(button, shown);
  return () => {
    button.removeEventListener("click", copy);
    model.off("change:text", renew);
  };
}

export default { render };
