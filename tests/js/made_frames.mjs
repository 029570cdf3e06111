// Frames and stores as the kernel and the page make them.
import { deflateSync } from "node:zlib";

import { decodeFrame } from "../../scalable_nb/widgets/static/task_table/frames.mjs";
import { TaskStore } from "../../scalable_nb/widgets/static/task_table/store.mjs";

const TYPES = { B: Uint8Array, H: Uint16Array, i: Int32Array, I: Uint32Array, f: Float32Array,
  d: Float64Array };
const CODES = { state: "B", attempt: "H", attempts_allowed: "H", worker: "i", host: "i", job: "i", error: "i",
  function: "i", task: "i", component: "i", inputs: "I", submitted_at: "d", started_at: "d", retry_at: "d",
  duration_s: "f" };

/** Bytes of a frame as row_stream.py writes it, at an offset that no typed array likes. */
export function encode(header, sections, { packed = false, offset = 0 } = {}) {
  const pieces = [];
  const table = [];
  for (const [name, code, values] of sections) {
    const bytes = code === "J"
      ? new TextEncoder().encode(JSON.stringify(values))
      : new Uint8Array(TYPES[code].from(values).buffer);
    table.push([name, code, bytes.length]);
    pieces.push(bytes, new Uint8Array(-bytes.length & 7));
  }
  let body = Buffer.concat(pieces);
  if (packed) body = deflateSync(body);
  let text = JSON.stringify({ stream: "s", size: 0, now_at: 1000, first_string: 1, packed,
    ...header, sections: table });
  text += " ".repeat(-(text.length + 4) & 7);
  const length = Buffer.alloc(4);
  length.writeUInt32LE(text.length);
  const all = Buffer.concat([length, Buffer.from(text), body]);
  const memory = new ArrayBuffer(all.length + offset);
  new Uint8Array(memory, offset).set(all);
  return new DataView(memory, offset, all.length);
}

/** A frame with these tasks; values not given are 0, and of inputs 1. */
export function frameOf(header, tasks, options) {
  const sections = [["rows", "I", tasks.map((task, i) => task.row ?? i)]];
  for (const [name, code] of Object.entries(CODES)) {
    sections.push([name, code, tasks.map((task) => task[name] ?? Number(name === "inputs"))]);
  }
  const named = tasks.map((task, i) => [task.row ?? i, task.label]).filter(([, label]) => label);
  if (header.base !== null) sections.push(["named", "I", named.map(([row]) => row)]);
  sections.push(["labels", "J", named.map(([, label]) => label)]);
  sections.push(["strings", "J", header.strings ?? []]);
  return encode({ size: tasks.length, base: null, seq: 0, ...header }, sections, options);
}

export async function storeOf(tasks, header = {}) {
  const store = new TaskStore();
  const frame = await decodeFrame(frameOf({ base: null, ...header }, tasks));
  store.apply(frame, frame.header.now_at);
  return store;
}
