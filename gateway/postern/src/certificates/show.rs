//! Challenges of a gateway that is alone: shown by its own listeners, at once.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use postern_acme::challenge::Challenge;
use postern_acme::challenge::Replicas;
use postern_core::config::issuer::ChallengeKind;
use postern_proxy::Challenges;

pub(super) struct OneMachine {
    challenges: Arc<Challenges>,
}

impl OneMachine {
    pub(super) fn new(challenges: Arc<Challenges>) -> Self {
        Self { challenges }
    }

    pub(super) fn forget(&self, token: &str) {
        self.challenges.hide(token);
    }

    pub(super) fn put(&self, challenge: &Challenge) -> Result<(), String> {
        let (token, host) = (&challenge.token, &challenge.host);
        let shown = match challenge.kind {
            ChallengeKind::Http01 => self.challenges.show_token(token, &challenge.authorization),
            ChallengeKind::TlsAlpn01 => {
                let (certificate, key) =
                    challenge.certificate().map_err(|error| error.to_string())?;
                let shown = self
                    .challenges
                    .show_certificate(token, host, certificate, key);
                // For whoever asks whether it is shown.
                shown.and_then(|()| self.challenges.show_token(token, &challenge.authorization))
            }
            // Nobody asks a listener for it.
            ChallengeKind::Dns01 | ChallengeKind::DnsPersist01 => Ok(()),
        };
        shown.map_err(|error| error.to_string())
    }
}

impl Replicas for OneMachine {
    fn show<'a>(&'a self, challenge: &'a Challenge) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(std::future::ready(self.put(challenge)))
    }

    fn hide<'a>(&'a self, token: &'a str) -> BoxFuture<'a, ()> {
        self.challenges.hide(token);
        Box::pin(std::future::ready(()))
    }
}
