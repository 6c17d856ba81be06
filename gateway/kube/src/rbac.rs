//! What the API server has to allow: the one place that it is written down.
//!
//! `postern rbac` prints it, and `config/kubernetes` holds what it printed. Nothing here may read a
//! Secret or ConfigMap unless it is asked for by name, and nothing may change anything but statuses,
//! Events and one Lease; where certificates are got from issuers, also the Secrets that those need.

use std::fmt::Write as _;

use crate::object::GROUP;
use crate::object::Kind;
use crate::object::ObjectName;
use crate::source::NEEDED;
use crate::source::OPTIONAL;
use crate::watch::plural;

/// What is granted, and to whom.
#[derive(Clone, Debug, Default)]
pub struct Grants {
    /// Of the gateway, its ServiceAccount and its Lease.
    pub namespace: String,
    pub service_account: String,
    pub lease: String,
    /// The Lease whose holder gets certificates.
    pub issuing_lease: String,
    /// Whether every Secret of the cluster may be read.
    pub all_secrets: bool,
    /// Secrets that may be read.
    pub secrets: Vec<ObjectName>,
    /// ConfigMaps that may be read.
    pub config_maps: Vec<ObjectName>,
    /// Whether certificates are got from issuers.
    pub issues: bool,
    /// Namespaces whose Secrets may be filled then; empty: all.
    pub issues_in: Vec<String>,
}

struct Rule<'r> {
    why: &'static str,
    group: &'r str,
    resources: Vec<String>,
    names: Vec<&'r str>,
    verbs: &'r [&'r str],
}

const READ: &[&str] = &["list", "watch"];
/// Of Secrets for certificates: looked at before they are written, and never deleted.
const FILL: &[&str] = &["get", "list", "watch", "create", "update"];
const FILL_WHY: &str = "certificates for Ingresses; a Secret that is not labelled as the gateway's own is never written";

/// ServiceAccount, roles and bindings as YAML.
pub fn manifests(grants: &Grants) -> String {
    let account = &grants.service_account;
    let mut text = String::new();
    document(
        &mut text,
        &format!(
            "apiVersion: v1\nkind: ServiceAccount\nmetadata:\n  name: {account}\n  namespace: {}\n",
            grants.namespace
        ),
    );
    role(&mut text, grants, None, account, &cluster_rules(grants));
    let own = own_rules(grants);
    role(&mut text, grants, Some(&grants.namespace), account, &own);
    if grants.issues {
        for namespace in &grants.issues_in {
            let rules = [secrets(FILL_WHY, FILL)];
            let role_name = format!("{account}-certificates");
            role(&mut text, grants, Some(namespace), &role_name, &rules);
        }
    }
    for (kind, names) in [
        (Kind::Secret, &grants.secrets),
        (Kind::ConfigMap, &grants.config_maps),
    ] {
        for name in names {
            let role_name = format!("{account}-{}-{}", kind.as_str().to_lowercase(), name.name);
            let rule = Rule {
                why: "read by name alone",
                group: "",
                resources: vec![plural(kind).to_owned()],
                names: vec![&*name.name],
                verbs: READ,
            };
            role(
                &mut text,
                grants,
                Some(&name.namespace),
                &role_name,
                &[rule],
            );
        }
    }
    text
}

fn cluster_rules(grants: &Grants) -> Vec<Rule<'static>> {
    let group = |kind: Kind| {
        kind.api_version()
            .split_once('/')
            .map_or("", |(group, _)| group)
    };
    let mut rules: Vec<Rule<'static>> = Vec::new();
    for kind in NEEDED.into_iter().chain(OPTIONAL) {
        let resource = plural(kind).to_owned();
        match rules.iter_mut().find(|rule| rule.group == group(kind)) {
            Some(rule) => rule.resources.push(resource),
            None => rules.push(Rule {
                why: "what routes are made of",
                group: group(kind),
                resources: vec![resource],
                names: Vec::new(),
                verbs: READ,
            }),
        }
    }
    if grants.all_secrets {
        rules.push(Rule {
            why: "certificates; needed for secrets = \"cluster\" alone",
            group: "",
            resources: vec![plural(Kind::Secret).to_owned()],
            names: Vec::new(),
            verbs: READ,
        });
    }
    if grants.issues && grants.issues_in.is_empty() {
        rules.push(secrets(FILL_WHY, FILL));
    }
    rules.push(Rule {
        why: "the addresses of Ingresses",
        group: "networking.k8s.io",
        resources: vec!["ingresses/status".to_owned()],
        names: Vec::new(),
        verbs: &["patch"],
    });
    let ours = [Kind::Plugin, Kind::Policy].map(|kind| format!("{}/status", plural(kind)));
    rules.push(Rule {
        why: "conditions of our own objects",
        group: GROUP,
        resources: ours.into(),
        names: Vec::new(),
        verbs: &["patch"],
    });
    rules.push(Rule {
        why: "what is wrong with an object is said on it",
        group: "events.k8s.io",
        resources: vec!["events".to_owned()],
        names: Vec::new(),
        verbs: &["create"],
    });
    rules
}

fn own_rules(grants: &Grants) -> Vec<Rule<'_>> {
    let group = "coordination.k8s.io";
    let mut leases = vec![&*grants.lease];
    if grants.issues {
        leases.push(&*grants.issuing_lease);
    }
    let mut rules = vec![
        Rule {
            why: "which replica writes; a name cannot be asked for before it exists",
            group,
            resources: vec!["leases".to_owned()],
            names: Vec::new(),
            verbs: &["create"],
        },
        Rule {
            why: "the same Lease, once it is there",
            group,
            resources: vec!["leases".to_owned()],
            names: leases,
            verbs: &["get", "update"],
        },
        Rule {
            why: "the addresses of nodes with a ready gateway",
            group: "",
            resources: vec!["pods".to_owned()],
            names: Vec::new(),
            verbs: &["list"],
        },
    ];
    if grants.issues {
        rules.push(secrets(
            "accounts at issuers, orders and challenges",
            &["get", "list", "watch", "create", "update", "delete"],
        ));
    }
    rules
}

