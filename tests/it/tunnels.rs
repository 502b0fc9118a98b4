//! Tunnels of which `sni: Optional` asks little: whoever speaks first, it passes unread, and silence has an end.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::support::operator::{PATIENCE, until};
use super::support::proxy::{Proxy, proxy};
use super::support::{hello, tunnel, wire};

const HOST: &str = "ssh.example.com";

struct Scene {
    origin: TcpListener,
    proxy: Proxy,
}

impl Scene {
    async fn new(limits: &str) -> Self {
        let origin = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = proxy()
            .resolve(HOST, origin.local_addr().unwrap())
            .policy(&format!("- {{hosts: [{HOST}], sni: Optional}}"))
            .setting("ca: {nameConstraints: off}")
            .setting(&format!("limits: {{connections: {{{limits}}}}}"))
            .start()
            .await;
        Self { origin, proxy }
    }

    /// Both ends of a new tunnel.
    async fn tunnel(&self) -> (TcpStream, TcpStream) {
        let (agent, status) =
            tunnel::connect(&self.proxy.bare_door(), &format!("{HOST}:443")).await;
        assert!(status.contains(" 200"), "{status}");
        let (origin, _) = self.origin.accept().await.unwrap();
        (agent, origin)
    }
}

async fn passes(from: &mut TcpStream, to: &mut TcpStream, octets: &[u8]) {
    from.write_all(octets).await.unwrap();
    let mut passed = vec![0; octets.len()];
    let reading = to.read_exact(&mut passed);
    let read = tokio::time::timeout(PATIENCE, reading).await;
    read.expect("nothing passes").unwrap();
    assert_eq!(passed, octets);
}

#[tokio::test]
async fn whoever_speaks_first_is_heard() {
    let scene = Scene::new("tunnelStart: 60s").await;
    let (mut agent, mut origin) = scene.tunnel().await;
    passes(&mut origin, &mut agent, b"SSH-2.0-origin\r\n").await;
    passes(&mut agent, &mut origin, b"SSH-2.0-agent\r\n").await;
    for first in [
        b"hello\r\n".to_vec(),
        hello::nameless(),
        hello::naming(HOST),
    ] {
        let (mut agent, mut origin) = scene.tunnel().await;
        passes(&mut agent, &mut origin, &first).await;
        passes(&mut origin, &mut agent, b"well").await;
    }
}

#[tokio::test]
async fn a_hello_to_another_host_never_passes() {
    let scene = Scene::new("tunnelStart: 60s").await;
    let (mut agent, mut origin) = scene.tunnel().await;
    let hello = hello::naming("other.example.com");
    agent.write_all(&hello).await.unwrap();
    wire::rest(&mut agent).await;
    assert!(wire::rest(&mut origin).await.is_empty());
    let record = scene.proxy.access_log(1).await.remove(0);
    assert_eq!(record["reason"], "tunnel_server_name_mismatch", "{record}");
}

#[tokio::test]
async fn a_tunnel_in_which_nobody_speaks_ends() {
    let scene = Scene::new("tunnelStart: 300ms").await;
    let (mut agent, mut origin) = scene.tunnel().await;
    assert!(wire::rest(&mut agent).await.is_empty());
    assert!(wire::rest(&mut origin).await.is_empty());
    let record = scene.proxy.access_log(1).await.remove(0);
    assert_eq!(record["reason"], "tunnel_no_client_hello", "{record}");
    let series = "tollgate_limits_reached_total{limit=\"connections.tunnelStart\"}";
    until(series, PATIENCE, async || {
        scene.proxy.metric(series).await == Some(1.0)
    })
    .await;
}

/// Nobody has to speak for it to end.
#[tokio::test]
async fn a_silent_tunnel_ends_with_the_rule_that_allowed_it() {
    let scene = Scene::new("tunnelStart: 1h").await;
    let (mut agent, mut origin) = scene.tunnel().await;
    let documents = "apiVersion: tollgate.dev/v1alpha1\nkind: EgressPolicy\nmetadata: {name: policy-0}\n\
                     spec: {egress: [{hosts: [more.example.org]}]}\n";
    scene.proxy.reload(documents).await;
    assert!(wire::rest(&mut agent).await.is_empty());
    assert!(wire::rest(&mut origin).await.is_empty());
    let record = scene.proxy.access_log(1).await.remove(0);
    assert_eq!(record["end"], "revoked", "{record}");
}
