//! Hostile HTTP/1 requests: refused, or exactly one canonical request upstream.
//!
//! The upstream is a strict recorder; it, not the gateway, says what arrived. The gateway's short
//! timeouts end every connection, so that reading to the end needs no guess about when it is over.

mod cases;

use std::net::SocketAddr;

use postern_tests::client::raw;
use postern_tests::gateway::SetUp;
use postern_tests::upstream::recorder::Recorded;
use postern_tests::upstream::recorder::Recorder;

use self::cases::Case;
use self::cases::Must;
use crate::support::upstream_table;

/// Cases that run at the same time: enough to wait for time-outs together, few enough that none
/// fires because the machine is busy.
const AT_ONCE: usize = 12;

fn config(recorder: SocketAddr) -> String {
    format!(
        r#"
        [listeners.http]
        bind = "127.0.0.1:0"
        timeouts = {{ request-head = "2s", keep-alive = "200ms", body-idle = "1s" }}
        {}
        [[routes]]
        hosts = ["a.test"]
        rules = [{{ upstream = "app" }}, {{ path = {{ prefix = "/admin" }}, respond = {{ status = 403 }} }}]
        "#,
        upstream_table("app", recorder)
    )
}

#[tokio::test]
async fn hostile_requests_are_refused_or_become_one_canonical_request() {
    let mut running = tokio::task::JoinSet::new();
    let mut cases = cases::all().into_iter();
    for case in cases.by_ref().take(AT_ONCE) {
        running.spawn(check(case));
    }
    let mut wrong = Vec::new();
    while let Some(checked) = running.join_next().await {
        if let Err(deviation) = checked.unwrap() {
            wrong.push(deviation);
        }
        if let Some(case) = cases.next() {
            running.spawn(check(case));
        }
    }
    wrong.sort();
    assert!(
        wrong.is_empty(),
        "{} deviations:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

/// Each case has a gateway and a recorder of its own, so that nothing of another is counted.
async fn check(case: Case) -> Result<(), String> {
    let recorder = Recorder::start().await;
    let gateway = SetUp::new().start(&config(recorder.addr)).await;
    let addr = gateway.addr("http");
    let got = if case.ends {
        raw::exchange_and_end(addr, &case.bytes).await
    } else {
        raw::exchange(addr, &case.bytes).await
    };
    // Whatever was still on its way has arrived, or never will.
    let lines = gateway.finish().await;
    let forwarded = lines.iter().filter(|line| !line["endpoint"].is_null());
    let forwarded = forwarded.count();
    let answers = raw::answers(&got);
    let statuses: Vec<u16> = answers
        .iter()
        .map(|a| a.status)
        .filter(|&s| s != 100)
        .collect();
    let (requests, violations) = recorder.seen();
    let complete: Vec<&Recorded> = requests.iter().filter(|r| r.is_complete).collect();

    let judged = judge(&case, &statuses, &complete);
    let judged = judged.and_then(|()| match violations.as_slice() {
        [] => Ok(()),
        _ => Err(format!("not well formed upstream: {violations:?}")),
    });
    let judged = judged.and_then(|()| match requests.len() <= forwarded {
        true => Ok(()),
        false => Err(format!(
            "{} arrived, {forwarded} are logged",
            requests.len()
        )),
    });
    let judged = judged.and_then(|()| complete.iter().try_for_each(|r| canonical(r)));
    judged.map_err(|why| {
        let lines: Vec<&str> = requests.iter().map(|r| r.line.as_str()).collect();
        format!(
            "{} ({}): {why}; {statuses:?}, upstream {lines:?}",
            case.id, case.what
        )
    })
}

fn judge(case: &Case, statuses: &[u16], complete: &[&Recorded]) -> Result<(), String> {
    let refused = complete.is_empty() && matches!(statuses, [400..=599]);
    let one = complete.len() == 1 && statuses == [200];
    let body_is = |body: &[u8]| one && complete[0].body == body;
    let holds = match case.must {
        Must::Refuse => refused,
        Must::One => one,
        Must::Body(body) => body_is(body),
        Must::RefuseOrBody(body) => refused || body_is(body),
        Must::RefuseOrOne => refused || one,
        Must::Drop(names) => one && names.iter().all(|n| complete[0].values(n).is_empty()),
        Must::Truncate => complete.is_empty(),
        Must::Target(target) => one && complete[0].target() == target,
        // Routed to the rule of /admin, which answers.
        Must::Admin => (complete.is_empty() && statuses == [403]) || refused,
        Must::Sequence(targets) => {
            complete
                .iter()
                .map(|r| r.target())
                .eq(targets.iter().copied())
                && statuses.len() == targets.len()
                && statuses.iter().all(|&s| s == 200)
        }
        Must::OneThenRefuse => complete.len() == 1 && matches!(statuses, [200, 400..=499]),
        Must::OwnIdentity => {
            one && complete[0].values("x-forwarded-for") == ["127.0.0.1"]
                && complete[0].values("x-real-ip") == ["127.0.0.1"]
                && complete[0].values("x-forwarded-proto") == ["http"]
        }
    };
    if holds {
        Ok(())
    } else {
        Err(format!("must {:?}", case.must))
    }
}

/// Fields that no request here may bring to the upstream: none asks for a WebSocket that the
/// upstream grants.
const HOP_BY_HOP: [&str; 7] = [
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "http2-settings",
    "proxy-authorization",
    "expect",
];

/// What holds of every request that leaves the gateway.
pub(crate) fn canonical(request: &Recorded) -> Result<(), String> {
    let target = request.target();
    let path = target.split('?').next().unwrap_or_default();
    let lower = path.to_lowercase();
    let segments_are_plain = path
        .split('/')
        .all(|segment| segment != "." && segment != "..");
    let connection = (request.values("connection"), request.values("upgrade"));
    let is_plain = connection.0.is_empty() && connection.1.is_empty();
    let checks = [
        (
            is_plain || connection == (vec!["upgrade"], vec!["websocket"]),
            "no connection field but for a WebSocket",
        ),
        (
            request.values("host") == ["a.test"],
            "one host, the one that was routed",
        ),
        (
            segments_are_plain && !lower.contains("%2e"),
            "no dot segments",
        ),
        (
            !path.contains("//") && !path.contains('\\'),
            "no empty segments, no backslash",
        ),
        (!target.contains('#'), "no fragment"),
        (
            HOP_BY_HOP
                .iter()
                .all(|name| request.values(name).is_empty()),
            "no field of a connection",
        ),
        (
            request
                .trailers
                .iter()
                .all(|(n, _)| n.to_lowercase().starts_with('x')),
            "no trailer of weight",
        ),
        (
            request.fields.iter().all(|(name, _)| !name.contains('_')),
            "no second spelling",
        ),
        (
            ["x-forwarded-for", "x-forwarded-proto", "x-real-ip"]
                .iter()
                .all(|name| request.values(name).len() == 1),
            "who the client is, once",
        ),
    ];
    for (holds, what) in checks {
        if !holds {
            return Err(format!("{what}: {request:?}"));
        }
    }
    Ok(())
}
