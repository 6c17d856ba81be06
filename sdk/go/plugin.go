// Package postern is for policies of the Postern gateway, in Go.
//
// A policy registers its functions while the program starts; `phases` in plugin.toml says which of
// them the gateway calls:
//
//	func init() {
//		postern.Register(postern.Plugin{
//			OnRequest: func(request *postern.Request) (postern.Action, error) {
//				return postern.Next, request.Set("x-hello", "world")
//			},
//		})
//	}
//
//	func main() {}
//
// An instance serves many exchanges, one at a time, and there are several instances. What has to
// follow one exchange goes through [SetState], what instances share through the functions whose
// names begin with Shared.
package postern

import "fmt"

// A Plugin is the functions of a policy. Those that are nil do nothing.
//
// An error from a phase ends the call: it is logged, and the exchange gets what the operator chose
// for a plugin that fails, 503 by default.
type Plugin struct {
	// Configure reads config, the plugin's section of the gateway's configuration as JSON text
	// ("{}" if there is none). It is called once in each instance, before any phase. An error is
	// shown to the operator and refuses the configuration.
	Configure func(config []byte, setup *Setup) error

	// Select is the phase "route". It answers the upstream for this request, or "" to let the rule
	// decide.
	Select func(request *Request) (string, error)
	// OnRequest is the phase "request".
	OnRequest func(request *Request) (Action, error)
	// OnRequestBody is the phase "request-body", after OnRequest answered [NeedBody].
	OnRequestBody func(request *Request, body Body) (Action, error)
	// OnRequestChunk is the phase "request-stream". It wants [Setup.RequestChunks].
	OnRequestChunk func(chunk []byte, last bool) (ChunkAction, error)
	// OnResponse is the phase "response".
	OnResponse func(response *Response) (Action, error)
	// OnResponseBody is the phase "response-body", after OnResponse answered [NeedBody].
	OnResponseBody func(response *Response, body Body) (Action, error)
	// OnResponseChunk is the phase "response-stream". It wants [Setup.ResponseChunks].
	OnResponseChunk func(chunk []byte, last bool) (ChunkAction, error)
	// OnLog is the phase "log": the exchange has ended, and nobody waits for this.
	OnLog func(summary Summary) error
	// OnTick is the phase "background". It wants [Setup.TickMs].
	OnTick func() error
	// KeyAuthorization is the phase "challenge": the answer to an HTTP-01 token, or "" if it is not
	// this plugin's.
	KeyAuthorization func(host, token string) string
	// Solver is the phase "dns-solver".
	Solver Solver
}

// A Solver writes DNS records that prove names to a certificate authority.
type Solver interface {
	// Supports tells whether this plugin can write records below the zone.
	Supports(zone string) bool
	// Present adds one value. It answers after how many milliseconds to ask again with Poll, or 0
	// if the provider says that the record is published.
	Present(txt TxtRecord) (pendingMs uint32, err error)
	Poll(txt TxtRecord) (pendingMs uint32, err error)
	// Cleanup removes exactly this value. It is called again until it succeeds.
	Cleanup(txt TxtRecord) error
}

// A TxtRecord is one record for a [Solver].
type TxtRecord struct {
	Name, Zone, Value string
	// Identifier is the certificate's name that is being proved.
	Identifier string
}

// A Setup is what the plugin wants to be given. The zero value is nothing.
type Setup struct {
	// RequestView names the values of the request that Select and OnRequest look at in most calls.
	// They come with the call, where [Request.Get] finds them: that is faster than asking the
	// gateway for each. The names are those of `request-view` in wit/phases.wit.
	RequestView []string
	// ResponseView is the same for OnResponse.
	ResponseView []string
	// RequestChunks tells whether OnRequestChunk is called.
	RequestChunks bool
	// ResponseChunks tells whether OnResponseChunk is called.
	ResponseChunks bool
	// TickMs is the time between two calls of OnTick, 100 at least, or 0 for never.
	TickMs uint32
}

// An Action is what happens to the exchange next: [Next], [Abort], or what [Respond] or [NeedBody]
// make.
type Action struct {
	kind     actionKind
	reply    Reply
	limit    uint32
	truncate bool
}

type actionKind uint8

const (
	next actionKind = iota
	abort
	respond
	needBody
)

var (
	// Next goes on with the next plugin.
	Next = Action{kind: next}
	// Abort ends the connection or stream without an answer.
	Abort = Action{kind: abort}
)

// Respond answers now.
func Respond(reply Reply) Action {
	return Action{kind: respond, reply: reply}
}

// NeedBody holds the message, collects at most limit bytes of its body, and then calls
// OnRequestBody or OnResponseBody. Of a longer body the first part comes if truncate is set;
// otherwise the message is refused.
func NeedBody(limit uint32, truncate bool) Action {
	return Action{kind: needBody, limit: limit, truncate: truncate}
}

// A Reply is a response that the plugin makes. The gateway writes content-length.
type Reply struct {
	// Status is 200 to 599.
	Status  uint16
	Headers []Field
	Body    []byte
}

// A Field is a name and a value.
type Field struct {
	Name, Value string
}

// Text is a reply with a text.
func Text(status uint16, text string) Reply {
	return Reply{
		Status:  status,
		Headers: []Field{{"content-type", "text/plain; charset=utf-8"}},
		Body:    []byte(text),
	}
}

// With adds a field.
func (reply Reply) With(name, value string) Reply {
	reply.Headers = append(reply.Headers[:len(reply.Headers):len(reply.Headers)], Field{name, value})
	return reply
}

// A ChunkAction is what to do with one piece of a body: [Pass], [AbortBody], or what [Replace]
// makes.
type ChunkAction struct {
	kind  chunkKind
	bytes []byte
}

type chunkKind uint8

const (
	passChunk chunkKind = iota
	replaceChunk
	abortChunk
)

var (
	// Pass sends the piece on as it is.
	Pass = ChunkAction{kind: passChunk}
	// AbortBody ends the message here, so that nobody takes what was sent for the whole.
	AbortBody = ChunkAction{kind: abortChunk}
)

// Replace sends this instead; nothing at all drops the piece.
func Replace(bytes []byte) ChunkAction {
	return ChunkAction{kind: replaceChunk, bytes: bytes}
}

// A Summary is what became of an exchange.
type Summary struct {
	// Status is 0 if there was no response.
	Status                      uint16
	RequestBytes, ResponseBytes uint64
	DurationUs                  uint64
	// Upstream is "" if the request was not forwarded.
	Upstream string
	// Outcome is "ok", or the reason of the access log.
	Outcome string
}

// An EditError is why an edit was not made. The exchange is unchanged.
type EditError uint8

const (
	// Forbidden: the field is not a plugin's to set, or this phase may not edit this message.
	Forbidden EditError = iota
	// Invalid: not a field name, field value, method, path, authority or status.
	Invalid
	// TooLarge: the message would have too many fields, or the value is too long.
	TooLarge
	// UnknownUpstream: no upstream of this name is configured.
	UnknownUpstream
	// TooLate: the message has already been sent.
	TooLate
)

func (e EditError) Error() string {
	words := [...]string{"forbidden", "invalid", "too large", "unknown upstream", "too late"}
	if int(e) < len(words) {
		return "an edit was refused: " + words[e]
	}
	return fmt.Sprintf("an edit was refused: %d", uint8(e))
}

// Register makes a plugin the one that the gateway calls. Call it from an init function.
func Register(plugin Plugin) {
	registered = plugin
}
