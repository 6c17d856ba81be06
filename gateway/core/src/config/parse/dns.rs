//! The meaning of what is said about the DNS.

use std::net::IpAddr;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use toml::Spanned;
use toml::de::DeTable;
use toml::de::DeValue;

use super::FileReader;
use super::Kind;
use super::raw::At;
use super::raw::RawDns;
use super::raw::RawPluginSolver;
use super::raw::RawRoute53Solver;
use super::raw::RawTsigAlgorithm;
use super::raw::RawUpdateSolver;
use crate::config::dns::AwsKeysSpec;
use crate::config::dns::DEFAULT_PROPAGATION;
use crate::config::dns::DNS_PORT;
use crate::config::dns::DnsProviderSpec;
use crate::config::dns::DnsSolverSpec;
use crate::config::dns::DnsSpec;
use crate::config::dns::MAX_PROPAGATION;
use crate::config::dns::MAX_RESOLVERS;
use crate::config::dns::Route53Spec;
use crate::config::dns::TsigAlgorithm;
use crate::config::issuer::ChallengeKind;
use crate::config::problem::Problem;
use crate::config::shape::take_kind;
use crate::hostname::Hostname;
use crate::name::DnsSolverName;
use crate::name::PolicyName;

/// Longest id, name of a key, or address.
const MAX_WORD: usize = 512;

/// What solvers of every kind say.
struct Common<'a> {
    hosts: Option<&'a At<Vec<At<String>>>>,
    delegation: Option<&'a At<String>>,
    propagation: Option<&'a At<String>>,
    delay: Option<&'a At<String>>,
}