/// Any Secret of where the role is.
fn secrets(why: &'static str, verbs: &'static [&'static str]) -> Rule<'static> {
    Rule {
        why,
        group: "",
        resources: vec![plural(Kind::Secret).to_owned()],
        names: Vec::new(),
        verbs,
    }
}

/// A role and its binding; of the cluster if there is no namespace.
fn role(
    text: &mut String,
    grants: &Grants,
    namespace: Option<&str>,
    name: &str,
    rules: &[Rule<'_>],
) {
    let prefix = if namespace.is_none() { "Cluster" } else { "" };
    let metadata = match namespace {
        None => format!("metadata:\n  name: {name}\n"),
        Some(namespace) => format!("metadata:\n  name: {name}\n  namespace: {namespace}\n"),
    };
    let mut body =
        format!("apiVersion: rbac.authorization.k8s.io/v1\nkind: {prefix}Role\n{metadata}rules:\n");
    for rule in rules {
        let quoted = |items: &mut dyn Iterator<Item = &str>| {
            let items: Vec<String> = items.map(|item| format!("\"{item}\"")).collect();
            items.join(", ")
        };
        let resources = quoted(&mut rule.resources.iter().map(String::as_str));
        let verbs = quoted(&mut rule.verbs.iter().copied());
        // Writing to a string does not fail.
        let _ = writeln!(body, "# {}", rule.why);
        let _ = writeln!(body, "- apiGroups: [\"{}\"]", rule.group);
        let _ = writeln!(body, "  resources: [{resources}]");
        if !rule.names.is_empty() {
            let names = quoted(&mut rule.names.iter().copied());
            let _ = writeln!(body, "  resourceNames: [{names}]");
        }
        let _ = writeln!(body, "  verbs: [{verbs}]");
    }
    document(text, &body);
    let binding = format!(
        "apiVersion: rbac.authorization.k8s.io/v1\nkind: {prefix}RoleBinding\n{metadata}\
         roleRef:\n  apiGroup: rbac.authorization.k8s.io\n  kind: {prefix}Role\n  name: {name}\n\
         subjects:\n- kind: ServiceAccount\n  name: {}\n  namespace: {}\n",
        grants.service_account, grants.namespace,
    );
    document(text, &binding);
}

fn document(text: &mut String, document: &str) {
    if !text.is_empty() {
        text.push_str("---\n");
    }
    text.push_str(document);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grants() -> Grants {
        Grants {
            namespace: "postern".into(),
            service_account: "postern".into(),
            lease: "postern".into(),
            issuing_lease: "postern-acme".into(),
            ..Grants::default()
        }
    }

    #[test]
    fn no_secret_may_be_read_that_is_not_named() {
        assert!(!manifests(&grants()).contains("secrets"));
        let named = Grants {
            secrets: vec![ObjectName::new("shop", "web-tls")],
            ..grants()
        };
        let text = manifests(&named);
        let rule = "  resources: [\"secrets\"]\n  resourceNames: [\"web-tls\"]\n  verbs: [\"list\", \"watch\"]\n";
        assert!(text.contains(rule), "{text}");
        assert_eq!(text.matches("secrets").count(), 1);
        assert!(text.contains("namespace: shop"));
        let all = Grants {
            all_secrets: true,
            ..grants()
        };
        assert_eq!(manifests(&all).matches("secrets\"]").count(), 1);
    }

    #[test]
    fn who_gets_certificates_may_write_secrets_where_it_is_said() {
        let everywhere = Grants {
            issues: true,
            ..grants()
        };
        let text = manifests(&everywhere);
        assert_eq!(
            text.matches("resources: [\"secrets\"]").count(),
            2,
            "{text}"
        );
        assert!(text.contains("resourceNames: [\"postern\", \"postern-acme\"]"));
        let somewhere = Grants {
            issues_in: vec!["shop".into()],
            ..everywhere
        };
        let text = manifests(&somewhere);
        let (cluster, rest) = text.split_once("kind: ClusterRoleBinding").unwrap();
        assert!(!cluster.contains("secrets"), "{cluster}");
        assert!(rest.contains("name: postern-certificates\n  namespace: shop"));
        // Never a Secret that somebody else may want.
        let fills = rest
            .split("---")
            .filter(|document| document.contains("namespace: shop"));
        assert!(
            fills
                .into_iter()
                .all(|document| !document.contains("delete"))
        );
    }

    #[test]
    fn nothing_but_statuses_events_and_a_lease_is_written() {
        let text = manifests(&grants());
        for line in text.lines().filter(|line| line.contains("verbs:")) {
            let known = [
                r#"  verbs: ["list", "watch"]"#,
                r#"  verbs: ["patch"]"#,
                r#"  verbs: ["create"]"#,
                r#"  verbs: ["get", "update"]"#,
                r#"  verbs: ["list"]"#,
            ];
            assert!(known.contains(&line), "{line}");
        }
        assert!(!text.contains('*'));
    }

    #[test]
    fn the_manifests_hold_what_is_printed() {
        let file = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../config/kubernetes/base/rbac.yaml"
        );
        let written = std::fs::read_to_string(file).unwrap();
        let printed = manifests(&grants());
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(file, printed).unwrap();
        } else {
            assert!(
                written == printed,
                "run: postern rbac > config/kubernetes/base/rbac.yaml"
            );
        }
    }
}
