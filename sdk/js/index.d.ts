/**
 * A policy: the default export of `src/plugin.js` or `src/plugin.ts`. `phases` in plugin.toml says
 * which of its functions the gateway calls.
 *
 * What a phase throws ends the call: it is logged, and the exchange gets what the operator chose
 * for a plugin that fails, 503 by default. `undefined` goes on with the next plugin.
 */
export interface Plugin {
  /** Called once in each instance with the plugin's configuration. What it throws refuses the
   * configuration, and the operator sees the message. */
  configure?(config: any): Setup | void;
  /** "route": the upstream for this request, or nothing to let the rule decide. */
  select?(request: Request): string | null | void;
  /** "request" */
  onRequest?(request: Request): Action | void;
  /** "request-body", after `needBody`; the body is read with `postern-plugin/body`. */
  onRequestBody?(request: Request, body: BodySize): Action | void;
  /** "request-stream"; wants `requestChunks` */
  onRequestChunk?(chunk: Uint8Array, last: boolean): ChunkAction | void;
  /** "response" */
  onResponse?(response: Response): Action | void;
  /** "response-body", after `needBody` */
  onResponseBody?(response: Response, body: BodySize): Action | void;
  /** "response-stream"; wants `responseChunks` */
  onResponseChunk?(chunk: Uint8Array, last: boolean): ChunkAction | void;
  /** "log" */
  onLog?(summary: Summary): void;
  /** "background"; wants `tickMs` */
  onTick?(): void;
  /** "challenge": the key authorization for an HTTP-01 token, if it is this plugin's. */
  keyAuthorization?(host: string, token: string): string | null | void;
  /** "dns-solver"; `present` and `poll` answer after how many milliseconds to poll, or nothing if
   * the record is published. */
  supports?(zone: string): boolean;
  present?(txt: TxtRecord): number | void;
  poll?(txt: TxtRecord): number | void;
  cleanup?(txt: TxtRecord): void;
}

/** What the plugin wants to be given. */
export interface Setup {
  /** Values of the request that most calls look at: they come with the call, which is faster than
   * asking for them. The names are those of `request-view` in wit/phases.wit. */
  requestView?: string[];
  responseView?: string[];
  requestChunks?: boolean;
  responseChunks?: boolean;
  /** 100 at least. */
  tickMs?: number;
}

interface Message {
  /** The value of a field; null if it is absent or not UTF-8. Several are joined with ", ". */
  get(name: string): string | null;
  getAll(name: string): string[];
  getBytes(name: string): Uint8Array[];
  names(): string[];
  /** Edits throw an `EditError` if they are refused. */
  set(name: string, value: string): void;
  append(name: string, value: string): void;
  remove(name: string): void;
}

export interface Request extends Message {
  method: string;
  /** Path and query. */
  path: string;
  /** Host and, if the client gave one, port. */
  authority: string;
  readonly scheme: "http" | "https";
  /** The value of the first cookie of this name. */
  cookie(name: string): string | null;
  /** Sends the request to this upstream, by its configured name. */
  setUpstream(name: string): void;
}

export interface Response extends Message {
  status: number;
  /** The request that this answers, to be read. */
  readonly request: Request;
}

export interface BodySize {
  length: number;
  /** There are more bytes, which pass untouched. */
  truncated: boolean;
}

export interface Summary {
  /** 0: there was no response. */
  status: number;
  requestBytes: number;
  responseBytes: number;
  durationUs: number;
  upstream: string | null;
  outcome: string;
}

export interface TxtRecord {
  name: string;
  zone: string;
  value: string;
  identifier: string;
}

export type Action =
  | { kind: "respond"; status: number; headers?: Headers; body?: string | Uint8Array }
  | { kind: "need-body"; limit: number; truncate?: boolean }
  | { kind: "abort" };
export type ChunkAction = { bytes: string | Uint8Array } | { kind: "abort" };
export type Headers = Record<string, string | string[]>;

/** Answers now. */
export function respond(status: number, body?: string | Uint8Array, headers?: Headers): Action;
/** Holds the message and collects at most `limit` bytes of its body. */
export function needBody(limit: number, options?: { truncate?: boolean }): Action;
/** Ends the connection or stream without an answer. */
export const abort: { kind: "abort" };

export class EditError extends Error {
  reason: "forbidden" | "invalid" | "too-large" | "unknown-upstream" | "too-late";
}

type Log = (message: string, fields?: Record<string, unknown>) => void;
/** The gateway's log. */
export const log: { debug: Log; info: Log; warn: Log; error: Log };

/** What is known of the current exchange beside its messages. */
export const exchange: {
  readonly id: number;
  readonly traceparent: string;
  /** "peer.ip", "client.ip", "route" and others of `exchange` in wit/host.wit. */
  attribute(name: string): string | null;
  /** Text, at most 4 KiB, for the later phases of this plugin. */
  state: string;
  getVar(name: string): string | null;
  /** A value for later plugins and the access log. */
  setVar(name: string, value: string): void;
};

export const clock: {
  /** Unix time in milliseconds. `Date.now` is not real time here. */
  now(): number;
  /** Waits, 10 seconds at most, while the gateway goes on. */
  sleep(ms: number): void;
};

/** Fit for secrets; `Math.random` is not. */
export const random: {
  bytes(length: number): Uint8Array;
  /** A number from 0 on, below the bound. */
  below(bound: number): number;
};

export function toUtf8(text: string): Uint8Array;
export function fromUtf8(bytes: Uint8Array): string;
