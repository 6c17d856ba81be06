/** State that all instances of this plugin share (`grants.shared-state`). */

export function get(key: string): Uint8Array | null;
/** Answers whether the value was small enough to be stored. */
export function set(key: string, value: Uint8Array, ttlMs?: number): boolean;
export function remove(key: string): void;
/** Stores `value` only if the key holds `expected` now (null: nothing). */
export function swap(key: string, expected: Uint8Array | null, value: Uint8Array, ttlMs?: number): boolean;
/** Adds to a counter in one step and answers the sum. */
export function add(key: string, delta: number, ttlMs?: number): number;

export interface Quota {
  allowed: boolean;
  remaining: number;
  retryAfterMs: number;
}
/** A token bucket: `rate` tokens each `perMs`, at most `burst`. */
export function take(
  key: string,
  bucket: { tokens?: number; rate: number; perMs: number; burst: number },
): Quota;
