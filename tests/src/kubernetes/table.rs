//! Which requests go where: the Ingress v1 specification as a table, asked of every gateway.
//!
//! The rows are those of the conformance suite of Ingress v1 (features `host_rules`, `path_rules`
//! and `default_backend`) and of the documentation of its fields, where the suite says nothing.

use serde_json::json;

use super::Site;
use super::objects;
use crate::client::Client;

/// What answers; anything else is a status.
const APPS: [&str; 14] = [
    "foo-bar-com",
    "wildcard",
    "foo-exact",
    "foo-prefix",
    "aaa",
    "aaa-bbb",
    "slash",
    "exact-slash",
    "root",
    "specific",
    "deep",
    "own-default",
    "echo",
    "older",
];

/// Host, path, and what answers.
pub type Row = (&'static str, &'static str, &'static str);

/// While no Ingress has a backend for everything else.
pub const ROWS: &[Row] = &[
    // host_rules
    ("foo.bar.com", "/", "foo-bar-com"),
    ("foo.bar.com", "/any/where", "foo-bar-com"),
    ("FOO.Bar.com", "/", "foo-bar-com"),
    ("foo.bar.com:80", "/", "foo-bar-com"),
    ("subdomain.bar.com", "/", "404"),
    ("bar.foo.com", "/", "wildcard"),
    ("baz.bar.foo.com", "/", "404"),
    ("foo.com", "/", "404"),
    // path_rules
    ("exact-path-rules", "/foo", "foo-exact"),
    ("exact-path-rules", "/foo/", "404"),
    ("exact-path-rules", "/FOO", "404"),
    ("exact-path-rules", "/bar", "404"),
    ("exact-path-rules", "/foo?bar=1", "foo-exact"),
    ("prefix-path-rules", "/foo", "foo-prefix"),
    ("prefix-path-rules", "/foo/", "foo-prefix"),
    ("prefix-path-rules", "/foo/bar", "foo-prefix"),
    ("prefix-path-rules", "/FOO", "404"),
    ("prefix-path-rules", "/foobar", "404"),
    ("prefix-path-rules", "/aaa/bbb", "aaa-bbb"),
    ("prefix-path-rules", "/aaa/bbb/ccc", "aaa-bbb"),
    ("prefix-path-rules", "/aaa/ccc", "aaa"),
    ("prefix-path-rules", "/aaaccc", "404"),
    ("prefix-path-rules", "/aaa", "aaa"),
    ("prefix-path-rules", "/aaa?x=/aaa/bbb", "aaa"),
    ("mixed-path-rules", "/foo", "foo-exact"),
    ("mixed-path-rules", "/foo/", "foo-prefix"),
    ("mixed-path-rules", "/foo/bar", "foo-prefix"),
    ("trailing-slash", "/aaa/bbb", "slash"),
    ("trailing-slash", "/aaa/bbb/", "slash"),
    ("trailing-slash", "/aaa/bbb/ccc", "slash"),
    ("trailing-slash", "/aaa/bbbccc", "404"),
    ("trailing-slash-exact", "/foo", "404"),
    ("trailing-slash-exact", "/foo/", "exact-slash"),
    // The documentation of pathType and of precedence.
    ("precedence", "/", "root"),
    ("precedence", "/elsewhere", "root"),
    ("precedence", "/a", "specific"),
    ("precedence", "/a/b", "deep"),
    ("precedence", "/a/b/c", "deep"),
    ("precedence", "/a/bc", "specific"),
    ("implementation", "/a", "specific"),
    ("implementation", "/a/b", "specific"),
    ("implementation", "/ab", "404"),
    // A host that is named exactly does not fall through to a wildcard.
    ("exact.wild.com", "/here", "specific"),
    ("exact.wild.com", "/there", "404"),
    ("other.wild.com", "/there", "wildcard"),
    // Of two that say the same, the older; what only the younger says counts too.
    ("shared.com", "/", "older"),
    ("shared.com", "/more", "deep"),
    // A rule without paths sends its host to the Ingress's own default.
    ("no-paths", "/any", "own-default"),
    ("with-default", "/known", "specific"),
    ("with-default", "/unknown", "own-default"),
    // A path that would be read otherwise by whoever comes after is settled before it is matched.
    ("prefix-path-rules", "/foo/../aaa/bbb", "aaa-bbb"),
    ("prefix-path-rules", "/%66oo", "foo-prefix"),
    // Nobody's class, and somebody else's.
    ("other-class", "/", "404"),
    ("no-class", "/", "404"),
    // By the old annotation; by the name of a port.
    ("old-class", "/", "specific"),
    ("named-port", "/", "echo"),
    // No such Service; no such port; no pods.
    ("no-service", "/", "503"),
    ("no-port", "/", "503"),
    ("no-pods", "/", "503"),
];

/// While one has.
pub const DEFAULT_ROWS: &[Row] = &[
    ("my-host", "/", "echo"),
    ("my-host", "/sub-path", "echo"),
    ("some-host", "/resource", "echo"),
    ("subdomain.bar.com", "/", "echo"),
    ("foo.bar.com", "/", "foo-bar-com"),
    ("with-default", "/unknown", "own-default"),
];

/// The namespace of the table.
const NAMESPACE: &str = "table";

/// Creates everything that the rows need.
pub async fn create(site: &mut Site) -> Result<(), String> {
    site.namespace(NAMESPACE).await?;
    for (number, app) in APPS.iter().enumerate() {
        let number = u8::try_from(number).map_err(|error| error.to_string())? + 10;
        let pod = site.pod(number).await?;
        site.service(NAMESPACE, app, &[pod]).await?;
    }
    site.service(NAMESPACE, "no-pods", &[]).await?;
    let class = json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "IngressClass",
        "metadata": { "name": "another" },
        "spec": { "controller": "example.com/another" },
    });
    let classes = "/apis/networking.k8s.io/v1/ingressclasses";
    site.api.create(classes, &class).await?;

    let exact = "Exact";
    let prefix = "Prefix";
    let ours = [
        objects::ingress(
            "host-rules",
            &[
                ("*.foo.com", &[(prefix, "/", "wildcard")]),
                ("foo.bar.com", &[(prefix, "/", "foo-bar-com:http")]),
            ],
        ),
        objects::ingress(
            "path-rules",
            &[
                ("exact-path-rules", &[(exact, "/foo", "foo-exact")]),
                (
                    "prefix-path-rules",
                    &[
                        (prefix, "/foo", "foo-prefix"),
                        (prefix, "/aaa/bbb", "aaa-bbb"),
                        (prefix, "/aaa", "aaa"),
                    ],
                ),
                (
                    "mixed-path-rules",
                    &[(prefix, "/foo", "foo-prefix"), (exact, "/foo", "foo-exact")],
                ),
                ("trailing-slash", &[(prefix, "/aaa/bbb/", "slash")]),
                ("trailing-slash-exact", &[(exact, "/foo/", "exact-slash")]),
            ],
        ),
        objects::ingress(
            "precedence",
            &[
                (
                    "precedence",
                    &[
                        (prefix, "/", "root"),
                        (prefix, "/a", "specific"),
                        (prefix, "/a/b", "deep"),
                    ],
                ),
                (
                    "implementation",
                    &[("ImplementationSpecific", "/a", "specific")],
                ),
                ("exact.wild.com", &[(prefix, "/here", "specific")]),
                ("*.wild.com", &[(prefix, "/", "wildcard")]),
                ("named-port", &[(prefix, "/", "echo:http")]),
            ],
        ),
        objects::ingress("shared-1", &[("shared.com", &[(prefix, "/", "older")])]),
        objects::ingress(
            "missing",
            &[
                ("no-service", &[(prefix, "/", "nowhere")]),
                ("no-port", &[(prefix, "/", "echo:nothing")]),
                ("no-pods", &[(prefix, "/", "no-pods")]),
            ],
        ),
    ];
    for ingress in &ours {
        site.create(NAMESPACE, "ingresses", ingress).await?;
    }
    let mut with_default = objects::ingress(
        "with-default",
        &[("with-default", &[(prefix, "/known", "specific")])],
    );
    with_default["spec"]["defaultBackend"] = objects::backend("own-default");
    with_default["spec"]["rules"]
        .as_array_mut()
        .expect("an Ingress has rules")
        .push(json!({ "host": "no-paths" }));
    site.create(NAMESPACE, "ingresses", &with_default).await?;

    let mut other = objects::ingress("other-class", &[("other-class", &[(prefix, "/", "root")])]);
    other["spec"]["ingressClassName"] = json!("another");
    site.create(NAMESPACE, "ingresses", &other).await?;
    let mut none = objects::ingress("no-class", &[("no-class", &[(prefix, "/", "root")])]);
    none["spec"]["ingressClassName"] = json!(null);
    site.create(NAMESPACE, "ingresses", &none).await?;
    let mut old = objects::ingress("old-class", &[("old-class", &[(prefix, "/", "specific")])]);
    old["spec"]["ingressClassName"] = json!(null);
    old["metadata"]["annotations"] = json!({ "kubernetes.io/ingress.class": "postern" });
    site.create(NAMESPACE, "ingresses", &old).await?;
    // Times of creation are whole seconds.
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    let younger = objects::ingress(
        "a-shared-2",
        &[(
            "shared.com",
            &[(prefix, "/", "root"), (prefix, "/more", "deep")],
        )],
    );
    site.create(NAMESPACE, "ingresses", &younger).await
}

