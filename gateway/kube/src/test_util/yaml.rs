//! Objects as manifests.

/// A Service `name` with one pod, whose address is made of `octet`.
pub fn service(namespace: &str, name: &str, octet: u8) -> String {
    format!(
        "
apiVersion: v1
kind: Service
metadata: {{namespace: {namespace}, name: {name}}}
spec:
  clusterIP: 10.96.0.{octet}
  ports: [{{name: http, port: 80, targetPort: 8080}}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  namespace: {namespace}
  name: {name}-1
  labels: {{kubernetes.io/service-name: {name}}}
addressType: IPv4
ports: [{{name: http, port: 8080}}]
endpoints: [{{addresses: [10.244.0.{octet}]}}]
---
"
    )
}

/// A TLS Secret, of a certificate and a key in base64.
pub fn tls_secret(namespace: &str, name: &str, cert: &str, key: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{namespace: {namespace}, name: {name}}}\n\
         type: kubernetes.io/tls\ndata: {{tls.crt: {cert}, tls.key: {key}}}\n---\n"
    )
}
