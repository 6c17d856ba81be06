//! What holds of any target: one path has one form, and no upstream reads another in it.

use proptest::prelude::*;

use super::*;

/// Plain segments, and one of the many spellings of the same path.
fn any_spelling() -> impl Strategy<Value = (String, String)> {
    let segment = ("[a-z0-9_~-]{1,4}", 0..7_u8, any::<u16>());
    prop::collection::vec(segment, 1..6).prop_map(|segments| {
        let mut plain = String::new();
        let mut spelled = String::new();
        for (name, detour, escaped) in segments {
            plain.push('/');
            plain.push_str(&name);
            spelled.push_str(match detour {
                0 => "//",
                1 => "/./",
                2 => "/x/../",
                3 => "/%2e/",
                4 => "/x/y/%2E./../",
                _ => "/",
            });
            for (index, byte) in name.bytes().enumerate() {
                // RFC 3986, 6.2.2.1 and 6.2.2.2: either case, and needless escapes.
                match escaped >> (2 * index) & 3 {
                    0 => spelled.push_str(&format!("%{byte:02x}")),
                    1 => spelled.push_str(&format!("%{byte:02X}")),
                    _ => spelled.push(char::from(byte)),
                }
            }
        }
        (plain, spelled)
    })
}

/// How upstreams read a path that they should not decode again.
const READERS: [fn(&str) -> String; 5] = [
    decoded,
    |path| decoded(path).replace('\\', "/"),
    |path| without(&decoded(path), ';'),
    |path| without(&decoded(path), '?'),
    |path| decoded(&without(path, ';')),
];

/// How upstreams find the resource that a guard may stand before.
const RESOLVERS: [fn(&str) -> String; 5] = [
    str::to_owned,
    decoded,
    |path| without(path, ';'),
    |path| merged(&without(path, ';')),
    |path| merged(&without(&decoded(path), ';')),
];

fn decoded(path: &str) -> String {
    let bytes = path.as_bytes();
    let mut out = Vec::new();
    let mut index = 0;
    while index < bytes.len() {
        let digits = bytes.get(index + 1..index + 3);
        let value = digits.and_then(|digits| Some(hex(digits[0])? << 4 | hex(digits[1])?));
        match (bytes[index], value) {
            (b'%', Some(value)) => {
                out.push(value);
                index += 3;
            }
            (byte, _) => {
                out.push(byte);
                index += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Each segment up to this character.
fn without(path: &str, cut: char) -> String {
    let names = path
        .split('/')
        .map(|segment| segment.split(cut).next().unwrap_or_default());
    names.collect::<Vec<_>>().join("/")
}

fn merged(path: &str) -> String {
    let mut out = path.to_owned();
    while out.contains("//") {
        out = out.replace("//", "/");
    }
    out
}

/// Where a reader ends up that resolves dots after it has read.
fn depth_is_kept(read: &str) -> bool {
    read.split('/')
        .all(|segment| segment != "." && segment != "..")
}

proptest! {
    #[test]
    fn every_spelling_of_a_path_is_that_path((plain, spelled) in any_spelling()) {
        let path = RequestPath::from_text(&spelled, EncodedSlash::Reject);
        prop_assert_eq!(path.as_ref().map(RequestPath::as_str), Ok(plain.as_str()), "{}", spelled);
    }

    #[test]
    fn no_upstream_finds_a_way_around_a_guard(text in r"/(;|%3b|%40|@|/|x|y|=){0,12}") {
        let path = RequestPath::from_text(&text, EncodedSlash::Reject).unwrap();
        let lenient = lenient_reading(path.path());
        for (index, resolver) in RESOLVERS.iter().enumerate() {
            let resolved = resolver(path.path());
            for guard in ["/x", "/x/y", "/@", "/x@/y"] {
                let is_seen = [Some(path.path()), lenient.as_deref()]
                    .into_iter()
                    .flatten()
                    .any(|reading| has_prefix(reading, guard));
                prop_assert!(
                    is_seen || !has_prefix(&resolved, guard),
                    "{} resolves {} to {}", index, path, resolved
                );
            }
        }
    }

    #[test]
    fn no_upstream_finds_a_way_up(
        text in r"/(\.|\.\.|%2e|;|%3b|%3B|\?|%3f|%23|/|%2f|%5c|%25|2e|2f|x|%00){0,14}",
    ) {
        if let Ok(path) = RequestPath::from_text(&text, EncodedSlash::Reject) {
            for (index, reader) in READERS.iter().enumerate() {
                let read = reader(path.path());
                prop_assert!(depth_is_kept(&read), "{} reads {} as {}", index, path, read);
                let slashes = |text: &str| text.matches('/').count();
                prop_assert_eq!(slashes(&read), slashes(path.path()), "{} {}", index, path);
            }
        }
        if let Ok(path) = RequestPath::from_text(&text, EncodedSlash::Keep) {
            for (index, reader) in READERS.iter().enumerate() {
                let read = reader(path.path());
                prop_assert!(depth_is_kept(&read), "{} reads {} as {}", index, path, read);
            }
        }
    }
}