impl FileReader<'_> {
    pub(super) fn dns(&mut self, raw: &RawDns) {
        let mut resolvers = Vec::new();
        if let Some(texts) = &raw.resolvers {
            if texts.is_empty() || texts.len() > MAX_RESOLVERS {
                let message = format!("1 to {MAX_RESOLVERS} resolvers are asked");
                let help = "leave resolvers out for those of /etc/resolv.conf";
                self.error_with_help(texts.span(), message, help);
            }
            let parse = |text: &str| {
                let error = "write an address and a port, as in 192.0.2.53:53";
                text.parse::<SocketAddr>().map_err(|_| error)
            };
            let texts = texts.iter();
            resolvers = texts
                .filter_map(|text| self.text(text, "DNS server", parse))
                .collect();
        }
        let port = raw.authority_port.as_ref().map(|port| {
            let port = self.number(port, "authority-port", 1..=i64::from(u16::MAX));
            u16::try_from(port).unwrap_or(DNS_PORT)
        });
        self.reading.config.dns = DnsSpec {
            resolvers,
            authority_port: port.unwrap_or(DNS_PORT),
        };
    }

    pub(super) fn dns_solvers(&mut self, table: &mut DeTable<'_>, schema: &Value) {
        for (name, mut value) in self.tables(table, "dns-solvers", Kind::DnsSolver) {
            let at = format!("dns-solvers.{name}");
            let pointer = "/properties/dns-solvers/additionalProperties";
            if let Some(item) = schema.pointer(pointer)
                && !self.shape(schema).check(&mut value, item, &at)
            {
                continue;
            }
            // The schema has it, and one of the words below.
            let Some(kind) = take_kind(&mut value) else {
                continue;
            };
            if let Some(spec) = self.dns_solver(&at, &kind, value)
                && let Some(name) = self.item_name(&at, &name, DnsSolverName::parse)
            {
                self.reading.config.dns_solvers.insert(name, spec);
            }
        }
    }

    fn dns_solver(
        &mut self,
        at: &str,
        kind: &str,
        value: Spanned<DeValue<'_>>,
    ) -> Option<DnsSolverSpec> {
        match kind {
            "rfc2136" => {
                let raw: RawUpdateSolver = self.read_value(value, at)?;
                let provider = self.update(at, &raw);
                let common = Common {
                    hosts: raw.hosts.as_ref(),
                    delegation: raw.delegation.as_ref(),
                    propagation: raw.propagation.as_ref(),
                    delay: raw.delay.as_ref(),
                };
                Some(self.solver(&common, provider?))
            }
            "route53" => {
                let raw: RawRoute53Solver = self.read_value(value, at)?;
                let provider = self.route53(at, &raw);
                let common = Common {
                    hosts: raw.hosts.as_ref(),
                    delegation: raw.delegation.as_ref(),
                    propagation: raw.propagation.as_ref(),
                    delay: raw.delay.as_ref(),
                };
                Some(self.solver(&common, provider))
            }
            "plugin" => {
                let raw: RawPluginSolver = self.read_value(value, at)?;
                let plugin = self.reference(Kind::Policy, &raw.plugin, PolicyName::parse);
                self.place(format!("{at}.plugin"), raw.plugin.span());
                let common = Common {
                    hosts: raw.hosts.as_ref(),
                    delegation: raw.delegation.as_ref(),
                    propagation: raw.propagation.as_ref(),
                    delay: raw.delay.as_ref(),
                };
                Some(self.solver(&common, DnsProviderSpec::Plugin(plugin?)))
            }
            _ => None,
        }
    }

    fn solver(&mut self, common: &Common<'_>, provider: DnsProviderSpec) -> DnsSolverSpec {
        let hosts = common.hosts.map(|hosts| {
            if hosts.is_empty() {
                let message = "a solver for no domain is never used".to_owned();
                let help = "name domains: hosts = [\"example.edu\"]";
                self.error_with_help(hosts.span(), message, help);
            }
            let hosts = hosts.iter();
            hosts
                .filter_map(|text| self.text(text, "domain", domain))
                .collect()
        });
        let delegation = common.delegation;
        let delegation = delegation.and_then(|text| self.text(text, "domain", domain));
        let mut propagation = DEFAULT_PROPAGATION;
        self.wait(common.propagation, &mut propagation);
        let delay = common.delay.map(|text| {
            let mut delay = Duration::ZERO;
            self.wait(Some(text), &mut delay);
            delay
        });
        DnsSolverSpec {
            hosts,
            delegation,
            propagation,
            delay,
            provider,
        }
    }

    fn wait(&mut self, text: Option<&At<String>>, into: &mut Duration) {
        let mut wait = *into;
        self.duration(text, &mut wait);
        if let Some(text) = text.filter(|_| wait > MAX_PROPAGATION) {
            let message = format!("'{}' is longer than an order waits: 1h", **text);
            self.error(text.span(), message);
            return;
        }
        *into = wait;
    }

    fn update(&mut self, at: &str, raw: &RawUpdateSolver) -> Option<DnsProviderSpec> {
        self.place(format!("{at}.secret-file"), raw.secret_file.span());
        let server = self.text(&raw.server, "DNS server", server);
        let key_name = self.text(&raw.key_name, "name of a key", |text| {
            Hostname::parse(text.trim_end_matches('.')).map(|name| name.to_string())
        });
        let secret_file = self.file(&raw.secret_file);
        Some(DnsProviderSpec::Update {
            server: server?,
            key_name: key_name?,
            algorithm: match raw.algorithm {
                None | Some(RawTsigAlgorithm::HmacSha256) => TsigAlgorithm::HmacSha256,
                Some(RawTsigAlgorithm::HmacSha384) => TsigAlgorithm::HmacSha384,
                Some(RawTsigAlgorithm::HmacSha512) => TsigAlgorithm::HmacSha512,
            },
            secret_file,
        })
    }

    fn route53(&mut self, at: &str, raw: &RawRoute53Solver) -> DnsProviderSpec {
        let mut words = [
            (&raw.hosted_zone_id, "id of a hosted zone"),
            (&raw.region, "region"),
            (&raw.role_arn, "role"),
            (&raw.external_id, "external id"),
        ]
        .map(|(text, what)| text.as_ref().and_then(|text| self.text(text, what, word)));
        let [hosted_zone_id, region, role_arn, external_id] = words.each_mut().map(Option::take);
        let mut urls = [&raw.endpoint, &raw.sts_endpoint].map(|text| {
            text.as_ref()
                .and_then(|text| self.text(text, "address", endpoint))
        });
        let [endpoint, sts_endpoint] = urls.each_mut().map(Option::take);
        if let Some(id) = raw.external_id.as_ref().filter(|_| role_arn.is_none()) {
            let message = "external-id is for a role, and there is none".to_owned();
            self.error_with_help(id.span(), message, "add role-arn");
        }
        let keys = match (&raw.access_key_id, &raw.secret_key_file) {
            (Some(id), Some(file)) => {
                self.place(format!("{at}.secret-key-file"), file.span());
                let secret_file = self.file(file);
                let id = self.text(id, "access key", word);
                id.map(|id| AwsKeysSpec { id, secret_file })
            }
            (Some(lone), None) | (None, Some(lone)) => {
                let message = "access-key-id and secret-key-file go together".to_owned();
                let help = "leave both out to use what AWS lends the gateway";
                self.error_with_help(lone.span(), message, help);
                None
            }
            (None, None) => None,
        };
        let ca_file = raw.ca_file.as_ref().map(|text| {
            self.place(format!("{at}.ca-file"), text.span());
            self.file(text)
        });
        DnsProviderSpec::Route53(Box::new(Route53Spec {
            hosted_zone_id,
            region,
            keys,
            role_arn,
            external_id,
            endpoint,
            sts_endpoint,
            ca_file,
        }))
    }
}

