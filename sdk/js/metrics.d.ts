/** Figures on the gateway's metrics page. They are defined in `configure`. */

export interface Metric {
  /** To a counter or gauge, with the values of its labels. */
  add(delta: number, ...labels: string[]): void;
  set(value: number, ...labels: string[]): void;
  observe(value: number, ...labels: string[]): void;
}

export function counter(name: string, help: string, labels?: string[]): Metric;
export function gauge(name: string, help: string, labels?: string[]): Metric;
export function histogram(name: string, help: string, buckets: number[], labels?: string[]): Metric;
