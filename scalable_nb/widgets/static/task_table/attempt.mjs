// @ts-check
/** One attempt of a task in words. */

import { make } from "./dom.mjs";
import { bytesText, durationText, visibleText } from "./words.mjs";

const LONGEST_MESSAGE = 20_000;

/** @param {any} value */
const shown = (value) => visibleText(String(value ?? ""));

/** @param {any} seconds */
const lasting = (seconds) => (seconds == null ? "" : durationText(Number(seconds)));

/**
 * What is to be said of an attempt beside its error, the longest known things last.
 * @param {any} row  as `client.attempts` gives it
 */
export function attemptFacts(row) {
  const next = row.will_retry ? `tried again after ${lasting(row.retry_in_s ?? 0)}`
    : row.outcome === "failed" || row.is_final ? "final" : "";
  const memory = row.memory_bytes == null ? "" : `${bytesText(row.memory_bytes)}${
    row.memory_limit_bytes ? ` of ${bytesText(row.memory_limit_bytes)}` : ""} memory`;
  const queued = row.queued_s == null ? "" : `${lasting(row.queued_s)} in line`;
  const ran = row.duration_s == null ? "" : `ran ${lasting(row.duration_s)}`;
  return [
    row.category,
    queued,
    ran,
    row.worker,
    row.host,
    row.pid ? `process ${row.pid}` : "",
    row.exit_code == null ? "" : `exit code ${row.exit_code}`,
    row.job_id ? `job ${row.job_id}${row.job_state ? ` ${row.job_state}` : ""}` : "",
    memory,
    row.reason,
    next,
  ].filter(Boolean).map(shown);
}

/**
 * @param {any} row  as `client.attempts` gives it
 * @param {object} options
 * @param {boolean} options.isLast
 * @param {Set<string>} [options.open]   parts that are open; by default the last traceback
 * @param {string[]} [options.log]       lines, where they are known
 * @param {() => void} options.askLog
 */
export function makeAttempt(row, { isLast, open, log, askLog }) {
  const outcome = row.failure_class ?? row.outcome;
  const article = make("article", { class: "snb-attempt", "data-attempt": row.attempt,
    "data-outcome": row.outcome ?? "failed" },
    make("div", { class: "snb-line" },
      make("strong", {}, `Attempt ${shown(row.attempt)}`),
      make("span", { class: "snb-class" }, shown(outcome)),
      make("span", { class: "snb-faint" }, attemptFacts(row).join(" · "))));
  if (row.message) {
    article.append(make("div", { class: "snb-message" },
      shown(row.message).slice(0, LONGEST_MESSAGE)));
  }
  if (row.args_preview) {
    article.append(part("Arguments", "args", shown(row.args_preview), Boolean(open?.has("args"))));
  }
  if (row.traceback) {
    article.append(part("Traceback", "traceback", shown(row.traceback),
      open ? open.has("traceback") : isLast));
  }
  article.append(makeLog(log, askLog, Boolean(open?.has("log"))));
  return article;
}

/**
 * @param {string} title
 * @param {string} name
 * @param {string} text
 * @param {boolean} isOpen
 */
function part(title, name, text, isOpen) {
  return make("details", { open: isOpen, "data-part": name }, make("summary", {}, title),
    make("pre", { tabindex: 0 }, text));
}

/**
 * What the worker logged in that time, asked for when somebody opens it.
 * @param {string[] | undefined} log
 * @param {() => void} askLog
 * @param {boolean} isOpen
 */
function makeLog(log, askLog, isOpen) {
  const text = log === undefined ? "Asking the kernel …"
    : log.length ? log.map(shown).join("\n") : "The worker logged nothing in that time.";
  const element = part("Worker's log", "log", text, isOpen);
  if (log === undefined) {
    element.addEventListener("toggle", () => element.open && askLog(), { once: true });
  }
  return element;
}
