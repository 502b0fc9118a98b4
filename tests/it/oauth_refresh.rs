//! Tollgate owns a grant: what origins see of its tokens, over renewals, failures and restarts.

use std::time::Duration;

use crate::support::door::Door;
use crate::support::proxy::{Proxy, ProxyBuilder, proxy};
use crate::support::token_server::api::ProtectedApi;
use crate::support::token_server::server::{TokenServer, token_server};

/// A proxy with a login of `server`'s, for `api`.
fn owner(server: &TokenServer, api: &ProtectedApi) -> ProxyBuilder {
    let login = server.login();
    let builder = proxy()
        .origin(&server.origin)
        .origin(&api.origin)
        .policy("- {hosts: [api.example.com], credentials: [login]}");
    let seed = builder.path("seed");
    std::fs::write(&seed, login.refresh()).unwrap();
    let spec = format!(
        "hosts: [api.example.com]\nplacements: [{{bearer: {{}}}}]\nplaceholder: {{env: [TOKEN]}}\n\
         source:\n  oauth:\n    tokenEndpoint: {}\n    clientId: {}\n    seed: {{file: {{path: {}}}}}\n",
        server.url(),
        server.client_id(),
        seed.display()
    );
    builder.document("EgressCredential", "login", &spec)
}

#[tokio::test]
async fn a_request_carries_a_token_that_was_renewed_before_it_was_needed() {
    let server = token_server()
        .lifetime(Duration::from_secs(3))
        .start()
        .await;
    let api = server.protected_api(&["api.example.com"]).await;
    let proxy: Proxy = owner(&server, &api).start().await;
    let door: Door = proxy.door().await;
    println!("{:?}", door.env.get("TOKEN"));
    let _ = (door, &proxy);
    server
        .wait_until("three renewals", |truth| truth.rotations >= 3)
        .await;
    println!("{:?}", server.truth());
}
