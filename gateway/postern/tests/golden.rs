//! What the commands print, held against files: every wrong configuration with every word that is
//! said about it, and every explained request.
//!
//! The built binary runs in `tests/fixtures`, so that file names in its output are the same on
//! every machine. `UPDATE_GOLDEN=1 cargo test -p postern --test golden` writes the files anew; read
//! the difference before committing it.
#![cfg(test)]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

/// Wrong configurations that there are at least: a guard against a directory that is not found.
const LEAST_CHECKS: usize = 45;
const LEAST_CASES: usize = 12;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn fixtures() -> PathBuf {
    root().join("tests/fixtures")
}

/// Everything that a command says: both outputs and the exit code.
fn postern(dir: &Path, args: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_postern"))
        .args(args)
        .current_dir(dir)
        .env_remove("POSTERN_LOG")
        .output()
        .unwrap();
    let out = String::from_utf8(output.stdout).unwrap();
    let err = String::from_utf8(output.stderr).unwrap();
    format!("{err}{out}exit {}\n", output.status.code().unwrap())
}

/// Compares with the file, or writes it. Returns what is wrong.
fn differs(path: &Path, got: &str) -> Option<String> {
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(path, got).unwrap();
        return None;
    }
    let want = fs::read_to_string(path).unwrap_or_default();
    let name = path.file_name().unwrap().to_string_lossy();
    (want != got).then(|| format!("--- {name}, expected\n{want}--- got\n{got}"))
}

/// The files of a directory with this ending, by name, without it.
fn names(dir: &Path, ending: &str) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names
        .filter_map(|name| name.strip_suffix(ending).map(str::to_owned))
        .collect();
    names.sort();
    names
}

/// A checkout does not keep who may read a key, and that is warned of.
fn protect_keys() {
    for name in names(&fixtures().join("certs"), ".key") {
        let path = fixtures().join("certs").join(name + ".key");
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    }
}

