package postern

import (
	"strconv"
	"strings"

	bindBody "postern/internal/bind/postern_plugin_body"
	bindRequest "postern/internal/bind/postern_plugin_request"
	bindResponse "postern/internal/bind/postern_plugin_response"
	types "postern/internal/bind/postern_plugin_types"
	wit "postern/internal/wit/types"
)

// view is the values that came with the call, in the order in which they were named. An edit makes
// a value stale: the gateway is asked for it from then on.
type view struct {
	names  []string
	values types.View
	stale  uint64
}

func (v *view) find(name string) (value wit.Option[string], known bool) {
	for i, other := range v.names {
		if other == name {
			if i >= len(v.values) || v.stale&(1<<i) != 0 {
				break
			}
			return v.values[i], true
		}
	}
	return wit.None[string](), false
}

func (v *view) forget(name string) {
	for i, other := range v.names {
		if strings.EqualFold(other, name) {
			v.stale |= 1 << i
		}
	}
}

func (v *view) givenOr(name string, ask func() string) string {
	if value, known := v.find(name); known && value.IsSome() {
		return value.Some()
	}
	return ask()
}

// A Request is the request of the current exchange. It can be edited in OnRequest and
// OnRequestBody; elsewhere an edit is refused.
type Request struct{ view view }

func newRequest(values types.View) *Request {
	return &Request{view{names: setup.RequestView, values: values}}
}

// Get answers the value of a field, and whether there is one that is UTF-8. Several values are
// joined with ", ". It also takes the other names of `request-view`, if [Setup] named them.
func (r *Request) Get(name string) (string, bool) {
	value, known := r.view.find(name)
	if !known {
		value = bindRequest.Get(name)
	}
	return value.SomeOr(""), value.IsSome()
}

// Values answers every value of the field that is UTF-8, in order.
func (r *Request) Values(name string) []string { return bindRequest.GetAll(name) }

// Bytes answers every value of the field as the bytes that were sent.
func (r *Request) Bytes(name string) [][]byte { return bindRequest.GetBytes(name) }

// Names answers the names of all fields, each once, in lower case.
func (r *Request) Names() []string { return bindRequest.Names() }

// Cookie answers the value of the first cookie of this name, or "".
func (r *Request) Cookie(name string) string {
	for _, field := range r.Values("cookie") {
		for _, pair := range strings.Split(field, ";") {
			if n, value, ok := strings.Cut(strings.TrimSpace(pair), "="); ok && n == name {
				return value
			}
		}
	}
	return ""
}

// Method answers the method.
func (r *Request) Method() string { return r.view.givenOr(":method", bindRequest.Method) }

// Path answers path and query.
func (r *Request) Path() string { return r.view.givenOr(":path", bindRequest.Path) }

// Authority answers the host and, if the client gave one, the port.
func (r *Request) Authority() string { return r.view.givenOr(":authority", bindRequest.Authority) }

// Scheme answers "http" or "https".
func (r *Request) Scheme() string { return r.view.givenOr(":scheme", bindRequest.Scheme) }

// Set replaces every value of the field by this one.
func (r *Request) Set(name, value string) error {
	r.view.forget(name)
	return edited(bindRequest.Set(name, value))
}

// Append adds a value, keeping those that are there.
func (r *Request) Append(name, value string) error {
	r.view.forget(name)
	return edited(bindRequest.Append(name, value))
}

// Remove removes every value of the field. Removing an absent field is no error.
func (r *Request) Remove(name string) error {
	r.view.forget(name)
	return edited(bindRequest.Remove(name))
}

// SetMethod changes the method.
func (r *Request) SetMethod(method string) error {
	r.view.forget(":method")
	return edited(bindRequest.SetMethod(method))
}

// SetPath changes path and query, in origin form: "/a/b?c=d".
func (r *Request) SetPath(path string) error {
	r.view.forget(":path")
	return edited(bindRequest.SetPath(path))
}

// SetAuthority changes the host and optional port that the upstream sees.
func (r *Request) SetAuthority(authority string) error {
	r.view.forget(":authority")
	r.view.forget("host")
	return edited(bindRequest.SetAuthority(authority))
}

// SetUpstream sends the request to this upstream, by its configured name.
func (r *Request) SetUpstream(name string) error { return edited(bindRequest.SetUpstream(name)) }

// A Response is the response of the current exchange.
type Response struct{ view view }

func newResponse(values types.View) *Response {
	return &Response{view{names: setup.ResponseView, values: values}}
}

// Request is the request that this answers, to be read.
func (r *Response) Request() *Request { return &Request{} }

// Status answers the status code.
func (r *Response) Status() uint16 {
	if value, known := r.view.find(":status"); known {
		if status, err := strconv.ParseUint(value.SomeOr(""), 10, 16); err == nil {
			return uint16(status)
		}
	}
	return bindResponse.Status()
}

// Get is as [Request.Get], for the names of `response-view`.
func (r *Response) Get(name string) (string, bool) {
	value, known := r.view.find(name)
	if !known {
		value = bindResponse.Get(name)
	}
	return value.SomeOr(""), value.IsSome()
}

// Values is as [Request.Values].
func (r *Response) Values(name string) []string { return bindResponse.GetAll(name) }

// Bytes is as [Request.Bytes].
func (r *Response) Bytes(name string) [][]byte { return bindResponse.GetBytes(name) }

// Names is as [Request.Names].
func (r *Response) Names() []string { return bindResponse.Names() }

// SetStatus changes the status: 200 to 599, and neither to nor from 204, 205 and 304.
func (r *Response) SetStatus(status uint16) error {
	r.view.forget(":status")
	return edited(bindResponse.SetStatus(status))
}

// Set is as [Request.Set].
func (r *Response) Set(name, value string) error {
	r.view.forget(name)
	return edited(bindResponse.Set(name, value))
}

// Append is as [Request.Append].
func (r *Response) Append(name, value string) error {
	r.view.forget(name)
	return edited(bindResponse.Append(name, value))
}

// Remove is as [Request.Remove].
func (r *Response) Remove(name string) error {
	r.view.forget(name)
	return edited(bindResponse.Remove(name))
}

// A Body is the body that the plugin asked for. It stays with the gateway and is read from there.
type Body struct {
	// Length is how many bytes are there to be read.
	Length uint64
	// Truncated tells that there are more, which pass untouched.
	Truncated bool
}

// Read answers at most length bytes from offset on.
func (b Body) Read(offset uint64, length uint32) []byte { return bindBody.Read(offset, length) }

// ReadAll answers all of it.
func (b Body) ReadAll() []byte {
	var bytes []byte
	for uint64(len(bytes)) < b.Length {
		piece := bindBody.Read(uint64(len(bytes)), 64<<10)
		if len(piece) == 0 {
			break
		}
		bytes = append(bytes, piece...)
	}
	return bytes
}

// Replace replaces the whole body.
func (b Body) Replace(body []byte) error { return edited(bindBody.Replace(body)) }
