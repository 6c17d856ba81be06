//! The meaning of upstreams.

use std::net::SocketAddr;
use std::ops::Range;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;
use http::HeaderValue;
use http::StatusCode;
use http::uri::PathAndQuery;
use toml::Spanned;

use super::FileReader;
use super::raw::At;
use super::raw::RawBalance;
use super::raw::RawEjection;
use super::raw::RawEndpoint;
use super::raw::RawHealthCheck;
use super::raw::RawProtocol;
use super::raw::RawProxyVersion;
use super::raw::RawRetries;
use super::raw::RawSameSite;
use super::raw::RawSticky;
use super::raw::RawUpstream;
use super::raw::RawUpstreamLimits;
use super::raw::RawUpstreamTls;
use crate::config::problem::Problem;
use crate::config::upstream::Balance;
use crate::config::upstream::ClientCertificateSpec;
use crate::config::upstream::DEFAULT_IDLE_CONNECTIONS;
use crate::config::upstream::DEFAULT_PENDING;
use crate::config::upstream::EjectionSpec;
use crate::config::upstream::EndpointShare;
use crate::config::upstream::EndpointSpec;
use crate::config::upstream::HashKey;
use crate::config::upstream::HealthCheckSpec;
use crate::config::upstream::MAX_COOKIE_NAME;
use crate::config::upstream::MAX_PRIORITY;
use crate::config::upstream::MAX_RETRIES;
use crate::config::upstream::MAX_WEIGHT;
use crate::config::upstream::ProxyProtocol;
use crate::config::upstream::RetrySpec;
use crate::config::upstream::SameSite;
use crate::config::upstream::StickySpec;
use crate::config::upstream::UpstreamLimits;
use crate::config::upstream::UpstreamProtocol;
use crate::config::upstream::UpstreamSpec;
use crate::config::upstream::UpstreamTimeouts;
use crate::config::upstream::UpstreamTlsSpec;
use crate::hostname::Authority;
use crate::hostname::Hostname;
use crate::name::UpstreamName;

/// Largest limit of connections or requests; anything above is no limit.
const MAX_LIMIT: i64 = 1_000_000;
/// Most answers or failures in a row that a verdict may wait for.
const MAX_IN_A_ROW: i64 = 1000;
/// A budget of more retries than this for every hundred requests is none.
const MAX_BUDGET: i64 = 100;
/// Longest path of a health check, in bytes.
const MAX_CHECK_PATH: usize = 1024;

