import * as wire from "postern:plugin/secrets@0.1.0";

export function get(name) {
  const bytes = wire.get(name);
  return bytes == null ? null : Uint8Array.from(bytes);
}
