/** The body that the plugin asked for with `needBody`; for `onRequestBody` and `onResponseBody`. */

/** At most `length` bytes from `offset` on. */
export function read(offset: number, length: number): Uint8Array;
/** Replaces the whole body. */
export function replace(bytes: Uint8Array): void;
