//! The meaning of every section but routes and plugins.

use std::net::IpAddr;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::time::Duration;

use http::HeaderName;
use http::HeaderValue;
use ipnet::IpNet;

use super::FileReader;
use super::Kind;
use super::raw::At;
use super::raw::RawAccessLog;
use super::raw::RawAdmin;
use super::raw::RawCertificate;
use super::raw::RawClientAuth;
use super::raw::RawClientAuthMode;
use super::raw::RawEncodedSlash;
use super::raw::RawHeaderEdits;
use super::raw::RawListener;
use super::raw::RawLogFormat;
use super::raw::RawPassthrough;
use super::raw::RawProxyProtocol;
use super::raw::RawRuntime;
use super::raw::RawTls;
use super::raw::RawTlsVersion;
use super::units;
use crate::config::AccessLogFormat;
use crate::config::AccessLogSpec;
use crate::config::AdminSpec;
use crate::config::RuntimeSpec;
use crate::config::listener::CertificateSpec;
use crate::config::listener::ClientAuthSpec;
use crate::config::listener::ListenerLimits;
use crate::config::listener::ListenerSpec;
use crate::config::listener::ListenerTimeouts;
use crate::config::listener::PassthroughSpec;
use crate::config::listener::ProxyProtocolSpec;
use crate::config::listener::TlsSpec;
use crate::config::listener::TlsVersion;
use crate::config::policy::HeaderEdits;
use crate::config::policy::PolicySpec;
use crate::config::problem::Problem;
use crate::header::TrustedProxies;
use crate::header::is_editable;
use crate::hostname::Hostname;
use crate::name::CertificateName;
use crate::name::ListenerName;
use crate::name::PolicyName;
use crate::name::UpstreamName;
use crate::path::EncodedSlash;

const MAX_WORKERS: i64 = 1024;
/// Longest time that may be set. Anything longer is a slip of the unit.
const MAX_DURATION: Duration = Duration::from_secs(24 * 60 * 60);
const MAX_CONNECTIONS: i64 = 10_000_000;
/// Each is looked at for every ticket.
const MAX_TICKET_KEYS: usize = 8;
/// Bounds of a request head: smaller would refuse browsers, larger is a memory weapon.
pub(super) const HEAD_BYTES: std::ops::RangeInclusive<u64> = (8 << 10)..=(1 << 20);

