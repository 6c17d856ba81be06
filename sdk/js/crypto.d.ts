/** The gateway's cryptography. A key is bytes, or the name of a secret that never enters the
 * plugin. */

export type DigestAlgorithm = "sha256" | "sha384" | "sha512";
export type SignatureAlgorithm = "hs256" | "rs256" | "ps256" | "es256" | "es384" | "ed25519";
export type Key = Uint8Array | string;

export function digest(algorithm: DigestAlgorithm, data: Uint8Array): Uint8Array;
/** Throws an error about the key. */
export function hmac(algorithm: DigestAlgorithm, key: Key, data: Uint8Array): Uint8Array;
/** Throws an error about the key; a bad signature is false. */
export function verify(
  algorithm: SignatureAlgorithm,
  key: Key,
  data: Uint8Array,
  signature: Uint8Array,
): boolean;
/** Takes the same time wherever the two differ. */
export function equal(a: Uint8Array, b: Uint8Array): boolean;
