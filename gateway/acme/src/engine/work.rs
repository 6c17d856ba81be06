//! One piece of work on one certificate, from what is kept to what is kept then.

use std::sync::Arc;

use postern_core::name::IssuerName;

use super::Job;
use super::Shared;
use super::issuer::Issuer;
use crate::clock::DAY;
use crate::clock::HOUR;
use crate::clock::Seconds;
use crate::document;
use crate::document::CertificateDocument;
use crate::document::OrderDocument;
use crate::document::WindowDocument;
use crate::order::Attempt;
use crate::order::Failure;
use crate::order::NOT_FORGOTTEN;
use crate::order::Outcome;
use crate::renewal;
use crate::store::Kind;
use crate::store::StoreError;
use crate::verify;

/// How long an issuer has to fail before another one stands in.
const PATIENCE: Seconds = DAY;
/// One part in so many of a certificate's life has to be left for that not to happen.
const FALLBACK_PART: Seconds = 6;
/// After an authority did not say when to renew.
const ASK_AGAIN: Seconds = HOUR;

pub(super) struct Task {
    pub(super) job: Job,
    pub(super) name: String,
    pub(super) issuer: Arc<Issuer>,
    pub(super) fallback: Option<Arc<Issuer>>,
    pub(super) certificate: Option<Arc<CertificateDocument>>,
    /// The order as this process knows it, which may be more than could be kept.
    pub(super) known: OrderDocument,
}

