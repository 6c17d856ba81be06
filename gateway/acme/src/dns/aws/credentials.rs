//! Who the gateway is for AWS: given keys, or what the place where it runs lends it.
//!
//! In the order of AWS's own programs: keys in the environment, a web identity (IRSA), the
//! container's (ECS, EKS Pod Identity), the instance's (IMDSv2). A role may be taken on top.

use std::fmt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderName;
use http::HeaderValue;
use http::Method;
use http::header;
use jiff::Timestamp;
use serde_json::Value;
use tokio::sync::Mutex;

use super::Call;
use super::Service;
use super::http::AwsError;
use super::http::Http;
use super::sigv4;
use super::xml::Element;
use crate::dns::secret::Secret;

/// Credentials that end sooner than this are asked for again.
const MARGIN: Duration = Duration::from_secs(5 * 60);
/// How long metadata may take: it is on the same machine, or there is none.
const METADATA_TIME: Duration = Duration::from_secs(2);
/// How long a token of the instance's metadata is asked for: longer than it is used.
const METADATA_TOKEN_SECONDS: &str = "300";
const CONTAINER_ENDPOINT: &str = "http://169.254.170.2";
const METADATA_ENDPOINT: &str = "http://169.254.169.254";
const DEFAULT_REGION: &str = "us-east-1";
const SESSION_NAME: &str = "postern";

/// What requests are signed with.
#[derive(Clone, Eq, PartialEq)]
pub(in crate::dns) struct Credentials {
    pub(in crate::dns) key_id: String,
    pub(in crate::dns) secret: String,
    pub(in crate::dns) token: Option<String>,
    pub(in crate::dns) expires: Option<Timestamp>,
}

/// Where credentials come from.
#[derive(Clone, Eq, PartialEq)]
pub enum CredentialSource {
    Keys { key_id: String, secret: Secret },
    Environment(Box<AwsEnvironment>),
}

/// A role that is taken with them.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Role {
    pub arn: String,
    pub external_id: Option<String>,
}

/// What AWS tells programs that it runs, by environment variables.
#[derive(Clone, Default, Eq, PartialEq)]
pub struct AwsEnvironment {
    pub access_key_id: Option<String>,
    pub secret_access_key: Option<String>,
    pub session_token: Option<String>,
    pub region: Option<String>,
    pub role_arn: Option<String>,
    pub web_identity_token_file: Option<PathBuf>,
    pub container_full_uri: Option<String>,
    pub container_relative_uri: Option<String>,
    pub container_token: Option<String>,
    pub container_token_file: Option<PathBuf>,
    pub metadata_endpoint: Option<String>,
    pub metadata_disabled: bool,
}

impl AwsEnvironment {
    /// From variables by their names.
    pub fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Self {
        let given = |name: &str| variable(name).filter(|value| !value.is_empty());
        let path = |name: &str| given(name).map(PathBuf::from);
        Self {
            access_key_id: given("AWS_ACCESS_KEY_ID"),
            secret_access_key: given("AWS_SECRET_ACCESS_KEY"),
            session_token: given("AWS_SESSION_TOKEN"),
            region: given("AWS_REGION").or_else(|| given("AWS_DEFAULT_REGION")),
            role_arn: given("AWS_ROLE_ARN"),
            web_identity_token_file: path("AWS_WEB_IDENTITY_TOKEN_FILE"),
            container_full_uri: given("AWS_CONTAINER_CREDENTIALS_FULL_URI"),
            container_relative_uri: given("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"),
            container_token: given("AWS_CONTAINER_AUTHORIZATION_TOKEN"),
            container_token_file: path("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"),
            metadata_endpoint: given("AWS_EC2_METADATA_SERVICE_ENDPOINT"),
            metadata_disabled: given("AWS_EC2_METADATA_DISABLED")
                .is_some_and(|value| value.eq_ignore_ascii_case("true")),
        }
    }

    /// Of this process.
    pub fn of_process() -> Self {
        Self::from_variables(|name| std::env::var(name).ok())
    }
}

impl fmt::Debug for AwsEnvironment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AwsEnvironment")
            .field("access_key_id", &self.access_key_id)
            .field("role_arn", &self.role_arn)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for CredentialSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Keys { key_id, .. } => {
                let mut keys = f.debug_struct("Keys");
                keys.field("key_id", key_id).finish_non_exhaustive()
            }
            Self::Environment(environment) => environment.fmt(f),
        }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("key_id", &self.key_id)
            .field("expires", &self.expires)
            .finish_non_exhaustive()
    }
}

/// Gets credentials, and keeps them until shortly before they end.
pub(in crate::dns) struct Wallet {
    source: CredentialSource,
    role: Option<Role>,
    http: Arc<Http>,
    sts: Service,
    kept: Mutex<Option<Credentials>>,
}

