//! Who is answered, and what a gateway that is not running yet says.

use super::*;

fn panel(readiness: Readiness) -> Panel {
    Panel::new(watch::channel(readiness).1)
}

fn ask(request: http::request::Builder) -> StatusCode {
    let request = request.body(()).unwrap().into_parts().0;
    let local = "127.0.0.1".parse().unwrap();
    answer(&panel(Readiness::Starting), local, &request).status()
}

#[test]
fn a_foreign_name_is_refused() {
    let local = |host: &str, addr: &str| {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, host.parse().unwrap());
        is_for_us(&headers, addr.parse().unwrap())
    };
    let cases = [
        ("localhost", "127.0.0.1", true),
        ("LOCALHOST:9180", "127.0.0.1", true),
        ("127.0.0.1:9999", "127.0.0.1", true),
        ("[::1]:9180", "::1", true),
        ("10.0.0.7", "10.0.0.7", true),
        ("10.0.0.7", "::ffff:10.0.0.7", true),
        ("10.0.0.8", "10.0.0.7", false),
        ("127.0.0.1", "10.0.0.7", false),
        ("evil.test", "127.0.0.1", false),
        ("localhost.evil.test", "127.0.0.1", false),
        ("user@localhost", "127.0.0.1", false),
        ("", "127.0.0.1", false),
    ];
    for (host, addr, want) in cases {
        assert_eq!(local(host, addr), want, "{host} at {addr}");
    }
}

#[test]
fn a_foreign_page_is_refused() {
    let cases = [
        ("http://localhost:9180", StatusCode::OK),
        ("http://127.0.0.1", StatusCode::OK),
        ("http://evil.test", StatusCode::FORBIDDEN),
        ("null", StatusCode::FORBIDDEN),
    ];
    for (origin, want) in cases {
        let request = Request::get("/live").header("host", "localhost");
        assert_eq!(ask(request.header("origin", origin)), want, "{origin}");
    }
    let two = Request::get("/live").header("host", "localhost");
    assert_eq!(ask(two.header("host", "evil.test")), StatusCode::FORBIDDEN);
    assert_eq!(ask(Request::get("/live")), StatusCode::FORBIDDEN);
}

#[test]
fn nothing_can_be_changed_and_nothing_is_told_before_it_is_known() {
    let cases = [
        ("GET", "/live", StatusCode::OK),
        ("HEAD", "/live", StatusCode::OK),
        ("POST", "/live", StatusCode::METHOD_NOT_ALLOWED),
        ("DELETE", "/config", StatusCode::METHOD_NOT_ALLOWED),
        ("GET", "/ready", StatusCode::SERVICE_UNAVAILABLE),
        ("GET", "/metrics", StatusCode::SERVICE_UNAVAILABLE),
        ("GET", "/config", StatusCode::SERVICE_UNAVAILABLE),
        (
            "GET",
            "/explain?url=http://a",
            StatusCode::SERVICE_UNAVAILABLE,
        ),
        ("GET", "/live/", StatusCode::NOT_FOUND),
        ("GET", "/../live", StatusCode::NOT_FOUND),
    ];
    for (method, path, want) in cases {
        let request = Request::builder().method(method).uri(path);
        assert_eq!(
            ask(request.header("host", "localhost")),
            want,
            "{method} {path}"
        );
    }
    assert_eq!(ready(&panel(Readiness::Ready)).status(), StatusCode::OK);
    let draining = ready(&panel(Readiness::Draining)).status();
    assert_eq!(draining, StatusCode::SERVICE_UNAVAILABLE);
}
