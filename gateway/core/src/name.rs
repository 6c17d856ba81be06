//! Names of configured things, each a type of its own so that two cannot be swapped.

use std::fmt;
use std::sync::Arc;

/// Longest name in bytes: a namespace and a name of Kubernetes, with a slash between them. Names
/// become metric labels and log fields, so they stay short.
pub const MAX_NAME_LEN: usize = 63 + 1 + 253;

/// Why a text is no name.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum NameError {
    #[error("a name may not be empty")]
    Empty,
    #[error("a name has at most {MAX_NAME_LEN} characters")]
    TooLong,
    #[error("a name may hold letters, digits, '-', '_', '.', '/' and ':', not {0:?}")]
    Character(char),
}

fn check(text: &str) -> Result<(), NameError> {
    if text.is_empty() {
        return Err(NameError::Empty);
    }
    if text.len() > MAX_NAME_LEN {
        return Err(NameError::TooLong);
    }
    // '/' and ':' let the cluster's `namespace/name:port` be a name as it stands.
    match text
        .chars()
        .find(|c| !c.is_ascii_alphanumeric() && !"-_./:".contains(*c))
    {
        Some(c) => Err(NameError::Character(c)),
        None => Ok(()),
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
        pub struct $type(Arc<str>);

        impl $type {
            /// Parses a name: 1 to [`MAX_NAME_LEN`] letters, digits, `-`, `_`, `.`, `/` or `:`.
            pub fn parse(text: &str) -> Result<Self, NameError> {
                check(text).map(|()| Self(text.into()))
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name!(
    /// The name of a listener.
    ListenerName
);
name!(
    /// The name of a route; files that give none get `FILE:N`.
    RouteName
);
name!(
    /// The name of an upstream.
    UpstreamName
);
name!(
    /// The name of a policy. Plugins are policies, so they share this name space.
    PolicyName
);
name!(
    /// The name of a certificate.
    CertificateName
);
name!(
    /// The name of a way to write DNS records.
    DnsSolverName
);
name!(
    /// The name of an issuer of certificates.
    IssuerName
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_short_and_plain() {
        let long = "a".repeat(MAX_NAME_LEN + 1);
        let cases = [
            ("app1", Ok(())),
            ("shop/web:8080", Ok(())),
            (&long[1..], Ok(())),
            ("", Err(NameError::Empty)),
            (&long, Err(NameError::TooLong)),
            ("a b", Err(NameError::Character(' '))),
            ("ä", Err(NameError::Character('ä'))),
        ];
        for (text, want) in cases {
            assert_eq!(UpstreamName::parse(text).map(|_| ()), want, "{text}");
        }
    }
}
