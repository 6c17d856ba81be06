//! Amazon Route 53.
//!
//! All values of a name are one set, which can only be replaced. A change therefore names the set
//! that was read and the set that shall be, in one step that fails if somebody else was faster;
//! then it is read again. Nobody's values are lost, whoever else writes to the zone.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use http::Method;

use super::Access;
use super::DnsWriter;
use super::Progress;
use super::SolverError;
use super::aws::AwsError;
use super::aws::Call;
use super::aws::CredentialSource;
use super::aws::Element;
use super::aws::Http;
use super::aws::Role;
use super::aws::Service;
use super::aws::credentials::Wallet;
use super::aws::escape;
use super::place::Place;

const ENDPOINT: &str = "https://route53.amazonaws.com";
const ENDPOINT_CHINA: &str = "https://api.route53.cn";
/// The region that signatures for Route 53 name, wherever one is.
const REGION: &str = "us-east-1";
const REGION_CHINA: &str = "cn-northwest-1";
const API: &str = "/2013-04-01";
const NAMESPACE: &str = "https://route53.amazonaws.com/doc/2013-04-01/";
/// How long a record may be remembered: no longer than CAs do.
const TTL: u32 = 60;
/// Times that a set is read and replaced, where others replace it meanwhile.
const ATTEMPTS: usize = 5;
/// Values of one name that are kept: Route 53 allows 400.
const MAX_VALUES: usize = 400;
/// Until a change is asked for again. Most take half a minute.
const PENDING: Duration = Duration::from_secs(3);
/// Zones of one name that are looked at.
const MAX_ZONES: &str = "10";

/// How to reach an account.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Route53Spec {
    /// Looked for by its name if absent.
    pub hosted_zone_id: Option<String>,
    pub region: Option<String>,
    pub credentials: CredentialSource,
    pub role: Option<Role>,
    /// Other addresses of the services.
    pub endpoint: Option<String>,
    pub sts_endpoint: Option<String>,
    /// PEM; the system's roots if absent.
    pub roots: Option<Vec<u8>>,
}

/// Changes hosted zones of one account.
pub struct Route53Writer {
    zone_id: Option<String>,
    service: Service,
    wallet: Wallet,
    /// Until a change is asked for again.
    pause: Duration,
}

/// All values of one name, as Route 53 has them: each in quotes.
#[derive(Debug, Eq, PartialEq)]
struct Set {
    ttl: u32,
    values: Vec<String>,
}

impl fmt::Debug for Route53Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Route53Writer")
            .field("endpoint", &self.service.endpoint)
            .field("zone_id", &self.zone_id)
            .finish_non_exhaustive()
    }
}

impl From<AwsError> for SolverError {
    fn from(error: AwsError) -> Self {
        Self::failed(format!("Route 53: {error}"))
    }
}

impl Route53Writer {
    /// Reads root certificates.
    pub fn new(spec: Route53Spec) -> Result<Self, AwsError> {
        let http = Arc::new(Http::new(spec.roots.as_deref())?);
        let is_china = spec
            .region
            .as_deref()
            .is_some_and(|region| region.starts_with("cn-"));
        let (endpoint, region) = match is_china {
            true => (ENDPOINT_CHINA, REGION_CHINA),
            false => (ENDPOINT, REGION),
        };
        Ok(Self {
            zone_id: spec.hosted_zone_id.as_deref().map(bare_id),
            service: Service {
                http: Arc::clone(&http),
                endpoint: spec.endpoint.unwrap_or_else(|| endpoint.to_owned()),
                name: "route53",
                region: region.to_owned(),
            },
            wallet: Wallet::new(
                spec.credentials,
                spec.role,
                spec.region,
                spec.sts_endpoint,
                http,
            ),
            pause: PENDING,
        })
    }

    async fn call(&self, call: Call) -> Result<Element, AwsError> {
        let credentials = self.wallet.credentials().await?;
        self.service.call(&call, &credentials).await
    }

