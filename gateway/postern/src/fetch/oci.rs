//! Components in registries: the part of the OCI distribution protocol that pulling and pushing
//! them takes.
//!
//! Everything is asked for by digest and checked against it, whoever answered: manifest, then layer.
//! Three shapes of artifact are read, because all three are found:
//!
//! | shape | layer |
//! |---|---|
//! | what wasm-pkg-tools, `postern plugin push` and Spin make | one `application/wasm` |
//! | the older one, with a configuration beside it | one `application/vnd.wasm.content.layer.v1+wasm` or the like |
//! | an image, as for Envoy and Istio | one archive, compressed or not, with one `.wasm` file |

use bytes::Bytes;
use http::HeaderMap;
use http::HeaderValue;
use http::Method;
use http::StatusCode;
use http::header;
use postern_core::config::source::Digest;
use postern_core::config::source::FetchSpec;
use postern_core::config::source::OciName;
use postern_wasm::component::MAX_COMPONENT_BYTES;
use serde_json::Value;

use super::blobs::digest_of;
use super::challenge;
use super::challenge::Challenge;
use super::error::FetchError;
use super::http::Answer;
use super::http::Ask;
use super::http::Client;
use super::login::Login;
use super::off_thread;

/// Largest manifest, which the distribution specification asks registries to take.
pub(super) const MAX_MANIFEST_BYTES: usize = 4 << 20;
/// Largest answer that carries a token, or says why not.
const MAX_TOKEN_BYTES: usize = 64 << 10;
/// Entries of a manifest that are looked at.
const MAX_ENTRIES: usize = 128;

pub(super) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const ACCEPT: &str = "application/vnd.oci.image.manifest.v1+json, \
     application/vnd.oci.image.index.v1+json, \
     application/vnd.docker.distribution.manifest.v2+json, \
     application/vnd.docker.distribution.manifest.list.v2+json";
pub(super) const WASM_LAYER: &str = "application/wasm";
const WASM_LAYERS: [&str; 4] = [
    WASM_LAYER,
    "application/vnd.wasm.content.layer.v1+wasm",
    "application/vnd.module.wasm.content.layer.v1+wasm",
    "application/vnd.bytecodealliance.wasm.component.layer.v0+wasm",
];
const ARCHIVE_LAYERS: [&str; 4] = [
    "application/vnd.oci.image.layer.v1.tar",
    "application/vnd.oci.image.layer.v1.tar+gzip",
    "application/vnd.docker.image.rootfs.diff.tar",
    "application/vnd.docker.image.rootfs.diff.tar.gzip",
];
/// Where Docker Hub answers.
const DOCKER_HUB: &str = "registry-1.docker.io";

/// What a manifest leads to.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Next {
    /// Another manifest.
    Manifest(Digest),
    Layer {
        digest: Digest,
        is_archive: bool,
    },
}

/// One repository, for the time of one pull or push.
pub(super) struct Repository<'r> {
    client: &'r Client,
    name: &'r OciName,
    /// `https://registry`.
    base: String,
    login: Option<Login>,
    /// What the registry wants to see; known once it has asked for it.
    authorization: Option<HeaderValue>,
    actions: &'static str,
}

impl<'r> Repository<'r> {
    pub(super) async fn open(
        client: &'r Client,
        name: &'r OciName,
        fetch: &FetchSpec,
        actions: &'static str,
    ) -> Result<Self, FetchError> {
        let login = match fetch.login.clone() {
            Some(spec) => {
                let host = name.registry.clone();
                off_thread(move || Login::read(&spec, &host)).await?
            }
            None => None,
        };
        let host = match &*name.registry {
            "docker.io" => DOCKER_HUB,
            host => host,
        };
        let scheme = if fetch.plain_http { "http" } else { "https" };
        Ok(Self {
            client,
            name,
            base: format!("{scheme}://{host}"),
            login,
            authorization: None,
            actions,
        })
    }

    pub(super) async fn manifest(&mut self, digest: &Digest) -> Result<Bytes, FetchError> {
        let url = self.url(&format!("manifests/{digest}"));
        let mut ask = Ask::get(&url, MAX_MANIFEST_BYTES, "the manifest");
        let accept = HeaderValue::from_static(ACCEPT);
        ask.headers.insert(header::ACCEPT, accept);
        self.content(ask, digest).await
    }

    pub(super) async fn layer(&mut self, digest: &Digest) -> Result<Bytes, FetchError> {
        let url = self.url(&format!("blobs/{digest}"));
        let ask = Ask::get(&url, MAX_COMPONENT_BYTES, "the layer");
        self.content(ask, digest).await
    }

