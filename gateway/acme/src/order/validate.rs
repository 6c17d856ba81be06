//! Showing an authority that the names are ours.

use base64::Engine as _;
use http::StatusCode;
use postern_core::config::issuer::ChallengeKind;
use postern_core::hostname::Hostname;

use super::Attempt;
use super::Failure;
use super::VALIDATION_TIME;
use crate::challenge::Challenge;
use crate::client::Account;
use crate::client::Ca;
use crate::client::CaError;
use crate::dns::DnsSolver;
use crate::dns::TxtRecord;
use crate::document;
use crate::document::ChallengeDocument;
use crate::document::Published;
use crate::engine::Shared;
use crate::protocol::Authorization;
use crate::protocol::Offer;
use crate::protocol::Order;
use crate::protocol::Problem;
use crate::reason::Reason;
use crate::store::Kind;

/// Longest token. RFC 8555 asks for 128 bits at least, which are 22 characters.
const MAX_TOKEN: usize = 256;

impl Attempt<'_> {
    /// Publishes what the authority wants to see and says so, for every name that it has not seen
    /// yet. Again after a crash: publishing twice changes nothing.
    pub(super) async fn validate(
        &mut self,
        ca: &Ca,
        account: &Account,
        order: &Order,
    ) -> Result<(), Failure> {
        let mut begun = Vec::new();
        for authorization in ca.authorizations(order).await? {
            if !authorization.is_pending {
                // Validated before, or what became of it is in the order.
                continue;
            }
            let is_ours = |host: &Hostname| {
                let (Hostname::Exact(name) | Hostname::Wildcard(name)) = host;
                name.eq_ignore_ascii_case(&authorization.host)
            };
            if !self.job.hosts.iter().any(is_ours) {
                // Nothing is written into the DNS for a name that nobody here wants.
                let host = crate::protocol::one_line(&authorization.host);
                let message =
                    format!("the authority wants {host} validated, which was not ordered");
                return Err(Failure::new(Reason::OrderRefused, message));
            }
            let (kind, offer) = self.choose(&authorization)?;
            if !offer.is_pending {
                // Begun already.
                continue;
            }
            if kind == ChallengeKind::DnsPersist01 {
                // The record is there, and stays.
                begun.push((None, offer));
                continue;
            }
            let challenge = Challenge {
                kind,
                host: authorization.host.to_ascii_lowercase(),
                token: offer.token.clone(),
                authorization: account.authorize(&offer.token),
            };
            self.publish(&challenge).await?;
            begun.push((Some(challenge), offer));
        }
        if begun.is_empty() {
            return Ok(());
        }
        for challenge in begun.iter().filter_map(|(challenge, _)| challenge.as_ref()) {
            if challenge.kind == ChallengeKind::Dns01 {
                continue;
            }
            if let Err(lagging) = self.shared.replicas.show(challenge).await {
                // The authority may ask one that does.
                tracing::warn!(host = challenge.host, lagging, "challenge not shown by all");
            }
        }
        let now = self.shared.clock.now();
        self.kept.validating_since.get_or_insert(now);
        self.save().await?;
        for (_, offer) in &begun {
            ca.begin(order, offer).await?;
        }
        Ok(())
    }

    /// The way that is preferred among those on offer.
    fn choose(&self, authorization: &Authorization) -> Result<(ChallengeKind, Offer), Failure> {
        let kinds = self.issuer.spec.challenges.iter().copied();
        for kind in kinds.filter(|kind| self.can(*kind, authorization.wildcard)) {
            let mut offers = authorization.challenges.iter();
            let offer = offers.find(|offer| {
                let is_token = (1..=MAX_TOKEN).contains(&offer.token.len())
                    && offer
                        .token
                        .bytes()
                        .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
                // A record that stays holds none.
                let is_usable = is_token || kind == ChallengeKind::DnsPersist01;
                offer.kind == kind.as_str() && is_usable
            });
            if let Some(offer) = offer {
                return Ok((kind, offer.clone()));
            }
        }
        let offered = authorization.challenges.iter();
        let offered: Vec<&str> = offered.map(|offer| offer.kind.as_str()).collect();
        Err(Failure::new(
            Reason::OrderRefused,
            format!(
                "the authority wants {} validated by one of {}, which is not set up here",
                crate::protocol::one_line(&authorization.host),
                crate::protocol::one_line(&offered.join(", "))
            ),
        ))
    }

    /// Kept first, so that it is taken back whatever happens.
    async fn publish(&mut self, challenge: &Challenge) -> Result<(), Failure> {
        if challenge.kind == ChallengeKind::Dns01 {
            let record = record(challenge);
            self.keep(Published::Record {
                name: record.name.clone(),
                value: record.value.clone(),
            })
            .await?;
            let solver = self.issuer.solver.as_ref();
            let solver = solver.ok_or_else(|| {
                Failure::new(Reason::SolverFailed, "nothing here writes DNS records")
            })?;
            let presented = solver.present(&record).await;
            return presented.map_err(|error| Failure::new(error.reason, error.message));
        }
        self.keep(Published::Token(challenge.token.clone())).await?;
        let document = ChallengeDocument {
            kind: challenge.kind.as_str().to_owned(),
            host: challenge.host.clone(),
            token: challenge.token.clone(),
            authorization: challenge.authorization.clone(),
            expires: self.shared.clock.now() + 2 * VALIDATION_TIME,
        };
        let store = &*self.shared.store;
        document::save(store, Kind::Challenge, &challenge.token, &document).await?;
        Ok(())
    }

    async fn keep(&mut self, published: Published) -> Result<(), Failure> {
        if !self.kept.published.contains(&published) {
            self.kept.published.push(published);
            self.save().await?;
        }
        Ok(())
    }

    /// Takes back what was published. What cannot be taken back now stays in the document, and is
    /// taken back later.
    pub(super) async fn sweep(&mut self) {
        let published = std::mem::take(&mut self.kept.published);
        let solver = self.issuer.solver.as_deref();
        self.kept.published = sweep(self.shared, solver, self.name, published).await;
    }

    /// Why an order is invalid: its challenges know more than it does.
    pub(super) async fn verdict(&self, ca: &Ca, account: &Account, order: &Order) -> Failure {
        // Asked for anew: those that the order came with are as they were.
        let authorizations = match ca.order(account, &order.url).await {
            Ok(reply) => ca.authorizations(&reply.value).await,
            Err(error) => Err(error),
        };
        let authorizations = match authorizations {
            Ok(authorizations) => authorizations,
            Err(error) => return error.into(),
        };
        for authorization in authorizations {
            let mut offers = authorization.challenges.iter();
            if let Some(problem) = offers.find_map(|offer| offer.error.clone()) {
                let host = crate::protocol::one_line(&authorization.host);
                return refused(
                    problem,
                    format!("the authority did not find what it looked for at {host}"),
                );
            }
        }
        match order.error.clone() {
            Some(problem) => refused(problem, "the authority refused the order".to_owned()),
            None => Failure::new(
                Reason::OrderRefused,
                "the order is invalid; nothing says why",
            ),
        }
    }
}

