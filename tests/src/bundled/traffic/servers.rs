//! The application, and whom plugins ask: a service that decides, an issuer of tokens.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderValue;
use http::Request;
use http::Response;
use http::StatusCode;
use http::header;
use hyper::body::Incoming;
use rcgen::KeyPair;
use rcgen::PKCS_ED25519;
use rcgen::SigningKey as _;

use crate::upstream;
use crate::upstream::Body;
use crate::upstream::Upstream;

pub(super) struct Servers {
    pub(super) app: Upstream,
    auth: Upstream,
    idp: Upstream,
    blue: Upstream,
    green: Upstream,
    /// Signs tokens.
    key: KeyPair,
    /// How often the issuer was asked for its keys.
    pub(super) asked_for_keys: Arc<AtomicUsize>,
}

impl Servers {
    pub(super) async fn start() -> Self {
        let app = Upstream::http1(|request| async {
            let mut response = upstream::echo("app", request).await;
            let fields = response.headers_mut();
            fields.insert(header::SERVER, HeaderValue::from_static("app/1.0"));
            let any = HeaderValue::from_static("*");
            fields.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, any);
            response
        })
        .await;
        let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let public = URL_SAFE_NO_PAD.encode(key.public_key_raw());
        let set = format!(
            r#"{{ "keys": [{{ "kty": "OKP", "crv": "Ed25519", "kid": "1", "x": "{public}" }}] }}"#
        );
        let asked_for_keys = Arc::<AtomicUsize>::default();
        let asked = Arc::clone(&asked_for_keys);
        let idp = Upstream::http1(move |request| {
            let is_ours = request.uri().path() == "/keys"
                && request
                    .headers()
                    .get("host")
                    .is_some_and(|host| host == "idp.example.com");
            asked.fetch_add(1, Ordering::SeqCst);
            let mut response = Response::new(upstream::full(set.clone()));
            if !is_ours {
                *response.status_mut() = StatusCode::NOT_FOUND;
            }
            async move { response }
        })
        .await;
        Self {
            app,
            auth: Upstream::http1(|request| async move { decide(&request) }).await,
            idp,
            blue: Upstream::echo("blue").await,
            green: Upstream::echo("green").await,
            key,
            asked_for_keys,
        }
    }

    /// A README's configuration with the addresses that there are.
    pub(super) fn in_place(&self, config: &str) -> String {
        let mut text = config.to_owned();
        for (shown, server) in [
            ("127.0.0.1:9001", &self.auth),
            ("127.0.0.1:9002", &self.idp),
            ("127.0.0.1:9003", &self.blue),
            ("127.0.0.1:9004", &self.green),
        ] {
            text = text.replace(shown, &server.addr.to_string());
        }
        text
    }

    /// A token of the issuer with these claims.
    pub(super) fn token(&self, claims: &str) -> String {
        let header = URL_SAFE_NO_PAD.encode(r#"{ "alg": "EdDSA", "kid": "1", "typ": "JWT" }"#);
        let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(claims));
        let signature = self.key.sign(signed.as_bytes()).unwrap();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

/// 200 with the user for a cookie `sid=ann`, 302 for no cookie, 500 for `sid=broken`, else 403.
fn decide(request: &Request<Incoming>) -> Response<Body> {
    let field = |name: &str| {
        request
            .headers()
            .get(name)
            .and_then(|value| value.to_str().ok())
    };
    let mut response = Response::new(upstream::full("log in"));
    let status = match (request.uri().path(), field("cookie")) {
        ("/check", Some("sid=ann")) if field("x-forwarded-method") == Some("GET") => {
            let user = HeaderValue::from_static("ann");
            response.headers_mut().insert("x-user", user);
            StatusCode::OK
        }
        ("/check", None) => {
            let login = HeaderValue::from_static("https://login.test/");
            response.headers_mut().insert(header::LOCATION, login);
            StatusCode::FOUND
        }
        ("/check", Some("sid=broken")) => StatusCode::INTERNAL_SERVER_ERROR,
        _ => StatusCode::FORBIDDEN,
    };
    *response.status_mut() = status;
    response
}
