//! The DNS solvers that are declared, made to work.
//!
//! What is wrong with one is said by that one when it is asked: a certificate that it is not for
//! does not wait for it.

mod plugin;

use std::fs::File;
use std::io;
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use postern_acme::dns::Access;
use postern_acme::dns::DnsClient;
use postern_acme::dns::DnsPreflight;
use postern_acme::dns::DnsSolver;
use postern_acme::dns::DnsWriter;
use postern_acme::dns::Place;
use postern_acme::dns::Preflight;
use postern_acme::dns::Progress;
use postern_acme::dns::Reach;
use postern_acme::dns::Route53Spec;
use postern_acme::dns::Route53Writer;
use postern_acme::dns::Secret;
use postern_acme::dns::Solver;
use postern_acme::dns::SolverChoice;
use postern_acme::dns::SolverError;
use postern_acme::dns::SolverSpec;
use postern_acme::dns::UpdateSpec;
use postern_acme::dns::UpdateWriter;
use postern_acme::dns::Verdict;
use postern_acme::dns::aws::AwsEnvironment;
use postern_acme::dns::aws::CredentialSource;
use postern_acme::dns::aws::Role;
use postern_acme::dns::update::UpdateAlgorithm;
use postern_core::config::Config;
use postern_core::config::IssuerSpec;
use postern_core::config::dns;
use postern_core::config::dns::DnsProviderSpec;
use postern_core::config::dns::TsigAlgorithm;
use postern_core::config::issuer::ChallengeKind;

pub use self::plugin::PluginDesk;

/// How CAA records, and its directory, call that authority.
const LETSENCRYPT: &str = "letsencrypt.org";
/// Largest file of root certificates.
const MAX_ROOTS: u64 = 4 << 20;

/// Whom this configuration asks about names.
pub fn client(config: &Config) -> DnsClient {
    DnsClient::new(postern_acme::dns::DnsSpec {
        resolvers: config.dns.resolvers.clone(),
        authority_port: config.dns.authority_port,
    })
}

/// All solvers as one; `None` if there is none. Reads files.
pub fn solvers(
    config: &Config,
    client: &DnsClient,
    desk: &Arc<PluginDesk>,
) -> Option<Arc<dyn DnsSolver>> {
    let mut choice = SolverChoice::default();
    for (name, spec) in &config.dns_solvers {
        let writer = writer(&spec.provider, client, desk).unwrap_or_else(|error| {
            tracing::warn!(solver = %name, error, "a DNS solver cannot be used");
            Arc::new(Unusable(format!("the DNS solver {name}: {error}")))
        });
        let solving = SolverSpec {
            propagation: spec.propagation,
            delay: spec.delay,
            delegation: spec.delegation.as_ref().map(ToString::to_string),
        };
        let solver: Arc<dyn DnsSolver> = Arc::new(Solver::new(solving, client.clone(), writer));
        match &spec.hosts {
            Some(hosts) => {
                for host in hosts {
                    choice.add(Some(host.to_string()), Arc::clone(&solver));
                }
            }
            None => choice.add(None, solver),
        }
    }
    (!config.dns_solvers.is_empty()).then(|| Arc::new(choice) as Arc<dyn DnsSolver>)
}

fn writer(
    spec: &DnsProviderSpec,
    client: &DnsClient,
    desk: &Arc<PluginDesk>,
) -> Result<Arc<dyn DnsWriter>, String> {
    Ok(match spec {
        DnsProviderSpec::Update {
            server,
            key_name,
            algorithm,
            secret_file,
        } => {
            let spec = UpdateSpec {
                server: server.clone(),
                key_name: key_name.clone(),
                algorithm: match algorithm {
                    TsigAlgorithm::HmacSha256 => UpdateAlgorithm::HmacSha256,
                    TsigAlgorithm::HmacSha384 => UpdateAlgorithm::HmacSha384,
                    TsigAlgorithm::HmacSha512 => UpdateAlgorithm::HmacSha512,
                },
                secret: Secret::File(secret_file.clone()),
            };
            let writer = UpdateWriter::new(&spec, client.clone());
            Arc::new(writer.map_err(|error| error.to_string())?)
        }
        DnsProviderSpec::Route53(spec) => {
            let writer = Route53Writer::new(route53(spec)?);
            Arc::new(writer.map_err(|error| error.to_string())?)
        }
        DnsProviderSpec::Plugin(plugin) => desk.writer(plugin.clone()),
    })
}