/// Takes back what was published for a certificate; what could not be taken back.
pub(crate) async fn sweep(
    shared: &Shared,
    solver: Option<&dyn DnsSolver>,
    certificate: &str,
    published: Vec<Published>,
) -> Vec<Published> {
    let mut left = Vec::new();
    for published in published {
        let result = match &published {
            Published::Token(token) => {
                shared.replicas.hide(token).await;
                let deleted = shared.store.delete(Kind::Challenge, token).await;
                deleted.map_err(|error| error.to_string())
            }
            Published::Record { name, value } => match solver {
                Some(solver) => {
                    let record = TxtRecord {
                        name: name.clone(),
                        value: value.clone(),
                    };
                    let withdrawn = solver.withdraw(&record).await;
                    withdrawn.map_err(|error| error.to_string())
                }
                None => Err("nothing here writes DNS records".to_owned()),
            },
        };
        if let Err(error) = result {
            tracing::warn!(certificate, error, "a challenge was not taken back");
            left.push(published);
        }
    }
    left
}

fn refused(problem: Problem, message: String) -> Failure {
    let error = CaError::Problem {
        problem,
        // It is part of an answer that is none.
        status: StatusCode::OK,
        retry_at: None,
    };
    let reason = match Failure::reason_of(&error) {
        Reason::OrderRefused | Reason::IssuerUnreachable => Reason::ValidationFailed,
        reason => reason,
    };
    Failure {
        message,
        ..Failure::of(&error, reason)
    }
}

fn record(challenge: &Challenge) -> TxtRecord {
    let engine = base64::prelude::BASE64_URL_SAFE_NO_PAD;
    TxtRecord {
        name: format!("_acme-challenge.{}", challenge.host),
        value: engine.encode(challenge.digest()),
    }
}
