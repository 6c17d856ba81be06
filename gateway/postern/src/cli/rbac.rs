//! `postern rbac`: what a cluster has to allow the gateway.

use std::process::ExitCode;

use postern_core::config::kubernetes::DEFAULT_LEASE;
use postern_core::config::kubernetes::ISSUING_LEASE;
use postern_kube::ObjectName;
use postern_kube::rbac::Grants;
use postern_kube::rbac::manifests;

use super::print;

/// Print the rights that a gateway needs in a cluster
///
/// Prints a ServiceAccount, roles and bindings as YAML, to be applied by kubectl. No Secret and no
/// ConfigMap may be read that is not named; name those that Ingresses and policies refer to, or give
/// --all-secrets if the configuration says secrets = "cluster".
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The gateway's own namespace
    #[arg(long, value_name = "NAME", default_value = "postern")]
    namespace: String,
    /// The ServiceAccount of the gateway
    #[arg(long, value_name = "NAME", default_value = "postern")]
    service_account: String,
    /// The Lease whose holder writes
    #[arg(long, value_name = "NAME", default_value = DEFAULT_LEASE)]
    lease: String,
    /// A Secret that may be read; repeat it for more
    #[arg(long = "secret", value_name = "NAMESPACE/NAME", value_parser = object)]
    secrets: Vec<ObjectName>,
    /// A ConfigMap that may be read; repeat it for more
    #[arg(long = "config-map", value_name = "NAMESPACE/NAME", value_parser = object)]
    config_maps: Vec<ObjectName>,
    /// Let every Secret of the cluster be read
    #[arg(long)]
    all_secrets: bool,
    /// Let certificates be got from issuers: accounts and orders are kept in Secrets of the gateway's
    /// own namespace, and certificates in those that Ingresses name
    #[arg(long)]
    issuers: bool,
    /// Let only Ingresses of this namespace get certificates; repeat it for more
    #[arg(long = "issue-in", value_name = "NAMESPACE", requires = "issuers")]
    issue_in: Vec<String>,
}

pub(super) fn run(args: Args) -> ExitCode {
    let grants = Grants {
        issuing_lease: format!("{}{ISSUING_LEASE}", args.lease),
        issues: args.issuers,
        issues_in: args.issue_in,
        namespace: args.namespace,
        service_account: args.service_account,
        lease: args.lease,
        all_secrets: args.all_secrets,
        secrets: args.secrets,
        config_maps: args.config_maps,
    };
    print(format_args!("{}", manifests(&grants).trim_end()));
    ExitCode::SUCCESS
}

fn object(text: &str) -> Result<ObjectName, String> {
    match text.split_once('/') {
        Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() => {
            Ok(ObjectName::new(namespace, name))
        }
        _ => Err("write it as NAMESPACE/NAME".to_owned()),
    }
}
