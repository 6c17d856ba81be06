// Package hooks is where the generated exports find what to call. The SDK sets every variable
// before the gateway can call anything.
package hooks

import (
	dns "postern/internal/bind/postern_plugin_dns_solver"
	lifecycle "postern/internal/bind/postern_plugin_lifecycle"
	log "postern/internal/bind/postern_plugin_log_phase"
	types "postern/internal/bind/postern_plugin_types"
	wit "postern/internal/wit/types"
)

var (
	Configure       func(config string) wit.Result[lifecycle.Spec, string]
	Select          func(view types.View) wit.Option[string]
	OnRequest       func(view types.View) types.Action
	OnRequestBody   func(length uint64, truncated bool) types.Action
	OnRequestChunk  func(chunk []byte, last bool) types.ChunkAction
	OnResponse      func(view types.View) types.Action
	OnResponseBody  func(length uint64, truncated bool) types.Action
	OnResponseChunk func(chunk []byte, last bool) types.ChunkAction
	OnLog           func(summary log.Summary)
	OnTick          func()

	KeyAuthorization func(host, token string) wit.Option[string]

	Supports func(zone string) bool
	Present  func(txt dns.TxtRecord) wit.Result[dns.Progress, string]
	Poll     func(txt dns.TxtRecord) wit.Result[dns.Progress, string]
	Cleanup  func(txt dns.TxtRecord) wit.Result[wit.Unit, string]
)