pub(super) struct Done {
    pub(super) order: OrderDocument,
    /// If there is a new one, or something new is known of it.
    pub(super) certificate: Option<CertificateDocument>,
    /// For metrics: issuer, outcome, reason.
    pub(super) counted: Option<(IssuerName, &'static str, String)>,
}

pub(super) async fn run(shared: &Shared, task: Task) -> Done {
    let now = shared.clock.now();
    let (mut kept, certificate) = match read(shared, &task).await {
        Ok(read) => read,
        Err(error) => {
            // What cannot be read may be there: it is not ordered again.
            let mut order = OrderDocument {
                asked_as: task.job.fingerprint.clone(),
                ..OrderDocument::default()
            };
            Failure::from(error).note(&mut order, now);
            return Done {
                order,
                certificate: None,
                counted: None,
            };
        }
    };
    if let Some(certificate) = certificate
        && !is_same(&certificate, task.certificate.as_deref())
        && super::usable(&certificate, &task.job.hosts, now).is_ok()
    {
        // It has come since the engine looked, which decides anew.
        return Done {
            order: kept,
            certificate: Some(certificate),
            counted: None,
        };
    }
    let over = task.certificate.as_ref();
    if let Some(certificate) = over.filter(|certificate| is_over(&kept, certificate)) {
        let facts = verify::facts(&certificate.chain);
        if facts.is_ok_and(|facts| renewal::renew_at(certificate, &facts) > now) {
            return tidy(shared, &task, kept).await;
        }
        // The next order has a key of its own, and takes back what is left of this one.
        let next = OrderDocument {
            published: std::mem::take(&mut kept.published),
            ..OrderDocument::default()
        };
        return order(shared, task, next).await;
    }
    if let Some(certificate) = &task.certificate
        && let Some(asked) = ask(shared, &task, certificate, &kept).await
    {
        return Done {
            order: kept,
            certificate: Some(asked),
            counted: None,
        };
    }
    order(shared, task, kept).await
}

/// What is kept at this moment.
async fn read(
    shared: &Shared,
    task: &Task,
) -> Result<(OrderDocument, Option<CertificateDocument>), StoreError> {
    let store = &*shared.store;
    let order: Option<OrderDocument> = document::load(store, Kind::Order, &task.name).await?;
    let bytes = store.load(Kind::Certificate, &task.name).await?;
    // One that is malformed is as good as none, as the engine has said when it looked.
    let certificate = bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let mut order = order.unwrap_or_default();
    let known = &task.known;
    if order.url.is_none() && known.url.is_some() && !order.key.is_empty() && order.key == known.key
    {
        order = known.clone();
    }
    Ok((order, certificate))
}

fn is_same(certificate: &CertificateDocument, known: Option<&CertificateDocument>) -> bool {
    known.is_some_and(|known| known.chain == certificate.chain && known.key == certificate.key)
}

/// Whether an order has led to this certificate, and a process was killed before it said so.
pub(super) fn is_over(kept: &OrderDocument, certificate: &CertificateDocument) -> bool {
    !kept.key.is_empty() && kept.key == certificate.key
}

async fn tidy(shared: &Shared, task: &Task, kept: OrderDocument) -> Done {
    let mut attempt = Attempt {
        shared,
        job: &task.job,
        issuer: &task.issuer,
        name: &task.name,
        kept,
        current: task.certificate.as_deref(),
    };
    if let Err(failure) = attempt.tidy().await {
        let detail = failure.message;
        tracing::warn!(certificate = task.name, detail, "{NOT_FORGOTTEN}");
    }
    Done {
        order: attempt.kept,
        certificate: None,
        counted: None,
    }
}

/// Asks the authority when it wants the certificate renewed, if it is time to ask and not yet to
/// renew.
async fn ask(
    shared: &Shared,
    task: &Task,
    certificate: &CertificateDocument,
    order: &OrderDocument,
) -> Option<CertificateDocument> {
    let now = shared.clock.now();
    let issuers = std::iter::once(&task.issuer).chain(&task.fallback);
    let mut issuers = issuers.filter(|issuer| issuer.spec.directory == certificate.directory);
    let issuer = issuers.next()?;
    let facts = verify::facts(&certificate.chain).ok()?;
    let id = facts.id.as_ref()?;
    let renew = renewal::renew_at(certificate, &facts);
    if certificate.ask_at > now || renew.max(order.next_try) <= now {
        return None;
    }
    let mut next = certificate.clone();
    let answer = match issuer.ca.get().await {
        Ok(ca) => ca.renewal_info(id).await.map_err(Failure::from),
        Err(failure) => Err(failure),
    };
    next.ask_at = now + ASK_AGAIN;
    match answer {
        Ok(Some(reply)) => {
            let window = &reply.value.suggested_window;
            let window = seconds(&window.start).zip(seconds(&window.end));
            next.ask_at = renewal::ask_at(now, &facts, reply.retry_at);
            next.window = window.map(|(start, end)| WindowDocument {
                start,
                end,
                explanation: reply
                    .value
                    .explanation_url
                    .as_deref()
                    .map(crate::protocol::one_line),
            });
        }
        // It gives no such information; it may begin to.
        Ok(None) => next.ask_at = now + DAY,
        Err(failure) => {
            let reason = failure.reason.as_str();
            let problem = failure.problem.as_deref().unwrap_or(&failure.message);
            tracing::debug!(
                certificate = task.name,
                reason,
                problem,
                "no renewal information"
            );
        }
    }
    let saved = document::save(&*shared.store, Kind::Certificate, &task.name, &next).await;
    if let Err(error) = saved {
        tracing::warn!(certificate = task.name, %error, "renewal information not kept");
    }
    Some(next)
}

/// RFC 3339.
fn seconds(text: &str) -> Option<Seconds> {
    let at: jiff::Timestamp = text.parse().ok()?;
    Seconds::try_from(at.as_second()).ok()
}

async fn order(shared: &Shared, task: Task, kept: OrderDocument) -> Done {
    let now = shared.clock.now();
    let certificate = task.certificate.as_deref();
    let stands_in = task
        .fallback
        .as_ref()
        // While both fail, they take turns: the first may have been mended.
        .filter(|fallback| kept.issuer != fallback.name.as_str() || kept.url.is_some())
        .filter(|_| has_failed_long(&kept, certificate, now));
    let issuer = stands_in.unwrap_or(&task.issuer);
    if stands_in.is_some() && kept.directory != issuer.spec.directory {
        tracing::warn!(
            certificate = task.name,
            issuer = issuer.name.as_str(),
            "the issuer has failed for a day; another one is asked"
        );
    }
    let before = kept.trouble.clone();
    let mut attempt = Attempt {
        shared,
        job: &task.job,
        issuer,
        name: &task.name,
        kept,
        current: certificate,
    };
    let outcome = attempt.run().await;
    let now = shared.clock.now();
    let counted = |outcome, reason: &str| Some((issuer.name.clone(), outcome, reason.to_owned()));
    match outcome {
        Ok(Outcome::Issued(document)) => Done {
            order: attempt.kept,
            certificate: Some(*document),
            counted: counted("issued", ""),
        },
        Ok(Outcome::Later { at, failure }) => {
            let order = &mut attempt.kept;
            order.next_try = at;
            order.trouble = Some(failure.trouble(now));
            keep(&mut attempt, now).await;
            Done {
                order: attempt.kept,
                certificate: None,
                counted: None,
            }
        }
        Err(failure) => {
            failure.note(&mut attempt.kept, now);
            let is_new = before.is_none_or(|before| {
                before.reason != failure.reason.as_str() || before.message != failure.message
            });
            if is_new {
                tracing::warn!(
                    certificate = task.name,
                    issuer = issuer.name.as_str(),
                    reason = failure.reason.as_str(),
                    detail = failure.message,
                    problem = failure.problem,
                    record = failure.record,
                    next_try = crate::clock::shown(attempt.kept.next_try),
                    "no certificate"
                );
            }
            keep(&mut attempt, now).await;
            let outcome = match failure.is_wait {
                true => "waits",
                false => "failed",
            };
            Done {
                order: attempt.kept,
                certificate: None,
                counted: counted(outcome, failure.reason.as_str()),
            }
        }
    }
}

/// What cannot be kept is known to this process at least, until it ends.
async fn keep(attempt: &mut Attempt<'_>, now: Seconds) {
    if let Err(failure) = attempt.save().await {
        tracing::warn!(
            certificate = attempt.name,
            detail = failure.message,
            "the state of an order is not kept"
        );
        let next_try = attempt.kept.next_try;
        failure.note(&mut attempt.kept, now);
        attempt.kept.next_try = attempt.kept.next_try.max(next_try);
    }
}

/// Whether another issuer had better be asked.
fn has_failed_long(
    kept: &OrderDocument,
    certificate: Option<&CertificateDocument>,
    now: Seconds,
) -> bool {
    let since = kept.first_failed_at.unwrap_or(now);
    if kept.failures == 0 || now < since + PATIENCE {
        return false;
    }
    let facts = certificate.and_then(|kept| verify::facts(&kept.chain).ok());
    facts.is_none_or(|facts| {
        let life = facts.not_after.saturating_sub(facts.not_before);
        facts.not_after.saturating_sub(now) < life / FALLBACK_PART
    })
}

/// Whether a certificate is of the kind that is wanted; one of the fallback will do until it is to be
/// renewed.
pub(super) fn is_as_wanted(
    document: &CertificateDocument,
    issuer: &Issuer,
    fallback: Option<&Issuer>,
) -> bool {
    let is_of = |issuer: &Issuer| {
        document.directory == issuer.spec.directory
            && document.profile == issuer.spec.profile
            && document.key_type == issuer.spec.key_type.as_str()
    };
    is_of(issuer) || fallback.is_some_and(is_of)
}
