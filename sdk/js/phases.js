// Between the functions that the gateway calls and the policy. `postern plugin build` writes the
// module that exports those of the phases in plugin.toml.

import { log, toUtf8 } from "./index.js";
import { reasonOf } from "./error.js";
import { Request, Response } from "./message.js";

export function phases(plugin) {
  let setup = {};

  // A fault ends the call: what the policy was to do is not done, and whether the exchange goes on
  // without it is for the operator to decide.
  const insist = (call) => {
    try {
      return call();
    } catch (thrown) {
      log.error(thrown instanceof Error ? thrown.message : reasonOf(thrown));
      throw thrown;
    }
  };
  const request = (view = []) => new Request(setup.requestView, view);
  const response = (view = []) => new Response(setup.responseView, view);

  return {
    lifecycle: {
      configure(config) {
        try {
          setup = plugin.configure?.(JSON.parse(config)) ?? {};
        } catch (thrown) {
          // A refusal is a text for the operator.
          throw thrown instanceof Error ? thrown.message : reasonOf(thrown);
        }
        return {
          requestView: setup.requestView ?? [],
          responseView: setup.responseView ?? [],
          requestBody: setup.requestChunks ? "chunks" : "none",
          responseBody: setup.responseChunks ? "chunks" : "none",
          tickMs: setup.tickMs ?? 0,
        };
      },
    },
    routePhase: {
      select: (view) => insist(() => plugin.select(request(view)) ?? null),
    },
    requestPhase: {
      onRequest: (view) => insist(() => action(plugin.onRequest(request(view)))),
    },
    requestBodyPhase: {
      onRequestBody: (length, truncated) =>
        insist(() => action(plugin.onRequestBody(request(), { length, truncated }))),
    },
    requestStream: {
      onRequestChunk: (chunk, last) => insist(() => piece(plugin.onRequestChunk(chunk, last))),
    },
    responsePhase: {
      onResponse: (view) => insist(() => action(plugin.onResponse(response(view)))),
    },
    responseBodyPhase: {
      onResponseBody: (length, truncated) =>
        insist(() => action(plugin.onResponseBody(response(), { length, truncated }))),
    },
    responseStream: {
      onResponseChunk: (chunk, last) => insist(() => piece(plugin.onResponseChunk(chunk, last))),
    },
    logPhase: { onLog: (summary) => insist(() => void plugin.onLog(summary)) },
    background: { onTick: () => insist(() => void plugin.onTick()) },
    challengePhase: {
      keyAuthorization: (host, token) =>
        insist(() => plugin.keyAuthorization(host, token) ?? null),
    },
    dnsSolver: {
      supports: (zone) => plugin.supports(zone),
      present: (txt) => progress(plugin.present(txt)),
      poll: (txt) => progress(plugin.poll(txt)),
      cleanup: (txt) => void plugin.cleanup(txt),
    },
  };
}

function action(decided) {
  if (decided == null) {
    return { tag: "next" };
  }
  switch (decided.kind) {
    case "respond": {
      const headers = Object.entries(decided.headers ?? {}).flatMap(([name, value]) =>
        [value].flat().map((value) => ({ name, value })),
      );
      return { tag: "respond", val: { status: decided.status, headers, body: bytes(decided.body) } };
    }
    case "need-body":
      return {
        tag: "need-body",
        val: { limit: decided.limit, onOverflow: decided.truncate ? "truncate" : "reject" },
      };
    case "abort":
      return { tag: "abort" };
    default:
      throw new Error(`a phase answered ${JSON.stringify(decided)}, which is no action`);
  }
}

function piece(decided) {
  if (decided == null) {
    return { tag: "pass" };
  }
  return decided.kind === "abort"
    ? { tag: "abort" }
    : { tag: "replace", val: bytes(decided.bytes ?? decided) };
}

function progress(pendingMs) {
  return pendingMs ? { tag: "pending", val: pendingMs } : { tag: "ready" };
}

function bytes(body) {
  return typeof body === "string" ? toUtf8(body) : (body ?? new Uint8Array());
}
