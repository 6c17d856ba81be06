// Lets a request pass if an authentication service says that its bearer token is good.

import { respond, type Action, type Plugin } from "postern-plugin";
import { send } from "postern-plugin/callout";

interface Config {
  /** The one that is asked, which has to be granted to the plugin. */
  upstream: string;
  /** Where: it answers 200 with the field x-user for a good token, and 401 for another. */
  path: string;
}

let config: Config;

export default {
  configure(given: Config) {
    for (const key of ["upstream", "path"] as const) {
      if (typeof given[key] !== "string" || given[key] === "") {
        throw new Error(`${key} is needed`);
      }
    }
    config = given;
    return { requestView: ["authorization"] };
  },

  onRequest(request) {
    // Whatever the client says about itself must not reach the application.
    request.remove("x-user");
    const authorization = request.get("authorization") ?? "";
    if (!authorization.startsWith("Bearer ")) {
      return denied();
    }
    // A service that cannot be asked is a fault: the operator says what happens then.
    const answer = send({
      upstream: config.upstream,
      path: config.path,
      headers: { "x-token": authorization.slice("Bearer ".length) },
      timeoutMs: 1000,
    });
    const user = answer.headers["x-user"];
    if (answer.status === 200 && user) {
      request.set("x-user", user);
      request.remove("authorization");
      return;
    }
    if (answer.status === 401) {
      return denied();
    }
    throw new Error(`the authentication service answered ${answer.status}`);
  },
} satisfies Plugin;

function denied(): Action {
  return respond(401, "a valid token is needed\n", { "www-authenticate": "Bearer" });
}
