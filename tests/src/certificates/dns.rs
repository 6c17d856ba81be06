//! What the gateway asks of DNS servers that are not ours, and writes there.

use std::sync::Arc;
use std::time::Duration;

use postern_acme::Reason;
use postern_acme::dns::DnsPreflight;
use postern_acme::dns::DnsSolver;
use postern_acme::dns::Preflight as _;
use postern_acme::dns::Reach;
use postern_acme::dns::Route53Spec;
use postern_acme::dns::Route53Writer;
use postern_acme::dns::Secret;
use postern_acme::dns::Solver;
use postern_acme::dns::SolverError;
use postern_acme::dns::SolverSpec;
use postern_acme::dns::TxtRecord;
use postern_acme::dns::UpdateSpec;
use postern_acme::dns::UpdateWriter;
use postern_acme::dns::Verdict;
use postern_acme::dns::aws::CredentialSource;
use postern_acme::dns::update::UpdateAlgorithm;
use tokio::time::Instant;

use super::Outcome;
use super::bind;
use super::bind::Bind;
use super::failed;
use super::route53::Route53;

/// How long a record may take to be seen by a preflight: a minute is promised with a certificate
/// after it.
const SEEN: Duration = Duration::from_secs(10);

/// Every shape of a name, judged by what BIND says of it.
pub async fn preflight() -> Outcome {
    let mut bind = Bind::start().await?;
    let reach = Reach {
        cluster: Some(bind::CLUSTER.to_owned()),
        ..Reach::default()
    };
    let careful = DnsPreflight::http(bind.client(), reach.clone());
    let careful = careful.with_caa(vec!["letsencrypt.org".to_owned()]);
    let preflight = DnsPreflight::http(bind.client(), reach);
    let cases = [
        ("app1.vt.test", None),
        ("hop.vt.test", None),
        ("flat.vt.test", None),
        ("foo.k8s-1.aws.vt.test", None),
        ("onprem.vt.test", Some(Reason::DnsElsewhere)),
        ("other.vt.test", Some(Reason::DnsElsewhere)),
        ("app2.app1.vt.test", Some(Reason::DnsElsewhere)),
        ("dangling.vt.test", Some(Reason::DnsNotFound)),
        ("new.vt.test", Some(Reason::DnsNotFound)),
        ("loop.vt.test", Some(Reason::DnsLoop)),
        ("stray.vt.test", Some(Reason::DnsMixed)),
    ];
    for (host, want) in cases {
        let verdict = preflight.check(host).await;
        let reason = match &verdict {
            Verdict::Ready { .. } => None,
            Verdict::Waits { reason, .. } => Some(*reason),
        };
        if reason != want {
            return Err(format!("{host}: {verdict:?}, not {want:?}"));
        }
    }
    let locked = careful.check("locked.vt.test").await;
    let wanted = "locked.vt.test. 3600 IN CAA 0 issue \"letsencrypt.org\"";
    match &locked {
        Verdict::Waits {
            reason: Reason::CaaForbids,
            record,
            ..
        } if record.as_deref() == Some(wanted) => {}
        other => return Err(format!("CAA of another authority: {other:?}")),
    }
    let free = careful.check("flat.vt.test").await;
    if !matches!(free, Verdict::Ready { .. }) {
        return Err(format!("no CAA at all: {free:?}"));
    }
    let Verdict::Waits { record, .. } = preflight.check("new.vt.test").await else {
        return Err("new.vt.test is not there yet".to_owned());
    };
    let record = record.ok_or("no record is asked for")?;
    // What is asked for is what the hostmaster adds, as it is.
    bind.add(&record).await?;
    let start = Instant::now();
    loop {
        let verdict = preflight.check("new.vt.test").await;
        if matches!(verdict, Verdict::Ready { .. }) {
            break;
        }
        if start.elapsed() > SEEN {
            return Err(format!("'{record}' was added and is not seen: {verdict:?}"));
        }
    }
    let took = start.elapsed().as_millis();
    Ok(format!(
        "{} shapes and CAA judged; the record that was asked for was seen after {took} ms",
        cases.len()
    ))
}

/// Updates to BIND: two values of one name, a delegated name, keys that are refused, and the trap.
pub async fn update() -> Outcome {
    let bind = Bind::start().await?;
    let solver = update_solver(&bind, bind::KEY, bind::SECRET)?;
    values(&solver, "_acme-challenge.k8s-1.aws.vt.test", &bind, None).await?;

    // The hostmaster's alias leads into a zone of ours; nothing is written at the alias.
    values(
        &solver,
        "_acme-challenge.app1.vt.test",
        &bind,
        Some("app1.acme.vt.test"),
    )
    .await?;

    let trap = refused(&solver, "_acme-challenge.foo.k8s-1.aws.vt.test").await?;
    if trap.reason != Reason::PolicyDenied {
        return Err(format!("the wildcard's name: {trap:?}"));
    }
    let foreign = solver.check("onprem.vt.test").await;
    let wanted = "_acme-challenge.onprem.vt.test. 3600 IN CNAME onprem.vt.test.acme.vt.test.";
    match &foreign {
        Verdict::Waits { record, .. } if record.as_deref() == Some(wanted) => {}
        other => return Err(format!("a zone that is not ours: {other:?}")),
    }

    let name = "_acme-challenge.k8s-1.aws.vt.test";
    let other = "YW5vdGhlciBzZWNyZXQgb2YgdGhpcnR5LXR3byBieXQ=";
    let cases = [
        (update_solver(&bind, bind::KEY, other)?, "(BADSIG)"),
        (update_solver(&bind, "stranger", bind::SECRET)?, "(BADKEY)"),
    ];
    for (solver, want) in cases {
        let error = refused(&solver, name).await?;
        if !error.message.contains(want) {
            return Err(format!("{want}: {error}"));
        }
    }
    let narrow = update_solver(&bind, bind::NARROW_KEY, bind::SECRET)?;
    let (one, two) = (
        record(name, "narrow"),
        record("_acme-challenge.app1.vt.test", "x"),
    );
    narrow
        .present(&one)
        .await
        .map_err(failed("one key, one name"))?;
    narrow
        .withdraw(&one)
        .await
        .map_err(failed("one key, one name"))?;
    let error = narrow
        .present(&two)
        .await
        .err()
        .ok_or("one key wrote another name")?;
    if !error.message.contains("(REFUSED)") {
        return Err(format!("REFUSED: {error}"));
    }
    Ok("values added and taken back one by one, at the name and through an alias; BADSIG, BADKEY, \
        REFUSED and the wildcard's name told apart"
        .to_owned())
}

