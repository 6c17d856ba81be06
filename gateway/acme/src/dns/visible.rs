//! Whether every server of a zone shows a value: a CA may ask any of them.
//!
//! Only those servers are asked. A resolver that is asked too early remembers that there is nothing.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use hickory_proto::rr::Name;
use hickory_proto::rr::RecordType;
use tokio::time::Instant;
use tokio::time::sleep;

use super::SolverError;
use super::client::NameServer;
use super::client::Zone;
use super::client::text_of;
use super::name;
use super::wire;

/// Between two looks: the first, and the longest that it grows to.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(3);
/// How long one server may take.
const ANSWER_TIME: Duration = Duration::from_secs(2);
/// Looks in a row that a server may leave without an answer while others answer. It is down, or out
/// of reach from here, such as one with IPv6 alone: no order has to wait for it.
const MAX_SILENCE: u32 = 3;

struct Watched<'a> {
    server: &'a NameServer,
    is_shown: bool,
    silence: u32,
}

/// Returns once all servers that answer show the value, and at least one does.
pub(super) async fn shown(
    zone: &Arc<Zone>,
    place: &Name,
    value: &str,
    within: Duration,
) -> Result<(), SolverError> {
    let deadline = Instant::now() + within;
    let mut pause = FIRST_PAUSE;
    let mut watched: Vec<Watched<'_>> = zone
        .servers
        .iter()
        .map(|server| Watched {
            server,
            is_shown: false,
            silence: 0,
        })
        .collect();
    loop {
        let open = watched.iter_mut().filter(|watched| !watched.is_shown);
        join_all(open.map(|watched| watched.look(place, value))).await;
        let has_one = watched.iter().any(|watched| watched.is_shown);
        let is_settled = |watched: &Watched<'_>| watched.is_shown || watched.silence >= MAX_SILENCE;
        if has_one && watched.iter().all(is_settled) {
            return Ok(());
        }
        if Instant::now() + pause > deadline {
            return Err(late(&watched, place, within));
        }
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

impl Watched<'_> {
    async fn look(&mut self, place: &Name, value: &str) {
        let question = wire::question(place, RecordType::TXT);
        match wire::ask(self.server.addr, &question, false, ANSWER_TIME).await {
            Ok(message) => {
                self.silence = 0;
                let own = message
                    .answers
                    .iter()
                    .filter(|record| record.name == *place);
                self.is_shown = own.filter_map(text_of).any(|text| text == value.as_bytes());
            }
            Err(_) => self.silence += 1,
        }
    }
}

fn late(watched: &[Watched<'_>], place: &Name, within: Duration) -> SolverError {
    let named = |is_silent: bool| -> Vec<String> {
        watched
            .iter()
            .filter(|watched| !watched.is_shown && (watched.silence > 0) == is_silent)
            .map(|watched| {
                let name = name::shown(&watched.server.name);
                format!("{name} ({})", watched.server.addr.ip())
            })
            .collect()
    };
    let (old, silent) = (named(false), named(true));
    let mut what = Vec::new();
    if !old.is_empty() {
        what.push(format!("not shown by {}", old.join(", ")));
    }
    if !silent.is_empty() {
        what.push(format!("no answer from {}", silent.join(", ")));
    }
    let (place, within) = (name::shown(place), within.as_secs());
    SolverError::failed(format!(
        "the record at {place} was written, and is not seen after {within} s: {}",
        what.join("; ")
    ))
}
