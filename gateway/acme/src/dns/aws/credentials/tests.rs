use super::super::test_util::TestService;
use super::*;

use std::process;

const XML: &str = "<R xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><Result><Credentials>\
    <AccessKeyId>ASIA</AccessKeyId><SecretAccessKey>role secret</SecretAccessKey>\
    <SessionToken>session</SessionToken><Expiration>2126-11-23T21:30:05Z</Expiration>\
    </Credentials></Result></R>";
const JSON: &str = r#"{"AccessKeyId": "ASIA", "SecretAccessKey": "lent secret",
    "Token": "session", "Expiration": "2126-11-23T21:30:05Z"}"#;

fn wallet(environment: AwsEnvironment, role: Option<Role>, sts: &TestService) -> Wallet {
    Wallet::new(
        CredentialSource::Environment(Box::new(environment)),
        role,
        None,
        Some(sts.url("")),
        Arc::new(Http::new(None).unwrap()),
    )
}

/// A file of this test, with a token.
fn token_file(name: &str) -> PathBuf {
    let name = format!("postern-acme-{}-{name}", process::id());
    let path = std::env::temp_dir().join(name);
    std::fs::write(&path, "a token\n").unwrap();
    path
}

#[tokio::test]
async fn a_web_identity_becomes_a_role_without_a_signature() {
    let sts = TestService::start(|_| (200, XML.to_owned())).await;
    let environment = AwsEnvironment {
        role_arn: Some("arn:aws:iam::1:role/dns".to_owned()),
        web_identity_token_file: Some(token_file("web")),
        ..AwsEnvironment::default()
    };
    let wallet = wallet(environment, None, &sts);
    let credentials = wallet.credentials().await.unwrap();
    assert_eq!(credentials.secret, "role secret");
    assert_eq!(credentials.token.as_deref(), Some("session"));
    wallet.credentials().await.unwrap();
    let asked = sts.asked();
    assert_eq!(asked.len(), 1, "kept until they end");
    assert!(asked[0].headers.get("authorization").is_none());
    let body = &asked[0].body;
    assert!(body.contains("Action=AssumeRoleWithWebIdentity"), "{body}");
    assert!(body.contains("WebIdentityToken=a%20token"), "{body}");
}

#[tokio::test]
async fn a_role_is_taken_with_keys() {
    let sts = TestService::start(|_| (200, XML.to_owned())).await;
    let environment = AwsEnvironment {
        access_key_id: Some("AKIA".to_owned()),
        secret_access_key: Some("key secret".to_owned()),
        ..AwsEnvironment::default()
    };
    let role = Role {
        arn: "arn:aws:iam::1:role/dns".to_owned(),
        external_id: Some("one two".to_owned()),
    };
    let wallet = wallet(environment, Some(role), &sts);
    let credentials = wallet.credentials().await.unwrap();
    assert_eq!(credentials.key_id, "ASIA");
    let asked = &sts.asked()[0];
    assert!(
        asked.body.contains("ExternalId=one%20two"),
        "{}",
        asked.body
    );
    let signed = asked.headers["authorization"].to_str().unwrap();
    assert!(signed.contains("Credential=AKIA/"), "{signed}");
    assert!(!format!("{:?} {credentials:?}", wallet.source).contains("secret"));
}

#[tokio::test]
async fn a_container_is_asked_with_its_token() {
    let pod = TestService::start(|_| (200, JSON.to_owned())).await;
    let environment = AwsEnvironment {
        container_full_uri: Some(pod.url("/v1/credentials")),
        container_token_file: Some(token_file("pod")),
        ..AwsEnvironment::default()
    };
    let credentials = wallet(environment, None, &pod).credentials().await.unwrap();
    assert_eq!(credentials.secret, "lent secret");
    let asked = &pod.asked()[0];
    assert_eq!(asked.line, "GET /v1/credentials");
    assert_eq!(asked.headers["authorization"], "a token");
}

#[tokio::test]
async fn an_instance_is_asked_for_a_token_first() {
    let metadata = TestService::start(|asked| {
        let path = "/latest/meta-data/iam/security-credentials/";
        let has_token = asked
            .headers
            .get("x-aws-ec2-metadata-token")
            .is_some_and(|token| token == "tt");
        match asked.line.as_str() {
            "PUT /latest/api/token" => (200, "tt".to_owned()),
            line if !has_token => (401, line.to_owned()),
            line if line == format!("GET {path}") => (200, "node-role\n".to_owned()),
            line if line == format!("GET {path}node-role") => (200, JSON.to_owned()),
            line => (404, line.to_owned()),
        }
    })
    .await;
    let environment = AwsEnvironment {
        metadata_endpoint: Some(metadata.url("")),
        ..AwsEnvironment::default()
    };
    let wallet = wallet(environment, None, &metadata);
    let credentials = wallet.credentials().await.unwrap();
    assert_eq!(credentials.key_id, "ASIA");
    assert_eq!(metadata.asked().len(), 3);
}

#[tokio::test]
async fn credentials_that_end_soon_are_replaced() {
    let soon = Timestamp::now() + MARGIN / 2;
    let json = JSON.replace("2126-11-23T21:30:05Z", &soon.to_string());
    let pod = TestService::start(move |_| (200, json.clone())).await;
    let environment = AwsEnvironment {
        container_full_uri: Some(pod.url("/")),
        ..AwsEnvironment::default()
    };
    let wallet = wallet(environment, None, &pod);
    wallet.credentials().await.unwrap();
    wallet.credentials().await.unwrap();
    assert_eq!(pod.asked().len(), 2);
}

#[tokio::test]
async fn what_hands_out_nothing_is_named() {
    let broken = TestService::start(|_| (200, "<html>".to_owned())).await;
    let cases = [
        (
            AwsEnvironment {
                metadata_disabled: true,
                ..AwsEnvironment::default()
            },
            "there are no AWS credentials",
        ),
        (
            AwsEnvironment {
                role_arn: Some("arn".to_owned()),
                web_identity_token_file: Some("/nowhere/token".into()),
                ..AwsEnvironment::default()
            },
            "/nowhere/token cannot be read",
        ),
        (
            AwsEnvironment {
                container_full_uri: Some(broken.url("/")),
                ..AwsEnvironment::default()
            },
            "answered what is no answer",
        ),
        (
            AwsEnvironment {
                container_full_uri: Some("http://evil.test/".to_owned()),
                ..AwsEnvironment::default()
            },
            "is no URL of a service",
        ),
    ];
    for (environment, want) in cases {
        let error = wallet(environment, None, &broken).credentials().await;
        let error = error.unwrap_err().to_string();
        assert!(error.contains(want), "{want}: {error}");
    }
}

#[test]
fn the_environment_is_read_by_the_names_that_aws_gives() {
    let environment = AwsEnvironment::from_variables(|name| match name {
        "AWS_ROLE_ARN" => Some("arn".to_owned()),
        "AWS_DEFAULT_REGION" => Some("eu-west-1".to_owned()),
        "AWS_ACCESS_KEY_ID" => Some(String::new()),
        "AWS_EC2_METADATA_DISABLED" => Some("TRUE".to_owned()),
        _ => None,
    });
    let want = AwsEnvironment {
        role_arn: Some("arn".to_owned()),
        region: Some("eu-west-1".to_owned()),
        metadata_disabled: true,
        ..AwsEnvironment::default()
    };
    assert!(environment == want, "{environment:?}");
}
