//! What a reload keeps when something is wrong.

use super::*;
use crate::source::test_dir::TestDir;

const MAIN: &str = "[upstreams.a]\nendpoints = ['127.0.0.1:1']\n";

fn route(host: &str) -> String {
    format!("[[routes]]\nhosts = ['{host}']\nrules = [{{ upstream = 'a' }}]\n")
}

/// Reads and settles: the hosts that are served, the problems, and the texts in use.
fn settle(main: &Path, good: &Good) -> (Option<Vec<String>>, Vec<String>, Good) {
    let mut settling = Settling::new(file::read(main), main, good);
    let hosts = settling.load().map(|loaded| {
        let routes = loaded.config.routes.iter();
        routes.map(|route| route.name.to_string()).collect()
    });
    let (texts, problems) = settling.finish();
    let messages = problems.iter().map(|problem| problem.message.clone());
    (hosts, messages.collect(), texts)
}

struct Case {
    dir: TestDir,
    main: PathBuf,
    good: Good,
}

impl Case {
    /// A main file and two drop-in files that are good.
    fn new() -> Self {
        let dir = TestDir::new();
        let main = dir.write("postern.toml", MAIN);
        dir.write("routes.d/1.toml", &route("one.test"));
        dir.write("routes.d/2.toml", &route("two.test"));
        let (hosts, problems, good) = settle(&main, &Good::new());
        assert_eq!(hosts.unwrap(), ["one.test", "two.test"], "{problems:?}");
        Self { dir, main, good }
    }

    fn settle(&self) -> (Vec<String>, Vec<String>) {
        let (hosts, problems, _) = settle(&self.main, &self.good);
        (hosts.unwrap_or_default(), problems)
    }
}

#[test]
fn a_bad_file_costs_itself_alone() {
    let case = Case::new();
    case.dir.write("routes.d/1.toml", &route("uno.test"));
    case.dir.write("routes.d/2.toml", "[[routes]]\nrules = 5");
    case.dir.write("routes.d/3.toml", "x");
    case.dir.write("routes.d/4.toml", &route("four.test"));
    let (hosts, problems) = case.settle();
    assert_eq!(hosts, ["uno.test", "two.test", "four.test"]);
    assert_eq!(problems.len(), 2, "{problems:?}");
}

#[test]
fn nothing_that_vanishes_or_is_emptied_drops_its_routes() {
    type Damage = fn(&Case);
    let damages: [(&str, Damage); 6] = [
        ("the file is empty", |case| {
            case.dir.write("postern.toml", "");
        }),
        ("the file cannot be read: it does not exist", |case| {
            std::fs::remove_file(&case.main).unwrap();
        }),
        ("the file is empty", |case| {
            case.dir.write("routes.d/1.toml", " \n");
        }),
        (
            "the folder is gone; what its files declared is kept",
            |case| {
                std::fs::remove_dir_all(case.dir.path("routes.d")).unwrap();
            },
        ),
        ("this is a directory, not a file", |case| {
            std::fs::remove_file(&case.main).unwrap();
            std::fs::create_dir(&case.main).unwrap();
        }),
        ("the byte 0xff is not UTF-8", |case| {
            std::fs::write(case.dir.path("routes.d/1.toml"), b"\xff").unwrap();
        }),
    ];
    for (want, damage) in damages {
        let case = Case::new();
        damage(&case);
        let (hosts, problems) = case.settle();
        assert_eq!(hosts, ["one.test", "two.test"], "{want}");
        assert_eq!(problems, [want]);
    }
}

#[test]
fn a_removed_drop_in_file_takes_its_routes_along() {
    let case = Case::new();
    std::fs::remove_file(case.dir.path("routes.d/1.toml")).unwrap();
    let (hosts, problems) = case.settle();
    assert_eq!(hosts, ["two.test"]);
    assert!(problems.is_empty(), "{problems:?}");
}

#[test]
fn a_change_that_breaks_another_file_is_refused_whole() {
    let case = Case::new();
    case.dir.write(
        "postern.toml",
        "[upstreams.b]\nendpoints = ['127.0.0.1:1']\n",
    );
    let (hosts, problems) = case.settle();
    assert!(hosts.is_empty(), "{hosts:?}");
    assert_eq!(problems, ["there is no upstream 'a'"; 2]);
}

#[test]
fn at_start_every_problem_is_fatal() {
    let dir = TestDir::new();
    let main = dir.write("postern.toml", "");
    let (hosts, problems, _) = settle(&main, &Good::new());
    assert!(hosts.is_none());
    assert_eq!(problems, ["the file is empty"]);

    dir.write("postern.toml", MAIN);
    dir.write("routes.d/1.toml", "x");
    let (hosts, problems, _) = settle(&main, &Good::new());
    assert!(hosts.is_none());
    assert_eq!(problems.len(), 1, "{problems:?}");
}

#[test]
fn a_problem_found_later_takes_its_file_back() {
    let case = Case::new();
    case.dir.write("routes.d/1.toml", &route("uno.test"));
    case.dir.write("routes.d/2.toml", &route("due.test"));
    let mut settling = Settling::new(file::read(&case.main), &case.main, &case.good);
    assert!(settling.load().is_some());
    // As compiling would find it: a certificate that the file names does not exist.
    let blamed = Origin::file(&case.dir.path("routes.d/2.toml"));
    assert!(settling.take_back(vec![Problem::error(blamed.clone(), "no such file")]));
    let loaded = settling.load().unwrap();
    let names: Vec<_> = loaded
        .config
        .routes
        .iter()
        .map(|route| route.name.as_str())
        .collect();
    assert_eq!(names, ["uno.test", "two.test"]);
    // The old text is no better: there is nothing left to take back.
    assert!(!settling.take_back(vec![Problem::error(blamed, "no such file")]));
    assert_eq!(settling.finish().1.len(), 1);
}
