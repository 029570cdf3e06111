// @ts-check
/**
 * Keeps a chart as wide as the page.
 *
 * A FigureWidget is drawn before it is attached to the page, 700 pixels wide, and measures again
 * only when the window is resized. This element lies beside it, without height, and tells the
 * window so whenever its own width changed: when it is attached, and when a sidebar opens.
 */

/** @param {{el: HTMLElement}} context */
function render({ el }) {
  let width = 0;
  const observer = new ResizeObserver(() => {
    if (el.clientWidth !== width) {
      width = el.clientWidth;
      window.dispatchEvent(new Event("resize"));
    }
  });
  observer.observe(el);
  return () => observer.disconnect();
}

export default { render };
