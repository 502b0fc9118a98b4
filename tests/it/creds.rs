//! `tollgate creds`, with a proxy that runs and without one.

use std::time::Duration;

use serde_json::json;

use super::support::desk::Desk;
use super::support::echo;
use super::support::operator::{PATIENCE, finish, until};
use super::support::proxy::tollgate;
use super::support::token_server::server::token_server;
use super::support::token_server::settings::ClientAuth;

#[tokio::test]
async fn only_tokens_are_refreshed_and_only_for_who_holds_the_admin_token() {
    let echo = echo::echo().await;
    let proxy = echo::in_front_of(&echo).start().await;
    for (name, said) in [
        ("echo", "only OAuth tokens are refreshed here"),
        ("nobody", "there is no credential `nobody`"),
    ] {
        let refused = proxy.cli(&["creds", "refresh", name]).await;
        assert_eq!(refused.code, Some(1), "{}", refused.stderr);
        assert!(refused.stderr.contains(said), "{}", refused.stderr);
    }
    let path = "/v1/credentials/echo/refresh";
    assert_eq!(
        proxy
            .admin_with("POST", path, "Bearer guessed")
            .await
            .status,
        401
    );
    assert_eq!(proxy.admin("POST", path).await.status, 409);
    assert_eq!(proxy.admin("GET", path).await.status, 405);
}

#[tokio::test]
async fn metrics_tell_the_state_that_the_list_tells() {
    let echo = echo::echo().await;
    let proxy = echo::in_front_of(&echo).start().await;
    let state =
        |state: &str| format!("tollgate_credential_state{{credential=\"echo\",state=\"{state}\"}}");
    assert_eq!(proxy.metric(&state("ok")).await, Some(1.0));
    for other in ["expiring", "missing", "failing", "expired", "needs_login"] {
        assert_eq!(proxy.metric(&state(other)).await, Some(0.0), "{other}");
    }
    let told = proxy.credential("echo").await;
    let at: jiff::Timestamp = told["lastRenewal"].as_str().unwrap().parse().unwrap();
    let series = "tollgate_credential_last_refresh_timestamp_seconds{credential=\"echo\"}";
    #[expect(clippy::cast_precision_loss, reason = "seconds since 1970")]
    let expected = at.as_second() as f64;
    assert_eq!(proxy.metric(series).await, Some(expected));
    let series = "tollgate_credential_expiry_timestamp_seconds{credential=\"echo\"}";
    assert_eq!(
        proxy.metric(series).await,
        None,
        "a file's secret has no end"
    );
}

/// A login at a plain provider, its refresh token in a file that the source is seeded from.
async fn seeded(more: &str) -> Desk {
    // Eight hours and a half are told as `8h`, however slow the machine.
    let lifetime = Duration::from_secs(8 * 3600 + 1800);
    let server = token_server().lifetime(lifetime).start().await;
    let api = server.protected_api(&["api.example.com"]).await;
    let login = server.login();
    let (url, client) = (server.url(), server.client_id().to_owned());
    Desk::with(server, api, |builder| {
        let seed = builder.path("seed");
        std::fs::write(&seed, login.refresh()).unwrap();
        let spec = format!(
            "hosts: [api.example.com]\nplacements: [{{bearer: {{}}}}]\n{more}source:\n  oauth:\n    tokenEndpoint: {url}\n    \
             clientId: {client}\n    seed: {{file: {{path: {}}}}}\n",
            seed.display()
        );
        builder
            .policy("- {hosts: [api.example.com], credentials: [login]}")
            .document("EgressCredential", "login", &spec)
    })
}

#[tokio::test]
async fn a_running_proxy_renews_when_it_is_told_and_says_until_when() {
    let (server, _api, proxy) = seeded("").await.start().await;
    let before = server.truth().rotations;
    let refreshed = proxy.cli(&["creds", "refresh", "login"]).await;
    assert!(
        refreshed
            .ok()
            .starts_with("login: refreshed, expires in 8h"),
        "{}",
        refreshed.stdout
    );
    assert_eq!(server.truth().rotations, before + 1);
    // Told twice at once it renews once at a time, and both hear of it.
    let (one, other) = tokio::join!(
        proxy.cli(&["creds", "refresh", "login", "-o", "json"]),
        proxy.cli(&["creds", "refresh", "login", "-o", "json"])
    );
    for told in [one.json(), other.json()] {
        assert_eq!(told["name"], "login");
        let at: jiff::Timestamp = told["expiresAt"].as_str().unwrap().parse().unwrap();
        assert!(at > jiff::Timestamp::now());
    }
    server.truth().assert_one_clean_grant();
    let listed = proxy.cli(&["creds", "list"]).await;
    let row = listed.ok().lines().nth(1).unwrap();
    assert!(
        row.starts_with("login  ok     in 8h") && row.contains("never"),
        "{row}"
    );
    let renewals = "tollgate_credential_refreshes_total{credential=\"login\",result=\"ok\"}";
    assert!(proxy.metric(renewals).await >= Some(3.0));
    let ends = "tollgate_credential_expiry_timestamp_seconds{credential=\"login\"}";
    let told = proxy.credential("login").await;
    let at: jiff::Timestamp = told["expiresAt"].as_str().unwrap().parse().unwrap();
    #[expect(clippy::cast_precision_loss, reason = "seconds since 1970")]
    let expected = at.as_second() as f64;
    assert_eq!(proxy.metric(ends).await, Some(expected));
}