    async fn content(&mut self, ask: Ask<'_>, digest: &Digest) -> Result<Bytes, FetchError> {
        let (url, what) = (ask.url.to_owned(), ask.what.to_owned());
        let answer = self.send(ask).await?;
        if answer.status != StatusCode::OK {
            return Err(FetchError::Status {
                url,
                status: answer.status,
            });
        }
        check_digest(&what, digest, &answer.body)?;
        Ok(answer.body)
    }

    /// Sends what is asked, with what the registry wants to see; logs in once if it says so.
    pub(super) async fn send(&mut self, ask: Ask<'_>) -> Result<Answer, FetchError> {
        let mut has_logged_in = false;
        loop {
            let mut headers = ask.headers.clone();
            if let Some(authorization) = &self.authorization {
                headers.insert(header::AUTHORIZATION, authorization.clone());
            }
            let answer = self
                .client
                .send(Ask {
                    method: ask.method.clone(),
                    url: ask.url,
                    headers,
                    body: ask.body.clone(),
                    limit: ask.limit,
                    what: ask.what,
                })
                .await?;
            if answer.status != StatusCode::UNAUTHORIZED {
                return Ok(answer);
            }
            if has_logged_in {
                return Err(FetchError::Login {
                    url: ask.url.to_owned(),
                    status: answer.status,
                });
            }
            has_logged_in = true;
            self.authorization = Some(self.log_in(ask.url, &answer.headers).await?);
        }
    }

    async fn log_in(&self, url: &str, headers: &HeaderMap) -> Result<HeaderValue, FetchError> {
        let unknown = || FetchError::Challenge {
            url: url.to_owned(),
        };
        let basic = self.login.as_ref().and_then(Login::basic);
        match challenge::parse(headers).ok_or_else(unknown)? {
            Challenge::Basic => basic.ok_or_else(|| FetchError::Login {
                url: url.to_owned(),
                status: StatusCode::UNAUTHORIZED,
            }),
            Challenge::Bearer { realm, service } => {
                let scope = format!("repository:{}:{}", self.name.repository, self.actions);
                let token_url = challenge::token_url(&realm, service.as_deref(), &scope);
                let mut ask = Ask::get(&token_url, MAX_TOKEN_BYTES, "the token");
                if let Some(basic) = basic {
                    ask.headers.insert(header::AUTHORIZATION, basic);
                }
                let answer = self.client.send(ask).await?;
                if answer.status != StatusCode::OK {
                    return Err(FetchError::Login {
                        url: realm,
                        status: answer.status,
                    });
                }
                challenge::bearer(&answer.body).ok_or_else(unknown)
            }
        }
    }

    pub(super) fn url(&self, rest: &str) -> String {
        format!("{}/v2/{}/{rest}", self.base, self.name.repository)
    }

    /// Puts a blob there unless it is there.
    pub(super) async fn push_blob(&mut self, bytes: &Bytes) -> Result<Digest, FetchError> {
        let digest = digest_of(bytes);
        let url = self.url(&format!("blobs/{digest}"));
        let mut head = Ask::get(&url, MAX_TOKEN_BYTES, "the answer");
        head.method = Method::HEAD;
        if self.send(head).await?.status == StatusCode::OK {
            return Ok(digest);
        }
        let url = self.url("blobs/uploads/");
        let mut begin = Ask::get(&url, MAX_TOKEN_BYTES, "the answer");
        begin.method = Method::POST;
        let begun = self.send(begin).await?;
        let refused = |status| FetchError::Status {
            url: url.clone(),
            status,
        };
        let location = begun.headers.get(header::LOCATION);
        let (StatusCode::ACCEPTED, Some(location)) = (begun.status, location) else {
            return Err(refused(begun.status));
        };
        let base = url.parse().map_err(|_| refused(begun.status))?;
        let location = super::http::resolve(&base, location);
        let location = location.ok_or_else(|| refused(begun.status))?;
        // The session is the registry's, and so is its query.
        let separator = if location.query().is_some() { '&' } else { '?' };
        let session = format!("{location}{separator}digest={digest}");
        // A session elsewhere is no place for the login of this registry.
        let is_own = session.starts_with(&format!("{}/", self.base));
        let authorization = self.authorization.clone();
        if !is_own {
            self.authorization = None;
        }
        let mut put = Ask::get(&session, MAX_TOKEN_BYTES, "the answer");
        put.method = Method::PUT;
        put.body = bytes.clone();
        let octets = HeaderValue::from_static("application/octet-stream");
        put.headers.insert(header::CONTENT_TYPE, octets);
        let done = self.send(put).await?;
        self.authorization = authorization;
        match done.status {
            StatusCode::CREATED => Ok(digest),
            status => Err(refused(status)),
        }
    }

