//! One solver of several, by the host.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::DnsSolver;
use super::SolverError;
use super::TxtRecord;
use super::name;
use super::preflight::Verdict;
use crate::reason::Reason;

/// Solvers and the domains that they are for.
#[derive(Debug, Default)]
pub struct SolverChoice {
    solvers: Vec<(Domain, Arc<dyn DnsSolver>)>,
}

/// Itself and everything below it; none: everything.
type Domain = Option<String>;

impl SolverChoice {
    /// `domain`: lower case, without a dot at the end.
    pub fn add(&mut self, domain: Option<String>, solver: Arc<dyn DnsSolver>) {
        self.solvers.push((domain, solver));
    }

    /// The one for the longest domain that a host is in.
    fn of(&self, host: &str) -> Result<&dyn DnsSolver, SolverError> {
        let host = host.strip_prefix("*.").unwrap_or(host);
        let is_in = |domain: &Domain| {
            domain.as_ref().is_none_or(|domain| {
                host.strip_suffix(domain.as_str())
                    .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
            })
        };
        let fitting = self.solvers.iter().filter(|(domain, _)| is_in(domain));
        let best = fitting.max_by_key(|(domain, _)| domain.as_ref().map(String::len));
        best.map(|(_, solver)| &**solver)
            .ok_or_else(|| SolverError {
                reason: Reason::SolverFailed,
                message: format!("no DNS solver is for {host}; see hosts in [dns-solvers]"),
            })
    }

    fn for_record(&self, record: &TxtRecord) -> Result<&dyn DnsSolver, SolverError> {
        let challenge = name::parse(&record.name)?;
        match name::proved(&challenge) {
            Some(host) => self.of(&name::shown(&host)),
            None => self.of(&record.name),
        }
    }
}

impl DnsSolver for SolverChoice {
    fn check<'a>(&'a self, host: &'a str) -> BoxFuture<'a, Verdict> {
        Box::pin(async move {
            match self.of(host) {
                Ok(solver) => solver.check(host).await,
                Err(error) => Verdict::waits(error.reason, error.message),
            }
        })
    }

    fn present<'a>(&'a self, record: &'a TxtRecord) -> BoxFuture<'a, Result<(), SolverError>> {
        Box::pin(async move { self.for_record(record)?.present(record).await })
    }

    fn withdraw<'a>(&'a self, record: &'a TxtRecord) -> BoxFuture<'a, Result<(), SolverError>> {
        Box::pin(async move { self.for_record(record)?.withdraw(record).await })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers with its own name.
    #[derive(Debug)]
    struct Named(&'static str);

    impl DnsSolver for Named {
        fn check<'a>(&'a self, _host: &'a str) -> BoxFuture<'a, Verdict> {
            let message = self.0.to_owned();
            Box::pin(async { Verdict::Ready { message } })
        }

        fn present<'a>(&'a self, _record: &'a TxtRecord) -> BoxFuture<'a, Result<(), SolverError>> {
            Box::pin(async { Err(SolverError::failed(self.0)) })
        }

        fn withdraw<'a>(
            &'a self,
            _record: &'a TxtRecord,
        ) -> BoxFuture<'a, Result<(), SolverError>> {
            Box::pin(async { Ok(()) })
        }
    }

    #[tokio::test]
    async fn the_longest_domain_decides() {
        let mut choice = SolverChoice::default();
        choice.add(Some("vt.edu".to_owned()), Arc::new(Named("vt")));
        choice.add(Some("aws.vt.edu".to_owned()), Arc::new(Named("aws")));
        let cases = [
            ("vt.edu", Some("vt")),
            ("app1.vt.edu", Some("vt")),
            ("*.aws.vt.edu", Some("aws")),
            ("k8s-1.aws.vt.edu", Some("aws")),
            ("badvt.edu", None),
            ("example.org", None),
        ];
        for (host, want) in cases {
            let record = TxtRecord {
                name: format!("_acme-challenge.{}", host.trim_start_matches("*.")),
                value: String::new(),
            };
            let error = choice.present(&record).await.unwrap_err().message;
            let verdict = choice.check(host).await;
            match want {
                Some(want) => {
                    let message = want.to_owned();
                    assert_eq!(
                        (verdict, &*error),
                        (Verdict::Ready { message }, want),
                        "{host}"
                    );
                }
                None => assert!(error.starts_with("no DNS solver is for"), "{error}"),
            }
        }
        choice.add(None, Arc::new(Named("rest")));
        let message = "rest".to_owned();
        assert_eq!(
            choice.check("example.org").await,
            Verdict::Ready { message }
        );
    }
}
