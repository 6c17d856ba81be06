//! `crypto`: digests and signatures, with keys that may stay on this side.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest;
use aws_lc_rs::hmac;
use aws_lc_rs::signature;
use aws_lc_rs::signature::ParsedPublicKey;
use aws_lc_rs::signature::VerificationAlgorithm;

use crate::bindings::postern::plugin::crypto::DigestAlgorithm;
use crate::bindings::postern::plugin::crypto::Host;
use crate::bindings::postern::plugin::crypto::Key;
use crate::bindings::postern::plugin::crypto::SignatureAlgorithm;
use crate::host::HostState;
use crate::limits::push_escaped;

/// Longest part of a secret's name that an error quotes.
const MAX_QUOTED: usize = 64;

impl HostState {
    fn key<'k>(&'k self, key: &'k Key) -> Result<&'k [u8], String> {
        let bytes = match key {
            Key::Bytes(bytes) => bytes,
            Key::Secret(name) => match self.powers.secrets.get(name) {
                Some(secret) => &**secret,
                None => {
                    let mut message = "there is no secret ".to_owned();
                    push_escaped(&mut message, name, MAX_QUOTED);
                    return Err(message);
                }
            },
        };
        // Anybody could sign with it.
        if bytes.is_empty() {
            return Err("the key is empty".to_owned());
        }
        Ok(bytes)
    }
}

impl Host for HostState {
    fn digest(&mut self, algorithm: DigestAlgorithm, data: Vec<u8>) -> wasmtime::Result<Vec<u8>> {
        self.meter.take_bytes(data.len())?;
        let algorithm = match algorithm {
            DigestAlgorithm::Sha256 => &digest::SHA256,
            DigestAlgorithm::Sha384 => &digest::SHA384,
            DigestAlgorithm::Sha512 => &digest::SHA512,
        };
        Ok(digest::digest(algorithm, &data).as_ref().to_vec())
    }

    fn hmac(
        &mut self,
        algorithm: DigestAlgorithm,
        key: Key,
        data: Vec<u8>,
    ) -> wasmtime::Result<Result<Vec<u8>, String>> {
        self.meter.take_bytes(len(&key) + data.len())?;
        let algorithm = match algorithm {
            DigestAlgorithm::Sha256 => hmac::HMAC_SHA256,
            DigestAlgorithm::Sha384 => hmac::HMAC_SHA384,
            DigestAlgorithm::Sha512 => hmac::HMAC_SHA512,
        };
        Ok(self.key(&key).map(|key| {
            let key = hmac::Key::new(algorithm, key);
            hmac::sign(&key, &data).as_ref().to_vec()
        }))
    }

    fn verify(
        &mut self,
        algorithm: SignatureAlgorithm,
        key: Key,
        data: Vec<u8>,
        signature: Vec<u8>,
    ) -> wasmtime::Result<Result<bool, String>> {
        self.meter
            .take_bytes(len(&key) + data.len() + signature.len())?;
        let key = match self.key(&key) {
            Ok(key) => key,
            Err(message) => return Ok(Err(message)),
        };
        let algorithm: &'static dyn VerificationAlgorithm = match algorithm {
            SignatureAlgorithm::Hs256 => {
                let key = hmac::Key::new(hmac::HMAC_SHA256, key);
                return Ok(Ok(hmac::verify(&key, &data, &signature).is_ok()));
            }
            SignatureAlgorithm::Rs256 => &signature::RSA_PKCS1_2048_8192_SHA256,
            SignatureAlgorithm::Ps256 => &signature::RSA_PSS_2048_8192_SHA256,
            SignatureAlgorithm::Es256 => &signature::ECDSA_P256_SHA256_FIXED,
            SignatureAlgorithm::Es384 => &signature::ECDSA_P384_SHA384_FIXED,
            SignatureAlgorithm::Ed25519 => &signature::ED25519,
        };
        let parsed = ParsedPublicKey::new(algorithm, key);
        Ok(match parsed {
            Ok(key) => Ok(key.verify_sig(&data, &signature).is_ok()),
            Err(error) => Err(format!("the key is not one of this algorithm: {error}")),
        })
    }

    fn equal(&mut self, a: Vec<u8>, b: Vec<u8>) -> wasmtime::Result<bool> {
        self.meter.take_bytes(a.len() + b.len())?;
        Ok(verify_slices_are_equal(&a, &b).is_ok())
    }
}

fn len(key: &Key) -> usize {
    match key {
        Key::Bytes(bytes) => bytes.len(),
        Key::Secret(name) => name.len(),
    }
}

#[cfg(test)]
mod tests;
