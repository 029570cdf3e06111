// @ts-check
/**
 * The card of a session. Its link to the dashboard is secret and everything in the model may be
 * saved, so the link is asked of the kernel each time the card is drawn. Until the kernel answers,
 * and where there is none any more, the card says how to get the link.
 */

const FIRST_LOOK_MS = 2000;
const SLOWER = 1.5;
/** Facts that change without anything happening. */
const RESTLESS = ["memory", "used"];

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

/**
 * The facts as a grid. What did not change stays the same element, which somebody may be clicking
 * on or copying from.
 */
class Facts {
  constructor() {
    this.root = element("div", STYLES.facts);
    /** @type {Map<string, HTMLElement>} name to the element of its value */
    this.values = new Map();
    /** @type {{way: string, link: HTMLElement} | null} As the kernel told it. */
    this.dashboard = null;
  }

  /** @param {Record<string, string>} told  name to value, in their order */
  show(told) {
    const names = Object.keys(told);
    if (names.join() !== [...this.values.keys()].join()) {
      this.values = new Map(names.map((name) => [name, element("div", STYLES.value)]));
      this.root.replaceChildren();
      for (const [name, value] of this.values) {
        this.root.append(element("div", STYLES.name, name), value);
      }
    }
    for (const [name, value] of this.values) {
      if (name === "dashboard" && this.dashboard) {
        const { way, link } = this.dashboard;
        if (!value.contains(link)) value.replaceChildren(way, link);
      } else if (value.textContent !== told[name]) {
        value.textContent = told[name];
      }
    }
  }
}

/**
 * Has the kernel look again at the session while the card can be seen: soon, and more and more
 * seldom while nothing happens, so that a kernel that nobody uses may be culled; soon again when
 * somebody comes. A busy kernel has one question to answer, not many.
 */
class Looks {
  /**
   * @param {any} model
   * @param {HTMLElement} card
   */
  constructor(model, card) {
    this.model = model;
    this.wait_ms = FIRST_LOOK_MS;
    this.isSeen = false;
    this.isAsked = false;
    this.timer = 0;
    this.known = this.#news();
    this.ended = new AbortController();
    const { signal } = this.ended;
    const observer = new IntersectionObserver((entries) => {
      this.isSeen = entries[entries.length - 1].isIntersecting;
      this.#hurry();
    });
    observer.observe(card);
    signal.addEventListener("abort", () => observer.disconnect());
    card.addEventListener("pointerenter", () => this.#hurry(), { signal });
    document.addEventListener("visibilitychange", () => this.#hurry(), { signal });
  }

  /** What the card says, but for what changes by itself. */
  #news() {
    const facts = { ...this.model.get("facts") };
    for (const name of RESTLESS) delete facts[name];
    return JSON.stringify([this.model.get("title"), facts]);
  }

  #hurry() {
    this.wait_ms = FIRST_LOOK_MS;
    this.#plan();
  }

  #plan() {
    clearTimeout(this.timer);
    const isOfUse = this.isSeen && !document.hidden && this.model.get("is_live");
    if (isOfUse && !this.isAsked) this.timer = setTimeout(() => this.#ask(), this.wait_ms);
  }

  #ask() {
    this.isAsked = true;
    this.model.send({ type: "look" });
  }

  /** The kernel looked, and told what changed before. */
  answered() {
    this.isAsked = false;
    const news = this.#news();
    this.wait_ms = news === this.known ? SLOWER * this.wait_ms : FIRST_LOOK_MS;
    this.known = news;
    this.#plan();
  }

  stop() {
    clearTimeout(this.timer);
    this.ended.abort();
  }
}

/** @param {{model: any, el: HTMLElement}} context */
function render({ model, el }) {
  const card = element("div", STYLES.card);
  const title = element("strong", "");
  const facts = new Facts();
  card.append(title, facts.root);
  const show = () => {
    title.textContent = model.get("title");
    facts.show(model.get("facts"));
  };
  const looks = new Looks(model, card);
  const receive = (/** @type {any} */ content) => {
    if (content?.type === "looked") looks.answered();
    if (content?.type !== "dashboard" || !/^(https?:\/)?\//.test(content.link)) return;
    const link = element("a", STYLES.link, content.link);
    Object.assign(link, { href: content.link, target: "_blank", rel: "noopener" });
    facts.dashboard = { way: content.way, link };
    show();
  };
  const heard = { "msg:custom": receive, "change:facts": show, "change:title": show };
  for (const [name, callback] of Object.entries(heard)) model.on(name, callback);
  show();
  if ("dashboard" in model.get("facts")) model.send({ type: "dashboard" });
  el.append(card);
  return () => {
    looks.stop();
    for (const [name, callback] of Object.entries(heard)) model.off(name, callback);
  };
}

export default { render };
