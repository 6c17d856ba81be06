// The two messages of the exchange that a phase is about. Both answer from the values that came
// with the call, where the set-up named them, and ask the gateway for everything else. An edit makes
// such a value stale.

import * as wire from "postern:plugin/request@0.1.0";
import * as answer from "postern:plugin/response@0.1.0";
import { edit } from "./error.js";

class Message {
  #names;
  #values;
  #wire;

  constructor(wire, names, values) {
    this.#wire = wire;
    this.#names = names;
    this.#values = values;
  }

  // undefined: the gateway has to be asked. null: there is no such value.
  given(name) {
    const at = this.#names.indexOf(name);
    return at < 0 || at >= this.#values.length ? undefined : (this.#values[at] ?? null);
  }

  forget(name) {
    const at = this.#names.indexOf(name.toLowerCase());
    if (at >= 0) {
      this.#names = this.#names.with(at, "");
    }
  }

  get(name) {
    const value = this.given(name);
    // An absent value is null in one runtime and undefined in another; here it is always null.
    return value === undefined ? (this.#wire.get(name) ?? null) : value;
  }

  getAll(name) {
    return this.#wire.getAll(name);
  }

  getBytes(name) {
    return this.#wire.getBytes(name);
  }

  names() {
    return this.#wire.names();
  }

  set(name, value) {
    this.forget(name);
    edit(() => this.#wire.set(name, value));
  }

  append(name, value) {
    this.forget(name);
    edit(() => this.#wire.append(name, value));
  }

  remove(name) {
    this.forget(name);
    edit(() => this.#wire.remove(name));
  }
}

export class Request extends Message {
  constructor(names = [], values = []) {
    super(wire, names, values);
  }

  get method() {
    return this.given(":method") ?? wire.method();
  }

  set method(method) {
    this.forget(":method");
    edit(() => wire.setMethod(method));
  }

  get path() {
    return this.given(":path") ?? wire.path();
  }

  set path(path) {
    this.forget(":path");
    edit(() => wire.setPath(path));
  }

  get authority() {
    return this.given(":authority") ?? wire.authority();
  }

  set authority(authority) {
    this.forget(":authority");
    this.forget("host");
    edit(() => wire.setAuthority(authority));
  }

  get scheme() {
    return this.given(":scheme") ?? wire.scheme();
  }

  cookie(name) {
    for (const field of this.getAll("cookie")) {
      for (const pair of field.split(";")) {
        const [key, ...value] = pair.trim().split("=");
        if (key === name && value.length > 0) {
          return value.join("=");
        }
      }
    }
    return null;
  }

  setUpstream(name) {
    edit(() => wire.setUpstream(name));
  }
}

export class Response extends Message {
  constructor(names = [], values = []) {
    super(answer, names, values);
  }

  get request() {
    return new Request();
  }

  get status() {
    const status = this.given(":status");
    return status == null ? answer.status() : Number(status);
  }

  set status(status) {
    this.forget(":status");
    edit(() => answer.setStatus(status));
  }
}
