// @ts-check
/**
 * The card of a session. Its link to the dashboard is secret and everything in the model may be
 * saved, so the link is asked of the kernel each time the card is drawn. Until the kernel answers,
 * and where there is none any more, the card says how to get the link.
 */

const STYLES = {
  card: "border:1px solid rgba(128,128,128,.35);border-radius:6px;padding:10px 12px;"
    + "font:inherit;color:var(--jp-content-font-color1,inherit);overflow-wrap:anywhere",
  facts: "display:grid;grid-template-columns:max-content 1fr;gap:2px 14px;margin:6px 0 0",
  name: "opacity:.7;margin:0",
  value: "margin:0",
};

/**
 * @param {string} tag
 * @param {string} style
 * @param {string} [text]
 */
function element(tag, style, text = "") {
  const made = document.createElement(tag);
  made.style.cssText = style;
  made.textContent = text;
  return made;
}

/** @param {{model: any, el: HTMLElement}} context */
function render({ model, el }) {
  const card = element("div", STYLES.card);
  const title = element("strong", "", model.get("title"));
  const facts = element("dl", STYLES.facts);
  card.append(title, facts);
  /** @type {HTMLElement | null} */
  let dashboard = null;
  for (const [name, value] of Object.entries(model.get("facts"))) {
    const shown = element("dd", STYLES.value, value);
    if (name === "dashboard") dashboard = shown;
    facts.append(element("dt", STYLES.name, name), shown);
  }
  const receive = (/** @type {any} */ content) => {
    if (content?.type !== "dashboard" || !/^(https?:\/)?\//.test(content.link)) return;
    const link = document.createElement("a");
    Object.assign(link, { href: content.link, textContent: content.link, target: "_blank",
      rel: "noopener" });
    dashboard?.replaceChildren(content.way, link);
  };
  model.on("msg:custom", receive);
  if (dashboard) model.send({ type: "dashboard" });
  el.append(card);
  return () => model.off("msg:custom", receive);
}

export default { render };
