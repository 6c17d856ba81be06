use super::super::DnsSolver as _;
use super::super::Solver;
use super::super::SolverSpec;
use super::super::TxtRecord;
use super::super::Verdict;
use super::super::aws::test_util::Asked;
use super::super::aws::test_util::TestService;
use super::super::test_util::TestDns;
use super::*;

use std::sync::Mutex;

use crate::reason::Reason;

const ZONES: &str = "
    edu SOA
    aws.edu SOA
    k8s-1.aws.edu A 192.0.2.1
    vt.edu SOA
    app1.vt.edu A 192.0.2.1";
const NAME: &str = "_acme-challenge.k8s-1.aws.edu";

/// One zone with one set of records, which changes as Route 53 changes it.
#[derive(Default)]
struct Account {
    values: Vec<String>,
    /// Requests that are refused first, as too many.
    busy: usize,
    /// Another writer that is faster, so often.
    faster: usize,
    /// Times that a change is not in sync yet.
    pending: usize,
}

impl Account {
    fn answer(&mut self, asked: &Asked) -> (u16, String) {
        if self.busy > 0 {
            self.busy -= 1;
            return (400, error("Throttling"));
        }
        let path = asked.line.split_once(' ').unwrap().1;
        if path.starts_with("/2013-04-01/hostedzonesbyname?") {
            let zone = |id: &str, name: &str, private: bool| {
                format!(
                    "<HostedZone><Id>/hostedzone/{id}</Id><Name>{name}</Name><Config>\
                     <PrivateZone>{private}</PrivateZone></Config></HostedZone>"
                )
            };
            let zones = zone("ZPRIVATE", "aws.edu.", true) + &zone("Z1", "aws.edu.", false);
            return (200, format!("<R><HostedZones>{zones}</HostedZones></R>"));
        }
        if path == "/2013-04-01/hostedzone/Z9" {
            let zone = "<R><HostedZone><Name>other.edu.</Name></HostedZone></R>";
            return (200, zone.to_owned());
        }
        if path.starts_with("/2013-04-01/hostedzone/Z1/rrset?") {
            return (
                200,
                format!(
                    "<R><ResourceRecordSets>{}</ResourceRecordSets></R>",
                    self.set()
                ),
            );
        }
        if path == "/2013-04-01/hostedzone/Z1/rrset/" {
            return self.change(&asked.body);
        }
        if path == "/2013-04-01/change/C1" {
            let status = if self.pending > 0 {
                "PENDING"
            } else {
                "INSYNC"
            };
            self.pending = self.pending.saturating_sub(1);
            let info = format!("<ChangeInfo><Status>{status}</Status></ChangeInfo>");
            return (200, format!("<R>{info}</R>"));
        }
        (404, error("NoSuchHostedZone"))
    }

    fn set(&self) -> String {
        if self.values.is_empty() {
            // The list goes on with what is behind.
            return "<ResourceRecordSet><Name>x.aws.edu.</Name><Type>TXT</Type></ResourceRecordSet>"
                .to_owned();
        }
        let values: String = self
            .values
            .iter()
            .map(|value| {
                format!(
                    "<ResourceRecord><Value>{}</Value></ResourceRecord>",
                    escape(value)
                )
            })
            .collect();
        format!(
            "<ResourceRecordSet><Name>{NAME}.</Name><Type>TXT</Type><TTL>60</TTL>\
             <ResourceRecords>{values}</ResourceRecords></ResourceRecordSet>"
        )
    }

    fn change(&mut self, body: &str) -> (u16, String) {
        if self.faster > 0 {
            self.faster -= 1;
            self.values.push(format!("\"other{}\"", self.faster));
        }
        let request = Element::parse(body.as_bytes()).unwrap();
        let mut next = self.values.clone();
        for change in request.all("Change") {
            let values: Vec<String> = change.all("Value").into_iter().map(Element::text).collect();
            match change.find("Action").unwrap().text().as_str() {
                "DELETE" if values == next => next.clear(),
                "CREATE" if next.is_empty() => next = values,
                _ => return (400, error("InvalidChangeBatch")),
            }
        }
        self.values = next;
        let info = "<R><ChangeInfo><Id>/change/C1</Id><Status>PENDING</Status></ChangeInfo></R>";
        (200, info.to_owned())
    }
}

fn error(code: &str) -> String {
    format!("<ErrorResponse><Error><Code>{code}</Code><Message>m</Message></Error></ErrorResponse>")
}

struct World {
    dns: TestDns,
    service: TestService,
    account: Arc<Mutex<Account>>,
}

impl World {
    async fn new() -> Self {
        let account = Arc::new(Mutex::new(Account::default()));
        let shared = Arc::clone(&account);
        let service = TestService::start(move |asked| shared.lock().unwrap().answer(asked)).await;
        let dns = TestDns::start(ZONES).await;
        Self {
            dns,
            service,
            account,
        }
    }