impl Wallet {
    /// `region` is where roles are taken; the environment's if absent. `sts` replaces the address
    /// of that service.
    pub(in crate::dns) fn new(
        source: CredentialSource,
        role: Option<Role>,
        region: Option<String>,
        sts: Option<String>,
        http: Arc<Http>,
    ) -> Self {
        let known = match &source {
            CredentialSource::Environment(environment) => environment.region.clone(),
            CredentialSource::Keys { .. } => None,
        };
        let region = region
            .or(known)
            .unwrap_or_else(|| DEFAULT_REGION.to_owned());
        let suffix = if region.starts_with("cn-") { ".cn" } else { "" };
        let endpoint = sts.unwrap_or_else(|| format!("https://sts.{region}.amazonaws.com{suffix}"));
        Self {
            source,
            role,
            sts: Service {
                http: Arc::clone(&http),
                endpoint,
                name: "sts",
                region,
            },
            http,
            kept: Mutex::default(),
        }
    }

    pub(in crate::dns) async fn credentials(&self) -> Result<Credentials, AwsError> {
        // Held over the call: whoever comes meanwhile wants the same.
        let mut kept = self.kept.lock().await;
        if let Some(credentials) = kept.as_ref().filter(|credentials| credentials.last()) {
            return Ok(credentials.clone());
        }
        let mut credentials = match &self.source {
            CredentialSource::Keys { key_id, secret } => Credentials {
                key_id: key_id.clone(),
                secret: secret.load().map_err(|error| AwsError::File {
                    what: error.path.display().to_string(),
                    kind: error.kind,
                })?,
                token: None,
                expires: None,
            },
            CredentialSource::Environment(environment) => self.lent(environment).await?,
        };
        if let Some(role) = &self.role {
            credentials = self.assumed(role, &credentials).await?;
        }
        // Keys in a file may be replaced.
        *kept = credentials.expires.is_some().then(|| credentials.clone());
        Ok(credentials)
    }

    async fn lent(&self, environment: &AwsEnvironment) -> Result<Credentials, AwsError> {
        if let (Some(key_id), Some(secret)) =
            (&environment.access_key_id, &environment.secret_access_key)
        {
            return Ok(Credentials {
                key_id: key_id.clone(),
                secret: secret.clone(),
                token: environment.session_token.clone(),
                expires: None,
            });
        }
        if let (Some(arn), Some(file)) =
            (&environment.role_arn, &environment.web_identity_token_file)
        {
            return self.by_web_identity(arn, file).await;
        }
        let relative = environment.container_relative_uri.as_ref();
        let full = relative.map(|path| format!("{CONTAINER_ENDPOINT}{path}"));
        if let Some(url) = full.or_else(|| environment.container_full_uri.clone()) {
            return self.of_container(&url, environment).await;
        }
        if environment.metadata_disabled {
            let tried = "none in the environment, and the instance's are switched off".to_owned();
            return Err(AwsError::NoCredentials { tried });
        }
        let endpoint = environment.metadata_endpoint.as_deref();
        let endpoint = endpoint.unwrap_or(METADATA_ENDPOINT).trim_end_matches('/');
        self.of_instance(endpoint)
            .await
            .map_err(|error| AwsError::NoCredentials {
                tried: format!("none in the environment, and of the instance: {error}"),
            })
    }

    /// The token proves who we are: the call is not signed.
    async fn by_web_identity(&self, arn: &str, file: &Path) -> Result<Credentials, AwsError> {
        let call = form(vec![
            ("Action", "AssumeRoleWithWebIdentity".to_owned()),
            ("Version", "2011-06-15".to_owned()),
            ("RoleArn", arn.to_owned()),
            ("RoleSessionName", SESSION_NAME.to_owned()),
            ("WebIdentityToken", token_in(file)?),
        ]);
        let answer = self.sts.once(&call, None).await?;
        of_element(&answer).ok_or_else(|| malformed(&self.sts.endpoint))
    }

    async fn assumed(&self, role: &Role, with: &Credentials) -> Result<Credentials, AwsError> {
        let mut fields = vec![
            ("Action", "AssumeRole".to_owned()),
            ("Version", "2011-06-15".to_owned()),
            ("RoleArn", role.arn.clone()),
            ("RoleSessionName", SESSION_NAME.to_owned()),
        ];
        if let Some(id) = &role.external_id {
            fields.push(("ExternalId", id.clone()));
        }
        let answer = self.sts.call(&form(fields), with).await?;
        of_element(&answer).ok_or_else(|| malformed(&self.sts.endpoint))
    }