    /// The hosted zone that is the zone of a place, or why there is none.
    async fn zone(&self, place: &Place) -> Result<Result<String, String>, AwsError> {
        let apex = place.zone();
        if let Some(id) = &self.zone_id {
            let answer = self
                .call(Call::get(format!("{API}/hostedzone/{id}"), Vec::new()))
                .await?;
            let name = answer.find("HostedZone").and_then(|zone| zone.find("Name"));
            let name = name.map(|name| readable(&name.text())).unwrap_or_default();
            return Ok(if name == apex {
                Ok(id.clone())
            } else {
                Err(format!("the hosted zone {id} is {name}, and not {apex}"))
            });
        }
        let query = vec![
            ("dnsname", format!("{apex}.")),
            ("maxitems", MAX_ZONES.to_owned()),
        ];
        let answer = self
            .call(Call::get(format!("{API}/hostedzonesbyname"), query))
            .await?;
        let text = |zone: &Element, name: &str| zone.find(name).map(Element::text);
        let ids: Vec<String> = answer
            .all("HostedZone")
            .into_iter()
            .filter(|zone| {
                let is_private = text(zone, "PrivateZone").is_some_and(|text| text == "true");
                let name = text(zone, "Name").map(|name| readable(&name));
                !is_private && name.as_deref() == Some(&*apex)
            })
            .filter_map(|zone| Some(bare_id(&text(zone, "Id")?)))
            .collect();
        Ok(match ids.as_slice() {
            [id] => Ok(id.clone()),
            [] => Err(format!("the account has no public hosted zone {apex}")),
            _ => Err(format!(
                "the account has several public hosted zones {apex} ({}); name one by its id",
                ids.join(", ")
            )),
        })
    }

    /// The set that is there.
    async fn set(&self, zone: &str, place: &Place) -> Result<Option<Set>, SolverError> {
        let name = format!("{}.", place.name());
        let query = vec![
            ("name", name.clone()),
            ("type", "TXT".to_owned()),
            ("maxitems", "1".to_owned()),
        ];
        let answer = self
            .call(Call::get(format!("{API}/hostedzone/{zone}/rrset"), query))
            .await?;
        // The list begins at the name, or behind it.
        let Some(found) = answer.find("ResourceRecordSet") else {
            return Ok(None);
        };
        let text = |name: &str| found.find(name).map(Element::text).unwrap_or_default();
        if readable(&text("Name")) != place.name() || text("Type") != "TXT" {
            return Ok(None);
        }
        if found.find("SetIdentifier").is_some() {
            return Err(SolverError::failed(format!(
                "the TXT records at {} have a routing policy, and are left alone",
                place.name()
            )));
        }
        Ok(Some(Set {
            ttl: text("TTL").parse().unwrap_or(TTL),
            values: found.all("Value").into_iter().map(Element::text).collect(),
        }))
    }

