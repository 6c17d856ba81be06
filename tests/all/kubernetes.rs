//! The cluster as a source, against an API server that fails as it is told. A real one is in
//! `make test-kubernetes`.

use std::sync::Arc;
use std::time::Duration;

use postern_kube::Settings;
use postern_kube::source::ClusterSource;
use postern_kube::source::Report;
use postern_kube::source::SecretWatch;
use postern_kube::watch::Failure;
use postern_tests::kubernetes::objects;
use postern_tests::kubernetes::scripted::Fault;
use postern_tests::kubernetes::scripted::Scripted;
use postern_tests::scratch::Scratch;
use serde_json::json;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio::time::sleep;
use tokio::time::timeout;

/// Longer than anything that is waited for takes.
const PATIENCE: Duration = Duration::from_secs(30);
/// Long enough for what must not happen to happen.
const MOMENT: Duration = Duration::from_millis(700);

struct Followed {
    server: Scripted,
    _source: ClusterSource,
    report: watch::Receiver<Arc<Report>>,
    _dir: Scratch,
}

/// A cluster with one Ingress, `web`, for `web.test`.
async fn server() -> Scripted {
    let server = Scripted::start().await;
    let class = json!({
        "metadata": { "name": "postern" },
        "spec": { "controller": "postern.dev/ingress-controller" },
    });
    server.put("ingressclasses", "", class);
    server.put("services", "shop", objects::service("web"));
    server.put(
        "endpointslices",
        "shop",
        objects::slice("web", &["10.0.0.1".parse().unwrap()]),
    );
    put(&server, "web");
    server
}

/// An Ingress for `NAME.test`.
fn put(server: &Scripted, name: &str) {
    let host = format!("{name}.test");
    let ingress = objects::ingress(name, &[(&host, &[("Prefix", "/", "web")])]);
    server.put("ingresses", "shop", ingress);
}

async fn follow(server: Scripted) -> Followed {
    let dir = Scratch::new();
    let path = dir.write("kubeconfig", server.kubeconfig());
    let client = postern_kube::client::connect(Some(&path)).await.unwrap();
    let source = ClusterSource::start(client, Settings::default(), SecretWatch::Named);
    Followed {
        report: source.report(),
        _source: source,
        server,
        _dir: dir,
    }
}

fn hosts(report: &Report) -> Vec<String> {
    let routes = report
        .state
        .iter()
        .flat_map(|state| &state.translation.config.routes);
    let hosts = routes.flat_map(|route| &route.hosts);
    let mut hosts: Vec<String> = hosts.map(ToString::to_string).collect();
    hosts.sort();
    hosts.dedup();
    hosts
}

impl Followed {
    async fn until(&mut self, what: &str, wanted: impl Fn(&Report) -> bool) -> Arc<Report> {
        let found = timeout(PATIENCE, self.report.wait_for(|report| wanted(report))).await;
        let found = found.map(|found| Arc::clone(&found.unwrap()));
        found.unwrap_or_else(|_| panic!("{what}: {:?}", self.report.borrow()))
    }

