use postern_plugin::mock;
use postern_plugin::mock::Exchange;

use super::*;

/// ann: secret, bob: secret.
const USERS: &str = "# staff\n\
    bob:$6$abcdefgh$ltjgWl6579NluT/Vi1nwEvcil.G5Nbc4NiXZaNGStk8PSwGfQv72N2CKPPrVACtLtip/cZ/1GM/O6IND4WQhG.\n\
    \n\
    ann:$5$abcdefgh$gruCpC7VkOTspMQTTSAR8mtlO9Upms.fwqE5y16JVM.\n";

fn configured(users: &str, config: &str) -> Result<mock::Configured<BasicAuth>, String> {
    mock::gateway(|gateway| {
        gateway.secrets.insert("users".to_owned(), users.into());
    });
    mock::configure(config)
}

fn basic(credentials: &str) -> String {
    format!("Basic {}", STANDARD.encode(credentials))
}

fn send(plugin: &mock::Configured<BasicAuth>, authorization: &str) -> (Action, Exchange) {
    let mut exchange = Exchange::new("GET", "/")
        .header("authorization", authorization)
        .header("x-user", "root");
    (plugin.on_request(&mut exchange).unwrap(), exchange)
}

#[test]
fn a_known_user_passes_and_is_named() {
    let plugin = configured(USERS, r#"{ "user-header": "X-User" }"#).unwrap();
    for user in ["ann", "bob", "ann"] {
        let (action, exchange) = send(&plugin, &basic(&format!("{user}:secret")));
        assert_eq!(action, Action::Next, "{user}");
        assert_eq!(exchange.request.all("x-user").collect::<Vec<_>>(), [user]);
        assert_eq!(exchange.request.get("authorization"), None);
    }
    let plugin = configured(USERS, r#"{ "keep-credentials": true }"#).unwrap();
    let (action, exchange) = send(&plugin, &basic("ann:secret"));
    assert_eq!(action, Action::Next);
    assert!(exchange.request.get("authorization").is_some());
}

#[test]
fn anybody_else_is_asked() {
    let plugin = configured(USERS, r#"{ "realm": "staff", "user-header": "x-user" }"#).unwrap();
    // With the right one remembered, a wrong one is still wrong.
    assert_eq!(send(&plugin, &basic("ann:secret")).0, Action::Next);
    let long = basic(&format!("ann:{}", "x".repeat(100_000)));
    let cases = [
        basic("ann:Secret"),
        basic("ann:"),
        basic(":secret"),
        basic("eve:secret"),
        basic("ann"),
        "Basic".to_owned(),
        "Basic !!!".to_owned(),
        format!("Basic {}", STANDARD.encode(b"\xff\xfe:x")),
        "Bearer YW5uOnNlY3JldA==".to_owned(),
        format!("{}, {}", basic("ann:secret"), basic("ann:secret")),
        long,
        String::new(),
    ];
    for authorization in cases {
        let (action, exchange) = send(&plugin, &authorization);
        let Action::Respond(reply) = action else {
            panic!("{authorization}: {action:?}");
        };
        assert_eq!(reply.status, 401);
        let challenge = "Basic realm=\"staff\", charset=\"UTF-8\"".to_owned();
        assert!(
            reply
                .headers
                .contains(&("www-authenticate".to_owned(), challenge))
        );
        assert_eq!(exchange.request.get("x-user"), None);
    }
}

#[test]
fn guesses_are_told_once() {
    let plugin = configured(USERS, "{}").unwrap();
    for guess in 0..3 {
        send(&plugin, &basic(&format!("ann:{guess}")));
    }
    let logs = mock::gateway(|gateway| std::mem::take(&mut gateway.logs));
    assert_eq!(logs.len(), 1, "{logs:?}");
    assert_eq!(logs[0].fields, [("user".to_owned(), "ann".to_owned())]);
}

#[test]
fn users_that_cannot_be_meant_are_refused_without_being_shown() {
    let cases = [
        ("", "no user in it"),
        ("# nobody\n", "no user in it"),
        ("ann\n", "line 1: must be NAME:HASH"),
        (":x\n", "line 1: must be NAME:HASH"),
        ("ann :x\n", "line 1: the name has"),
        ("a\tn:x\n", "line 1: the name has"),
        ("\nann:hunter2\n", "line 2: not a hash"),
        ("ann:$apr1$x$y\n", "line 1: not a hash"),
        ("ann:$2y$05$hunter2\n", "line 1: bcrypt"),
        (
            "ann:$5$abcdefgh$gruCpC7VkOTspMQTTSAR8mtlO9Upms.fwqE5y16JVM.\n\
             ann:$5$abcdefgh$gruCpC7VkOTspMQTTSAR8mtlO9Upms.fwqE5y16JVM.",
            "\"ann\" is there twice",
        ),
    ];
    for (users, want) in cases {
        let refusal = configured(users, "{}").err().unwrap();
        assert!(refusal.contains(want), "{users}: {refusal}");
        assert!(!refusal.contains("hunter2"), "{refusal}");
    }
    let refusal = configured(USERS, r#"{ "users": "staff" }"#).err().unwrap();
    assert!(refusal.contains("grants.secrets.staff"), "{refusal}");
    let refusal = configured(USERS, r#"{ "realm": "a\"b", "relm": "" }"#)
        .err()
        .unwrap();
    assert!(
        refusal.contains("realm: must be ASCII without quotes"),
        "{refusal}"
    );
    assert!(refusal.contains("relm: is not known"), "{refusal}");
}