    /// Replaces the set by what `next` makes of it, unless that is the same.
    async fn replace(
        &self,
        place: &Place,
        next: impl Fn(&[String]) -> Vec<String>,
    ) -> Result<Option<String>, SolverError> {
        let zone = self.zone(place).await?.map_err(SolverError::failed)?;
        for attempt in 1.. {
            let old = self.set(&zone, place).await?;
            let had = old.as_ref().map_or(&[][..], |set| &set.values);
            let values = next(had);
            if values == had {
                return Ok(None);
            }
            if values.len() > MAX_VALUES {
                let message = format!("there are {MAX_VALUES} values at {}", place.name());
                return Err(SolverError::failed(message));
            }
            let new = (!values.is_empty()).then_some(Set { ttl: TTL, values });
            let call = Call {
                method: Method::POST,
                path: format!("{API}/hostedzone/{zone}/rrset/"),
                query: Vec::new(),
                body: change(&place.name(), old.as_ref(), new.as_ref()),
                kind: Some("text/xml"),
            };
            match self.call(call).await {
                Ok(answer) => {
                    let id = answer.find("ChangeInfo").and_then(|info| info.find("Id"));
                    return Ok(id.map(|id| bare_id(&id.text())));
                }
                // Somebody else was faster.
                Err(AwsError::Refused { code, .. })
                    if code == "InvalidChangeBatch" && attempt < ATTEMPTS => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(None)
    }

    async fn add_value(&self, place: &Place, value: &str) -> Result<Progress, SolverError> {
        let value = quoted(value);
        let change = self.replace(place, |had| {
            let mut values = had.to_vec();
            if !values.contains(&value) {
                values.push(value.clone());
            }
            values
        });
        Ok(match change.await? {
            Some(ticket) => Progress::Pending {
                ticket,
                after: self.pause,
            },
            None => Progress::Done,
        })
    }

    async fn remove_value(&self, place: &Place, value: &str) -> Result<(), SolverError> {
        let value = quoted(value);
        let change = self.replace(place, |had| {
            had.iter().filter(|own| **own != value).cloned().collect()
        });
        change.await.map(drop)
    }

    async fn status(&self, ticket: &str) -> Result<Progress, SolverError> {
        let call = Call::get(format!("{API}/change/{ticket}"), Vec::new());
        let answer = self.call(call).await?;
        let status = answer.find("Status").map(Element::text);
        Ok(match status.as_deref() {
            Some("INSYNC") => Progress::Done,
            _ => Progress::Pending {
                ticket: ticket.to_owned(),
                after: self.pause,
            },
        })
    }
}

impl DnsWriter for Route53Writer {
    fn accepts<'a>(&'a self, place: &'a Place) -> BoxFuture<'a, Result<Access, SolverError>> {
        Box::pin(async move {
            Ok(match self.zone(place).await? {
                Ok(_) => Access::Granted,
                Err(why) => Access::Denied(why),
            })
        })
    }

    fn add<'a>(
        &'a self,
        place: &'a Place,
        value: &'a str,
    ) -> BoxFuture<'a, Result<Progress, SolverError>> {
        Box::pin(self.add_value(place, value))
    }

    fn poll<'a>(
        &'a self,
        _place: &'a Place,
        _value: &'a str,
        ticket: &'a str,
    ) -> BoxFuture<'a, Result<Progress, SolverError>> {
        Box::pin(self.status(ticket))
    }

    fn remove<'a>(
        &'a self,
        place: &'a Place,
        value: &'a str,
    ) -> BoxFuture<'a, Result<(), SolverError>> {
        Box::pin(self.remove_value(place, value))
    }
}

/// The request that replaces one set by another, both at once or not at all.
fn change(name: &str, old: Option<&Set>, new: Option<&Set>) -> String {
    let part = |action: &str, set: &Set| {
        let values: String = set
            .values
            .iter()
            .map(|value| {
                let value = escape(value);
                format!("<ResourceRecord><Value>{value}</Value></ResourceRecord>")
            })
            .collect();
        format!(
            "<Change><Action>{action}</Action><ResourceRecordSet><Name>{}.</Name>\
             <Type>TXT</Type><TTL>{}</TTL><ResourceRecords>{values}</ResourceRecords>\
             </ResourceRecordSet></Change>",
            escape(name),
            set.ttl
        )
    };
    let delete = old.map(|set| part("DELETE", set)).unwrap_or_default();
    let create = new.map(|set| part("CREATE", set)).unwrap_or_default();
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\
         <ChangeResourceRecordSetsRequest xmlns=\"{NAMESPACE}\"><ChangeBatch><Changes>\
         {delete}{create}</Changes></ChangeBatch></ChangeResourceRecordSetsRequest>"
    )
}

/// Values of proofs are base64url: nothing in them needs an escape.
fn quoted(value: &str) -> String {
    format!("\"{}\"", value.replace(['"', '\\'], ""))
}

/// `/hostedzone/Z123` is `Z123`; only what may stand in a path.
fn bare_id(id: &str) -> String {
    let id = id.rsplit('/').next().unwrap_or_default();
    id.chars().filter(char::is_ascii_alphanumeric).collect()
}

/// A name of Route 53 as others write it: lower case, without the last dot and octal escapes.
fn readable(name: &str) -> String {
    let name = name.replace("\\052", "*").to_ascii_lowercase();
    name.trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests;
