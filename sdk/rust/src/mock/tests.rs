use super::*;
use crate::Reply;
use crate::Request;
use crate::Response;
use crate::Setup;
use crate::crypto;
use crate::crypto::DigestAlgorithm;
use crate::crypto::Key;
use crate::crypto::SignatureAlgorithm;

struct Probe;

impl Plugin for Probe {
    fn configure(config: &str, setup: &mut Setup) -> Result<Self, String> {
        if config != "{}" {
            return Err(format!("not a configuration: {config}"));
        }
        setup.request_view(["x-in", ":path", "@client-ip"]);
        setup.response_view([":status", "x-in", "req.x-in"]);
        Ok(Self)
    }

    fn on_request(&self, request: &mut Request) -> Result<Action, Fault> {
        if request.path() == "/deny" {
            return Ok(Reply::text(403, "no").into());
        }
        let before = request.get("x-in").unwrap_or_default();
        request.set("x-in", "new")?;
        let after = request.get("x-in").unwrap_or_default();
        let client = request.get("@client-ip").unwrap_or_default();
        request.set("x-seen", &format!("{before} {after} {client}"))?;
        Ok(Action::Next)
    }

    fn on_response(&self, response: &mut Response) -> Result<Action, Fault> {
        let seen = [
            response.status().to_string(),
            response.get("x-in").unwrap_or_default(),
            response.get("req.x-in").unwrap_or_default(),
            response.request().get("x-in").unwrap_or_default(),
        ];
        response.set("x-seen", &seen.join(" "))?;
        response.set("content-length", "0")?;
        Ok(Action::Next)
    }
}

crate::export!(Probe: request, response);

#[test]
fn a_value_of_the_view_is_read_anew_after_an_edit() {
    let probe = configure::<Probe>("{}").unwrap();
    let mut exchange = Exchange::new("GET", "/").header("X-In", "old");
    exchange
        .attributes
        .insert("client.ip".to_owned(), "192.0.2.1".to_owned());
    assert_eq!(probe.on_request(&mut exchange), Ok(Action::Next));
    assert_eq!(exchange.request.get("x-seen"), Some("old new 192.0.2.1"));
}

#[test]
fn a_reply_carries_its_text() {
    let probe = configure::<Probe>("{}").unwrap();
    let mut exchange = Exchange::new("GET", "/deny");
    let Ok(Action::Respond(reply)) = probe.on_request(&mut exchange) else {
        panic!("not a reply");
    };
    assert_eq!((reply.status, &*reply.body), (403, &b"no"[..]));
}

#[test]
fn a_refused_edit_is_a_fault() {
    let probe = configure::<Probe>("{}").unwrap();
    let mut exchange = Exchange::new("GET", "/").header("x-in", "q");
    exchange.response.append("x-in", "r");
    let fault = probe.on_response(&mut exchange).unwrap_err();
    assert!(fault.to_string().contains("an edit was refused"), "{fault}");
    assert_eq!(exchange.response.get("x-seen"), Some("200 r q q"));
}

#[test]
#[should_panic(expected = "`route` is not among the phases in export!")]
fn a_phase_that_is_not_exported_cannot_be_called() {
    let probe = configure::<Probe>("{}").unwrap();
    let _ = probe.select(&mut Exchange::new("GET", "/"));
}

#[test]
fn a_configuration_may_be_refused() {
    let refusal = configure::<Probe>("1").err();
    assert_eq!(refusal.as_deref(), Some("not a configuration: 1"));
}

#[test]
fn hmac_is_that_of_rfc_4231() {
    // Test case 2.
    let key = Key::Bytes(b"Jefe".to_vec());
    let data = b"what do ya want for nothing?";
    let mac = crypto::hmac(DigestAlgorithm::Sha256, &key, data).unwrap();
    let hex: String = mac.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(
        hex,
        "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
    );
    assert_eq!(
        crypto::verify(SignatureAlgorithm::Hs256, &key, data, &mac),
        Ok(true)
    );
}
