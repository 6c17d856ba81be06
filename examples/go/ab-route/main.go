// Sends a part of the clients to a second upstream, and keeps each client where it is by a cookie.
package main

import (
	"bytes"
	"encoding/json"
	"errors"

	"postern"
)

var config struct {
	A string `json:"a"`
	B string `json:"b"`
	// How many of a hundred new clients go to B.
	Percent uint64 `json:"percent"`
	Cookie  string `json:"cookie"`
}

func init() {
	postern.Register(postern.Plugin{
		Configure:  configure,
		Select:     choose,
		OnResponse: tell,
	})
}

func configure(text []byte, _ *postern.Setup) error {
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&config); err != nil {
		return err
	}
	if config.Percent > 100 {
		return errors.New("percent: more than 100")
	}
	if config.A == "" || config.B == "" || config.Cookie == "" {
		return errors.New("a, b and cookie are needed")
	}
	return nil
}

func choose(request *postern.Request) (string, error) {
	side := request.Cookie(config.Cookie)
	if side != "a" && side != "b" {
		// A new client, or one that made the cookie up. The response has to tell it.
		side = "a"
		if postern.RandomNumber()%100 < config.Percent {
			side = "b"
		}
		if err := postern.SetState([]byte(side)); err != nil {
			return "", err
		}
	}
	if side == "b" {
		return config.B, nil
	}
	return config.A, nil
}

func tell(response *postern.Response) (postern.Action, error) {
	side := postern.State()
	if len(side) == 0 {
		return postern.Next, nil
	}
	cookie := config.Cookie + "=" + string(side) + "; Path=/; Max-Age=86400; SameSite=Lax"
	return postern.Next, response.Append("set-cookie", cookie)
}

func main() {}
