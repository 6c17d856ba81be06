import * as wire from "postern:plugin/crypto@0.1.0";
import { reasonOf } from "./error.js";

const key = (key) =>
  typeof key === "string" ? { tag: "secret", val: key } : { tag: "bytes", val: key };

function asked(call) {
  try {
    return call();
  } catch (thrown) {
    throw new Error(reasonOf(thrown));
  }
}

export const digest = (algorithm, data) => Uint8Array.from(wire.digest(algorithm, data));
export const hmac = (algorithm, secret, data) =>
  asked(() => Uint8Array.from(wire.hmac(algorithm, key(secret), data)));
export const verify = (algorithm, secret, data, signature) =>
  asked(() => wire.verify(algorithm, key(secret), data, signature));
export const equal = (a, b) => wire.equal(a, b);
