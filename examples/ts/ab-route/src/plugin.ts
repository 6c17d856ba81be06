// Sends a part of the clients to a second upstream, and keeps each client where it is by a cookie.

import { exchange, random, type Plugin } from "postern-plugin";

interface Config {
  /** Upstreams. */
  a: string;
  b: string;
  /** How many of a hundred new clients go to `b`. */
  percent: number;
  cookie: string;
}

let config: Config;

export default {
  configure(given: Config) {
    for (const key of ["a", "b", "cookie"] as const) {
      if (typeof given[key] !== "string" || given[key] === "") {
        throw new Error(`${key} is needed`);
      }
    }
    if (!Number.isInteger(given.percent) || given.percent < 0 || given.percent > 100) {
      throw new Error("percent: not a whole number from 0 to 100");
    }
    config = given;
  },

  select(request) {
    let side = request.cookie(config.cookie);
    if (side !== "a" && side !== "b") {
      // A new client, or one that made the cookie up. The response has to tell it.
      side = random.below(100) < config.percent ? "b" : "a";
      exchange.state = side;
    }
    return side === "b" ? config.b : config.a;
  },

  onResponse(response) {
    const side = exchange.state;
    if (side !== "") {
      const cookie = `${config.cookie}=${side}; Path=/; Max-Age=86400; SameSite=Lax`;
      response.append("set-cookie", cookie);
    }
  },
} satisfies Plugin;
