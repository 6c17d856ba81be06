//! Precedence, host selection, and that the index agrees with a plain search.

use http::HeaderMap;
use http::HeaderValue;
use http::Method;
use proptest::prelude::*;

use super::*;
use crate::config::parse::parse;
use crate::config::problem::ConfigText;
use crate::hostname::Authority;
use crate::path::EncodedSlash;
use crate::path::RequestPath;

mod properties;

fn routes(text: &str) -> Vec<Arc<RouteSpec>> {
    let text = format!("upstreams.u.endpoints = ['127.0.0.1:1']\n{text}");
    let source = ConfigText {
        path: "test.toml".into(),
        text,
    };
    match parse(&[source]) {
        Ok(loaded) => loaded.config.routes,
        Err(problems) => panic!("{problems:#?}"),
    }
}

fn request(
    method: &str,
    host: &str,
    target: &str,
    fields: &[(&'static str, &'static str)],
) -> RequestHead {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(*name, HeaderValue::from_static(value));
    }
    RequestHead {
        method: method.parse().unwrap(),
        authority: Authority::parse(&HeaderValue::from_str(host).unwrap()).unwrap(),
        path: RequestPath::from_text(target, EncodedSlash::Reject).unwrap(),
        headers,
        ..RequestHead::default()
    }
}

#[test]
fn a_path_is_guarded_as_a_lenient_server_reads_it() {
    let few = "[[routes]]
        rules = [
          { upstream = 'u' },
          { path.prefix = '/x', upstream = 'u' },
          { path.prefix = '/x/y', upstream = 'u' },
          { path.exact = '/z', upstream = 'u' },
          { path.exact = '/z;v=2', upstream = 'u' },
          { path.regex = '/r/[0-9]+', upstream = 'u' },
          { path.prefix = '/@company', upstream = 'u' },
          { path.prefix = '/a/b$(c)[1]', upstream = 'u' },
          { path.prefix = '/%C3%A4', upstream = 'u' },
        ";
    // With an index, and without.
    let more: String = (0..20)
        .map(|n| format!("{{ path.prefix = '/n{n}', upstream = 'u' }},\n"))
        .collect();
    for text in [format!("{few}]"), format!("{few}{more}]")] {
        let routes = routes(&text);
        let table = RouteTable::new(&routes);
        for (target, want) in [
            ("/x;a/b", 1),
            ("/x;a=1", 1),
            ("/x%3ba/b", 1),
            ("/x%3Ba;c/y", 2),
            ("/x%3Fa", 1),
            ("/x%23a/y", 2),
            ("/x;a/y;b", 2),
            ("/xy;a", 0),
            ("/;x/x", 1),
            ("/;/x/y", 2),
            ("/x/;/y/%3B/z", 2),
            ("/;x", 0),
            ("/z/;v=1", 0),
            ("/z;v=1", 3),
            ("/z;v=2", 4),
            ("/r/12;v=1", 5),
            ("/@company/pkg", 6),
            ("/%40company/pkg", 6),
            ("/;/%40company%3Ba/pkg", 6),
            ("/%2540company/pkg", 0),
            ("/a/b%24%28c)%5b1%5D", 7),
            ("/%c3%a4/x", 8),
        ] {
            let request = request("GET", "a.test", target, &[]);
            let found = table.find(&request).map(|id| id.rule);
            assert_eq!(found, Some(want), "{target}");
            let explained = table.explain(&request);
            assert_eq!(explained.winner().map(|id| id.rule), Some(want), "{target}");
        }
    }
}

#[test]
fn the_most_specific_rule_wins() {
    // Listed from worst to best, so that a lookup which ignores rank fails.
    let routes = routes(
        "[[routes]]
        rules = [
          { upstream = 'u' },
          { path.prefix = '/shop', upstream = 'u' },
          { path.prefix = '/shop', upstream = 'u', query = [{ name = 'v', exact = '2' }] },
          { path.prefix = '/shop', upstream = 'u', headers = [{ name = 'x-v', exact = '2' }] },
          { path.prefix = '/shop', upstream = 'u', methods = ['POST'] },
          { path.prefix = '/shop/cart', upstream = 'u' },
          { path.regex = '/shop/[0-9]+', upstream = 'u' },
          { path.regex = '/shop/[0-9]{3,}', upstream = 'u' },
          { path.exact = '/shop/123', upstream = 'u' },
        ]",
    );
    let table = RouteTable::new(&routes);
    let v = ("x-v", "2");
    let cases: [(&str, &str, &[(&'static str, &'static str)], u32, &str); 11] = [
        ("GET", "/", &[], 0, "only the root prefix matches"),
        ("GET", "/shopping", &[], 0, "a prefix ends at an element"),
        ("GET", "/shop", &[], 1, "the longer prefix wins"),
        ("GET", "/shop/x", &[], 1, "a prefix covers what is below"),
        (
            "GET",
            "/shop?v=2",
            &[],
            2,
            "a query condition breaks the tie",
        ),
        (
            "GET",
            "/shop?v=2",
            &[v],
            3,
            "a header counts more than a query",
        ),
        (
            "POST",
            "/shop?v=2",
            &[v],
            4,
            "a method counts more than a header",
        ),
        (
            "POST",
            "/shop/cart/1",
            &[v],
            5,
            "a longer prefix counts more than a method",
        ),
        (
            "GET",
            "/shop/12",
            &[],
            6,
            "a regular expression beats a prefix",
        ),
        (
            "GET",
            "/shop/1234",
            &[],
            7,
            "the longer regular expression wins",
        ),
        ("GET", "/shop/123", &[], 8, "an exact path beats everything"),
    ];
    for (method, target, fields, want, why) in cases {
        let got = table.find(&request(method, "a.test", target, fields));
        assert_eq!(
            got.map(|id| id.rule),
            Some(want),
            "{method} {target}: {why}"
        );
    }
}

#[test]
fn the_host_decides_first() {
    let routes = routes(
        "routes = [
          { name = 'any', rules = [{ path.prefix = '/', upstream = 'u' }] },
          { name = 'wild', hosts = ['*.a.test'], rules = [{ path.prefix = '/', upstream = 'u' }] },
          { name = 'exact', hosts = ['b.a.test'], rules = [{ path.prefix = '/x', upstream = 'u' }] },
        ]",
    );
    let table = RouteTable::new(&routes);
    let cases = [
        ("b.a.test", "/x", 2, "an exact host beats a wildcard"),
        (
            "b.a.test",
            "/y",
            0,
            "what the host's rules refuse goes to the default, not to the wildcard",
        ),
        ("c.a.test", "/x", 1, "a wildcard covers one label"),
        ("d.c.a.test", "/x", 0, "and not two"),
        ("a.test", "/x", 0, "nor none"),
    ];
    for (host, target, want, why) in cases {
        let got = table.find(&request("GET", host, target, &[]));
        assert_eq!(got.map(|id| id.route), Some(want), "{host}{target}: {why}");
    }
}

