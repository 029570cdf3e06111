// @ts-check
/**
 * Frames: what the kernel sends, see row_stream.py. A length, a JSON header, binary columns.
 */

/**
 * @typedef {object} Header
 * @property {string} stream     names the table; another one starts again from a snapshot
 * @property {number} seq        number of the frame
 * @property {number | null} base  the number it continues; null for a snapshot
 * @property {number} size       rows of the table
 * @property {number} now_at     the host's clock, seconds since the epoch
 * @property {number} first_string  where `strings` go
 * @property {boolean} packed    whether the sections are deflated
 * @property {[string, string, number][]} sections  name, type code, length in bytes
 *
 * @typedef {object} Frame
 * @property {Header} header
 * @property {Record<string, any>} sections  typed arrays, or parsed JSON
 */

/** @type {Record<string, any>} Type codes of Python's array module. */
const ARRAYS = {
  B: Uint8Array,
  H: Uint16Array,
  i: Int32Array,
  I: Uint32Array,
  f: Float32Array,
  d: Float64Array,
};

/**
 * Read a frame's header, and where its sections begin.
 * @param {DataView} view
 * @returns {{ header: Header, start: number }}
 */
export function readHeader(view) {
  const length = view.getUint32(0, true);
  const bytes = new Uint8Array(view.buffer, view.byteOffset + 4, length);
  return { header: JSON.parse(new TextDecoder().decode(bytes)), start: 4 + length };
}

/**
 * Read a frame. The arrays may be views of the message's memory.
 * @param {DataView} view
 * @returns {Promise<Frame>}
 */
export async function decodeFrame(view) {
  const { header, start } = readHeader(view);
  let bytes = new Uint8Array(view.buffer, view.byteOffset + start, view.byteLength - start);
  if (header.packed) bytes = await inflate(bytes);
  // Typed arrays want their offset to be a multiple of the item's size; a message's buffer can
  // begin anywhere.
  if (bytes.byteOffset % 8) bytes = bytes.slice();
  /** @type {Record<string, any>} */
  const sections = {};
  let at = 0;
  for (const [name, code, length] of header.sections) {
    if (code === "J") {
      sections[name] = JSON.parse(new TextDecoder().decode(bytes.subarray(at, at + length)));
    } else {
      const type = ARRAYS[code];
      sections[name] = new type(
        bytes.buffer,
        bytes.byteOffset + at,
        length / type.BYTES_PER_ELEMENT,
      );
    }
    at += length + (-length & 7);
  }
  return { header, sections };
}

/**
 * @param {Uint8Array} bytes
 * @returns {Promise<Uint8Array>}
 */
async function inflate(bytes) {
  const stream = new Blob([/** @type {any} */ (bytes)])
    .stream()
    .pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

