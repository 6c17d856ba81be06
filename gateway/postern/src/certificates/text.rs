//! Certificates as a person reads them.

use std::fmt::Write as _;

use postern_acme::Reason;

use super::view::CertificateView;

const DAY: i64 = 24 * 60 * 60;
const HOUR: i64 = 60 * 60;
/// Widest column of names.
const MAX_WIDTH: usize = 48;

/// One line each.
pub fn table(views: &[CertificateView]) -> String {
    if views.is_empty() {
        return "there are no certificates\n".to_owned();
    }
    let rows = views.iter().map(|view| {
        let left = match (&view.served_from, view.seconds_left) {
            (Some(_), Some(left)) => time_left(left),
            _ => "none".to_owned(),
        };
        let reason = view.reason.clone().unwrap_or_else(|| "-".to_owned());
        let next = match (&view.next_action, &view.next_at) {
            (Some(action), Some(at)) => format!("{action} {at}"),
            _ => "-".to_owned(),
        };
        [view.name.clone(), left, reason, next, view.hosts.join(" ")]
    });
    let head = ["CERTIFICATE", "LEFT", "REASON", "NEXT", "HOSTS"].map(str::to_owned);
    let rows: Vec<[String; 5]> = std::iter::once(head).chain(rows).collect();
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells
            .map(|cell| cell.chars().count().min(MAX_WIDTH))
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..4).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths.iter().chain([&0])) {
            // Writing to a string does not fail.
            let _ = write!(line, "{cell:width$}  ");
        }
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

/// All that is known of one.
pub fn explain(view: &CertificateView) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        // As above.
        let _ = writeln!(text, "{name:<13}{value}");
    };
    line("certificate", &view.name);
    line("hosts", &view.hosts.join(" "));
    match (&view.issuer, view.source.as_str()) {
        (Some(issuer), _) => line("wanted from", &format!("the issuer '{issuer}'")),
        (None, "file") => line("comes from", "a file of the configuration"),
        (None, _) => line("comes from", "a Secret of the cluster"),
    }
    match (&view.served_from, &view.not_after, view.seconds_left) {
        (Some(place), Some(until), Some(left)) => {
            line("served", &format!("yes, from {place}"));
            line("ends", &format!("{until} ({})", time_left(left)));
        }
        _ => line(
            "served",
            "no; clients get the listener's default certificate, or no handshake",
        ),
    }
    if let (Some(action), Some(at)) = (&view.next_action, &view.next_at) {
        let has_failed = view.found_at.is_some();
        let waits = view.reason.as_deref() == Some(Reason::Processing.as_str());
        let what = match (view.is_running, action.as_str()) {
            (true, _) => "an attempt is on its way".to_owned(),
            _ if has_failed && waits => format!("the authority is asked again at {at}"),
            (false, "renew") if has_failed => format!("the renewal is tried again at {at}"),
            (false, "renew") => format!("it is renewed at {at}"),
            (false, _) if has_failed => format!("it is tried again at {at}"),
            (false, _) => format!("it is ordered at {at}"),
        };
        line("next", &what);
    }
    if view.failures > 0 {
        line("failures", &format!("{} in a row", view.failures));
    }
    let Some(reason) = &view.reason else {
        line("reason", "none: all is well");
        return text;
    };
    match &view.found_at {
        Some(at) => line("reason", &format!("{reason}, found at {at}")),
        None => line("reason", reason),
    }
    if let Some(message) = &view.message {
        line("", message);
    }
    if let Some(problem) = &view.problem {
        line("authority", &format!("\"{problem}\""));
    }
    for record in view.record.iter().flat_map(|record| record.lines()) {
        line("DNS needs", record);
    }
    if let Some(url) = &view.explanation {
        line("see", url);
    }
    let known = Reason::ALL
        .into_iter()
        .find(|known| known.as_str() == reason);
    if let Some(known) = known {
        line("what to do", help(known, view));
    }
    text
}

/// Some reasons mean another thing of a certificate that the gateway gets for itself.
fn help(reason: Reason, view: &CertificateView) -> &'static str {
    match (reason, view.issuer.is_some()) {
        (Reason::Expiring, true) => {
            "see the log: a renewal was due and none has failed; another process may hold state-dir, or the clock may be wrong"
        }
        (Reason::KeyMismatch, true) => {
            "nothing at once: another is ordered; tell the authority if that happens again, and see who writes to state-dir"
        }
        _ => reason.help(),
    }
}

/// To the day while there are days.
fn time_left(seconds: i64) -> String {
    match seconds {
        i64::MIN..=0 => "ended".to_owned(),
        1..HOUR => "under an hour".to_owned(),
        HOUR..=172_799 => format!("{} hours", seconds / HOUR),
        _ => format!("{} days", seconds / DAY),
    }
}
