// Sets and removes header fields of requests and responses, as the configuration says.
package main

import (
	"bytes"
	"encoding/json"

	"postern"
)

var config struct {
	// Fields that every request gets.
	Set map[string]string `json:"set"`
	// Fields that no response keeps.
	Remove []string `json:"remove"`
}

func init() {
	postern.Register(postern.Plugin{
		Configure:  configure,
		OnRequest:  onRequest,
		OnResponse: onResponse,
	})
}

func configure(text []byte, _ *postern.Setup) error {
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	return decoder.Decode(&config)
}

func onRequest(request *postern.Request) (postern.Action, error) {
	for name, value := range config.Set {
		if err := request.Set(name, value); err != nil {
			return postern.Next, err
		}
	}
	return postern.Next, nil
}

func onResponse(response *postern.Response) (postern.Action, error) {
	for _, name := range config.Remove {
		if err := response.Remove(name); err != nil {
			return postern.Next, err
		}
	}
	return postern.Next, nil
}

func main() {}
