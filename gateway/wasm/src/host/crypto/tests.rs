//! Known answers, and keys and signatures that are not what they should be.

use std::sync::Arc;

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::encoding::PublicKeyX509Der;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::ECDSA_P256_SHA256_FIXED_SIGNING;
use aws_lc_rs::signature::EcdsaKeyPair;
use aws_lc_rs::signature::Ed25519KeyPair;
use aws_lc_rs::signature::KeyPair as _;
use postern_core::config::plugin::PluginLimits;
use postern_core::name::PolicyName;

use super::*;
use crate::component::Component;
use crate::engine::PluginEngine;
use crate::limits::LogBudget;
use crate::plugin::Plugin;
use crate::plugin::PluginSetup;
use crate::plugin::Secrets;
use crate::stats::PluginStats;

async fn host() -> HostState {
    let engine = PluginEngine::new(None).unwrap();
    let code = crate::component::tests::plugin();
    let component = Component::load(&engine, &code).unwrap();
    let name = PolicyName::parse("guest").unwrap();
    let secret: Arc<[u8]> = b"Jefe"[..].into();
    let setup = PluginSetup {
        secrets: Secrets::new([("key".to_owned(), secret)]),
        ..PluginSetup::new(name, "{}".into(), PluginLimits::default())
    };
    let plugin = Plugin::set_up(component, setup, None).await.unwrap();
    let log = LogBudget::new(1, Arc::new(PluginStats::default()));
    HostState::new(&plugin, Arc::new(log), None)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn digests_and_macs_have_their_known_values() {
    let mut host = host().await;
    let digest = host.digest(DigestAlgorithm::Sha256, b"abc".to_vec());
    let want = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    assert_eq!(hex(&digest.unwrap()), want);
    // RFC 4231, 4.3; the key by name and by value.
    let data = b"what do ya want for nothing?".to_vec();
    let want = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
    for key in [Key::Secret("key".into()), Key::Bytes(b"Jefe".to_vec())] {
        let mac = host.hmac(DigestAlgorithm::Sha256, key, data.clone());
        let mac = mac.unwrap().unwrap();
        assert_eq!(hex(&mac), want);
        let key = Key::Secret("key".into());
        let checked = host.verify(SignatureAlgorithm::Hs256, key, data.clone(), mac);
        assert_eq!(checked.unwrap(), Ok(true));
    }
    for (key, want) in [
        (Key::Secret("no\nne".into()), r"there is no secret no\nne"),
        (Key::Bytes(Vec::new()), "the key is empty"),
    ] {
        let mac = host.hmac(DigestAlgorithm::Sha256, key, data.clone());
        assert_eq!(mac.unwrap(), Err(want.to_owned()));
    }
    assert!(host.equal(b"same".to_vec(), b"same".to_vec()).unwrap());
    assert!(!host.equal(b"same".to_vec(), b"other".to_vec()).unwrap());
    assert!(!host.equal(b"same".to_vec(), b"sam".to_vec()).unwrap());
}

#[tokio::test]
async fn a_signature_is_of_this_key_this_data_and_this_algorithm() {
    let mut host = host().await;
    let random = SystemRandom::new();
    let ec = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let ed = Ed25519KeyPair::generate().unwrap();
    let der = |key: &dyn AsDer<PublicKeyX509Der<'static>>| key.as_der().unwrap().as_ref().to_vec();
    let (ec_key, ed_key) = (der(ec.public_key()), der(ed.public_key()));
    let ec_signed = ec.sign(&random, b"data").unwrap().as_ref().to_vec();
    let ed_signed = ed.sign(b"data").as_ref().to_vec();
    let (es, eddsa) = (SignatureAlgorithm::Es256, SignatureAlgorithm::Ed25519);
    let cases = [
        (es, &ec_key, &b"data"[..], &ec_signed, Some(true)),
        (es, &ec_key, b"other", &ec_signed, Some(false)),
        (es, &ec_key, b"data", &ed_signed, Some(false)),
        (eddsa, &ed_key, b"data", &ed_signed, Some(true)),
        (eddsa, &ed_key, b"data", &Vec::new(), Some(false)),
        // A key of another kind is an error, not a signature that fails.
        (es, &ed_key, b"data", &ec_signed, None),
        (
            SignatureAlgorithm::Rs256,
            &ec_key,
            b"data",
            &ec_signed,
            None,
        ),
        (
            SignatureAlgorithm::Es384,
            &ec_key,
            b"data",
            &ec_signed,
            None,
        ),
    ];
    for (algorithm, key, data, signature, want) in cases {
        let key = Key::Bytes(key.clone());
        let checked = host.verify(algorithm, key, data.to_vec(), signature.clone());
        let checked = checked.unwrap();
        assert_eq!(checked.clone().ok(), want, "{algorithm:?}: {checked:?}");
    }
}