/// Creates the backend for everything else.
pub async fn create_default(site: &Site) -> Result<(), String> {
    let default = json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": { "name": "default-backend" },
        "spec": { "ingressClassName": "postern", "defaultBackend": objects::backend("echo") },
    });
    site.create(NAMESPACE, "ingresses", &default).await
}

/// Takes it away again.
pub async fn delete_default(site: &Site) -> Result<(), String> {
    site.delete(NAMESPACE, "ingresses", "default-backend").await
}

/// Asks every gateway for every row; every answer that is not as it should be.
pub async fn check(site: &Site, rows: &[Row]) -> Result<usize, String> {
    let mut wrong = Vec::new();
    for node in &site.gateways {
        for (host, path, wanted) in rows {
            let mut client = Client::http1(node.http).await;
            let request = client.request("GET", host, path);
            let reply = client
                .send(request)
                .await
                .map_err(|error| error.to_string())?;
            let answered = match reply.status.as_u16() {
                200 => name_of(reply.header("x-upstream")),
                status => status.to_string(),
            };
            if answered != *wanted {
                wrong.push(format!(
                    "{}: {host}{path}: {answered}, not {wanted}",
                    node.name
                ));
            }
        }
    }
    match wrong.is_empty() {
        true => Ok(rows.len() * site.gateways.len()),
        false => Err(wrong.join("\n")),
    }
}

/// The app that a pod is of.
fn name_of(pod: &str) -> String {
    let number: Option<usize> = pod
        .rsplit('.')
        .next()
        .and_then(|number| number.parse().ok());
    let app = number.and_then(|number| APPS.get(number.checked_sub(10)?));
    app.map_or_else(|| pod.to_owned(), ToString::to_string)
}