/// The same through the API of Route 53.
pub async fn route53() -> Outcome {
    let zone = "aws.vt.test";
    let aws = Route53::start(&[zone, "vt.test"]).await?;
    let writer = Route53Writer::new(Route53Spec {
        hosted_zone_id: None,
        region: None,
        credentials: CredentialSource::Keys {
            key_id: "AKIDEXAMPLE".to_owned(),
            secret: Secret::Text("secret".to_owned()),
        },
        role: None,
        endpoint: Some(format!("http://{}", aws.service)),
        sts_endpoint: None,
        roots: None,
    });
    let writer = Arc::new(writer.map_err(failed("Route 53"))?);
    let solver = Solver::new(solving(), aws.client(), writer);
    let verdict = solver.check("*.k8s-1.aws.vt.test").await;
    let Verdict::Ready { message } = &verdict else {
        return Err(format!("a zone of the account: {verdict:?}"));
    };
    let want = format!("OK by DNS: _acme-challenge.k8s-1.aws.vt.test in {zone}");
    if *message != want {
        return Err(format!("{message}, not {want}"));
    }
    let (one, two) = (
        record("_acme-challenge.k8s-1.aws.vt.test", "one"),
        record("_acme-challenge.k8s-1.aws.vt.test", "two"),
    );
    // Presenting returns once the servers show the value, beside the other.
    let failed = failed("Route 53");
    solver.present(&one).await.map_err(&failed)?;
    solver.present(&two).await.map_err(&failed)?;
    solver.present(&one).await.map_err(&failed)?;
    solver.withdraw(&one).await.map_err(&failed)?;
    solver.withdraw(&one).await.map_err(&failed)?;
    solver.present(&two).await.map_err(&failed)?;
    solver.withdraw(&two).await.map_err(&failed)?;
    let foreign = solver.check("app1.example.org").await;
    if !matches!(foreign, Verdict::Waits { .. }) {
        return Err(format!("a zone of somebody else: {foreign:?}"));
    }
    Ok(format!(
        "two values of one name in {zone}, seen by DNS, taken back one by one"
    ))
}

fn solving() -> SolverSpec {
    SolverSpec {
        propagation: Duration::from_secs(20),
        delay: None,
        delegation: Some(bind::DELEGATION.to_owned()),
    }
}

fn update_solver(bind: &Bind, key: &str, secret: &str) -> Result<Solver, String> {
    let spec = UpdateSpec {
        server: bind.addr.to_string(),
        key_name: key.to_owned(),
        algorithm: UpdateAlgorithm::HmacSha256,
        secret: Secret::Text(secret.to_owned()),
    };
    let writer = UpdateWriter::new(&spec, bind.client()).map_err(failed("updates"))?;
    Ok(Solver::new(solving(), bind.client(), Arc::new(writer)))
}

fn record(name: &str, value: &str) -> TxtRecord {
    TxtRecord {
        name: name.to_owned(),
        value: value.to_owned(),
    }
}

/// Two values come and go, one at a time, at the name or where it leads.
async fn values(
    solver: &Solver,
    name: &str,
    bind: &Bind,
    target: Option<&str>,
) -> Result<(), String> {
    let (one, two) = (record(name, "one"), record(name, "two"));
    let failed = failed(name);
    solver.present(&one).await.map_err(&failed)?;
    solver.present(&two).await.map_err(&failed)?;
    solver.present(&two).await.map_err(&failed)?;
    solver.withdraw(&one).await.map_err(&failed)?;
    solver.withdraw(&one).await.map_err(&failed)?;
    let log = bind.log();
    let target = target.unwrap_or(name);
    let count = |what: &str| {
        let lines = log.lines();
        lines
            .filter(|line| line.contains(what) && line.contains(target))
            .count()
    };
    // BIND says what it does to whom.
    let (added, deleted) = (count("adding an RR at"), count("deleting an RR at"));
    if added == 0 || deleted == 0 {
        return Err(format!(
            "{target}: {added} added, {deleted} deleted:\n{log}"
        ));
    }
    solver.withdraw(&two).await.map_err(&failed)
}

async fn refused(solver: &Solver, name: &str) -> Result<SolverError, String> {
    match solver.present(&record(name, "value")).await {
        Ok(()) => Err(format!("{name} was written")),
        Err(error) => Ok(error),
    }
}
