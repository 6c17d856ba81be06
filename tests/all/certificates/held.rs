//! The program killed with SIGKILL at every request that it makes of an authority: before the
//! authority has done what was asked, and after that but before the answer.
//!
//! Between two requests there are only writes, which `killed` goes through one by one.

use futures_util::future::join_all;
use postern_tests::certificates::scripted::Hold;
use postern_tests::certificates::scripted::Script;

use super::KEY;
use super::Site;
use crate::support;

const HOSTS: [&str; 3] = ["a.test", "b.test", "c.test"];
const ISSUER: &str = "external-account = { key-id = \"kid-1\", key-file = \"eab.key\" }";
/// In the order in which an order needs them.
const REQUESTS: [&str; 8] = [
    "directory",
    "nonce",
    "account",
    "order",
    "authorization",
    "challenge",
    "finalize",
    "certificate",
];
/// Sites that run at once: most of their time is waiting.
const AT_ONCE: usize = 4;

#[tokio::test]
async fn a_gateway_that_is_killed_at_any_request_orders_once_and_binds_once() {
    let holds = REQUESTS.into_iter().flat_map(|kind| {
        let hold = |is_done| Hold { kind, is_done };
        [hold(false), hold(true)]
    });
    let holds: Vec<Hold> = holds.collect();
    for some in holds.chunks(AT_ONCE) {
        join_all(some.iter().copied().map(killed_at)).await;
    }
}

async fn killed_at(hold: Hold) {
    let script = Script {
        binding: Some(("kid-1".to_owned(), KEY.to_owned())),
        hold: Some(hold),
        ..Script::default()
    };
    let mut site = Site::start_for(script, ISSUER, &HOSTS).await;
    support::until("held", || site.ca.counts().held == 1).await;
    site.kill().await;
    let at = format!("killed at {hold:?}");
    let is_bound = site.ca.counts().accounts == 1;
    if is_bound {
        // It is not needed again, whatever became of the answer.
        std::fs::remove_file(site.dir.path().join("eab.key")).unwrap();
    }
    site.run().await;
    site.until_all(&at, |certificate| certificate["served_from"] == "ca")
        .await;
    let counts = site.ca.counts();
    let seen = (counts.accounts, counts.bindings, counts.orders);
    assert_eq!(seen, (1, 1, HOSTS.len()), "{at}: {counts:?}");
    site.kill().await;
}
