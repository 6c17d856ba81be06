//! The meaning of the section about the cluster.

use std::net::IpAddr;

use super::FileReader;
use super::Kind;
use super::raw::At;
use super::raw::RawEndpointMode;
use super::raw::RawKubernetes;
use super::raw::RawSecretScope;
use crate::config::kubernetes::DEFAULT_CONTROLLER;
use crate::config::kubernetes::DEFAULT_LEASE;
use crate::config::kubernetes::DEFAULT_PEERS;
use crate::config::kubernetes::EndpointMode;
use crate::config::kubernetes::KubernetesSpec;
use crate::config::kubernetes::NamespacedName;
use crate::config::kubernetes::Publish;
use crate::config::kubernetes::SecretScope;
use crate::hostname::Hostname;
use crate::name::IssuerName;

impl FileReader<'_> {
    pub(super) fn kubernetes(&mut self, raw: &RawKubernetes) {
        let controller = raw.controller.as_ref().and_then(|text| {
            self.text(text, "controller", |text| {
                // As the API has it: a domain, a slash, a path.
                let parts = text.split_once('/');
                let is_sound = parts.is_some_and(|(domain, path)| {
                    !path.is_empty() && matches!(Hostname::parse(domain), Ok(Hostname::Exact(_)))
                });
                let text = is_sound.then(|| text.to_owned());
                text.ok_or("write a domain, a slash and a name, as in postern.dev/internal")
            })
        });
        let mut texts = |texts: &[At<String>], what: &str| -> Vec<String> {
            let texts = texts.iter();
            texts
                .filter_map(|text| self.text(text, what, object_name))
                .collect()
        };
        let classes = texts(&raw.ingress_classes, "name of a class");
        let trusted_namespaces = texts(&raw.trusted_namespaces, "namespace");
        let lease = raw.lease.as_slice();
        let lease = texts(lease, "name of a Lease").pop();
        let peers = texts(raw.peers.as_slice(), "name of a Service").pop();
        let issuer = raw.issuer.as_ref();
        let issuer = issuer.and_then(|text| self.reference(Kind::Issuer, text, IssuerName::parse));
        let external_names = raw.external_names.iter();
        let external_names = external_names
            .filter_map(|text| self.text(text, "host name", Hostname::parse))
            .collect();
        let mut namespaced = |text: Option<&At<String>>, what: &str| {
            text.and_then(|text| self.text(text, what, namespaced_name))
        };
        let default_certificate = namespaced(raw.default_certificate.as_ref(), "Secret");
        let service = namespaced(raw.publish_service.as_ref(), "Service");
        let hostname = raw.publish_hostname.as_ref().and_then(|text| {
            let host = self.text(text, "host name", Hostname::parse)?;
            Some(host.to_string())
        });
        let addresses = raw.publish_addresses.iter();
        let addresses = addresses
            .filter_map(|text| {
                self.text(text, "address", |text| {
                    text.parse::<IpAddr>().map_err(|_| "write an IP address")
                })
            })
            .collect();
        if let Some(text) = &raw.default_certificate {
            self.place("kubernetes.default-certificate".to_owned(), text.span());
        }
        self.reading.config.kubernetes = Some(KubernetesSpec {
            controller: controller.unwrap_or_else(|| DEFAULT_CONTROLLER.to_owned()),
            classes,
            serves_classless: raw.class_less.unwrap_or(false),
            shares_hosts: raw.share_hosts.unwrap_or(false),
            endpoints: match raw.endpoints {
                None | Some(RawEndpointMode::Pods) => EndpointMode::Pods,
                Some(RawEndpointMode::Service) => EndpointMode::Service,
            },
            external_names,
            default_certificate,
            publish: Publish {
                hostname,
                addresses,
                service,
            },
            trusted_namespaces,
            plugin_dir: raw.plugin_dir.as_ref().map(|dir| self.file(dir)),
            secrets: match raw.secrets {
                None | Some(RawSecretScope::Named) => SecretScope::Named,
                Some(RawSecretScope::Cluster) => SecretScope::Cluster,
            },
            lease: lease.unwrap_or_else(|| DEFAULT_LEASE.to_owned()),
            issuer,
            peers: peers.unwrap_or_else(|| DEFAULT_PEERS.to_owned()),
        });
    }
}

/// The name of an object (RFC 1123), as far as it matters here.
pub(super) fn object_name(text: &str) -> Result<String, &'static str> {
    let is_part = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let is_sound = !text.is_empty()
        && text.len() <= 253
        && text
            .bytes()
            .all(|byte| is_part(byte) || matches!(byte, b'-' | b'.'));
    let text = is_sound.then(|| text.to_owned());
    text.ok_or("names of objects have a to z, 0 to 9, '-' and '.'")
}

fn namespaced_name(text: &str) -> Result<NamespacedName, &'static str> {
    let (namespace, name) = text
        .split_once('/')
        .ok_or("write the namespace, a slash and the name")?;
    Ok(NamespacedName {
        namespace: object_name(namespace)?,
        name: object_name(name)?,
    })
}
