//! Route 53 as moto plays it, and a DNS server for its zones (`tests/certificates/route53.py`).

use std::net::SocketAddr;

use postern_acme::dns::DnsClient;
use postern_acme::dns::DnsSpec;

use super::failed;
use super::python::SERVERS;
use super::python::START;
use super::python::answering;
use super::python::python;
use crate::process::Program;
use crate::process::free_addr;

/// Ends when dropped.
pub struct Route53 {
    pub service: SocketAddr,
    pub dns: SocketAddr,
    _moto: Program,
    _bridge: Program,
}

impl Route53 {
    pub async fn start(zones: &[&str]) -> Result<Self, String> {
        let (service, dns) = (free_addr(), free_addr());
        let port = service.port().to_string();
        let moto = Program::start(
            &python(SERVERS, "moto_server")?,
            &["-H", "127.0.0.1", "-p", &port],
            false,
        );
        let moto = moto.map_err(failed("moto"))?;
        if !moto.prints(START, |text| text.contains("Running on")).await {
            return Err(format!("moto does not start:\n{}", moto.output()));
        }
        let (url, port) = (format!("http://{service}"), dns.port().to_string());
        let mut arguments = vec![&*url, &*port];
        arguments.extend(zones);
        let bridge = answering(SERVERS, "route53.py", &arguments).await?;
        Ok(Self {
            service,
            dns,
            _moto: moto,
            _bridge: bridge,
        })
    }

    pub fn client(&self) -> DnsClient {
        DnsClient::new(DnsSpec {
            resolvers: vec![self.dns],
            authority_port: self.dns.port(),
        })
    }
}
