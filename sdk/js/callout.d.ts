/** Requests to upstreams of the gateway. Each upstream has to be granted (`grants.upstreams`). */

export interface Call {
  upstream: string;
  /** Path and query. */
  path: string;
  /** GET, unless said otherwise. */
  method?: string;
  headers?: Record<string, string>;
  body?: string | Uint8Array;
  /** 0: what is left of the plugin's wall time. */
  timeoutMs?: number;
  /** 0: 1 MiB. */
  maxResponseBytes?: number;
}

export interface Answer {
  status: number;
  /** Names in lower case. */
  headers: Record<string, string>;
  body: Uint8Array;
}

export class CallError extends Error {
  reason: "denied" | "connect" | "timeout" | "too-large" | "protocol" | "overloaded";
}

/** Waits for the answer, while the gateway goes on. Throws a `CallError`. */
export function send(call: Call): Answer;
/** All at once; the answers are in the order of the calls. */
export function sendAll(calls: Call[]): (Answer | CallError)[];