    fn solver(&self, zone_id: Option<&str>) -> Solver {
        let mut writer = Route53Writer::new(Route53Spec {
            hosted_zone_id: zone_id.map(str::to_owned),
            region: None,
            credentials: CredentialSource::Keys {
                key_id: "AKIA".to_owned(),
                secret: super::super::Secret::Text("secret".to_owned()),
            },
            role: None,
            endpoint: Some(self.service.url("")),
            sts_endpoint: None,
            roots: None,
        })
        .unwrap();
        writer.pause = Duration::from_millis(1);
        let spec = SolverSpec {
            delay: Some(Duration::ZERO),
            ..SolverSpec::default()
        };
        Solver::new(spec, self.dns.client(), Arc::new(writer))
    }

    fn values(&self) -> Vec<String> {
        self.account.lock().unwrap().values.clone()
    }
}

fn record(value: &str) -> TxtRecord {
    TxtRecord {
        name: NAME.to_owned(),
        value: value.to_owned(),
    }
}

#[tokio::test]
async fn values_are_added_to_a_set_and_taken_from_it() {
    let world = World::new().await;
    let solver = world.solver(None);
    solver.present(&record("one")).await.unwrap();
    solver.present(&record("two")).await.unwrap();
    assert_eq!(world.values(), ["\"one\"", "\"two\""]);
    let changes = world.service.asked().len();
    solver.present(&record("two")).await.unwrap();
    let asked = world.service.asked();
    let added = &asked[changes..];
    assert!(
        added.iter().all(|asked| asked.line.starts_with("GET")),
        "{added:?}"
    );
    solver.withdraw(&record("one")).await.unwrap();
    assert_eq!(world.values(), ["\"two\""]);
    solver.withdraw(&record("two")).await.unwrap();
    solver.withdraw(&record("two")).await.unwrap();
    assert!(world.values().is_empty());
    let signed = asked[0].headers["authorization"].to_str().unwrap();
    assert!(
        signed.contains("/us-east-1/route53/aws4_request"),
        "{signed}"
    );
}

#[tokio::test]
async fn values_of_a_faster_writer_stay() {
    let world = World::new().await;
    world.account.lock().unwrap().faster = 2;
    world.solver(None).present(&record("ours")).await.unwrap();
    assert_eq!(world.values(), ["\"other1\"", "\"other0\"", "\"ours\""]);

    world.account.lock().unwrap().faster = 100;
    let error = world
        .solver(None)
        .present(&record("more"))
        .await
        .unwrap_err();
    assert!(error.message.contains("InvalidChangeBatch"), "{error}");
}

#[tokio::test]
async fn a_service_that_is_busy_is_asked_again() {
    let world = World::new().await;
    world.account.lock().unwrap().busy = 2;
    world.solver(None).present(&record("one")).await.unwrap();
    assert_eq!(world.values(), ["\"one\""]);
}

#[tokio::test]
async fn a_zone_of_somebody_else_is_not_written_to() {
    let world = World::new().await;
    let solver = world.solver(None);
    let verdict = solver.check("k8s-1.aws.edu").await;
    assert!(matches!(verdict, Verdict::Ready { .. }), "{verdict:?}");
    let waits = |message: &str| Verdict::Waits {
        reason: Reason::SolverFailed,
        message: format!("{message}; no order placed"),
        record: None,
    };
    let want = waits("the account has no public hosted zone vt.edu");
    assert_eq!(solver.check("app1.vt.edu").await, want);
    let want = waits("the hosted zone Z9 is other.edu, and not aws.edu");
    assert_eq!(
        world
            .solver(Some("/hostedzone/Z9"))
            .check("k8s-1.aws.edu")
            .await,
        want
    );
    let error = world
        .solver(Some("Z8"))
        .present(&record("one"))
        .await
        .unwrap_err();
    assert_eq!(error.reason, Reason::SolverFailed);
    assert!(
        error.message.contains("404 Not Found NoSuchHostedZone"),
        "{error}"
    );
}

#[tokio::test]
async fn a_change_is_waited_for() {
    let world = World::new().await;
    world.account.lock().unwrap().pending = 1;
    world.solver(None).present(&record("one")).await.unwrap();
    let polls = world.service.asked().into_iter();
    let polls = polls.filter(|asked| asked.line == "GET /2013-04-01/change/C1");
    assert_eq!(polls.count(), 2);
}

#[test]
fn names_are_compared_as_people_write_them() {
    assert_eq!(readable("\\052.K8s-1.aws.edu."), "*.k8s-1.aws.edu");
    assert_eq!(bare_id("/hostedzone/Z1/../x?"), "x");
    assert_eq!(quoted("ab_c-1"), "\"ab_c-1\"");
}
