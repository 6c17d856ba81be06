//! Route 53 as moto plays it, and a DNS server for its zones (`tests/certificates/route53.py`).

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use postern_acme::dns::DnsClient;
use postern_acme::dns::DnsSpec;

use super::failed;
use crate::process::Program;
use crate::process::free_addr;

/// Python starts slowly on a busy machine.
const START: Duration = Duration::from_secs(60);

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
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
        let bin = root.join(".cache/certificates-venv/bin");
        if !bin.join("moto_server").is_file() {
            let bin = bin.display();
            return Err(format!(
                "there is no moto in {bin}; install it with: tests/certificates/setup.sh"
            ));
        }
        let port = service.port().to_string();
        let moto = Program::start(
            &bin.join("moto_server"),
            &["-H", "127.0.0.1", "-p", &port],
            false,
        );
        let moto = moto.map_err(failed("moto"))?;
        if !moto.prints(START, |text| text.contains("Running on")).await {
            return Err(format!("moto does not start:\n{}", moto.output()));
        }
        let script = root.join("tests/certificates/route53.py");
        let (script, url) = (script.display().to_string(), format!("http://{service}"));
        let port = dns.port().to_string();
        let mut arguments = vec![&*script, &*url, &*port];
        arguments.extend(zones);
        let bridge = Program::start(&bin.join("python"), &arguments, false);
        let bridge = bridge.map_err(failed("the DNS server of moto"))?;
        if !bridge
            .prints(START, |text| text.contains("answering"))
            .await
        {
            return Err(format!(
                "the DNS server of moto does not start:\n{}",
                bridge.output()
            ));
        }
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
