import * as wire from "postern:plugin/body@0.1.0";
import { edit } from "./error.js";

export const read = (offset, length) => Uint8Array.from(wire.read(offset, length));
export const replace = (bytes) => edit(() => wire.replace(bytes));
