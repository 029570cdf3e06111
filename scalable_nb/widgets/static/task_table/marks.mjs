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
  } else if (name === "left out") {
    pen.moveTo(cx - half, cy);
    pen.lineTo(cx + half, cy);
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

const TILE_PX = 6;

/** @type {Record<string, (brush: CanvasRenderingContext2D) => void>} Lines on a tile. */
const TEXTURES = {
  failed: (brush) => {
    brush.moveTo(0, TILE_PX);
    brush.lineTo(TILE_PX, 0);
  },
  retrying: (brush) => brush.rect(2, 2, 1, 1),
  paused: (brush) => {
    brush.moveTo(TILE_PX / 2, 0);
    brush.lineTo(TILE_PX / 2, TILE_PX);
  },
  "left out": (brush) => {
    brush.moveTo(0, TILE_PX / 2);
    brush.lineTo(TILE_PX, TILE_PX / 2);
  },
  cancelled: (brush) => {
    brush.moveTo(0, 0);
    brush.lineTo(TILE_PX, TILE_PX);
  },
};

/**
 * What fills the share of a state where cells have no room for a shape.
 * @param {CanvasRenderingContext2D} pen
 * @param {number} state
 * @param {string} colour
 * @param {string} paper
 * @returns {string | CanvasPattern}
 */
export function fillOf(pen, state, colour, paper) {
  const draw = TEXTURES[STATES[state].name];
  const tile = document.createElement("canvas");
  tile.width = tile.height = TILE_PX;
  const brush = tile.getContext("2d");
  if (!draw || !brush) return colour;
  brush.fillStyle = colour;
  brush.fillRect(0, 0, TILE_PX, TILE_PX);
  brush.strokeStyle = paper;
  brush.beginPath();
  draw(brush);
  brush.stroke();
  return pen.createPattern(tile, "repeat") ?? colour;
}