impl FileReader<'_> {
    pub(super) fn runtime(&mut self, raw: &RawRuntime) {
        let workers = raw.workers.as_ref().and_then(|workers| {
            let workers = self.number(workers, "workers", 1..=MAX_WORKERS);
            usize::try_from(workers).ok().and_then(NonZeroUsize::new)
        });
        let cache_dir = raw.cache_dir.as_ref().map(|dir| self.file(dir));
        if let Some(dir) = &raw.cache_dir {
            self.place("runtime.cache-dir".to_owned(), dir.span());
        }
        let state_dir = raw.state_dir.as_ref().map(|dir| self.file(dir));
        if let Some(dir) = &raw.state_dir {
            self.place("runtime.state-dir".to_owned(), dir.span());
        }
        self.reading.config.runtime = RuntimeSpec {
            workers,
            cache_dir,
            state_dir,
        };
    }

    pub(super) fn access_log(&mut self, raw: &RawAccessLog) {
        let path = raw.path.as_ref().map(|path| {
            self.place("access-log.path".to_owned(), path.span());
            self.file(path)
        });
        self.reading.config.access_log = AccessLogSpec {
            format: match raw.format {
                None | Some(RawLogFormat::Json) => AccessLogFormat::Json,
                Some(RawLogFormat::Text) => AccessLogFormat::Text,
                Some(RawLogFormat::Off) => AccessLogFormat::Off,
            },
            path,
        };
    }

    pub(super) fn admin(&mut self, raw: &RawAdmin) {
        let Some(bind) = &raw.bind else { return };
        self.place("admin.bind".to_owned(), bind.span());
        let Some(addr) = self.text(bind, "address with port", parse_addr) else {
            return;
        };
        if !addr.ip().is_loopback() {
            let origin = self.lines.origin(bind.span());
            let message = "the admin listener can be reached from other machines";
            let help = "bind a loopback address, or keep strangers out by other means";
            self.reading
                .problems
                .push(Problem::warning(origin, message).with_help(help));
        }
        self.reading.config.admin = AdminSpec { bind: addr };
    }

    pub(super) fn certificate(&mut self, name: &str, raw: &RawCertificate) {
        let at = format!("certificates.{name}");
        let (cert_file, key_file) = match (&raw.issuer, &raw.cert_file, &raw.key_file) {
            (None, Some(cert), Some(key)) => (cert, key),
            (Some(issuer), None, None) => return self.managed(name, issuer, raw),
            (Some(issuer), _, _) => {
                let message = "a certificate is in files or got from an issuer, not both";
                let help = "take out issuer and hosts, or cert-file and key-file";
                return self.error_with_help(issuer.span(), message.to_owned(), help);
            }
            (None, cert, _) => {
                let missing = if cert.is_none() {
                    "cert-file"
                } else {
                    "key-file"
                };
                let problem = Problem::error(
                    self.reading.origins.find(&at),
                    format!("certificates.{name} lacks the key '{missing}'"),
                );
                let help = "write cert-file and key-file, or issuer and hosts";
                self.reading.problems.push(problem.with_help(help));
                return;
            }
        };
        if let Some(hosts) = &raw.hosts {
            let message = "hosts is for certificates that are got from an issuer".to_owned();
            let help = "a certificate in a file serves the names that it holds";
            self.error_with_help(hosts.span(), message, help);
        }
        self.place(format!("{at}.cert-file"), cert_file.span());
        self.place(format!("{at}.key-file"), key_file.span());
        let spec = CertificateSpec {
            cert_file: self.file(cert_file),
            key_file: self.file(key_file),
            hosts: None,
        };
        if let Some(name) = self.item_name(&at, name, CertificateName::parse) {
            self.reading.config.certificates.insert(name, spec);
        }
    }

    pub(super) fn listener(&mut self, name: &str, raw: &RawListener) {
        let at = format!("listeners.{name}");
        self.place(format!("{at}.bind"), raw.bind.span());
        let bind = self.text(&raw.bind, "address with port", parse_addr);
        let tls = raw.tls.as_ref().map(|tls| self.tls(tls, &at));
        let networks = raw.trusted_proxies.iter().flatten();
        let networks = networks
            .filter_map(|text| self.text(text, "network", parse_network))
            .collect();
        let proxy_protocol = self.proxy_protocol(raw);
        let mut timeouts = ListenerTimeouts::default();
        if let Some(raw) = &raw.timeouts {
            self.duration(raw.proxy_header.as_ref(), &mut timeouts.proxy_header);
            self.duration(raw.handshake.as_ref(), &mut timeouts.handshake);
            self.duration(raw.request_head.as_ref(), &mut timeouts.request_head);
            self.duration(raw.keep_alive.as_ref(), &mut timeouts.keep_alive);
            self.duration(raw.body_idle.as_ref(), &mut timeouts.body_idle);
            self.duration(raw.write_idle.as_ref(), &mut timeouts.write_idle);
            self.duration(raw.body_grace.as_ref(), &mut timeouts.body_grace);
        }
        let mut limits = ListenerLimits::default();
        if let Some(raw) = &raw.limits {
            let connections = raw.connections.as_ref();
            self.count(
                connections,
                "connections",
                MAX_CONNECTIONS,
                &mut limits.connections,
            );
            self.count(
                raw.head_fields.as_ref(),
                "head-fields",
                1000,
                &mut limits.head_fields,
            );
            self.count(raw.streams.as_ref(), "streams", 10_000, &mut limits.streams);
            if let Some(text) = &raw.head
                && let Some(size) = self.size(text, HEAD_BYTES)
            {
                // HEAD_BYTES ends at 1 MiB.
                limits.head_bytes = u32::try_from(size).unwrap_or(u32::MAX);
            }
            self.traffic_limits(raw, &mut limits);
        }
        let http2 = raw.http2.as_ref().map(|raw| self.http2_limits(raw));
        let name = self.item_name(&at, name, ListenerName::parse);
        if let (Some(name), Some(bind)) = (name, bind) {
            let spec = ListenerSpec {
                bind,
                tls,
                trusted_proxies: TrustedProxies::new(networks),
                proxy_protocol,
                encoded_slash: match raw.encoded_slash {
                    None | Some(RawEncodedSlash::Reject) => EncodedSlash::Reject,
                    Some(RawEncodedSlash::Keep) => EncodedSlash::Keep,
                },
                timeouts,
                limits,
                http2: http2.unwrap_or_default(),
            };
            self.reading.config.listeners.insert(name, spec);
        }
    }

    fn proxy_protocol(&mut self, raw: &RawListener) -> Option<ProxyProtocolSpec> {
        let from = raw.proxy_protocol_from.as_deref().unwrap_or_default();
        let networks = self.networks(from);
        let mode = raw.proxy_protocol.as_ref();
        let is_required = match mode.map(|mode| **mode) {
            None | Some(RawProxyProtocol::Off) => return None,
            Some(RawProxyProtocol::Optional) => false,
            Some(RawProxyProtocol::Required) => true,
        };
        if from.is_empty() {
            self.error_with_help(
                mode.map_or(0..0, At::span),
                "nobody may send a header of the PROXY protocol".to_owned(),
                "list the load balancers: proxy-protocol-from = [\"10.0.0.0/8\"]",
            );
        }
        Some(ProxyProtocolSpec {
            is_required,
            from: TrustedProxies::new(networks),
        })
    }

    fn client_auth(&mut self, entries: &[At<RawClientAuth>], at: &str) -> Vec<ClientAuthSpec> {
        let mut specs: Vec<ClientAuthSpec> = Vec::with_capacity(entries.len());
        for (index, raw) in entries.iter().enumerate() {
            let mut hosts = Vec::with_capacity(raw.hosts.len());
            for text in &raw.hosts {
                let Some(host) = self.text(text, "host name", Hostname::parse) else {
                    continue;
                };
                if specs.iter().any(|spec| spec.hosts.contains(&host)) || hosts.contains(&host) {
                    let message = format!("the host '{host}' is listed twice");
                    self.error(text.span(), message);
                }
                hosts.push(host);
            }
            if raw.hosts.is_empty() && specs.iter().any(|spec| spec.hosts.is_empty()) {
                let message = "only one entry can be for all other hosts".to_owned();
                self.error_with_help(raw.span(), message, "name its hosts: hosts = [...]");
            }
            self.place(format!("{at}.tls.client-auth.{index}"), raw.ca_file.span());
            specs.push(ClientAuthSpec {
                hosts,
                ca_file: self.file(&raw.ca_file),
                is_required: match raw.mode {
                    None | Some(RawClientAuthMode::Required) => true,
                    Some(RawClientAuthMode::Optional) => false,
                },
            });
        }
        specs
    }

    fn passthrough(
        &mut self,
        entries: &[At<RawPassthrough>],
        client_auth: &[ClientAuthSpec],
    ) -> Vec<PassthroughSpec> {
        let mut specs: Vec<PassthroughSpec> = Vec::with_capacity(entries.len());
        for raw in entries {
            let mut hosts = Vec::with_capacity(raw.hosts.len());
            for text in raw.hosts.iter() {
                let Some(host) = self.text(text, "host name", Hostname::parse) else {
                    continue;
                };
                if specs.iter().any(|spec| spec.hosts.contains(&host)) || hosts.contains(&host) {
                    let message = format!("the host '{host}' is listed twice");
                    self.error(text.span(), message);
                }
                if client_auth.iter().any(|auth| auth.hosts.contains(&host)) {
                    let message =
                        format!("'{host}' is passed on, so nobody here asks for certificates");
                    let help = "take the host out of passthrough or out of client-auth";
                    self.error_with_help(text.span(), message, help);
                }
                hosts.push(host);
            }
            if raw.hosts.is_empty() {
                let message = "connections are passed on by name: there is none".to_owned();
                self.error_with_help(
                    raw.hosts.span(),
                    message,
                    "name them: hosts = [\"db.example.com\"]",
                );
            }
            let upstream = self.reference(Kind::Upstream, &raw.upstream, UpstreamName::parse);
            if let Some(upstream) = upstream {
                specs.push(PassthroughSpec { hosts, upstream });
            }
        }
        specs
    }

    fn tls(&mut self, raw: &RawTls, at: &str) -> TlsSpec {
        let client_auth = self.client_auth(&raw.client_auth, at);
        let passthrough = self.passthrough(&raw.passthrough, &client_auth);
        let mut ticket_keys = Vec::with_capacity(raw.ticket_keys.len());
        for (index, text) in raw.ticket_keys.iter().enumerate() {
            if index == MAX_TICKET_KEYS {
                let message = format!("there are more than {MAX_TICKET_KEYS} ticket keys");
                self.error(text.span(), message);
            }
            self.place(format!("{at}.tls.ticket-keys.{index}"), text.span());
            ticket_keys.push(self.file(text));
        }
        let certificates = raw.certificates.iter().flatten();
        TlsSpec {
            min_version: match raw.min_version {
                None | Some(RawTlsVersion::Tls12) => TlsVersion::Tls12,
                Some(RawTlsVersion::Tls13) => TlsVersion::Tls13,
            },
            certificates: certificates
                .filter_map(|text| self.reference(Kind::Certificate, text, CertificateName::parse))
                .collect(),
            default_certificate: raw
                .default_certificate
                .as_ref()
                .and_then(|text| self.reference(Kind::Certificate, text, CertificateName::parse)),
            ticket_keys,
            passthrough,
            client_auth,
        }
    }

    pub(super) fn policy_spec(&mut self, at: &str, name: &str, spec: PolicySpec) {
        if let Some(name) = self.item_name(at, name, PolicyName::parse) {
            self.reading.config.policies.insert(name, spec);
        }
    }

    pub(super) fn header_edits(&mut self, raw: Option<&RawHeaderEdits>) -> HeaderEdits {
        let Some(raw) = raw else {
            return HeaderEdits::default();
        };
        let mut pairs = |fields: &std::collections::BTreeMap<At<String>, At<String>>| {
            let mut pairs = Vec::new();
            for (name, value) in fields {
                let name = self.field_name(name);
                let value = self.text(value, "field value", |text| {
                    HeaderValue::from_str(text).map_err(|_| "it holds a control character")
                });
                if let (Some(name), Some(value)) = (name, value) {
                    pairs.push((name, value));
                }
            }
            pairs
        };
        let set = pairs(&raw.set);
        let add = pairs(&raw.add);
        HeaderEdits {
            remove: raw
                .remove
                .iter()
                .filter_map(|name| self.field_name(name))
                .collect(),
            set,
            add,
        }
    }

    pub(super) fn field_name(&mut self, text: &At<String>) -> Option<HeaderName> {
        let name = self.text(text, "field name", |text| {
            HeaderName::from_bytes(text.as_bytes()).map_err(|_| "it is no token")
        })?;
        if !is_editable(&name) {
            let message = format!("the field '{name}' is written by the gateway alone");
            self.error(text.span(), message);
            return None;
        }
        Some(name)
    }

    pub(super) fn item_name<N>(
        &mut self,
        at: &str,
        name: &str,
        parse: impl FnOnce(&str) -> Result<N, crate::name::NameError>,
    ) -> Option<N> {
        match parse(name) {
            Ok(name) => Some(name),
            Err(error) => {
                let origin = self.reading.origins.find(at);
                let message = format!("'{name}' is no name: {error}");
                self.reading.problems.push(Problem::error(origin, message));
                None
            }
        }
    }

    pub(super) fn duration(&mut self, text: Option<&At<String>>, into: &mut Duration) {
        let Some(text) = text else { return };
        let Some(duration) = self.text(text, "duration", units::duration) else {
            return;
        };
        if duration.is_zero() || duration > MAX_DURATION {
            let message = format!("'{}' is not between 1ms and 24h", **text);
            self.error(text.span(), message);
            return;
        }
        *into = duration;
    }

    pub(super) fn size(
        &mut self,
        text: &At<String>,
        range: std::ops::RangeInclusive<u64>,
    ) -> Option<u64> {
        let size = self.text(text, "size", units::size)?;
        if !range.contains(&size) {
            let [low, high] = [*range.start(), *range.end()].map(units::print_size);
            let message = format!("'{}' is not between {low} and {high}", **text);
            self.error(text.span(), message);
            return None;
        }
        Some(size)
    }

    pub(super) fn count(
        &mut self,
        number: Option<&At<i64>>,
        what: &str,
        most: i64,
        into: &mut u32,
    ) {
        if let Some(number) = number {
            // The range ends well below `u32::MAX`.
            *into = u32::try_from(self.number(number, what, 1..=most)).unwrap_or(u32::MAX);
        }
    }
}

fn parse_addr(text: &str) -> Result<SocketAddr, &'static str> {
    text.parse()
        .map_err(|_| "write an IP address and a port, as in 127.0.0.1:8080 or [::]:8080")
}

pub(super) fn parse_network(text: &str) -> Result<IpNet, &'static str> {
    let network: IpNet = match text.parse::<IpAddr>() {
        Ok(addr) => addr.into(),
        Err(_) => text
            .parse()
            .map_err(|_| "write an address with a prefix length, as in 10.0.0.0/8")?,
    };
    if network.addr() != network.network() {
        return Err("it has bits set behind its prefix length");
    }
    Ok(network)
}
