//! HAProxy before gateways: it passes connections on as they are, with a header of the PROXY protocol.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio::time::sleep;

use super::super::failed;
use crate::process::Program;

const START: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(20);

/// The balancer; ended when it is dropped.
pub(super) struct Balancer {
    _program: Program,
}

impl Balancer {
    /// Passes ports 80 and 443 of public addresses on to the gateway at the address behind them.
    pub(super) async fn start(
        dir: &Path,
        gateways: &[(Vec<IpAddr>, IpAddr)],
    ) -> Result<Self, String> {
        let mut config = "defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n".to_owned();
        for (number, (public, gateway)) in gateways.iter().enumerate() {
            for port in [80, 443] {
                let _ = writeln!(config, "listen gateway-{number}-{port}");
                for ip in public {
                    let _ = writeln!(config, "  bind {ip}:{port}");
                }
                let _ = writeln!(config, "  server node {gateway}:{port} send-proxy-v2");
            }
        }
        let file = dir.join("haproxy.cfg");
        std::fs::write(&file, config).map_err(failed("haproxy.cfg"))?;
        let file = file.display().to_string();
        let path = [
            "/usr/sbin/haproxy",
            "/usr/local/sbin/haproxy",
            "/usr/bin/haproxy",
        ];
        let path = path.into_iter().map(Path::new).find(|path| path.is_file());
        let path =
            path.ok_or("there is no haproxy; install it with: tests/certificates/setup.sh")?;
        let mut program =
            Program::start(path, &["-db", "-f", &file], false).map_err(failed("HAProxy"))?;
        let end = Instant::now() + START;
        let first = gateways.iter().find_map(|(public, _)| public.first());
        let first = first.ok_or("a balancer needs an address")?;
        while TcpStream::connect((*first, 80)).await.is_err() {
            if !program.is_running() || Instant::now() > end {
                return Err(format!("HAProxy does not listen:\n{}", program.output()));
            }
            sleep(POLL).await;
        }
        Ok(Self { _program: program })
    }
}