fn route53(spec: &dns::Route53Spec) -> Result<Route53Spec, String> {
    let credentials = match &spec.keys {
        Some(keys) => CredentialSource::Keys {
            key_id: keys.id.clone(),
            secret: Secret::File(keys.secret_file.clone()),
        },
        None => CredentialSource::Environment(Box::new(AwsEnvironment::of_process())),
    };
    let roots = spec.ca_file.as_deref().map(|path| {
        read(path).map_err(|error| format!("{} cannot be read: {error}", path.display()))
    });
    Ok(Route53Spec {
        hosted_zone_id: spec.hosted_zone_id.clone(),
        region: spec.region.clone(),
        credentials,
        role: spec.role_arn.clone().map(|arn| Role {
            arn,
            external_id: spec.external_id.clone(),
        }),
        endpoint: spec.endpoint.clone(),
        sts_endpoint: spec.sts_endpoint.clone(),
        roots: roots.transpose()?,
    })
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_ROOTS).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// What an issuer asks of the DNS before it places an order; `None`: nothing.
pub fn preflight(
    config: &Config,
    issuer: &IssuerSpec,
    solver: Option<&Arc<dyn DnsSolver>>,
) -> Option<Arc<dyn Preflight>> {
    let identities = || match issuer.directory.contains(LETSENCRYPT) {
        true => vec![LETSENCRYPT.to_owned()],
        // What others call themselves is in their directories, if at all.
        false => Vec::new(),
    };
    let kinds = &issuer.challenges;
    let is_answer = |kind| matches!(kind, ChallengeKind::Http01 | ChallengeKind::TlsAlpn01);
    let by_answer = kinds.iter().find(|kind| is_answer(**kind));
    let by_answer = issuer.reach.as_ref().zip(by_answer).map(|(reach, kind)| {
        let client = match reach.resolvers.is_empty() {
            true => client(config),
            false => DnsClient::new(postern_acme::dns::DnsSpec {
                resolvers: reach.resolvers.clone(),
                authority_port: config.dns.authority_port,
            }),
        };
        let reach = Reach {
            cluster: reach.record.as_ref().map(ToString::to_string),
            addresses: reach.addresses.clone(),
            allow_mixed: false,
        };
        let preflight = match kind {
            ChallengeKind::TlsAlpn01 => DnsPreflight::tls_alpn(client, reach),
            _ => DnsPreflight::http(client, reach),
        };
        preflight.with_caa(identities())
    });
    let by_record = solver
        .filter(|_| kinds.contains(&ChallengeKind::Dns01))
        .map(|solver| {
            let preflight = DnsPreflight::dns(client(config), Arc::clone(solver));
            preflight.with_caa(identities())
        });
    (by_answer.is_some() || by_record.is_some()).then(|| {
        Arc::new(Checks {
            by_answer,
            by_record,
            prefers_record: kinds.first() == Some(&ChallengeKind::Dns01),
        }) as Arc<dyn Preflight>
    })
}

/// A name is looked at as it will be proved.
struct Checks {
    by_answer: Option<DnsPreflight>,
    by_record: Option<DnsPreflight>,
    prefers_record: bool,
}

impl Preflight for Checks {
    fn check<'a>(&'a self, host: &'a str) -> BoxFuture<'a, Verdict> {
        let is_by_record = self.prefers_record || host.starts_with("*.");
        let check = match is_by_record {
            true => self.by_record.as_ref(),
            false => self.by_answer.as_ref(),
        };
        match check {
            Some(check) => check.check(host),
            None => Box::pin(async {
                let message = "not looked at".to_owned();
                Verdict::Ready { message }
            }),
        }
    }
}

/// In the place of a writer that could not be made.
#[derive(Debug)]
struct Unusable(String);

impl Unusable {
    fn error(&self) -> SolverError {
        SolverError::failed(self.0.clone())
    }
}

impl DnsWriter for Unusable {
    fn accepts<'a>(&'a self, _place: &'a Place) -> BoxFuture<'a, Result<Access, SolverError>> {
        Box::pin(async { Err(self.error()) })
    }

    fn add<'a>(
        &'a self,
        _place: &'a Place,
        _value: &'a str,
    ) -> BoxFuture<'a, Result<Progress, SolverError>> {
        Box::pin(async { Err(self.error()) })
    }

    fn poll<'a>(
        &'a self,
        _place: &'a Place,
        _value: &'a str,
        _ticket: &'a str,
    ) -> BoxFuture<'a, Result<Progress, SolverError>> {
        Box::pin(async { Err(self.error()) })
    }

    fn remove<'a>(
        &'a self,
        _place: &'a Place,
        _value: &'a str,
    ) -> BoxFuture<'a, Result<(), SolverError>> {
        Box::pin(async { Err(self.error()) })
    }
}
