//! The table against a search that looks at every rule of every route.

use super::*;
use crate::config::route::PathMatch;
use crate::config::route::RuleSpec;

/// The documented precedence, least first.
fn rank(rule: &RuleSpec) -> (u8, usize, bool, usize, usize) {
    let matches = &rule.matches;
    let (kind, len) = match &matches.path {
        PathMatch::Prefix(path) => (0, path.len()),
        PathMatch::Regex(regex) => (1, regex.as_str().len()),
        PathMatch::Exact(path) => (2, path.len()),
    };
    let has_method = !matches.methods.is_empty();
    (
        kind,
        len,
        has_method,
        matches.headers.len(),
        matches.query.len(),
    )
}

/// As it was sent, and as a server reads it that decodes, cuts parameters off and merges slashes.
fn readings(path: &str) -> [String; 2] {
    let decoded = path.replace("%40", "@");
    let mut names: Vec<&str> = decoded.split('/').collect();
    for name in &mut names {
        *name = name.split(';').next().unwrap();
    }
    let last = names.len() - 1;
    let mut position = 0;
    names.retain(|name| {
        position += 1;
        position == 1 || position > last || !name.is_empty()
    });
    [path.to_owned(), names.join("/")]
}

fn accepts(rule: &RuleSpec, request: &RequestHead) -> bool {
    let readings = readings(request.path.path());
    readings
        .iter()
        .any(|path| accepts_path(rule, request, path))
}

fn accepts_path(rule: &RuleSpec, request: &RequestHead, path: &str) -> bool {
    let elements = |text: &str| text.split('/').map(str::to_owned).collect::<Vec<_>>();
    let is_path = match &rule.matches.path {
        PathMatch::Exact(exact) => path == exact,
        PathMatch::Prefix(prefix) => elements(path).starts_with(&elements(prefix.as_str())),
        PathMatch::Regex(regex) => regex.is_match(path),
    };
    let methods = &rule.matches.methods;
    is_path && (methods.is_empty() || methods.contains(&request.method))
}

/// Exact hosts before wildcards; routes without hosts if none of those accepts.
fn plain_search(routes: &[Arc<RouteSpec>], request: &RequestHead) -> Option<RuleId> {
    let host = request.authority.host();
    let named = |is_named: &dyn Fn(&Hostname) -> bool| {
        let routes = routes.iter().enumerate();
        routes
            .filter(|(_, route)| route.hosts.iter().any(is_named))
            .collect::<Vec<_>>()
    };
    let exact = named(&|name| matches!(name, Hostname::Exact(_)) && name.matches(host));
    let wildcard = named(&|name| matches!(name, Hostname::Wildcard(_)) && name.matches(host));
    let of_host = if exact.is_empty() { wildcard } else { exact };
    let without = routes.iter().enumerate();
    let without = without
        .filter(|(_, route)| route.hosts.is_empty())
        .collect();
    [of_host, without]
        .iter()
        .find_map(|routes| best(routes, request))
}

fn best(routes: &[(usize, &Arc<RouteSpec>)], request: &RequestHead) -> Option<RuleId> {
    let mut best: Option<(_, RuleId)> = None;
    for (route_index, route) in routes {
        for (rule_index, rule) in route.rules.iter().enumerate() {
            let rank = rank(rule);
            // Of equals, the first.
            if accepts(rule, request) && best.is_none_or(|(other, _)| rank > other) {
                let id = RuleId {
                    route: *route_index as u32,
                    rule: rule_index as u32,
                };
                best = Some((rank, id));
            }
        }
    }
    best.map(|(_, id)| id)
}

fn any_hosts() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "",
        "hosts = ['a.test']",
        "hosts = ['b.a.test']",
        "hosts = ['*.a.test']",
        "hosts = ['*.test', 'b.a.test']",
    ])
}

fn any_table() -> impl Strategy<Value = Vec<(&'static str, Vec<String>)>> {
    // Up to more rules than are looked at one by one.
    let route = (any_hosts(), prop::collection::vec(any_rule(), 1..14));
    prop::collection::vec(route, 1..6)
}

fn table_of(routes: &[(&str, Vec<String>)]) -> String {
    let route = |(hosts, rules): &(&str, Vec<String>)| {
        format!("[[routes]]\n{hosts}\nrules = [{}]\n", rules.join(",\n"))
    };
    routes.iter().map(route).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn the_table_agrees_with_a_look_at_every_rule(
        table in any_table(),
        paths in prop::collection::vec(any_target(), 1..8),
    ) {
        let routes = routes(&table_of(&table));
        let built = RouteTable::new(&routes);
        for path in paths {
            for host in ["a.test", "b.a.test", "c.b.a.test", "x.test", "other"] {
                for method in ["GET", "POST", "PUT"] {
                    let request = request(method, host, &path, &[]);
                    prop_assert_eq!(
                        built.find(&request),
                        plain_search(&routes, &request),
                        "{} {} {}", method, host, path
                    );
                }
            }
        }
    }

    #[test]
    fn the_order_of_rules_decides_between_equals_only(
        rules in prop::collection::vec(any_rule(), 1..20),
        path in any_path(),
    ) {
        let forth = routes(&format!("[[routes]]\nrules = [{}]", rules.join(",")));
        let back: Vec<&str> = rules.iter().rev().map(String::as_str).collect();
        let back = routes(&format!("[[routes]]\nrules = [{}]", back.join(",")));
        let request = request("GET", "x.test", &path, &[]);
        let found = |routes: &[Arc<RouteSpec>]| {
            let id = RouteTable::new(routes).find(&request)?;
            Some(rank(&routes[id.route as usize].rules[id.rule as usize]))
        };
        prop_assert_eq!(found(&forth), found(&back));
    }
}
