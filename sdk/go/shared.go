package postern

import (
	metrics "postern/internal/bind/postern_plugin_metrics"
	shared "postern/internal/bind/postern_plugin_shared"
	wit "postern/internal/wit/types"
)

// SharedGet reads what all instances of the plugin share; it wants the grant `shared-state`.
func SharedGet(key string) ([]byte, bool) {
	value := shared.Get(key)
	return value.SomeOr(nil), value.IsSome()
}

// SharedSet stores a value, for ttlMs or, if that is 0, without an end. It answers whether the
// value was small enough to be stored.
func SharedSet(key string, value []byte, ttlMs uint64) bool { return shared.Set(key, value, ttlMs) }

// SharedRemove removes a value.
func SharedRemove(key string) { shared.Remove(key) }

// SharedSwap stores value only if the key holds expected now (nil: nothing), and answers whether it
// did.
func SharedSwap(key string, expected, value []byte, ttlMs uint64) bool {
	if expected == nil {
		return shared.CompareAndSet(key, wit.None[[]byte](), value, ttlMs)
	}
	return shared.CompareAndSet(key, wit.Some(expected), value, ttlMs)
}

// SharedAdd adds to a counter in one step and answers the sum.
func SharedAdd(key string, delta int64, ttlMs uint64) int64 {
	return shared.Increment(key, delta, ttlMs)
}

// A Quota is the answer of a token bucket.
type Quota struct {
	Allowed      bool
	Remaining    uint64
	RetryAfterMs uint64
}

// SharedTake takes tokens out of a bucket that gets rate tokens each perMs and holds at most burst.
func SharedTake(key string, tokens, rate, perMs, burst uint32) Quota {
	return Quota(shared.Take(key, tokens, rate, perMs, burst))
}

// A Metric is a figure of the plugin's own on the gateway's metrics page. It is defined in
// Configure.
type Metric uint32

// Counter defines a metric that only grows.
func Counter(name, help string, labels ...string) Metric {
	return Metric(metrics.Counter(name, help, labels))
}

// Gauge defines a metric that is set.
func Gauge(name, help string, labels ...string) Metric {
	return Metric(metrics.Gauge(name, help, labels))
}

// Histogram defines a metric of observations. The buckets are upper bounds, ascending.
func Histogram(name, help string, buckets []float64, labels ...string) Metric {
	return Metric(metrics.Histogram(name, help, labels, buckets))
}

// Add adds to a counter or gauge, with the values of its labels.
func (m Metric) Add(delta float64, labels ...string) { metrics.Add(uint32(m), delta, labels) }

// Set sets a gauge.
func (m Metric) Set(value float64, labels ...string) { metrics.Set(uint32(m), value, labels) }

// Observe adds to a histogram.
func (m Metric) Observe(value float64, labels ...string) { metrics.Observe(uint32(m), value, labels) }