#[tokio::test]
async fn a_login_that_is_gone_is_told_everywhere_with_what_to_do() {
    let (server, _api, proxy) = seeded("optional: true\n").await.start().await;
    server.revoke_all();
    let refreshed = proxy.cli(&["creds", "refresh", "login"]).await;
    assert_eq!(refreshed.code, Some(1), "{}", refreshed.stdout);
    let said = "tollgate creds login login";
    assert!(refreshed.stderr.contains(said), "{}", refreshed.stderr);
    let listed = proxy.cli(&["creds", "list"]).await;
    assert!(
        listed.ok().contains("login  needs login"),
        "{}",
        listed.stdout
    );
    assert_eq!(proxy.cli(&["creds", "check", "login"]).await.code, Some(1));
    assert_eq!(
        proxy.cli(&["creds", "list", "-o", "short"]).await.ok(),
        "0 ok, 1 needs login\n"
    );
    let state = "tollgate_credential_state{credential=\"login\",state=\"needs_login\"}";
    assert_eq!(proxy.metric(state).await, Some(1.0));
    // It is optional: the process is ready, and says what is wrong.
    let ready = proxy.readyz().await;
    assert_eq!(ready.status, 200, "{}", ready.text);
    assert!(ready.text.contains(said), "{}", ready.text);
    // Nothing is tried again on its own.
    let refused = server.truth().refused;
    let again = proxy.cli(&["creds", "refresh", "login"]).await;
    assert_eq!((again.code, server.truth().refused), (Some(1), refused));
}

#[tokio::test]
async fn a_login_that_is_needed_and_gone_keeps_the_proxy_from_being_ready() {
    let (server, _api, proxy) = seeded("").await.start().await;
    server.revoke_all();
    proxy.cli(&["creds", "refresh", "login"]).await;
    until("it is not ready", PATIENCE, async || {
        proxy.readyz().await.status == 503
    })
    .await;
    let ready: serde_json::Value = serde_json::from_str(&proxy.readyz().await.text).unwrap();
    let why = ready["blocked"]["credential login"].as_str().unwrap();
    assert!(
        why.contains("needs a login") && why.contains("tollgate creds login login"),
        "{why}"
    );
    assert_eq!(ready["warnings"], json!({}), "it is said once");
}

#[tokio::test]
async fn without_a_proxy_a_grant_is_looked_at_and_checked_but_not_redeemed() {
    let desk = seeded("").await;
    let listed = desk.run("creds list -o json").await.json();
    assert_eq!(listed[0]["state"], "missing", "{listed}");
    let (server, _api, proxy) = desk.start().await;
    until("it was renewed", PATIENCE, async || {
        proxy.credential("login").await["state"] == "ok"
    })
    .await;
    let before = server.truth();
    // The admin port is out of reach for these: they look at the store.
    for line in ["creds list", "check"] {
        let home = proxy.config.parent().unwrap();
        let mut command = tollgate(home, &[].into());
        command
            .args(line.split(' '))
            .args(["--admin", "127.0.0.1:1", "--config"])
            .arg(&proxy.config);
        let told = finish(command).await;
        assert!(told.stdout.contains("login"), "{}", told.stdout);
        assert!(told.stdout.contains("in 8h"), "{}", told.stdout);
    }
    let after = server.truth();
    assert_eq!(
        (after.refreshes, after.refused),
        (before.refreshes, before.refused)
    );
}

/// The environment can be sealed once; the admin token and the client's secret both come from there.
#[tokio::test]
async fn secrets_of_the_environment_reach_every_part_of_a_command() {
    let secret = "a-client-secret-that-is-long-enough";
    let server = token_server()
        .confidential(ClientAuth::Basic, "client-1", secret)
        .start()
        .await;
    let api = server.protected_api(&["api.example.com"]).await;
    let spec = format!(
        "hosts: [api.example.com]\nplacements: [{{bearer: {{}}}}]\nsource:\n  oauth:\n    tokenEndpoint: {}\n    \
         clientId: client-1\n    clientSecret: {{env: {{name: CLIENT_SECRET}}}}\n    grant: {{clientCredentials: {{}}}}\n",
        server.url()
    );
    let desk = Desk::with(server, api, |builder| {
        builder.document("EgressCredential", "login", &spec)
    });
    let config = desk.builder.path("tollgate.yaml");
    let text = std::fs::read_to_string(&config).unwrap();
    let with_token = text.replace(
        "admin: {listen:",
        "admin: {token: {env: {name: ADMIN}}, listen:",
    );
    assert_ne!(text, with_token);
    std::fs::write(&config, with_token).unwrap();
    for (line, said) in [
        ("creds refresh login", "login: refreshed, expires in"),
        ("check", "√ login: gets a token when it asks"),
    ] {
        let mut command = desk.command(line);
        command
            .env("ADMIN", "an-admin-token-of-some-length")
            .env("CLIENT_SECRET", secret);
        let finished = finish(command).await;
        assert!(finished.ok().contains(said), "{line}: {}", finished.stdout);
        desk.assert_shows_no_token(&finished);
    }
}