impl FileReader<'_> {
    pub(super) fn upstream(&mut self, name: &str, raw: &RawUpstream) {
        let at = format!("upstreams.{name}");
        let (endpoints, shares) = self.endpoints(&raw.endpoints);
        let protocol = match raw.protocol {
            None | Some(RawProtocol::Http1) => UpstreamProtocol::Http1,
            Some(RawProtocol::Http2) => UpstreamProtocol::Http2,
        };
        if let Some(key) = &raw.proxy_protocol
            && protocol == UpstreamProtocol::Http2
        {
            self.error_with_help(
                key.span(),
                "the PROXY protocol does not go with http2".to_owned(),
                "requests of different clients share an HTTP/2 connection; leave one of them out",
            );
        }
        let mut timeouts = UpstreamTimeouts::default();
        if let Some(raw) = &raw.timeouts {
            self.duration(raw.connect.as_ref(), &mut timeouts.connect);
            self.duration(raw.first_byte.as_ref(), &mut timeouts.first_byte);
            self.duration(raw.body_idle.as_ref(), &mut timeouts.body_idle);
            self.duration(raw.keep_alive.as_ref(), &mut timeouts.keep_alive);
        }
        let mut idle_connections = DEFAULT_IDLE_CONNECTIONS;
        let idle = raw.idle_connections.as_ref();
        self.count(idle, "idle-connections", 100_000, &mut idle_connections);
        let mut slow_start = Duration::ZERO;
        self.duration(raw.slow_start.as_ref(), &mut slow_start);
        let spec = UpstreamSpec {
            endpoints,
            shares,
            balance: self.balance(raw),
            sticky: raw.sticky.as_ref().and_then(|raw| self.sticky(raw)),
            slow_start,
            protocol,
            host: self.host(raw.host.as_ref()),
            tls: raw.tls.as_ref().map(|raw| self.upstream_tls(&at, raw)),
            proxy_protocol: raw.proxy_protocol.as_ref().map(|version| match **version {
                RawProxyVersion::V1 => ProxyProtocol::V1,
                RawProxyVersion::V2 => ProxyProtocol::V2,
            }),
            limits: self.upstream_limits(raw.limits.as_ref()),
            retries: self.retries(raw.retries.as_ref(), &timeouts),
            health_check: raw.health_check.as_ref().map(|raw| self.health_check(raw)),
            ejection: self.ejection(raw.ejection.as_ref()),
            fail_open: raw.fail_open.unwrap_or(true),
            refuses_local: false,
            timeouts,
            idle_connections,
        };
        if let Some(name) = self.item_name(&at, name, UpstreamName::parse) {
            let upstreams = &mut self.reading.config.upstreams;
            upstreams.insert(name, Arc::new(spec));
        }
    }

    fn endpoints(
        &mut self,
        raw: &At<Vec<At<RawEndpoint>>>,
    ) -> (Vec<EndpointSpec>, Vec<EndpointShare>) {
        if raw.is_empty() {
            let message = "an upstream has at least one endpoint".to_owned();
            self.error(raw.span(), message);
        }
        let mut endpoints: Vec<EndpointSpec> = Vec::with_capacity(raw.len());
        let mut shares = Vec::with_capacity(raw.len());
        for item in raw.iter() {
            let plain = At(Spanned::new(item.span(), item.plain.clone()));
            let text = item.address.as_ref().unwrap_or(&plain);
            let Some(endpoint) = self.text(text, "endpoint", parse_endpoint) else {
                continue;
            };
            if endpoints.contains(&endpoint) {
                self.error(
                    text.span(),
                    format!("the endpoint '{endpoint}' is listed twice"),
                );
                continue;
            }
            let mut share = EndpointShare::default();
            let weight = item.weight.as_ref();
            self.count(weight, "weight", MAX_WEIGHT.into(), &mut share.weight);
            share.priority =
                self.count_from_zero(item.priority.as_ref(), "priority", MAX_PRIORITY.into(), 0);
            endpoints.push(endpoint);
            shares.push(share);
        }
        (endpoints, shares)
    }

    fn balance(&mut self, raw: &RawUpstream) -> Balance {
        let balance = raw.balance.as_ref().map(|balance| **balance);
        let key = raw.hash_key.as_ref();
        if let Some(key) = key.filter(|_| balance != Some(RawBalance::Hash)) {
            self.error_with_help(
                key.span(),
                "a hash-key is of no use here".to_owned(),
                "set balance = \"hash\", or leave it out",
            );
        }
        match balance {
            None | Some(RawBalance::RoundRobin) => Balance::RoundRobin,
            Some(RawBalance::LeastRequests) => Balance::LeastRequests,
            Some(RawBalance::Hash) => {
                let key = key.and_then(|key| self.text(key, "hash key", parse_hash_key));
                Balance::Hash(key.unwrap_or(HashKey::Source))
            }
        }
    }

    fn sticky(&mut self, raw: &RawSticky) -> Option<StickySpec> {
        let cookie = self.text(&raw.cookie, "cookie name", parse_cookie_name)?;
        let max_age = raw.max_age.as_ref().map(|text| {
            let mut max_age = Duration::ZERO;
            self.duration(Some(text), &mut max_age);
            max_age
        });
        Some(StickySpec {
            cookie,
            max_age,
            same_site: match raw.same_site {
                Some(RawSameSite::Strict) => SameSite::Strict,
                None | Some(RawSameSite::Lax) => SameSite::Lax,
                Some(RawSameSite::None) => SameSite::None,
            },
            secure: raw.secure,
        })
    }

    fn host(&mut self, text: Option<&At<String>>) -> Option<HeaderValue> {
        self.text(text?, "host", |text| {
            let value = HeaderValue::from_str(text).map_err(|error| error.to_string())?;
            match Authority::parse(&value) {
                Ok(_) => Ok(value),
                Err(error) => Err(error.to_string()),
            }
        })
    }

    fn upstream_tls(&mut self, at: &str, raw: &RawUpstreamTls) -> UpstreamTlsSpec {
        let is_insecure = raw.insecure.as_ref().is_some_and(|insecure| **insecure);
        if let Some(key) = raw.insecure.as_ref().filter(|_| is_insecure) {
            let origin = self.lines.origin(key.span());
            let message = "certificates of the endpoints are not verified";
            let help = "name the authority that signed them by ca-file";
            self.reading
                .problems
                .push(Problem::warning(origin, message).with_help(help));
        }
        let pair = (raw.cert_file.as_ref(), raw.key_file.as_ref());
        let client = match pair {
            (Some(cert), Some(key)) => {
                self.place(format!("{at}.tls.cert-file"), cert.span());
                self.place(format!("{at}.tls.key-file"), key.span());
                Some(ClientCertificateSpec {
                    cert_file: self.file(cert),
                    key_file: self.file(key),
                })
            }
            (None, None) => None,
            (Some(half), None) | (None, Some(half)) => {
                let message = "a client certificate has cert-file and key-file".to_owned();
                self.error(half.span(), message);
                None
            }
        };
        UpstreamTlsSpec {
            server_name: raw.server_name.as_ref().and_then(|text| {
                let host = self.text(text, "host name", Hostname::parse)?;
                match host {
                    Hostname::Exact(name) => Some(name.into()),
                    Hostname::Wildcard(_) => {
                        let message = format!("'{}' is no server name: it is a wildcard", **text);
                        self.error(text.span(), message);
                        None
                    }
                }
            }),
            ca_file: raw.ca_file.as_ref().map(|text| {
                self.place(format!("{at}.tls.ca-file"), text.span());
                self.file(text)
            }),
            client,
            is_insecure,
        }
    }

    fn upstream_limits(&mut self, raw: Option<&RawUpstreamLimits>) -> UpstreamLimits {
        let mut limits = UpstreamLimits {
            pending: DEFAULT_PENDING,
            ..UpstreamLimits::default()
        };
        let Some(raw) = raw else { return limits };
        let mut limit = |number: &Option<At<i64>>, what: &str| {
            let mut limit = 0;
            self.count(number.as_ref(), what, MAX_LIMIT, &mut limit);
            (limit > 0).then_some(limit)
        };
        limits.connections = limit(&raw.connections, "connections");
        limits.requests = limit(&raw.requests, "requests");
        limits.pending =
            self.count_from_zero(raw.pending.as_ref(), "pending", MAX_LIMIT, limits.pending);
        limits
    }

    fn retries(&mut self, raw: Option<&RawRetries>, timeouts: &UpstreamTimeouts) -> RetrySpec {
        let mut retries = RetrySpec::default();
        let Some(raw) = raw else { return retries };
        retries.count = self.count_from_zero(
            raw.count.as_ref(),
            "count",
            MAX_RETRIES.into(),
            retries.count,
        );
        retries.budget_percent = self.count_from_zero(
            raw.budget.as_ref(),
            "budget",
            MAX_BUDGET,
            retries.budget_percent,
        );
        if let Some(text) = &raw.per_try {
            let mut per_try = timeouts.first_byte;
            self.duration(Some(text), &mut per_try);
            if per_try > timeouts.first_byte {
                self.error(
                    text.span(),
                    format!("'{}' is longer than all attempts together may take", **text),
                );
            }
            retries.per_try = Some(per_try);
        }
        for status in &raw.on_status {
            let number = self.number(status, "a status", 500..=599);
            let status = u16::try_from(number).ok();
            retries
                .on_status
                .extend(status.and_then(|status| StatusCode::from_u16(status).ok()));
        }
        retries
    }

    fn health_check(&mut self, raw: &RawHealthCheck) -> HealthCheckSpec {
        let mut check = HealthCheckSpec::default();
        if let Some(path) = &raw.path {
            check.path = self.text(path, "path", parse_check_path);
        }
        if raw.path.is_none() {
            let of_http: [Option<Range<usize>>; 2] = [
                raw.host.as_ref().map(At::span),
                raw.status.as_ref().map(At::span),
            ];
            for span in of_http.into_iter().flatten() {
                let message = "a check without path only connects".to_owned();
                self.error_with_help(span, message, "set a path, or leave this out");
            }
        }
        check.host = self.host(raw.host.as_ref());
        self.duration(raw.interval.as_ref(), &mut check.interval);
        self.duration(raw.timeout.as_ref(), &mut check.timeout);
        let healthy = raw.healthy.as_ref();
        self.count(healthy, "healthy", MAX_IN_A_ROW, &mut check.healthy);
        let unhealthy = raw.unhealthy.as_ref();
        self.count(unhealthy, "unhealthy", MAX_IN_A_ROW, &mut check.unhealthy);
        if let Some(text) = &raw.status
            && let Some(status) = self.text(text, "status", parse_statuses)
        {
            check.status = status;
        }
        check
    }

    fn ejection(&mut self, raw: Option<&RawEjection>) -> EjectionSpec {
        let mut ejection = EjectionSpec::default();
        let Some(raw) = raw else { return ejection };
        let failures = raw.failures.as_ref();
        ejection.failures =
            self.count_from_zero(failures, "failures", MAX_IN_A_ROW, ejection.failures);
        self.duration(raw.time.as_ref(), &mut ejection.time);
        if raw.max_time.is_none() {
            ejection.max_time = ejection.max_time.max(ejection.time);
        }
        self.duration(raw.max_time.as_ref(), &mut ejection.max_time);
        if let Some(text) = raw.max_time.as_ref()
            && ejection.max_time < ejection.time
        {
            let message = "the longest time is shorter than the first".to_owned();
            self.error(text.span(), message);
        }
        let percent = raw.max_percent.as_ref();
        ejection.max_percent =
            self.count_from_zero(percent, "max-percent", 100, ejection.max_percent);
        ejection
    }

    fn count_from_zero(
        &mut self,
        number: Option<&At<i64>>,
        what: &str,
        most: i64,
        default: u32,
    ) -> u32 {
        let Some(number) = number else { return default };
        // The range ends well below `u32::MAX`.
        u32::try_from(self.number(number, what, 0..=most)).unwrap_or(default)
    }
}

