//! Every problem, at its own text. The fixtures under `tests/` go through the program; what is
//! here needs a look at the value.

use super::*;

fn file(name: &str, text: &str) -> ConfigText {
    ConfigText {
        path: name.into(),
        text: text.to_owned(),
    }
}

fn problems(text: &str) -> Vec<(usize, usize, String)> {
    parse(&[file("a.toml", text)])
        .unwrap_err()
        .into_iter()
        .map(|p| (p.origin.line, p.origin.column, p.message))
        .collect()
}

#[test]
fn all_problems_of_a_file_are_reported_at_once() {
    let text = "\
[listeners.web]
bind = 'nowhere'
colour = 'red'
[upstreams.app]
endpoints = []
timeouts.connect = '5'
[[routes]]
hosts = ['a b']
rules = [{ upstream = 'ap', path.prefix = 'x' }]
[[routes]]
rules = 5
";
    let got = problems(text);
    let want = [
        (2, 8, "'nowhere' is no address with port"),
        (3, 1, "unknown key 'colour' in listeners.web"),
        (5, 13, "an upstream has at least one endpoint"),
        (6, 20, "'5' is no duration: it ends with a unit"),
        (8, 10, "'a b' is no host name"),
        (9, 23, "there is no upstream 'ap'"),
        (9, 43, "'x' is no path"),
        (11, 9, "routes[1].rules must be an array, not an integer"),
    ];
    assert_eq!(got.len(), want.len(), "{got:#?}");
    for ((line, column, message), (want_line, want_column, start)) in got.iter().zip(want) {
        assert_eq!((*line, *column), (want_line, want_column), "{message}");
        assert!(message.starts_with(start), "{message}\nwanted {start}");
    }
}

#[test]
fn files_are_one_configuration() {
    let main = file(
        "etc/main.toml",
        "[upstreams.a]\nendpoints = ['127.0.0.1:1']\n[certificates.c]\ncert-file = 'c.pem'\nkey-file = '/k.pem'",
    );
    let extra = file(
        "etc/routes.d/x.toml",
        "[[routes]]\nrules = [{ upstream = 'a' }]",
    );
    let loaded = parse(&[main.clone(), extra]).unwrap();
    assert_eq!(loaded.config.routes[0].name.as_str(), "default");
    let certificate = loaded.config.certificates.values().next().unwrap();
    assert_eq!(certificate.cert_file, Path::new("etc/c.pem"));
    assert_eq!(certificate.key_file, Path::new("/k.pem"));

    let twice = file(
        "etc/routes.d/y.toml",
        "[upstreams.a]\nendpoints = ['127.0.0.1:2']\n[admin]",
    );
    let got = parse(&[main, twice]).unwrap_err();
    let messages: Vec<_> = got.iter().map(|p| p.message.as_str()).collect();
    assert_eq!(
        messages,
        [
            "the upstream 'a' is declared twice",
            "[admin] belongs into the main file"
        ]
    );
    assert_eq!(
        got[0].help.as_deref(),
        Some("the first one is at etc/main.toml:1:12")
    );
}

#[test]
fn a_part_that_cannot_be_read_is_still_declared() {
    let text = "[upstreams.a]\nendpoints = 5\n[[routes]]\nrules = [{ upstream = 'a' }]";
    let got = problems(text);
    assert_eq!(got.len(), 1, "{got:?}");
}

#[test]
fn equal_files_give_equal_configurations() {
    let text = "[upstreams.a]\nendpoints = ['127.0.0.1:1']\n[[routes]]\nrules = [{ upstream = 'a', path.regex = '/x.*' }]";
    let one = parse(&[file("a.toml", text)]).unwrap();
    let two = parse(&[file("a.toml", &format!("# moved\n{text}"))]).unwrap();
    assert_eq!(one.config, two.config);
    assert_ne!(one.origins, two.origins);
}

#[test]
fn a_rule_that_never_answers_is_pointed_out() {
    let text = "[upstreams.a]\nendpoints = ['127.0.0.1:1']\n[[routes]]\nrules = [{ upstream = 'a' }, { upstream = 'a' }]";
    let loaded = parse(&[file("a.toml", text)]).unwrap();
    assert_eq!(loaded.warnings.len(), 1, "{:?}", loaded.warnings);
    assert!(loaded.warnings[0].message.contains("a.toml:4:10"));
}

#[test]
fn nothing_in_a_file_panics() {
    let texts = [
        "\u{feff}",
        "a = [[[[[[[[[[",
        "[listeners]\nx = 1",
        "listeners = []",
        "routes = 'x'",
        "[[routes]]\nrules = [{}]",
        "[plugins.p]\nsource = 'x'\nconfig = { d = 1979-05-27 }",
        "x = 99999999999999999999999",
        "a.b.c.d = 1\na.b = 2",
    ];
    for text in texts {
        let _ = parse(&[file("a.toml", text)]);
    }
    let deep = format!(
        "[plugins.p]\nsource = 'x'\nconfig.a = {}1{}",
        "[".repeat(5000),
        "]".repeat(5000)
    );
    assert!(parse(&[file("a.toml", &deep)]).is_err());
}