    /// Puts a manifest there under a tag or, without one, under its digest.
    pub(super) async fn push_manifest(
        &mut self,
        manifest: Bytes,
        tag: Option<&str>,
    ) -> Result<Digest, FetchError> {
        let digest = digest_of(&manifest);
        let reference = tag.map_or_else(|| digest.to_string(), str::to_owned);
        let url = self.url(&format!("manifests/{reference}"));
        let mut put = Ask::get(&url, MAX_TOKEN_BYTES, "the answer");
        put.method = Method::PUT;
        put.body = manifest;
        let kind = HeaderValue::from_static(MANIFEST);
        put.headers.insert(header::CONTENT_TYPE, kind);
        let done = self.send(put).await?;
        match done.status {
            StatusCode::CREATED => Ok(digest),
            status => Err(FetchError::Status { url, status }),
        }
    }
}

pub(super) fn check_digest(what: &str, want: &Digest, bytes: &[u8]) -> Result<(), FetchError> {
    let got = digest_of(bytes);
    match got == *want {
        true => Ok(()),
        false => Err(FetchError::Digest {
            what: what.to_owned(),
            want: want.clone(),
            got,
        }),
    }
}

/// Where the component of a manifest is.
pub(super) fn next(manifest: &[u8]) -> Result<Next, FetchError> {
    let unusable = |what| FetchError::Manifest { what };
    let manifest: Value =
        serde_json::from_slice(manifest).map_err(|_| unusable("it is not JSON"))?;
    let entries = |key: &str| manifest.get(key).and_then(Value::as_array);
    if let Some(manifests) = entries("manifests") {
        let is_wasm = |entry: &&Value| {
            let platform = entry.get("platform");
            let architecture = platform.and_then(|platform| platform.get("architecture"));
            architecture.and_then(Value::as_str) == Some("wasm")
        };
        let mut candidates = manifests.iter().take(MAX_ENTRIES).filter(is_wasm);
        let chosen = match (manifests.as_slice(), candidates.next(), candidates.next()) {
            ([only], ..) => only,
            (_, Some(chosen), None) => chosen,
            _ => {
                let what = "it is an index with several manifests, and not one of them is for the \
                            architecture wasm";
                return Err(unusable(what));
            }
        };
        return Ok(Next::Manifest(digest_in(chosen)?));
    }
    let layers = entries("layers").ok_or_else(|| unusable("it has no layers"))?;
    let kind = |layer: &Value| {
        let kind = layer.get("mediaType").and_then(Value::as_str);
        kind.unwrap_or_default().to_owned()
    };
    let kinds: Vec<String> = layers.iter().take(MAX_ENTRIES).map(kind).collect();
    for (accepted, is_archive) in [(WASM_LAYERS, false), (ARCHIVE_LAYERS, true)] {
        let mut found = layers.iter().zip(&kinds);
        let mut found = found
            .by_ref()
            .filter(|(_, kind)| accepted.contains(&kind.as_str()));
        let Some((layer, _)) = found.next() else {
            continue;
        };
        if found.next().is_some() {
            return Err(unusable("several of its layers could hold the component"));
        }
        let limit = u64::try_from(MAX_COMPONENT_BYTES).unwrap_or(u64::MAX);
        let size = layer.get("size").and_then(Value::as_u64);
        if size.is_some_and(|size| size > limit) {
            return Err(FetchError::TooLarge {
                what: "the layer".to_owned(),
                limit: MAX_COMPONENT_BYTES,
            });
        }
        return Ok(Next::Layer {
            digest: digest_in(layer)?,
            is_archive,
        });
    }
    let mut found = match kinds.is_empty() {
        true => "none".to_owned(),
        false => kinds.join(", "),
    };
    found.truncate(found.floor_char_boundary(200));
    Err(FetchError::NoLayer { found })
}

fn digest_in(entry: &Value) -> Result<Digest, FetchError> {
    let text = entry.get("digest").and_then(Value::as_str);
    let digest = text.and_then(|text| Digest::parse(text).ok());
    digest.ok_or(FetchError::Manifest {
        what: "an entry has no digest of the kind sha256",
    })
}