impl super::Reading {
    /// Which solver is for a domain must not depend on the order of names.
    pub(super) fn check_solvers(&mut self) {
        let mut claimed: Vec<(Option<&Hostname>, &DnsSolverName)> = Vec::new();
        let mut problems = Vec::new();
        for (name, solver) in &self.config.dns_solvers {
            let all = [None];
            let hosts: Vec<Option<&Hostname>> = match &solver.hosts {
                Some(hosts) => hosts.iter().map(Some).collect(),
                None => all.into(),
            };
            for host in hosts {
                if let Some((_, other)) = claimed.iter().find(|(claim, _)| *claim == host) {
                    let what = match host {
                        Some(host) => format!("for '{host}'"),
                        None => "for all that is left".to_owned(),
                    };
                    let message = format!("the DNS solvers '{other}' and '{name}' are both {what}");
                    let origin = self.origins.find(&format!("dns-solvers.{name}"));
                    let help = "say in hosts which domains each is for";
                    problems.push(Problem::error(origin, message).with_help(help));
                }
                claimed.push((host, name));
            }
        }
        for (name, issuer) in &self.config.issuers {
            let is_missing = self.config.dns_solvers.is_empty()
                && !self
                    .declared
                    .keys()
                    .any(|(kind, _)| *kind == Kind::DnsSolver);
            if is_missing && issuer.challenges.contains(&ChallengeKind::Dns01) {
                let message =
                    format!("the issuer '{name}' uses dns-01, and nothing writes records");
                let origin = self.origins.find(&format!("issuers.{name}"));
                let help = "declare a way: [dns-solvers.NAME] with a kind";
                problems.push(Problem::error(origin, message).with_help(help));
            }
        }
        self.problems.extend(problems);
    }
}

fn domain(text: &str) -> Result<Hostname, String> {
    match Hostname::parse(text) {
        Ok(host @ Hostname::Exact(_)) => Ok(host),
        Ok(Hostname::Wildcard(name)) => Err(format!("write {name}, which means all below it too")),
        Err(error) => Err(error.to_string()),
    }
}

/// An address or a name, with or without a port.
fn server(text: &str) -> Result<String, &'static str> {
    let error =
        "write an address or a name, as in 192.0.2.53, [2001:db8::53]:53 or ns1.example.edu";
    if text.parse::<SocketAddr>().is_ok() || text.parse::<IpAddr>().is_ok() {
        return Ok(text.to_owned());
    }
    let (host, port) = text.split_once(':').unwrap_or((text, "53"));
    let has_port = port.parse::<u16>().is_ok_and(|port| port > 0);
    match Hostname::parse(host) {
        Ok(Hostname::Exact(_)) if has_port => Ok(text.to_owned()),
        _ => Err(error),
    }
}

fn word(text: &str) -> Result<String, &'static str> {
    let is_word =
        (1..=MAX_WORD).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
    let text = is_word.then(|| text.to_owned());
    text.ok_or("it is empty, long, or holds a space or a control character")
}

