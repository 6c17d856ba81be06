// Sets and removes header fields of requests and responses, as the configuration says.

// Fields that every request gets.
let set = [];
// Fields that no response keeps.
let remove = [];

export default {
  configure(config) {
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
};