fn parse_endpoint(text: &str) -> Result<EndpointSpec, &'static str> {
    const FORM: &str = "write a host and a port, as in 10.0.0.7:8080";
    if text.contains("://") {
        return Err("it has no scheme; TLS is set by the upstream's tls table");
    }
    if let Ok(addr) = text.parse::<SocketAddr>() {
        if addr.port() == 0 {
            return Err("a port is a number from 1 to 65535");
        }
        return Ok(EndpointSpec {
            host: addr.ip().to_string(),
            port: addr.port(),
        });
    }
    let (host, port) = text.rsplit_once(':').ok_or(FORM)?;
    let port = match port.parse::<u16>() {
        Ok(port) if port > 0 => port,
        _ => return Err("a port is a number from 1 to 65535"),
    };
    match Hostname::parse(host) {
        Ok(Hostname::Exact(host)) => Ok(EndpointSpec {
            host: host.into(),
            port,
        }),
        _ => Err(FORM),
    }
}

fn parse_hash_key(text: &str) -> Result<HashKey, &'static str> {
    match text.split_once(':') {
        None if text == "source" => Ok(HashKey::Source),
        Some(("header", name)) => HeaderName::from_bytes(name.as_bytes())
            .map(HashKey::Header)
            .map_err(|_| "a field name is a token"),
        Some(("cookie", name)) => parse_cookie_name(name).map(HashKey::Cookie),
        _ => Err("write \"source\", \"header:NAME\" or \"cookie:NAME\""),
    }
}

fn parse_cookie_name(text: &str) -> Result<String, &'static str> {
    // Names of fields and of cookies are the same tokens (RFC 6265, 4.1.1).
    if HeaderName::from_bytes(text.as_bytes()).is_err() {
        return Err("it is no token");
    }
    if text.len() > MAX_COOKIE_NAME {
        return Err("it is longer than 64 bytes");
    }
    Ok(text.to_owned())
}

fn parse_check_path(text: &str) -> Result<String, &'static str> {
    if !text.starts_with('/') {
        return Err("it begins with a slash");
    }
    if text.len() > MAX_CHECK_PATH {
        return Err("it is longer than 1024 bytes");
    }
    match PathAndQuery::try_from(text) {
        Ok(path) if path.as_str() == text => Ok(text.to_owned()),
        _ => Err("it holds a character that no path may hold"),
    }
}

fn parse_statuses(text: &str) -> Result<RangeInclusive<u16>, &'static str> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    match (first.parse(), last.parse()) {
        (Ok(first), Ok(last)) if 100 <= first && first <= last && last <= 599 => Ok(first..=last),
        _ => Err("write one, as in 204, or the first and the last, as in 200-299"),
    }
}

#[cfg(test)]
mod tests;
