//! Clients of the API server.

use std::path::Path;
use std::time::Duration;

use kube::Client;
use kube::Config;
use kube::config::KubeConfigOptions;
use kube::config::Kubeconfig;

use crate::error::KubeError;

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(5);

/// A client as the kubeconfig says, or else the ServiceAccount of the pod, or else the kubeconfig of
/// whoever started the process.
pub async fn connect(kubeconfig: Option<&Path>) -> Result<Client, KubeError> {
    let mut config = match kubeconfig {
        Some(path) => {
            let read = Kubeconfig::read_from(path).map_err(KubeError::Kubeconfig)?;
            let options = KubeConfigOptions::default();
            Config::from_custom_kubeconfig(read, &options)
                .await
                .map_err(KubeError::Kubeconfig)?
        }
        None => match Config::incluster() {
            Ok(config) => config,
            Err(_) => {
                let inferred = Config::infer().await.map_err(kube::Error::InferConfig);
                inferred.map_err(KubeError::NoCluster)?
            }
        },
    };
    config.connect_timeout = Some(CONNECT);
    // Whoever calls knows better when to call again: a watch when the server is back, a writer not
    // after its term.
    config.default_retry = false;
    Client::try_from(config).map_err(KubeError::Client)
}
