//! `tollgate creds`, with a proxy that runs and without one.

use super::support::echo;

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