/// The configuration of a component, as wasm-pkg-tools makes it, and its manifest. The same for the
/// same component, so that pushing it again gives the same reference: that is why it was created at
/// no time in particular.
pub(super) fn describe(
    component: &[u8],
    (imports, exports): (&[String], &[String]),
) -> (Bytes, Bytes) {
    let layer = digest_of(component);
    let config = serde_json::json!({
        "created": "1970-01-01T00:00:00Z",
        "architecture": "wasm",
        "os": "wasip2",
        "layerDigests": [layer.to_string()],
        "component": { "exports": exports, "imports": imports },
    });
    let config = Bytes::from(config.to_string());
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {
            "mediaType": "application/vnd.wasm.config.v0+json",
            "digest": digest_of(&config).to_string(),
            "size": config.len(),
        },
        "layers": [{
            "mediaType": WASM_LAYER,
            "digest": layer.to_string(),
            "size": component.len(),
        }],
    });
    (config, Bytes::from(manifest.to_string()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn layer(kind: &str) -> Value {
        json!({ "mediaType": kind, "digest": digest_of(kind.as_bytes()).to_string(), "size": 9 })
    }

    fn next_of(manifest: &Value) -> Result<Next, String> {
        next(manifest.to_string().as_bytes()).map_err(|error| error.to_string())
    }

    #[test]
    fn the_component_is_found_in_every_shape() {
        let plain = "application/wasm";
        let old = "application/vnd.wasm.content.layer.v1+wasm";
        let archive = "application/vnd.oci.image.layer.v1.tar+gzip";
        let cases = [
            (vec![plain], plain, false),
            (vec!["text/plain", old], old, false),
            (vec![archive], archive, true),
            // A component beside an archive of its sources.
            (vec![archive, plain], plain, false),
        ];
        for (kinds, want, is_archive) in cases {
            let layers: Vec<Value> = kinds.iter().map(|kind| layer(kind)).collect();
            let want = Next::Layer {
                digest: digest_of(want.as_bytes()),
                is_archive,
            };
            assert_eq!(next_of(&json!({ "layers": layers })), Ok(want), "{kinds:?}");
        }
    }

    #[test]
    fn an_index_leads_to_its_only_manifest_or_the_one_for_wasm() {
        let entry = |text: &str, architecture: &str| {
            let digest = digest_of(text.as_bytes()).to_string();
            json!({ "digest": digest, "platform": { "architecture": architecture } })
        };
        let (a, wasm) = (entry("a", "amd64"), entry("w", "wasm"));
        let manifest = |text: &str| Ok(Next::Manifest(digest_of(text.as_bytes())));
        assert_eq!(next_of(&json!({ "manifests": [a] })), manifest("a"));
        assert_eq!(next_of(&json!({ "manifests": [a, wasm] })), manifest("w"));
        for none in [json!([a, a]), json!([wasm, wasm]), json!([])] {
            let got = next_of(&json!({ "manifests": none }));
            assert!(got.unwrap_err().contains("index"), "{none}");
        }
    }

    #[test]
    fn a_manifest_of_something_else_is_refused_with_its_reason() {
        let wasm = "application/wasm";
        let mut huge = layer(wasm);
        huge["size"] = json!(33 << 20);
        let mut other = layer(wasm);
        other["digest"] = json!("sha512:00");
        let cases = [
            (json!([]), "no layers"),
            (json!({ "layers": [] }), "its layers are none"),
            (json!({ "layers": [layer("text/plain")] }), "text/plain"),
            (json!({ "layers": [layer(wasm), layer(wasm)] }), "several"),
            (json!({ "layers": [huge] }), "larger"),
            (json!({ "layers": [other] }), "sha256"),
            (json!({ "layers": [{ "mediaType": wasm }] }), "sha256"),
            (json!({ "layers": 7 }), "no layers"),
        ];
        for (manifest, want) in cases {
            let got = next_of(&manifest).unwrap_err();
            assert!(got.contains(want), "{manifest}: {got}");
        }
        assert!(next(b"{").is_err());
    }

    #[test]
    fn what_is_pushed_is_found_again() {
        let (config, manifest) = describe(b"component", (&[], &[]));
        let want = Next::Layer {
            digest: digest_of(b"component"),
            is_archive: false,
        };
        assert_eq!(next(&manifest).unwrap(), want);
        let manifest: Value = serde_json::from_slice(&manifest).unwrap();
        let named = manifest["config"]["digest"].as_str().unwrap();
        assert_eq!(named, digest_of(&config).to_string());
    }
}