/// What an answer is trusted from, or what nobody can listen to.
fn endpoint(text: &str) -> Result<String, &'static str> {
    let error = "write a URL that begins with https://, or http:// and an address of this machine";
    let uri: http::Uri = text.parse().map_err(|_| error)?;
    let authority = uri.authority().ok_or(error)?;
    let literal = authority.host().trim_matches(['[', ']']);
    let is_local = literal == "localhost"
        || literal
            .parse::<IpAddr>()
            .is_ok_and(|addr| addr.is_loopback());
    let is_good = match uri.scheme_str() {
        Some("https") => true,
        Some("http") => is_local,
        _ => false,
    };
    let has_path = uri.path() != "/" || uri.query().is_some();
    if !is_good || has_path || authority.as_str().contains('@') || text.len() > MAX_WORD {
        return Err(error);
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::ConfigText;
    use super::super::parse;
    use super::*;

    fn text(text: &str) -> ConfigText {
        ConfigText {
            path: "a.toml".into(),
            text: text.to_owned(),
        }
    }

    #[test]
    fn a_solver_is_read_with_its_defaults() {
        let file = "\
[dns]
resolvers = ['192.0.2.53:53']
authority-port = 5353
[dns-solvers.bind]
kind = 'rfc2136'
server = 'ns1.example.edu:5353'
key-name = 'postern.'
secret-file = 'tsig.key'
hosts = ['Example.EDU']
[dns-solvers.aws]
kind = 'route53'
delegation = 'acme.example.edu'
delay = '10s'
";
        let config = parse(&[text(file)]).unwrap().config;
        let want = DnsSpec {
            resolvers: vec!["192.0.2.53:53".parse().unwrap()],
            authority_port: 5353,
        };
        assert_eq!(config.dns, want);
        let solvers: Vec<&DnsSolverSpec> = config.dns_solvers.values().collect();
        let host = |text: &str| Hostname::parse(text).unwrap();
        let aws = DnsSolverSpec {
            hosts: None,
            delegation: Some(host("acme.example.edu")),
            propagation: DEFAULT_PROPAGATION,
            delay: Some(Duration::from_secs(10)),
            provider: DnsProviderSpec::Route53(Box::default()),
        };
        let bind = DnsSolverSpec {
            hosts: Some(vec![host("example.edu")]),
            delegation: None,
            propagation: DEFAULT_PROPAGATION,
            delay: None,
            provider: DnsProviderSpec::Update {
                server: "ns1.example.edu:5353".to_owned(),
                key_name: "postern".to_owned(),
                algorithm: TsigAlgorithm::HmacSha256,
                secret_file: "tsig.key".into(),
            },
        };
        assert_eq!(solvers, [&aws, &bind]);
    }

    #[test]
    fn what_cannot_work_is_said_where_it_stands() {
        let bind = "kind = 'rfc2136'\nserver = 'ns1'\nkey-name = 'k'\nsecret-file = 's'\n";
        let two = format!("[dns-solvers.a]\n{bind}[dns-solvers.b]\n{bind}");
        let cases = [
            ("[dns]\nresolvers = []", 2, "1 to 4 resolvers are asked"),
            ("[dns]\nresolvers = ['ns1']", 2, "'ns1' is no DNS server"),
            (
                "[dns-solvers.a]\nkind = 'rfc2136'\nserver = 'http://x'\nkey-name = 'k'\n\
                 secret-file = 's'",
                3,
                "'http://x' is no DNS server",
            ),
            (
                "[dns-solvers.a]\nkind = 'route53'\naccess-key-id = 'A'",
                3,
                "access-key-id and secret-key-file go together",
            ),
            (
                "[dns-solvers.a]\nkind = 'route53'\nexternal-id = 'A'",
                3,
                "external-id is for a role",
            ),
            (
                "[dns-solvers.a]\nkind = 'route53'\nendpoint = 'http://evil.test'",
                3,
                "'http://evil.test' is no address",
            ),
            (
                "[dns-solvers.a]\nkind = 'route53'\nhosts = []",
                3,
                "a solver for no domain is never used",
            ),
            (
                "[dns-solvers.a]\nkind = 'route53'\npropagation = '2h'",
                3,
                "'2h' is longer than an order waits",
            ),
            (
                "[dns-solvers.a]\nkind = 'plugin'\nplugin = 'missing'",
                3,
                "there is no policy or plugin 'missing'",
            ),
            (
                "[issuers.a]\ndirectory = 'letsencrypt'\nchallenges = ['dns-01']",
                1,
                "the issuer 'a' uses dns-01, and nothing writes records",
            ),
            (
                &two,
                6,
                "the DNS solvers 'a' and 'b' are both for all that is left",
            ),
        ];
        for (file, line, want) in cases {
            let problems = parse(&[text(file)]).unwrap_err();
            assert_eq!(problems.len(), 1, "{file}: {problems:?}");
            let problem = &problems[0];
            assert_eq!(problem.origin.line, line, "{file}");
            assert!(
                problem.message.starts_with(want),
                "{file}: {}",
                problem.message
            );
        }
    }
}
