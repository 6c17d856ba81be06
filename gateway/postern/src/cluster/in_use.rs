//! What the data plane found out about what objects declare: problems of those objects.

use std::collections::BTreeSet;
use std::sync::Arc;

use postern_core::config::Config;
use postern_core::config::problem::Severity;
use postern_core::name::CertificateName;
use postern_core::name::PolicyName;
use postern_core::name::UpstreamName;
use postern_kube::Kind;
use postern_kube::ObjectName;
use postern_kube::ObjectProblem;
use postern_kube::ObjectRef;
use postern_kube::object::Reason;
use postern_proxy::Impairment;

/// Those of impairments that are of objects, sorted.
pub fn in_use(impairments: &[Impairment], config: &Config) -> Arc<[ObjectProblem]> {
    let problems = impairments.iter();
    let problems: BTreeSet<_> = problems
        .filter_map(|impairment| problem(impairment, config))
        .collect();
    problems.into_iter().collect()
}

fn problem(impairment: &Impairment, config: &Config) -> Option<ObjectProblem> {
    let (what, rest) = impairment.at.split_once('.')?;
    let is_known = |name: &str| match what {
        "certificates" => {
            CertificateName::parse(name).is_ok_and(|name| config.certificates.contains_key(&name))
        }
        "upstreams" => {
            UpstreamName::parse(name).is_ok_and(|name| config.upstreams.contains_key(&name))
        }
        _ => PolicyName::parse(name).is_ok_and(|name| config.policies.contains_key(&name)),
    };
    let kind = match what {
        "plugins" => Kind::Plugin,
        "policies" => Kind::Policy,
        "certificates" => Kind::Secret,
        "upstreams" => Kind::Service,
        _ => return None,
    };
    // A field follows after a dot, and names have dots too.
    let dots = rest.rmatch_indices('.').map(|(at, _)| at);
    let mut ends = std::iter::once(rest.len()).chain(dots);
    let (name, field) = rest.split_at(ends.find(|end| is_known(&rest[..*end]))?);
    // What is declared in files has no namespace.
    let (namespace, name) = name.split_once('/')?;
    // The port of a Service follows its name.
    let name = name.split(':').next()?;
    let is_ours = matches!(kind, Kind::Plugin | Kind::Policy) && !field.is_empty();
    Some(ObjectProblem {
        object: ObjectRef {
            kind,
            name: ObjectName::new(namespace, name),
        },
        field: match is_ours {
            true => format!("spec{field}"),
            false => String::new(),
        },
        severity: Severity::Error,
        reason: Reason::Unusable,
        message: impairment.message.clone(),
        help: Some(impairment.help.to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use postern_core::config::parse::parse;
    use postern_core::config::problem::ConfigText;

    use super::*;

    #[test]
    fn what_is_impaired_is_told_of_its_object() {
        let text = r#"
[policies."shop/limit.grants"]
kind = "body-size"
limit = "1MiB"
[policies."shop/limit"]
kind = "body-size"
limit = "1MiB"
[policies.own]
kind = "body-size"
limit = "1MiB"
[upstreams."shop/web:80"]
endpoints = ["10.0.0.1:80"]
"#;
        let file = ConfigText {
            path: "a.toml".into(),
            text: text.to_owned(),
        };
        let config = parse(&[file]).unwrap().config;
        let cases = [
            (
                "plugins.shop/limit.source",
                Some("Plugin shop/limit spec.source"),
            ),
            ("policies.shop/limit", Some("Policy shop/limit")),
            (
                "plugins.shop/limit.grants",
                Some("Plugin shop/limit.grants"),
            ),
            (
                "plugins.shop/limit.grants.grants.secrets.x",
                Some("Plugin shop/limit.grants spec.grants.secrets.x"),
            ),
            (
                "upstreams.shop/web:80.tls.ca-file",
                Some("Service shop/web"),
            ),
            ("plugins.own.source", None),
            ("plugins.shop/gone.source", None),
            ("listeners.http", None),
        ];
        for (at, want) in cases {
            let impairment = Impairment {
                at: at.to_owned(),
                message: "it is broken".to_owned(),
                help: "mend it",
                is_lasting: true,
            };
            let found = in_use(&[impairment], &config);
            let found: Vec<_> = found.iter().map(ToString::to_string).collect();
            let want = want.map(|object| format!("{object}: it is broken (mend it)"));
            assert_eq!(found, Vec::from_iter(want), "{at}");
        }
    }
}
