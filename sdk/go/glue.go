package postern

import (
	dns "postern/internal/bind/postern_plugin_dns_solver"
	lifecycle "postern/internal/bind/postern_plugin_lifecycle"
	logging "postern/internal/bind/postern_plugin_log_phase"
	types "postern/internal/bind/postern_plugin_types"
	_ "postern/internal/bind/wit_exports" // what the gateway calls
	"postern/internal/hooks"
	wit "postern/internal/wit/types"
)

var (
	registered Plugin
	setup      Setup
)

// refresh reads the clock for time.Now. Nothing may be asked of the gateway while it hands over
// strings, which is when Go's collector wants to know the time.
//
//go:wasmimport wasi_snapshot_preview1 postern_refresh
func refresh()

func init() {
	hooks.Configure = configure
	hooks.Select = func(view types.View) wit.Option[string] {
		refresh()
		if registered.Select == nil {
			return wit.None[string]()
		}
		upstream, err := registered.Select(newRequest(view))
		insist(err)
		if upstream == "" {
			return wit.None[string]()
		}
		return wit.Some(upstream)
	}
	hooks.OnRequest = func(view types.View) types.Action {
		refresh()
		if registered.OnRequest == nil {
			return types.MakeActionNext()
		}
		return decided(registered.OnRequest(newRequest(view)))
	}
	hooks.OnRequestBody = func(length uint64, truncated bool) types.Action {
		refresh()
		if registered.OnRequestBody == nil {
			return types.MakeActionNext()
		}
		return decided(registered.OnRequestBody(newRequest(nil), Body{length, truncated}))
	}
	hooks.OnRequestChunk = func(chunk []byte, last bool) types.ChunkAction {
		refresh()
		if registered.OnRequestChunk == nil {
			return types.MakeChunkActionPass()
		}
		return decidedChunk(registered.OnRequestChunk(chunk, last))
	}
	hooks.OnResponse = func(view types.View) types.Action {
		refresh()
		if registered.OnResponse == nil {
			return types.MakeActionNext()
		}
		return decided(registered.OnResponse(newResponse(view)))
	}
	hooks.OnResponseBody = func(length uint64, truncated bool) types.Action {
		refresh()
		if registered.OnResponseBody == nil {
			return types.MakeActionNext()
		}
		return decided(registered.OnResponseBody(newResponse(nil), Body{length, truncated}))
	}
	hooks.OnResponseChunk = func(chunk []byte, last bool) types.ChunkAction {
		refresh()
		if registered.OnResponseChunk == nil {
			return types.MakeChunkActionPass()
		}
		return decidedChunk(registered.OnResponseChunk(chunk, last))
	}
	hooks.OnLog = func(summary logging.Summary) {
		refresh()
		if registered.OnLog != nil {
			insist(registered.OnLog(Summary{
				Status:        summary.Status,
				RequestBytes:  summary.RequestBytes,
				ResponseBytes: summary.ResponseBytes,
				DurationUs:    summary.DurationUs,
				Upstream:      summary.Upstream.SomeOr(""),
				Outcome:       summary.Outcome,
			}))
		}
	}
	hooks.OnTick = func() {
		refresh()
		if registered.OnTick != nil {
			insist(registered.OnTick())
		}
	}
	hooks.KeyAuthorization = func(host, token string) wit.Option[string] {
		refresh()
		if registered.KeyAuthorization != nil {
			if answer := registered.KeyAuthorization(host, token); answer != "" {
				return wit.Some(answer)
			}
		}
		return wit.None[string]()
	}
	hooks.Supports = func(zone string) bool {
		refresh()
		return registered.Solver != nil && registered.Solver.Supports(zone)
	}
	hooks.Present = func(txt dns.TxtRecord) wit.Result[dns.Progress, string] {
		refresh()
		if registered.Solver == nil {
			return wit.Err[dns.Progress]("not supported")
		}
		return progress(registered.Solver.Present(TxtRecord(txt)))
	}
	hooks.Poll = func(txt dns.TxtRecord) wit.Result[dns.Progress, string] {
		refresh()
		if registered.Solver == nil {
			return wit.Err[dns.Progress]("not supported")
		}
		return progress(registered.Solver.Poll(TxtRecord(txt)))
	}
	hooks.Cleanup = func(txt dns.TxtRecord) wit.Result[wit.Unit, string] {
		refresh()
		if registered.Solver == nil {
			return wit.Err[wit.Unit]("not supported")
		}
		if err := registered.Solver.Cleanup(TxtRecord(txt)); err != nil {
			return wit.Err[wit.Unit](err.Error())
		}
		return wit.Ok[wit.Unit, string](wit.Unit{})
	}
}

func configure(config string) wit.Result[lifecycle.Spec, string] {
	refresh()
	setup = Setup{}
	if registered.Configure != nil {
		if err := registered.Configure([]byte(config), &setup); err != nil {
			return wit.Err[lifecycle.Spec](err.Error())
		}
	}
	return wit.Ok[lifecycle.Spec, string](lifecycle.Spec{
		RequestView:  setup.RequestView,
		ResponseView: setup.ResponseView,
		RequestBody:  bodyMode(setup.RequestChunks),
		ResponseBody: bodyMode(setup.ResponseChunks),
		TickMs:       setup.TickMs,
	})
}

func bodyMode(chunks bool) lifecycle.BodyMode {
	if chunks {
		return lifecycle.BodyModeChunks
	}
	return lifecycle.BodyModeNone
}

// insist ends the call with a fault: what the policy was to do is not done, and whether the
// exchange goes on without it is for the operator to decide.
func insist(err error) {
	if err != nil {
		LogError(err.Error())
		panic(err)
	}
}

func decided(action Action, err error) types.Action {
	insist(err)
	switch action.kind {
	case respond:
		return types.MakeActionRespond(types.LocalResponse{
			Status:  action.reply.Status,
			Headers: fields(action.reply.Headers),
			Body:    action.reply.Body,
		})
	case needBody:
		overflow := types.OverflowReject
		if action.truncate {
			overflow = types.OverflowTruncate
		}
		return types.MakeActionNeedBody(types.BodyRequest{
			Limit:      action.limit,
			OnOverflow: overflow,
		})
	case abort:
		return types.MakeActionAbort()
	default:
		return types.MakeActionNext()
	}
}

func decidedChunk(action ChunkAction, err error) types.ChunkAction {
	insist(err)
	switch action.kind {
	case replaceChunk:
		return types.MakeChunkActionReplace(action.bytes)
	case abortChunk:
		return types.MakeChunkActionAbort()
	default:
		return types.MakeChunkActionPass()
	}
}

func progress(pendingMs uint32, err error) wit.Result[dns.Progress, string] {
	switch {
	case err != nil:
		return wit.Err[dns.Progress](err.Error())
	case pendingMs == 0:
		return wit.Ok[dns.Progress, string](dns.MakeProgressReady())
	default:
		return wit.Ok[dns.Progress, string](dns.MakeProgressPending(pendingMs))
	}
}

func fields(fields []Field) []types.Field {
	out := make([]types.Field, len(fields))
	for i, field := range fields {
		out[i] = types.Field(field)
	}
	return out
}

func edited(result wit.Result[wit.Unit, types.EditError]) error {
	if result.IsErr() {
		return EditError(result.Err())
	}
	return nil
}
