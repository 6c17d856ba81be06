// Sets and removes header fields of requests and responses, as the configuration says.

import type { Plugin } from "postern-plugin";

interface Config {
  /** Fields that every request gets. */
  set?: Record<string, string>;
  /** Fields that no response keeps. */
  remove?: string[];
}

let set: [string, string][] = [];
let remove: string[] = [];

export default {
  configure(config: Config) {
    for (const key of Object.keys(config)) {
      if (key !== "set" && key !== "remove") {
        throw new Error(`unknown key ${key}; known are set and remove`);
      }
    }
    set = Object.entries(config.set ?? {});
    remove = config.remove ?? [];
  },

  onRequest(request) {
    for (const [name, value] of set) {
      request.set(name, value);
    }
  },

  onResponse(response) {
    for (const name of remove) {
      response.remove(name);
    }
  },
} satisfies Plugin;
