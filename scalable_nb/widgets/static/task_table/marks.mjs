// @ts-check
/** The shapes that tell states apart without their colours. */

import { STATES } from "./states.mjs";

/**
 * The shape that tells a state without its colour.
 * @param {CanvasRenderingContext2D} pen
 * @param {number} state
 * @param {[number, number, number, number]} box
 * @param {string} paper
 */
export function paintMark(pen, state, [x, y, width, height], paper) {
  const { name } = STATES[state];
  const size = Math.min(width, height);
  const half = Math.max(2, Math.ceil(size * 0.2));
  const cx = x + width / 2;
  const cy = y + height / 2;
  pen.strokeStyle = pen.fillStyle = paper;
  pen.lineWidth = Math.max(1, size / 8);
  pen.beginPath();
  if (name === "failed") {
    pen.moveTo(cx - half, cy - half);
    pen.lineTo(cx + half, cy + half);
    pen.moveTo(cx + half, cy - half);
    pen.lineTo(cx - half, cy + half);
    pen.stroke();
  } else if (name === "cancelled") {
    pen.moveTo(cx + half, cy - half);
    pen.lineTo(cx - half, cy + half);
    pen.stroke();
  } else if (name === "running") {
    pen.moveTo(cx - half * 0.8, cy - half);
    pen.lineTo(cx + half, cy);
    pen.lineTo(cx - half * 0.8, cy + half);
    pen.fill();
  } else if (name === "retrying") {
    pen.arc(cx, cy, half, 0, 2 * Math.PI);
    pen.stroke();
  } else if (name === "cached") {
    pen.fillRect(cx - half / 2, cy - half / 2, half, half);
  } else if (name === "paused") {
    pen.fillRect(cx - half, cy - half, half * 0.7, 2 * half);
    pen.fillRect(cx + half * 0.3, cy - half, half * 0.7, 2 * half);
  }
}
