// @ts-check
/**
 * The card of a session. Its link to the dashboard is secret and everything in the model may be
 * saved, so the link is asked of the kernel each time the card is drawn. Until the kernel answers,
 * and where there is none any more, the card says how to get the link.
 */

const STYLES = {
  card: "border:1px solid rgba(128,128,128,.35);border-radius:6px;padding:10px 12px;"
    + "font:13px/1.5 var(--jp-ui-font-family,sans-serif);color:var(--jp-content-font-color1,inherit)",
  facts: "display:grid;grid-template-columns:max-content 1fr;gap:2px 14px;margin-top:6px",
  name: "opacity:.7",
  value: "overflow-wrap:anywhere",
  link: "color:var(--jp-content-link-color,#1565c0);text-decoration:underline",
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
  const facts = element("div", STYLES.facts);
  card.append(title, facts);
  /** @type {HTMLElement | null} */
  let dashboard = null;
  for (const [name, value] of Object.entries(model.get("facts"))) {
    const shown = element("div", STYLES.value, value);
    if (name === "dashboard") dashboard = shown;
    facts.append(element("div", STYLES.name, name), shown);
  }
  const receive = (/** @type {any} */ content) => {
    if (content?.type !== "dashboard" || !/^(https?:\/)?\//.test(content.link)) return;
    const link = element("a", STYLES.link, content.link);
    Object.assign(link, { href: content.link, target: "_blank", rel: "noopener" });
    dashboard?.replaceChildren(content.way, link);
  };
  model.on("msg:custom", receive);
  if (dashboard) model.send({ type: "dashboard" });
  el.append(card);
  return () => model.off("msg:custom", receive);
}

export default { render };
