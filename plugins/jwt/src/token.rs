//! A token in its compact form (RFC 7515, 3.1), before and after it is believed.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use postern_plugin::crypto::SignatureAlgorithm;
use postern_plugin::json::Value;

/// Longest token that is looked at.
const MAX_TOKEN: usize = 16 << 10;

/// Algorithms whose verifiers cannot sign, by their names in RFC 7518 and RFC 8037.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Algorithm {
    Rs256,
    Ps256,
    Es256,
    Es384,
    EdDsa,
}

impl Algorithm {
    pub(crate) const NAMES: [(&'static str, Self); 5] = [
        ("RS256", Self::Rs256),
        ("PS256", Self::Ps256),
        ("ES256", Self::Es256),
        ("ES384", Self::Es384),
        ("EdDSA", Self::EdDsa),
    ];

    pub(crate) fn parse(name: &str) -> Option<Self> {
        let found = Self::NAMES.iter().find(|(known, _)| *known == name);
        found.map(|(_, algorithm)| *algorithm)
    }

    pub(crate) fn signature(self) -> SignatureAlgorithm {
        match self {
            Self::Rs256 => SignatureAlgorithm::Rs256,
            Self::Ps256 => SignatureAlgorithm::Ps256,
            Self::Es256 => SignatureAlgorithm::Es256,
            Self::Es384 => SignatureAlgorithm::Es384,
            Self::EdDsa => SignatureAlgorithm::Ed25519,
        }
    }
}

/// Why a request does not pass.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Denial {
    Missing,
    Malformed,
    Algorithm,
    UnknownKey,
    Signature,
    Expired,
    NotYet,
    Issuer,
    Audience,
    /// A claim that has to be there is not, or has none of the values that it should.
    Claim,
    /// The keys of the issuer are not to be had.
    NoKeys,
}

impl Denial {
    /// For the access log.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Malformed => "malformed",
            Self::Algorithm => "algorithm",
            Self::UnknownKey => "unknown-key",
            Self::Signature => "signature",
            Self::Expired => "expired",
            Self::NotYet => "not-yet",
            Self::Issuer => "issuer",
            Self::Audience => "audience",
            Self::Claim => "claim",
            Self::NoKeys => "no-keys",
        }
    }

    /// For the client.
    pub(crate) fn description(self) -> &'static str {
        match self {
            Self::Missing => "a token is needed",
            Self::Malformed => "the token is malformed",
            Self::Algorithm => "the token's algorithm is not accepted",
            Self::UnknownKey => "the token's key is not known",
            Self::Signature => "the token's signature is not valid",
            Self::Expired => "the token has expired",
            Self::NotYet => "the token is not valid yet",
            Self::Issuer => "the token is of another issuer",
            Self::Audience => "the token is for somebody else",
            Self::Claim => "the token does not allow this",
            Self::NoKeys => "the token cannot be checked now",
        }
    }

    pub(crate) fn status(self) -> u16 {
        match self {
            Self::Claim => 403,
            Self::NoKeys => 503,
            _ => 401,
        }
    }

    /// RFC 6750, 3.1.
    pub(crate) fn code(self) -> &'static str {
        match self {
            Self::Claim => "insufficient_scope",
            _ => "invalid_token",
        }
    }
}

/// A token whose header was read and whose signature was not.
#[derive(Debug)]
pub(crate) struct Token<'t> {
    pub(crate) algorithm: Algorithm,
    pub(crate) key_id: Option<String>,
    /// What was signed.
    pub(crate) signed: &'t str,
    payload: &'t str,
    pub(crate) signature: Vec<u8>,
}

impl<'t> Token<'t> {
    pub(crate) fn parse(text: &'t str, allowed: &[Algorithm]) -> Result<Self, Denial> {
        if text.len() > MAX_TOKEN {
            return Err(Denial::Malformed);
        }
        let (signed, signature) = text.rsplit_once('.').ok_or(Denial::Malformed)?;
        let (header, payload) = signed.split_once('.').ok_or(Denial::Malformed)?;
        let signature = URL_SAFE_NO_PAD
            .decode(signature)
            .map_err(|_| Denial::Malformed)?;
        let header = object(header)?;
        // An extension that has to be understood (RFC 7515, 4.1.11), and none is.
        if header.get("crit").is_some() || !is_access_token(&header) {
            return Err(Denial::Malformed);
        }
        let name = header
            .get("alg")
            .and_then(Value::as_str)
            .ok_or(Denial::Malformed)?;
        let algorithm = Algorithm::parse(name).filter(|algorithm| allowed.contains(algorithm));
        let key_id = match header.get("kid") {
            Some(Value::String(id)) => Some(id.clone()),
            Some(_) => return Err(Denial::Malformed),
            None => None,
        };
        Ok(Self {
            algorithm: algorithm.ok_or(Denial::Algorithm)?,
            key_id,
            signed,
            payload,
            signature,
        })
    }

    /// What the token says; for tokens whose signature was verified.
    pub(crate) fn claims(&self) -> Result<Value, Denial> {
        object(self.payload)
    }
}

/// A token made for something else, as a logout, is no token to get in with (RFC 8725, 3.11).
fn is_access_token(header: &Value) -> bool {
    match header.get("typ") {
        None => true,
        Some(Value::String(kind)) => {
            let kind = kind.to_ascii_lowercase();
            let kind = kind.strip_prefix("application/").unwrap_or(&kind);
            kind == "jwt" || kind == "at+jwt"
        }
        Some(_) => false,
    }
}

/// A JSON object in base64url.
fn object(encoded: &str) -> Result<Value, Denial> {
    let bytes = URL_SAFE_NO_PAD
        .decode(encoded)
        .map_err(|_| Denial::Malformed)?;
    let text = std::str::from_utf8(&bytes).map_err(|_| Denial::Malformed)?;
    match Value::parse(text) {
        Ok(value @ Value::Object(_)) => Ok(value),
        _ => Err(Denial::Malformed),
    }
}