    async fn of_container(
        &self,
        url: &str,
        environment: &AwsEnvironment,
    ) -> Result<Credentials, AwsError> {
        let token = match &environment.container_token_file {
            Some(file) => Some(token_in(file)?),
            None => environment.container_token.clone(),
        };
        let mut headers = Vec::new();
        if let Some(token) = token {
            headers.push((header::AUTHORIZATION, secret_value(&token)?));
        }
        let answer = self.ask(Method::GET, url, headers).await?;
        of_json(&answer).ok_or_else(|| malformed(url))
    }

    async fn of_instance(&self, endpoint: &str) -> Result<Credentials, AwsError> {
        let lifetime = HeaderName::from_static("x-aws-ec2-metadata-token-ttl-seconds");
        let lifetime = (lifetime, HeaderValue::from_static(METADATA_TOKEN_SECONDS));
        let url = format!("{endpoint}/latest/api/token");
        let token = self.ask(Method::PUT, &url, vec![lifetime]).await?;
        let token = std::str::from_utf8(&token).map_err(|_| malformed(&url))?;
        let token = secret_value(token.trim())?;
        let headers = || {
            let name = HeaderName::from_static("x-aws-ec2-metadata-token");
            vec![(name, token.clone())]
        };
        let list = format!("{endpoint}/latest/meta-data/iam/security-credentials/");
        let roles = self.ask(Method::GET, &list, headers()).await?;
        let role = std::str::from_utf8(&roles)
            .ok()
            .and_then(|text| text.lines().next());
        let is_plain = |role: &&str| {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"+=,.@_-".contains(&byte);
            !role.is_empty() && role.bytes().all(plain)
        };
        let role = role
            .map(str::trim)
            .filter(is_plain)
            .ok_or_else(|| malformed(&list))?;
        let url = format!("{list}{role}");
        let answer = self.ask(Method::GET, &url, headers()).await?;
        of_json(&answer).ok_or_else(|| malformed(&url))
    }

    async fn ask(
        &self,
        method: Method,
        url: &str,
        headers: Vec<(HeaderName, HeaderValue)>,
    ) -> Result<Bytes, AwsError> {
        let sending = self
            .http
            .send(method, url, headers, Bytes::new(), METADATA_TIME);
        let answer = sending.await?;
        if !answer.status.is_success() {
            return Err(AwsError::Refused {
                host: super::http::host_of(url)?,
                status: answer.status,
                code: String::new(),
                message: "no credentials are handed out".to_owned(),
            });
        }
        Ok(answer.body)
    }
}

impl Credentials {
    /// Whether they do for a while.
    fn last(&self) -> bool {
        let Some(expires) = self.expires else {
            return true;
        };
        expires.duration_since(Timestamp::now())
            > jiff::SignedDuration::try_from(MARGIN).unwrap_or_default()
    }
}

fn form(fields: Vec<(&'static str, String)>) -> Call {
    Call {
        method: Method::POST,
        path: "/".to_owned(),
        query: Vec::new(),
        body: sigv4::query(&fields),
        kind: Some("application/x-www-form-urlencoded"),
    }
}

fn of_element(answer: &Element) -> Option<Credentials> {
    let found = answer.find("Credentials")?;
    let text = |name: &str| found.find(name).map(Element::text);
    Some(Credentials {
        key_id: text("AccessKeyId")?,
        secret: text("SecretAccessKey")?,
        token: Some(text("SessionToken")?),
        expires: Some(text("Expiration")?.parse().ok()?),
    })
}

fn of_json(answer: &[u8]) -> Option<Credentials> {
    let answer: Value = serde_json::from_slice(answer).ok()?;
    let text = |name: &str| answer.get(name)?.as_str().map(str::to_owned);
    Some(Credentials {
        key_id: text("AccessKeyId")?,
        secret: text("SecretAccessKey")?,
        token: text("Token"),
        expires: text("Expiration").and_then(|time| time.parse().ok()),
    })
}

/// A token that is replaced from time to time.
fn token_in(path: &Path) -> Result<String, AwsError> {
    let token = Secret::File(path.to_owned()).load();
    token.map_err(|error| AwsError::File {
        what: path.display().to_string(),
        kind: error.kind,
    })
}

fn secret_value(text: &str) -> Result<HeaderValue, AwsError> {
    let mut value = HeaderValue::from_str(text).map_err(|_| AwsError::Credentials)?;
    value.set_sensitive(true);
    Ok(value)
}

fn malformed(url: &str) -> AwsError {
    match super::http::host_of(url) {
        Ok(host) => AwsError::Malformed { host },
        Err(error) => error,
    }
}

#[cfg(test)]
mod tests;
