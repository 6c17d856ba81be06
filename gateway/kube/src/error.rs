//! Why the cluster cannot be talked to at all.

/// What goes wrong before the first call.
#[derive(Debug, thiserror::Error)]
pub enum KubeError {
    #[error("there is no cluster around this process, and no kubeconfig")]
    NoCluster(#[source] kube::Error),
    #[error("the kubeconfig cannot be used")]
    Kubeconfig(#[source] kube::config::KubeconfigError),
    #[error("no client of the API server can be made")]
    Client(#[source] kube::Error),
}
