//! The callouts of a case: what each is answered, and whether it was the one that was expected.

use std::sync::Mutex;

use http::HeaderMap;
use http::StatusCode;
use postern_wasm::callout::Callout;
use postern_wasm::callout::CalloutError;
use postern_wasm::callout::CalloutFuture;
use postern_wasm::callout::Callouts;
use postern_wasm::callout::Reply;

use super::fill;
use super::lock;
use super::texts;
use crate::plugin::case::CallFailure;
use crate::plugin::case::Case;
use crate::plugin::case::GivenCallout;
use crate::plugin::verdict::values;

/// The callouts of a case, answered in their order.
pub(super) struct Answers {
    given: Vec<GivenCallout>,
    progress: Mutex<Progress>,
}

#[derive(Default)]
struct Progress {
    next: usize,
    problems: Vec<String>,
}

impl Answers {
    pub(super) fn new(case: &Case) -> Self {
        Self {
            given: case.callouts.clone(),
            progress: Mutex::default(),
        }
    }

    pub(super) fn rewind(&self) {
        *lock(&self.progress) = Progress::default();
    }

    /// What was wrong with the calls, those that were not made included.
    pub(super) fn problems(&self) -> Vec<String> {
        let mut progress = lock(&self.progress);
        let mut problems = std::mem::take(&mut progress.problems);
        for given in self.given.iter().skip(progress.next) {
            problems.push(format!(
                "callout: expected {} {} to {}, got none",
                given.method, given.path, given.upstream
            ));
        }
        problems
    }

    fn answer(&self, callout: &Callout) -> Result<Reply, CalloutError> {
        let mut progress = lock(&self.progress);
        let target = callout.target.as_str();
        let got = format!("{} {target} to {}", callout.method, callout.upstream);
        let Some(given) = self.given.get(progress.next) else {
            progress
                .problems
                .push(format!("callout: {got} was not expected"));
            return Err(CalloutError::Connect);
        };
        progress.next += 1;
        let want = format!("{} {} to {}", given.method, given.path, given.upstream);
        if want != got {
            progress
                .problems
                .push(format!("callout: expected {want}, got {got}"));
        }
        let headers = texts(&callout.headers);
        for (name, values) in values(&given.headers) {
            let got = headers.get(&name);
            if got != Some(&values) {
                let message = format!("callout: {name}: expected {values:?}, got {got:?}");
                progress.problems.push(message);
            }
        }
        let answer = &given.answer;
        match answer.error {
            Some(CallFailure::Connect) => return Err(CalloutError::Connect),
            Some(CallFailure::Timeout) => return Err(CalloutError::Timeout),
            Some(CallFailure::TooLarge) => return Err(CalloutError::TooLarge),
            Some(CallFailure::Protocol) => return Err(CalloutError::Protocol),
            None => {}
        }
        let mut headers = HeaderMap::new();
        if let Err(error) = fill(&mut headers, &answer.headers) {
            progress
                .problems
                .push(format!("callout: answer.headers: {error:#}"));
        }
        Ok(Reply {
            status: StatusCode::from_u16(answer.status).unwrap_or_default(),
            headers,
            body: answer.body.clone().into(),
        })
    }
}

impl Callouts for Answers {
    fn send(&self, callout: Callout) -> CalloutFuture {
        let answer = self.answer(&callout);
        Box::pin(async { answer })
    }
}
