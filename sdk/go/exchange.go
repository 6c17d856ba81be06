package postern

import (
	clock "postern/internal/bind/postern_plugin_clock"
	exchange "postern/internal/bind/postern_plugin_exchange"
	log "postern/internal/bind/postern_plugin_log"
	random "postern/internal/bind/postern_plugin_random"
	wit "postern/internal/wit/types"
)

// ExchangeID is the same in all phases of an exchange, and unique in the process.
func ExchangeID() uint64 { return exchange.Id() }

// Traceparent is the field that goes upstream, or "".
func Traceparent() string { return exchange.Traceparent() }

// Attribute answers "peer.ip", "client.ip", "route" and others of `exchange` in wit/host.wit.
func Attribute(name string) (string, bool) {
	value := exchange.Attribute(name)
	return value.SomeOr(""), value.IsSome()
}

// SetState keeps bytes, at most 4 KiB, for the later phases of this plugin.
func SetState(state []byte) error { return edited(exchange.SetState(state)) }

// State answers what was kept last; empty at first.
func State() []byte { return exchange.State() }

// SetVar keeps a value for later plugins and the access log.
func SetVar(name, value string) error { return edited(exchange.SetVar(name, value)) }

// Var answers what a plugin has set.
func Var(name string) (string, bool) {
	value := exchange.Var(name)
	return value.SomeOr(""), value.IsSome()
}

// LogDebug writes a line to the gateway's log; fields are names and values in turn.
func LogDebug(message string, fields ...string) { write(log.LevelDebug, message, fields) }

// LogInfo is as [LogDebug].
func LogInfo(message string, fields ...string) { write(log.LevelInfo, message, fields) }

// LogWarn is as [LogDebug].
func LogWarn(message string, fields ...string) { write(log.LevelWarn, message, fields) }

// LogError is as [LogDebug].
func LogError(message string, fields ...string) { write(log.LevelError, message, fields) }

func write(level log.Level, message string, fields []string) {
	if !log.Enabled(level) {
		return
	}
	var pairs []wit.Tuple2[string, string]
	for i := 0; i+1 < len(fields); i += 2 {
		pairs = append(pairs, wit.Tuple2[string, string]{F0: fields[i], F1: fields[i+1]})
	}
	log.Write(level, message, pairs)
}

// NowMs is Unix time. [time.Now] stands still within a call of a phase; this does not.
func NowMs() uint64 { return clock.NowMs() }

// SleepMs waits, 10 seconds at most. The gateway goes on meanwhile.
func SleepMs(ms uint32) { clock.SleepMs(ms) }

// RandomBytes are from the operating system, fit for secrets; 64 KiB at most. So are those of
// [crypto/rand].
func RandomBytes(length uint32) []byte { return random.Bytes(length) }

// RandomNumber is as [RandomBytes].
func RandomNumber() uint64 { return random.Number() }
