import * as wire from "postern:plugin/callout@0.1.0";
import { reasonOf } from "./error.js";
import { toUtf8 } from "./index.js";

export class CallError extends Error {
  constructor(reason) {
    super(`a callout failed: ${reason}`);
    this.name = "CallError";
    this.reason = reason;
  }
}

export function send(call) {
  try {
    return answer(wire.send(lowered(call)));
  } catch (thrown) {
    throw new CallError(reasonOf(thrown));
  }
}

export function sendAll(calls) {
  return wire.sendAll(calls.map(lowered)).map((result) =>
    result.tag === "ok" ? answer(result.val) : new CallError(String(result.val)),
  );
}

function lowered({ upstream, path, method = "GET", headers = {}, body = "", timeoutMs = 0, maxResponseBytes = 0 }) {
  return {
    upstream,
    method,
    path,
    headers: Object.entries(headers).map(([name, value]) => ({ name, value })),
    body: typeof body === "string" ? toUtf8(body) : body,
    timeoutMs,
    maxResponseBytes,
  };
}

function answer(reply) {
  const headers = {};
  for (const { name, value } of reply.headers) {
    headers[name] = name in headers ? `${headers[name]}, ${value}` : value;
  }
  return { status: reply.status, headers, body: Uint8Array.from(reply.body) };
}
