package postern

import (
	"errors"

	crypto "postern/internal/bind/postern_plugin_crypto"
	secrets "postern/internal/bind/postern_plugin_secrets"
	wit "postern/internal/wit/types"
)

// Secret answers a secret that the operator granted to the plugin.
func Secret(name string) ([]byte, bool) {
	value := secrets.Get(name)
	return value.SomeOr(nil), value.IsSome()
}

// A Key for [Hmac] and [Verify]: bytes, or the name of a secret that never enters the plugin.
type Key struct {
	Bytes  []byte
	Secret string
}

func (key Key) lowered() crypto.Key {
	if key.Secret != "" {
		return crypto.MakeKeySecret(key.Secret)
	}
	return crypto.MakeKeyBytes(key.Bytes)
}

// A Digest is an algorithm of [Hmac].
type Digest = crypto.DigestAlgorithm

// A Signature is an algorithm of [Verify], by its name in RFC 7518.
type Signature = crypto.SignatureAlgorithm

const (
	Sha256 Digest = crypto.DigestAlgorithmSha256
	Sha384 Digest = crypto.DigestAlgorithmSha384
	Sha512 Digest = crypto.DigestAlgorithmSha512

	HS256   Signature = crypto.SignatureAlgorithmHs256
	RS256   Signature = crypto.SignatureAlgorithmRs256
	PS256   Signature = crypto.SignatureAlgorithmPs256
	ES256   Signature = crypto.SignatureAlgorithmEs256
	ES384   Signature = crypto.SignatureAlgorithmEs384
	Ed25519 Signature = crypto.SignatureAlgorithmEd25519
)

// Hmac is the gateway's, which is faster than Go's in Wasm and may use a secret by its name.
func Hmac(algorithm Digest, key Key, data []byte) ([]byte, error) {
	return value(crypto.Hmac(algorithm, key.lowered(), data))
}

// Verify tells whether a signature is good. An error is about the key.
func Verify(algorithm Signature, key Key, data, signature []byte) (bool, error) {
	return value(crypto.Verify(algorithm, key.lowered(), data, signature))
}

func value[T any](result wit.Result[T, string]) (T, error) {
	if result.IsErr() {
		var none T
		return none, errors.New(result.Err())
	}
	return result.Ok(), nil
}