#[test]
fn every_wrong_configuration_is_explained() {
    protect_keys();
    let dir = fixtures().join("check");
    let files = names(&dir, ".toml").into_iter();
    let files = files.map(|name| (format!("check/{name}.toml"), name));
    let folders = names(&dir, ".folder").into_iter();
    let folders = folders.map(|name| (format!("check/{name}.folder/postern.toml"), name));
    let mut wrong = 0;
    let mut differences = Vec::new();
    for (file, name) in files.chain(folders) {
        let got = postern(&fixtures(), &["check", &file]);
        wrong += usize::from(got.ends_with("exit 1\n"));
        let is_good = name.contains("good") || name.starts_with("warning-");
        assert_eq!(got.ends_with("exit 0\n"), is_good, "{name}:\n{got}");
        differences.extend(differs(&dir.join(name + ".expected"), &got));
    }
    assert!(wrong >= LEAST_CHECKS, "only {wrong} wrong configurations");
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
fn every_manifest_is_judged() {
    let dir = fixtures().join("manifests");
    let names = names(&dir, ".yaml");
    assert!(names.len() >= 2, "{names:?}");
    let mut differences = Vec::new();
    for name in names {
        let file = format!("manifests/{name}.yaml");
        let mut got = postern(&fixtures(), &["check", &file]);
        assert_eq!(
            got.ends_with("exit 0\n"),
            name.starts_with("good-"),
            "{name}:\n{got}"
        );
        if got.ends_with("exit 0\n") {
            got.push_str(&postern(&fixtures(), &["check", "--print", &file]));
        }
        differences.extend(differs(&dir.join(name + ".expected"), &got));
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
fn every_request_is_explained() {
    let dir = fixtures().join("explain");
    let mut asked = 0;
    let mut differences = Vec::new();
    for name in names(&dir, ".cases") {
        let config = format!("explain/{name}.toml");
        let cases = fs::read_to_string(dir.join(name.clone() + ".cases")).unwrap();
        let mut got = String::new();
        for case in cases.lines().filter(|line| !line.is_empty()) {
            let words = words(case);
            let words = words.iter().map(String::as_str);
            let args: Vec<&str> = ["explain", "--config", &config]
                .into_iter()
                .chain(words)
                .collect();
            got.push_str(&format!("$ {case}\n{}\n", postern(&fixtures(), &args)));
            asked += 1;
        }
        differences.extend(differs(&dir.join(name + ".expected"), &got));
    }
    assert!(asked >= LEAST_CASES, "only {asked} requests");
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
fn answers_for_programs_keep_their_form() {
    protect_keys();
    let json = |args: &[&str]| {
        let args: Vec<&str> = args.iter().copied().chain(["--format", "json"]).collect();
        postern(&fixtures(), &args)
    };
    let explain =
        |method: &str, url: &str| json(&["explain", "--config", "explain/shop.toml", method, url]);
    let got = [
        explain("POST", "https://shop.test/api/orders?dry=1"),
        explain("GET", "http://shop.test/../x"),
        explain("GET", "http://elsewhere.test/"),
        json(&["check", "check/unit-sizes.toml", "check/good-small.toml"]),
        json(&["check", "--print", "check/good-small.toml"]),
        postern(&fixtures(), &["check", "--print", "check/good-small.toml"]),
    ];
    let difference = differs(&fixtures().join("explain/json.expected"), &got.concat());
    assert!(difference.is_none(), "{}", difference.unwrap_or_default());
}

#[test]
fn what_is_shipped_is_good() {
    let got = postern(&root(), &["check", "config/postern.toml"]);
    assert!(
        got.ends_with("exit 0\n") && !got.contains("warning"),
        "{got}"
    );
    // Certificates and plugins of an example are made by its own commands, so its text alone counts.
    for example in fs::read_dir(root().join("examples")).unwrap() {
        let file = example.unwrap().path().join("postern.toml");
        if file.exists() {
            let config = file.to_str().unwrap();
            let got = postern(
                &root(),
                &["explain", "--config", config, "GET", "http://a.test/"],
            );
            assert!(got.ends_with("exit 0\n"), "{config}:\n{got}");
        }
    }
}

#[test]
fn a_key_that_all_may_read_is_warned_of() {
    let dir = std::env::temp_dir().join(format!("postern-golden-{}", std::process::id()));
    fs::create_dir_all(&dir).unwrap();
    for name in ["shop.pem", "shop.key"] {
        fs::copy(fixtures().join("certs").join(name), dir.join(name)).unwrap();
    }
    let mode = fs::Permissions::from_mode(0o644);
    fs::set_permissions(dir.join("shop.key"), mode).unwrap();
    let text = "[certificates.shop]\ncert-file = \"shop.pem\"\nkey-file = \"shop.key\"\n";
    fs::write(dir.join("a.toml"), text).unwrap();
    let got = postern(&dir, &["check", "a.toml"]);
    fs::remove_dir_all(&dir).unwrap();
    assert!(got.contains("a.toml:3:12: warning: every user"), "{got}");
    assert!(got.contains("help: chmod o= shop.key"), "{got}");
    assert!(got.ends_with("exit 0\n"), "{got}");
}

#[test]
fn what_is_not_understood_exits_with_2_and_what_is_not_there_with_1() {
    let cases: [(&[&str], i32); 9] = [
        (&["check"], 2),
        (&["check", "--colour", "x.toml"], 2),
        (&["explain", "GET"], 2),
        (&["nothing"], 2),
        (&["run", "--accept-for", "5"], 2),
        (&["check", "nowhere.toml"], 1),
        (&["run", "--config", "nowhere.toml"], 1),
        (&["plugin", "inspect", "plugins/nowhere.wasm"], 1),
        (&["plugin", "inspect", "plugins/core-module.wasm"], 1),
    ];
    for (args, code) in cases {
        let got = postern(&fixtures(), args);
        assert!(got.ends_with(&format!("exit {code}\n")), "{args:?}:\n{got}");
    }
    for args in [
        &["--help"][..],
        &["run", "--help"],
        &["--version"],
        &["version"],
        &["schema"],
    ] {
        let got = postern(&fixtures(), args);
        assert!(got.ends_with("exit 0\n"), "{args:?}:\n{got}");
    }
}

/// Splits a line as a shell does, as far as single quotes go.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut is_quoted = false;
    for c in line.chars() {
        match c {
            '\'' => {
                is_quoted = !is_quoted;
                word.get_or_insert_default();
            }
            ' ' if !is_quoted => words.extend(word.take()),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}
