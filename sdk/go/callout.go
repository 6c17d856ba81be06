package postern

import (
	"strings"

	bind "postern/internal/bind/postern_plugin_callout"
)

// A Call is a request to an upstream of the gateway, which has to be granted to the plugin.
type Call struct {
	Upstream string
	// Method is GET if it is empty.
	Method string
	// Path is path and query in origin form.
	Path    string
	Headers []Field
	Body    []byte
	// TimeoutMs is 0 for what is left of the plugin's wall time.
	TimeoutMs uint32
	// MaxResponseBytes of the body; 0 for 1 MiB.
	MaxResponseBytes uint32
}

// An Answer is what came back.
type Answer struct {
	Status  uint16
	Headers []Field
	Body    []byte
}

// Get answers the first value of a field, or "".
func (a Answer) Get(name string) string {
	for _, field := range a.Headers {
		if strings.EqualFold(field.Name, name) {
			return field.Value
		}
	}
	return ""
}

// A CallError is why nothing came back.
type CallError uint8

const (
	// CallDenied: the upstream is not granted, or the call is not a valid request.
	CallDenied CallError = iota
	CallConnect
	CallTimeout
	CallTooLarge
	CallProtocol
	CallOverloaded
)

func (e CallError) Error() string {
	words := [...]string{"denied", "no connection", "timeout", "the answer is too large",
		"the answer was not HTTP", "too many calls"}
	if int(e) < len(words) {
		return "a callout failed: " + words[e]
	}
	return "a callout failed"
}

// Send waits for the answer; the gateway goes on meanwhile.
func Send(call Call) (Answer, error) {
	result := bind.Send(lowered(call))
	if result.IsErr() {
		return Answer{}, CallError(result.Err())
	}
	return answer(result.Ok()), nil
}

// SendAll sends all of them at once. The answers and errors are in the order of the calls.
func SendAll(calls []Call) ([]Answer, []error) {
	low := make([]bind.Call, len(calls))
	for i, call := range calls {
		low[i] = lowered(call)
	}
	answers, errs := make([]Answer, len(calls)), make([]error, len(calls))
	for i, result := range bind.SendAll(low) {
		if result.IsErr() {
			errs[i] = CallError(result.Err())
		} else {
			answers[i] = answer(result.Ok())
		}
	}
	return answers, errs
}

func lowered(call Call) bind.Call {
	if call.Method == "" {
		call.Method = "GET"
	}
	return bind.Call{
		Upstream:         call.Upstream,
		Method:           call.Method,
		Path:             call.Path,
		Headers:          fields(call.Headers),
		Body:             call.Body,
		TimeoutMs:        call.TimeoutMs,
		MaxResponseBytes: call.MaxResponseBytes,
	}
}

func answer(reply bind.Reply) Answer {
	headers := make([]Field, len(reply.Headers))
	for i, field := range reply.Headers {
		headers[i] = Field(field)
	}
	return Answer{reply.Status, headers, reply.Body}
}
