// Lets a request pass if an authentication service says that its bearer token is good.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"postern"
)

var config struct {
	// The upstream that is asked, which has to be granted to the plugin.
	Upstream string `json:"upstream"`
	// Where: it answers 200 with the field x-user for a good token, and 401 for another.
	Path string `json:"path"`
}

func init() {
	postern.Register(postern.Plugin{Configure: configure, OnRequest: onRequest})
}

func configure(text []byte, setup *postern.Setup) error {
	setup.RequestView = []string{"authorization"}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&config); err != nil {
		return err
	}
	if config.Upstream == "" || config.Path == "" {
		return errors.New("upstream and path are needed")
	}
	return nil
}

func onRequest(request *postern.Request) (postern.Action, error) {
	// Whatever the client says about itself must not reach the application.
	if err := request.Remove("x-user"); err != nil {
		return postern.Next, err
	}
	authorization, _ := request.Get("authorization")
	token, ok := strings.CutPrefix(authorization, "Bearer ")
	if !ok {
		return denied(), nil
	}
	answer, err := postern.Send(postern.Call{
		Upstream:  config.Upstream,
		Path:      config.Path,
		Headers:   []postern.Field{{Name: "x-token", Value: token}},
		TimeoutMs: 1000,
	})
	if err != nil {
		// A service that cannot be asked is a fault: the operator says what happens then.
		return postern.Next, err
	}
	user := answer.Get("x-user")
	switch {
	case answer.Status == 200 && user != "":
		if err := request.Set("x-user", user); err != nil {
			return postern.Next, err
		}
		return postern.Next, request.Remove("authorization")
	case answer.Status == 401:
		return denied(), nil
	default:
		return postern.Next, fmt.Errorf("the authentication service answered %d", answer.Status)
	}
}

func denied() postern.Action {
	reply := postern.Text(401, "a valid token is needed\n")
	return postern.Respond(reply.With("www-authenticate", "Bearer"))
}

func main() {}
