// Policies for the Postern gateway. See README.md; the types in index.d.ts say what there is.
//
// What has to be granted by the operator stands in modules of its own (callout, secrets, shared):
// a plugin imports, and has to be granted, only what it names.

import * as wireClock from "postern:plugin/clock@0.1.0";
import * as wireExchange from "postern:plugin/exchange@0.1.0";
import * as wireLog from "postern:plugin/log@0.1.0";
import * as wireRandom from "postern:plugin/random@0.1.0";
import { edit } from "./error.js";

export { EditError } from "./error.js";

export function respond(status, body = "", headers = {}) {
  const type = typeof body === "string" && body !== "" ? { "content-type": "text/plain; charset=utf-8" } : {};
  return { kind: "respond", status, headers: { ...type, ...headers }, body };
}

export function needBody(limit, { truncate = false } = {}) {
  return { kind: "need-body", limit, truncate };
}

export const abort = { kind: "abort" };

function write(level, message, fields = {}) {
  if (wireLog.enabled(level)) {
    const pairs = Object.entries(fields).map(([name, value]) => [name, String(value)]);
    wireLog.write(level, String(message), pairs);
  }
}

export const log = {
  debug: (message, fields) => write("debug", message, fields),
  info: (message, fields) => write("info", message, fields),
  warn: (message, fields) => write("warn", message, fields),
  error: (message, fields) => write("error", message, fields),
};

export const exchange = {
  get id() {
    return wireExchange.id();
  },
  get traceparent() {
    return wireExchange.traceparent();
  },
  attribute: (name) => wireExchange.attribute(name) ?? null,
  get state() {
    return fromUtf8(wireExchange.state());
  },
  set state(text) {
    edit(() => wireExchange.setState(toUtf8(text)));
  },
  getVar: (name) => wireExchange.var(name) ?? null,
  setVar: (name, value) => edit(() => wireExchange.setVar(name, value)),
};

export const clock = {
  now: () => wireClock.nowMs(),
  sleep: (ms) => wireClock.sleepMs(ms),
};

export const random = {
  bytes: (length) => Uint8Array.from(wireRandom.bytes(length)),
  // Of 2^32 numbers each is as likely: below a bound that is small beside that, so is each.
  below: (bound) => {
    const [a, b, c, d] = wireRandom.bytes(4);
    return (((a << 24) | (b << 16) | (c << 8) | d) >>> 0) % bound;
  },
};

// The engine has neither TextEncoder nor TextDecoder.
export function toUtf8(text) {
  return Uint8Array.from(unescape(encodeURIComponent(text)), (char) => char.charCodeAt(0));
}

export function fromUtf8(bytes) {
  let text = "";
  for (const byte of bytes) {
    text += String.fromCharCode(byte);
  }
  return decodeURIComponent(escape(text));
}
