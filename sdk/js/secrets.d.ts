/** A secret that the operator granted to this plugin (`grants.secrets`). */
export function get(name: string): Uint8Array | null;
