//! What holds of any fields: of one connection none are left, and a client cannot say who it is.

use proptest::prelude::*;

use super::*;

fn any_name() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "accept",
        "connection",
        "keep-alive",
        "te",
        "trailer",
        "upgrade",
        "proxy-connection",
        "transfer-encoding",
        "x-a",
        "x-b",
        "x-forwarded-for",
        "set-cookie",
    ])
}

fn any_value() -> impl Strategy<Value = String> {
    "(close|x-a|X-B|keep-alive|accept|set-cookie|@|,| ){0,6}"
}

fn any_fields() -> impl Strategy<Value = HeaderMap> {
    prop::collection::vec((any_name(), any_value()), 0..12).prop_map(|fields| {
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            map.append(name, HeaderValue::try_from(value).unwrap());
        }
        map
    })
}

fn nominated(fields: &HeaderMap) -> Vec<String> {
    let values = fields.get_all(header::CONNECTION).iter();
    values
        .flat_map(|value| value.to_str().unwrap_or_default().split(','))
        .map(|token| token.trim().to_lowercase())
        .collect()
}

fn any_addr() -> impl Strategy<Value = String> {
    prop::sample::select(vec![
        "10.0.0.1",
        "10.9.9.9",
        "203.0.113.7",
        "6.6.6.6",
        "[2001:db8::1]:443",
        "nonsense",
        "",
        "::1",
    ])
    .prop_map(str::to_owned)
}

proptest! {
    #[test]
    fn nothing_of_a_connection_is_left_and_nothing_else_is_taken(before in any_fields()) {
        let named = nominated(&before);
        let mut after = before.clone();
        remove_hop_by_hop(&mut after);
        for name in after.keys() {
            prop_assert!(!is_of_connection(name) && *name != header::CONNECTION, "{}", name);
        }
        for (name, _) in &before {
            let is_passed = FieldKind::of(name.as_str()) == FieldKind::EndToEnd;
            if is_passed {
                let goes = named.contains(&name.as_str().to_owned());
                prop_assert_eq!(after.contains_key(name), !goes, "{}", name);
            }
            // Ours to write, whatever the other side nominates.
            if *name == X_FORWARDED_FOR {
                prop_assert!(after.contains_key(name));
            }
        }
        let mut again = after.clone();
        remove_hop_by_hop(&mut again);
        prop_assert_eq!(after, again);
    }

    #[test]
    fn a_request_keeps_none_of_what_its_connection_names(before in any_fields()) {
        let named = nominated(&before);
        let mut after = before.clone();
        if remove_nominated(&mut after).is_err() {
            return Ok(());
        }
        for (name, _) in &before {
            if FieldKind::of(name.as_str()) == FieldKind::EndToEnd {
                let goes = named.contains(&name.as_str().to_owned());
                prop_assert_eq!(after.contains_key(name), !goes, "{}", name);
            }
        }
    }

    #[test]
    fn what_an_untrusted_client_puts_in_front_changes_nobody(
        invented in prop::collection::vec(any_addr(), 0..4),
        said in prop::collection::vec(any_addr(), 0..6),
        lines in 1_usize..3,
    ) {
        let trusted = TrustedProxies::new(vec!["10.0.0.0/8".parse().unwrap()]);
        let peer = "10.0.0.1".parse().unwrap();
        let fields = |entries: &[String]| {
            let mut map = HeaderMap::new();
            for line in entries.chunks(entries.len().div_ceil(lines).max(1)) {
                map.append(X_FORWARDED_FOR, HeaderValue::try_from(line.join(", ")).unwrap());
            }
            map
        };
        let client = trusted.client(peer, &fields(&said));
        // The chain stops where trust does, so all that stands left of it is heard by nobody.
        if !trusted.contains(client) {
            let longer: Vec<String> = invented.into_iter().chain(said).collect();
            prop_assert_eq!(trusted.client(peer, &fields(&longer)), client);
        }
    }
}
