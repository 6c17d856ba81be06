//! The built program: start, live reload, signals, admin listener.
//!
//! Every step waits for what the program logs or answers, never for time to pass.
#![cfg(test)]

use std::cell::RefCell;
use std::fs;
use std::io::BufRead as _;
use std::io::BufReader;
use std::io::Read as _;
use std::io::Write as _;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::time::Duration;

use tokio::time::Instant;

/// Longest wait for one step, on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running gateway in a directory of its own.
struct Program {
    dir: PathBuf,
    child: Child,
    log: mpsc::Receiver<String>,
    /// What was logged and read so far.
    seen: RefCell<Vec<String>>,
    http: SocketAddr,
    admin: SocketAddr,
}

const MAIN: &str = r#"
[runtime]
workers = 1
[access-log]
format = "off"
[admin]
bind = "127.0.0.1:0"
[listeners.http]
bind = "127.0.0.1:0"
"#;

fn answering(body: &str) -> String {
    format!("{MAIN}[[routes]]\nrules = [{{ respond = {{ status = 200, body = \"{body}\" }} }}]\n")
}

/// A configuration that answers `one`.
fn one(dir: &Path) {
    fs::write(dir.join("postern.toml"), answering("one")).unwrap();
}

impl Program {
    fn start(prepare: impl FnOnce(&Path), args: &[&str]) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("postern-program-{}-{number}", std::process::id());
        let dir = std::env::temp_dir().join(name);
        fs::create_dir_all(&dir).unwrap();
        prepare(&dir);
        let mut child = Command::new(env!("CARGO_BIN_EXE_postern"))
            .args(["run", "--config", "postern.toml", "--log-format", "json"])
            .args(args)
            .current_dir(&dir)
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let (send, log) = mpsc::channel();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let _ = send.send(line);
            }
        });
        let anywhere = "0.0.0.0:0".parse().unwrap();
        let mut program = Self {
            dir,
            child,
            log,
            seen: RefCell::default(),
            http: anywhere,
            admin: anywhere,
        };
        program.admin = program.addr("\"message\":\"admin listening\"");
        program.http = program.addr("\"message\":\"listening\"");
        program.logged("\"message\":\"ready\"");
        program
    }

    /// Waits for a line of the log that holds this.
    fn logged(&self, what: &str) -> String {
        loop {
            match self.log.recv_timeout(PATIENCE) {
                Ok(line) => {
                    self.seen.borrow_mut().push(line.clone());
                    if line.contains(what) {
                        return line;
                    }
                }
                Err(error) => panic!("{what} was not logged ({error}) but {:#?}", self.seen),
            }
        }
    }

    fn addr(&self, what: &str) -> SocketAddr {
        let line = self.logged(what);
        let rest = line.split("\"addr\":\"").nth(1).unwrap();
        rest.split('"').next().unwrap().parse().unwrap()
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.dir.join(name), text).unwrap();
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill")
            .args([format!("-{name}"), self.child.id().to_string()])
            .status();
        assert!(sent.unwrap().success());
    }

    fn exit_code(&mut self) -> Option<i32> {
        // Ends when standard error is closed, which is when the process has ended.
        while self.log.recv_timeout(PATIENCE).is_ok() {}
        self.child.wait().unwrap().code()
    }

    fn explain(&self, args: &[&str]) -> String {
        let output = Command::new(env!("CARGO_BIN_EXE_postern"))
            .args(["explain", "--admin", &self.admin.to_string()])
            .args(args)
            .output()
            .unwrap();
        let err = String::from_utf8(output.stderr).unwrap();
        let out = String::from_utf8(output.stdout).unwrap();
        format!("{err}{out}exit {}", output.status.code().unwrap())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn connect(addr: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn get(addr: SocketAddr, path: &str) -> String {
    let mut stream = connect(addr);
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    response
}

#[test]
fn a_change_is_served_and_a_bad_one_is_not() {
    let program = Program::start(one, &[]);
    assert!(get(program.http, "/").ends_with("one"));

    program.write("postern.toml", &answering("two"));
    program.logged("\"generation\":2");
    assert!(get(program.http, "/").ends_with("two"));

    program.write("postern.toml", "[[routes]]\nrules = 5\n");
    let line = program.logged("configuration problem");
    assert!(line.contains("postern.toml:2:9"), "{line}");
    assert!(get(program.http, "/").ends_with("two"));
    let metrics = get(program.admin, "/metrics");
    assert!(
        metrics.contains("postern_config_problems{severity=\"error\"} 1"),
        "{metrics}"
    );
    assert!(metrics.contains("postern_config_generation 2"), "{metrics}");

    // Emptied, as by an editor that dies between truncating and writing.
    program.write("postern.toml", "");
    program.logged("the file is empty");
    assert!(get(program.http, "/").ends_with("two"));

    program.write("postern.toml", &answering("three"));
    program.logged("problems are solved");
    assert!(get(program.http, "/").ends_with("three"));
    assert!(get(program.admin, "/ready").starts_with("HTTP/1.1 200"));
}

#[test]
fn a_bad_drop_in_file_leaves_the_others_alone() {
    let program = Program::start(one, &[]);
    fs::create_dir(program.dir.join("routes.d")).unwrap();
    let route = |host: &str, body: &str| {
        format!(
            "[[routes]]\nhosts = [\"{host}\"]\nrules = [{{ respond = {{ status = 200, body = \"{body}\" }} }}]\n"
        )
    };
    program.write("routes.d/a.toml", &route("localhost", "first"));
    program.logged("\"generation\":2");
    assert!(get(program.http, "/").ends_with("first"));
    // Both in one look: renamed in one directory, one after the other within the quiet time.
    program.write("routes.d/b.toml", "x");
    program.write("routes.d/a.toml", &route("localhost", "second"));
    program.logged("\"generation\":3");
    assert!(get(program.http, "/").ends_with("second"));
    let config = get(program.admin, "/config");
    assert!(config.contains("routes.d/b.toml"), "{config}");
}

/// A certificate with its key from the fixtures, into a directory.
fn put_certificate(name: &str, dir: &Path) {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/certs");
    for (ending, mode) in [("pem", 0o644), ("key", 0o600)] {
        let to = dir.join(format!("tls.{ending}"));
        // As whoever renews should do it: whole, or not at all.
        let new = dir.join(format!("tls.{ending}.new"));
        fs::copy(fixtures.join(format!("{name}.{ending}")), &new).unwrap();
        fs::set_permissions(&new, fs::Permissions::from_mode(mode)).unwrap();
        fs::rename(new, to).unwrap();
    }
}

const TLS: &str = "
[listeners.https]
bind = \"127.0.0.1:0\"
tls = {}
[certificates.tls]
cert-file = \"tls.pem\"
key-file = \"tls.key\"
";

#[test]
fn a_renewed_certificate_is_taken_up_as_a_pair() {
    let program = Program::start(
        |dir| {
            put_certificate("shop", dir);
            fs::write(dir.join("postern.toml"), answering("one") + TLS).unwrap();
        },
        &[],
    );
    put_certificate("other", &program.dir);
    program.logged("\"generation\":2");
    // The certificate came before its key, and no problem was seen in between.
    let config = get(program.admin, "/config");
    assert!(config.contains("\"problems\": []"), "{config}");
    assert!(
        program
            .seen
            .borrow()
            .iter()
            .all(|line| !line.contains("problem"))
    );
}

#[test]
fn a_swapped_volume_is_taken_up_whole() {
    let fill = |dir: &Path, number: u32, body: &str, certificate: &str| {
        let data = dir.join(format!("..{number}"));
        fs::create_dir(&data).unwrap();
        put_certificate(certificate, &data);
        fs::write(data.join("postern.toml"), answering(body) + TLS).unwrap();
        symlink(format!("..{number}"), dir.join("..tmp")).unwrap();
        fs::rename(dir.join("..tmp"), dir.join("..data")).unwrap();
    };
    let program = Program::start(
        |dir| {
            fill(dir, 1, "1", "shop");
            for name in ["postern.toml", "tls.pem", "tls.key"] {
                symlink(format!("..data/{name}"), dir.join(name)).unwrap();
            }
        },
        &[],
    );
    for number in 2..8 {
        let certificate = if number % 2 == 0 { "other" } else { "shop" };
        fill(&program.dir, number, &number.to_string(), certificate);
        fs::remove_dir_all(program.dir.join(format!("..{}", number - 1))).unwrap();
        program.logged(&format!("\"generation\":{number}"));
        assert!(get(program.http, "/").ends_with(&number.to_string()));
    }
    assert!(
        program
            .seen
            .borrow()
            .iter()
            .all(|line| !line.contains("problem"))
    );
}

#[test]
fn explain_answers_for_the_running_configuration() {
    let program = Program::start(one, &[]);
    let got = program.explain(&["GET", "http://a.test/x", "-H", "accept: text/html"]);
    assert!(got.contains("accept: text/html"), "{got}");
    assert!(
        got.contains("default rule 1 (every host)  postern.toml:11:10  yes"),
        "{got}"
    );
    assert!(got.ends_with("exit 0"), "{got}");
    let json = program.explain(&["GET", "http://a.test/x", "--format", "json"]);
    assert!(json.contains("\"body-bytes\": 3"), "{json}");
    let bad = program.explain(&["GET", "ftp://a.test/x"]);
    assert!(
        bad.contains("'ftp://a.test/x' is no URL") && bad.ends_with("exit 2"),
        "{bad}"
    );
}

#[test]
fn a_running_request_is_finished_before_the_end() {
    let upstream = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = upstream.local_addr().unwrap();
    let text = format!(
        "{MAIN}[upstreams.a]\nendpoints = [\"{addr}\"]\n[[routes]]\nrules = [{{ upstream = \"a\" }}]\n"
    );
    let mut program = Program::start(
        |dir| fs::write(dir.join("postern.toml"), &text).unwrap(),
        &["--accept-for", "0s"],
    );
    let mut client = connect(program.http);
    client
        .write_all(b"GET / HTTP/1.1\r\nhost: a.test\r\n\r\n")
        .unwrap();
    let (mut held, _) = upstream.accept().unwrap();

    program.signal("TERM");
    program.logged("\"message\":\"ending\"");
    assert!(get(program.admin, "/ready").starts_with("HTTP/1.1 503"));
    held.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nlate")
        .unwrap();
    let mut response = String::new();
    client.read_to_string(&mut response).unwrap();
    assert!(response.ends_with("late"), "{response}");
    assert_eq!(program.exit_code(), Some(0));
}

#[test]
fn what_does_not_finish_is_cut_at_the_deadline() {
    let upstream = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = upstream.local_addr().unwrap();
    let text = format!(
        "{MAIN}[upstreams.a]\nendpoints = [\"{addr}\"]\n[[routes]]\nrules = [{{ upstream = \"a\" }}]\n"
    );
    let mut program = Program::start(
        |dir| fs::write(dir.join("postern.toml"), &text).unwrap(),
        &["--accept-for", "0s", "--drain", "200ms"],
    );
    let mut client = connect(program.http);
    client
        .write_all(b"GET / HTTP/1.1\r\nhost: a.test\r\n\r\n")
        .unwrap();
    let _held = upstream.accept().unwrap();
    program.signal("TERM");
    assert_eq!(program.exit_code(), Some(1));
}

#[test]
fn a_second_signal_ends_at_once() {
    let mut program = Program::start(one, &["--accept-for", "1h", "--drain", "1h"]);
    program.signal("TERM");
    program.logged("\"message\":\"ending\"");
    // Still accepting.
    assert!(get(program.http, "/").ends_with("one"));
    program.signal("INT");
    assert_eq!(program.exit_code(), Some(1));
}

#[test]
fn a_successor_takes_over_without_a_refused_connection() {
    // Not from the range that the kernel picks the ports of other tests from.
    let mut free = (15_000..30_000).filter(|&port| TcpListener::bind(("127.0.0.1", port)).is_ok());
    let [http, admin] = [(), ()].map(|()| SocketAddr::from(([127, 0, 0, 1], free.next().unwrap())));
    let answering = |body: &str| {
        let text = answering(body).replacen("127.0.0.1:0", &admin.to_string(), 1);
        text.replacen("127.0.0.1:0", &http.to_string(), 1)
    };
    let write = |text: String| move |dir: &Path| fs::write(dir.join("postern.toml"), text).unwrap();
    let mut old = Program::start(write(answering("old")), &["--accept-for", "600ms"]);

    // A second gateway is no successor unless it is said to be one.
    old.write("second.toml", &answering("new"));
    let output = Command::new(env!("CARGO_BIN_EXE_postern"))
        .args(["run", "--config", "second.toml"])
        .current_dir(&old.dir)
        .output()
        .unwrap();
    let err = String::from_utf8(output.stderr).unwrap();
    assert!(err.contains("add --takeover"), "{err}");

    let new = Program::start(write(answering("new")), &["--takeover"]);
    old.signal("TERM");
    old.logged("\"message\":\"ending\"");
    let mut answers = 0;
    // Workers follow the signal a moment later, each for itself; from then on they get nothing new.
    let followed = Instant::now() + Duration::from_secs(1);
    while old.child.try_wait().unwrap().is_none() {
        let asked_at = Instant::now();
        let is_new = get(http, "/").ends_with("new");
        assert!(
            is_new || asked_at < followed,
            "after {answers} of the new one"
        );
        answers += u32::from(is_new);
        assert!(get(admin, "/ready").starts_with("HTTP/1.1 200"));
    }
    assert!(answers > 10, "{answers}");
    assert_eq!(old.exit_code(), Some(0));
    drop(new);
}

#[test]
fn a_hangup_reads_everything_again_and_ends_nothing() {
    let program = Program::start(one, &[]);
    program.signal("HUP");
    program.logged("reload asked for");
    assert!(get(program.http, "/").ends_with("one"));
}

#[test]
fn every_problem_at_start_is_printed_and_fatal() {
    let dir = std::env::temp_dir().join(format!("postern-start-{}", std::process::id()));
    fs::create_dir_all(&dir).unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap();
    let cases = [
        (
            "[listeners.a]\nbind = 1\n[upstreams.b]\nendpoints = []\n".to_owned(),
            "2 errors",
        ),
        (
            format!("{MAIN}[listeners.a]\nbind = \"{addr}\"\n"),
            "cannot listen on",
        ),
        (
            format!("[admin]\nbind = \"{addr}\"\n"),
            "postern.toml:2:8: error: cannot listen on",
        ),
        (String::new(), "the file is empty"),
    ];
    for (text, want) in cases {
        fs::write(dir.join("postern.toml"), &text).unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_postern"))
            .args(["run", "--config", "postern.toml"])
            .current_dir(&dir)
            .output()
            .unwrap();
        let err = String::from_utf8(output.stderr).unwrap();
        assert!(err.contains(want), "{want}:\n{err}");
        assert_eq!(output.status.code(), Some(1), "{err}");
    }
    fs::remove_dir_all(&dir).unwrap();
}