#[test]
fn an_explanation_ends_at_the_rule_that_answers() {
    let routes = routes(
        "[[routes]]
        hosts = ['a.test']
        rules = [
          { path.prefix = '/', upstream = 'u' },
          { path.exact = '/x', upstream = 'u', methods = ['POST'] },
          { path.exact = '/x', upstream = 'u', headers = [{ name = 'x-v', present = true }] },
        ]",
    );
    let table = RouteTable::new(&routes);
    let request = request("GET", "a.test", "/x", &[]);
    let explanation = table.explain(&request);
    let shown: Vec<_> = explanation
        .candidates
        .iter()
        .map(|c| (c.id.rule, c.mismatch.map(|m| m.to_string())))
        .collect();
    assert_eq!(
        shown,
        [
            (1, Some("method".to_owned())),
            (2, Some("header x-v present".to_owned())),
            (0, None),
        ]
    );
    assert_eq!(explanation.winner(), table.find(&request));
}

fn element() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["a", "b", "ab", "c.d", "@"]).prop_map(str::to_owned)
}

fn any_path() -> impl Strategy<Value = String> {
    prop::collection::vec(element(), 0..5).prop_map(|parts| format!("/{}", parts.join("/")))
}

/// What is asked for, with parameters and escapes here and there.
fn any_target() -> impl Strategy<Value = String> {
    let parameter = prop::sample::select(vec!["", "", "", ";", ";v=1"]);
    let element = prop_oneof![
        4 => (element(), parameter).prop_map(|(name, parameter)| name + parameter),
        1 => Just(";v".to_owned()),
        1 => Just("%40".to_owned()),
    ];
    prop::collection::vec(element, 0..5).prop_map(|parts| format!("/{}", parts.join("/")))
}

fn any_rule() -> impl Strategy<Value = String> {
    let method = prop::sample::select(vec!["", ", methods = ['GET']", ", methods = ['POST']"]);
    let kind = prop::sample::select(vec!["exact", "prefix", "regex"]);
    (kind, any_path(), method).prop_map(|(kind, path, method)| {
        format!("{{ path.{kind} = '{path}', upstream = 'u'{method} }}")
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn the_index_agrees_with_a_plain_search(
        rules in prop::collection::vec(any_rule(), 1..40),
        paths in prop::collection::vec(any_path(), 1..10),
    ) {
        let routes = routes(&format!("[[routes]]\nrules = [{}]", rules.join(",\n")));
        let table = RouteTable::new(&routes);
        for path in paths {
            let request = RequestHead { method: Method::GET, ..request("GET", "x.test", &path, &[]) };
            prop_assert_eq!(table.find(&request), table.explain(&request).winner(), "{}", path);
        }
    }
}
