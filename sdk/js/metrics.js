import * as wire from "postern:plugin/metrics@0.1.0";

const metric = (id) => ({
  add: (delta, ...labels) => wire.add(id, delta, labels),
  set: (value, ...labels) => wire.set(id, value, labels),
  observe: (value, ...labels) => wire.observe(id, value, labels),
});

export const counter = (name, help, labels = []) => metric(wire.counter(name, help, labels));
export const gauge = (name, help, labels = []) => metric(wire.gauge(name, help, labels));
export const histogram = (name, help, buckets, labels = []) =>
  metric(wire.histogram(name, help, labels, buckets));