    async fn shows(&mut self, wanted: &[&str]) -> Arc<Report> {
        self.until("routes", |report| hosts(report) == wanted).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_told_before_every_needed_kind_is_listed() {
    let server = server().await;
    server.fail("endpointslices", Fault::SlowList(MOMENT * 2));
    let mut followed = follow(server).await;
    let waiting = followed
        .until("what it waits for", |report| {
            report.waiting_for == ["EndpointSlice"]
        })
        .await;
    assert!(waiting.state.is_none());
    followed.shows(&["web.test"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forgotten_past_is_listed_anew_and_nothing_shrinks_meanwhile() {
    for storm in [Fault::GoneAtStart(3), Fault::GoneInStream(3)] {
        let mut followed = follow(server().await).await;
        followed.shows(&["web.test"]).await;
        // What the watch would have told is lost, and the next lists fail.
        followed.server.forget("ingresses", "shop", "web");
        put(&followed.server, "other");
        followed.server.fail("ingresses", storm);
        followed.server.fail("ingresses", Fault::FailList(500, 2));
        let shrunk = followed.report.wait_for(|report| {
            report.state.is_some() && !hosts(report).contains(&"web.test".to_owned())
        });
        let seen = timeout(PATIENCE, shrunk).await;
        let seen = seen.unwrap_or_else(|_| panic!("{storm:?}: it is never listed anew"));
        // With the new list, at once and whole.
        assert_eq!(hosts(&seen.unwrap()), ["other.test"], "{storm:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kind_that_may_not_be_read_costs_itself() {
    let server = server().await;
    server.fail("policies", Fault::Forbidden);
    server.fail("plugins", Fault::Unknown);
    let mut followed = follow(server).await;
    let report = followed.shows(&["web.test"]).await;
    let failures: Vec<&Failure> = report.failures.iter().map(|(_, failure)| failure).collect();
    assert_eq!(failures.len(), 2, "{failures:?}");
    assert!(failures.contains(&&Failure::Forbidden));
    assert!(failures.contains(&&Failure::Unknown));
    // As soon as it may be read, it is.
    followed.server.heal("policies");
    followed.server.heal("plugins");
    followed
        .until("no failures", |report| report.failures.is_empty())
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_kind_that_is_needed_nothing_is_told() {
    let server = server().await;
    server.fail("services", Fault::Forbidden);
    let mut followed = follow(server).await;
    let report = followed
        .until("the failure", |report| !report.failures.is_empty())
        .await;
    sleep(MOMENT).await;
    assert!(followed.report.borrow().state.is_none());
    assert_eq!(
        report.failures[0],
        ("every Service".to_owned(), Failure::Forbidden)
    );
    followed.server.heal("services");
    followed.shows(&["web.test"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_torn_event_arrives_all_the_same() {
    let mut followed = follow(server().await).await;
    followed.shows(&["web.test"]).await;
    let mut wanted = vec!["web.test".to_owned()];
    for (number, cut) in [0, 1, 17, 120, 400].into_iter().enumerate() {
        followed.server.fail("ingresses", Fault::CutEvent(cut, 1));
        let name = format!("cut-{number}");
        put(&followed.server, &name);
        wanted.push(format!("{name}.test"));
        wanted.sort();
        let wanted: Vec<&str> = wanted.iter().map(String::as_str).collect();
        followed.shows(&wanted).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_that_make_no_sense_change_nothing() {
    let mut followed = follow(server().await).await;
    let before = followed.shows(&["web.test"]).await;
    let unknown = objects::ingress("unknown", &[("unknown.test", &[("Prefix", "/", "web")])]);
    let mut unknown = unknown;
    unknown["metadata"]["namespace"] = json!("shop");
    followed.server.say("ingresses", "DELETED", unknown);
    // The same once more.
    put(&followed.server, "web");
    put(&followed.server, "web");
    put(&followed.server, "other");
    let after = followed.shows(&["other.test", "web.test"]).await;
    assert!(before.state.is_some());
    let translations = after.statistics.translations - before.statistics.translations;
    assert!(
        translations <= 2,
        "{translations} translations of one change"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn secrets_are_asked_for_by_name_and_waited_for() {
    let server = server().await;
    let mut ingress = objects::ingress("tls", &[("tls.test", &[("Prefix", "/", "web")])]);
    ingress["spec"]["tls"] = json!([{ "hosts": ["tls.test"], "secretName": "tls" }]);
    server.put("ingresses", "shop", ingress);
    let mut followed = follow(server).await;
    followed.shows(&["tls.test", "web.test"]).await;
    let asked = followed.server.asked("secrets");
    assert!(
        !asked.is_empty(),
        "it was looked at before anything was told"
    );
    for path in asked {
        assert!(
            path.starts_with("/api/v1/namespaces/shop/secrets?"),
            "{path}"
        );
        assert!(path.contains("fieldSelector=metadata.name%3Dtls"), "{path}");
    }
    // What nobody names is followed no more.
    put(&followed.server, "tls");
    followed
        .until("the watch ends", |report| report.statistics.watches == 7)
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_away_is_asked_once_a_second() {
    use std::sync::atomic::AtomicUsize;
    use std::sync::atomic::Ordering;
    let tries = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&tries);
    // It takes connections and closes them.
    let gone = postern_tests::upstream::Upstream::accept(move |stream| {
        counted.fetch_add(1, Ordering::SeqCst);
        drop(stream);
        std::future::ready(())
    })
    .await;
    let dir = Scratch::new();
    let server = Scripted::start().await;
    let text = server
        .kubeconfig()
        .replace(&server.addr.to_string(), &gone.addr.to_string());
    let path = dir.write("kubeconfig", text);
    let client = postern_kube::client::connect(Some(&path)).await.unwrap();
    let source = ClusterSource::start(client, Settings::default(), SecretWatch::Named);
    let mut report = source.report();
    report
        .wait_for(|report| report.failures.len() == 7)
        .await
        .unwrap();
    let before = tries.load(Ordering::SeqCst);
    let start = Instant::now();
    sleep(Duration::from_secs(4)).await;
    let later = tries.load(Ordering::SeqCst) - before;
    let seconds = start.elapsed().as_secs_f64();
    // A client may try once more when a connection is closed before the answer.
    assert!(
        (later as f64) <= seconds * 2.0 + 1.0,
        "{later} tries in {seconds:.1} s"
    );
    let report = report.borrow();
    assert!(!report.statistics.is_connected && report.state.is_none());
}
