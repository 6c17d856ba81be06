import * as wire from "postern:plugin/shared@0.1.0";

export function get(key) {
  const bytes = wire.get(key);
  return bytes == null ? null : Uint8Array.from(bytes);
}
export const set = (key, value, ttlMs = 0) => wire.set(key, value, ttlMs);
export const remove = (key) => wire.remove(key);
export const swap = (key, expected, value, ttlMs = 0) =>
  wire.compareAndSet(key, expected, value, ttlMs);
export const add = (key, delta, ttlMs = 0) => wire.increment(key, delta, ttlMs);
export const take = (key, { tokens = 1, rate, perMs, burst }) =>
  wire.take(key, tokens, rate, perMs, burst);
