use std::sync::Arc;

use super::super::scripted::{Scripted, answer, asking};
use super::*;

const STANDARD: &str = "clientId: acme
tokenEndpoint: https://auth.example.com/token
scopes: [a, b]
login: { deviceAuthorizationEndpoint: https://auth.example.com/device }";

const BEGUN: &str = r#"{"device_code":"dc-sentinel","user_code":"WDJB-MJHT","verification_uri":"https://example.com/device","verification_uri_complete":"https://example.com/device?user_code=WDJB-MJHT","expires_in":600,"interval":7}"#;
const TOKENS: &str = r#"{"access_token":"at","refresh_token":"rt","expires_in":60}"#;

fn said(error: &str) -> Result<TokenResponse, TransportError> {
    Ok(answer(400, &[], &format!(r#"{{"error":"{error}"}}"#)))
}

fn cut() -> Result<TokenResponse, TransportError> {
    Err(TransportError::Unanswered("cut".to_owned()))
}

fn ok(body: &str) -> Result<TokenResponse, TransportError> {
    Ok(answer(200, &[], body))
}

async fn log_in(yaml: &str, transport: Arc<Scripted>) -> Result<TokenSet, LoginError> {
    let asking = asking(yaml, transport);
    let login = DeviceLogin::start(&asking).await?;
    assert!(!format!("{login:?}").contains("sentinel"));
    login.wait(&asking).await
}

#[tokio::test(start_paused = true)]
async fn tokens_come_when_the_code_was_entered() {
    let transport = Scripted::new([
        ok(BEGUN),
        said("authorization_pending"),
        // GitHub's way to say the same.
        ok(r#"{"error":"authorization_pending","interval":7}"#),
        said("slow_down"),
        cut(),
        Ok(answer(503, &[], "")),
        ok(TOKENS),
    ]);
    let begun = Instant::now();
    let tokens = log_in(STANDARD, transport.clone()).await.unwrap();
    assert_eq!(tokens.refresh.unwrap().expose(), b"rt");
    // Three times the interval, then 5 s more, then twice and four times that.
    assert_eq!(begun.elapsed().as_secs(), 7 + 7 + 7 + 12 + 24 + 48);
    let sent = transport.sent();
    assert_eq!(sent[0].0, "https://auth.example.com/device");
    assert_eq!(sent[0].1, "scope=a+b&client_id=acme");
    for poll in &sent[1..] {
        assert_eq!(poll.0, "https://auth.example.com/token");
        assert_eq!(
            poll.1,
            "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Adevice_code&device_code=dc-sentinel&client_id=acme"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_login_that_fails_says_why() {
    for (error, expected) in [
        (
            "access_denied",
            LoginError::Denied("access_denied".to_owned()),
        ),
        ("expired_token", LoginError::Expired),
    ] {
        let transport = Scripted::new([ok(BEGUN), said(error)]);
        assert_eq!(log_in(STANDARD, transport).await.unwrap_err(), expected);
    }
    let transport = Scripted::new([ok(BEGUN), said("invalid_client")]);
    let error = log_in(STANDARD, transport).await.unwrap_err();
    assert!(matches!(
        error,
        LoginError::Endpoint(EndpointError::Refused(_))
    ));
    let pending = std::iter::repeat_with(|| said("authorization_pending")).take(600 / 7);
    let transport = Scripted::new(std::iter::once(ok(BEGUN)).chain(pending));
    let error = log_in(STANDARD, transport).await.unwrap_err();
    assert_eq!(error, LoginError::Expired);
}

#[tokio::test(start_paused = true)]
async fn codex_gets_a_code_with_its_verifier_and_exchanges_it() {
    let begun = r#"{"device_auth_id":"da-sentinel","user_code":"ABCD-12345","interval":"5"}"#;
    let entered = r#"{"authorization_code":"ac-1","code_challenge":"c","code_verifier":"cv-1"}"#;
    let transport = Scripted::new([
        ok(begun),
        Ok(answer(
            403,
            &[],
            r#"{"error":{"code":"deviceauth_authorization_unknown"}}"#,
        )),
        Ok(answer(404, &[], "")),
        cut(),
        ok(entered),
        ok(TOKENS),
    ]);
    let tokens = log_in("client: codex", transport.clone()).await.unwrap();
    assert_eq!(tokens.refresh.unwrap().expose(), b"rt");
    let sent = transport.sent();
    let base = "https://auth.openai.com";
    let expected = [
        (
            "/api/accounts/deviceauth/usercode",
            r#"{"client_id":"app_EMoamEEZ73f0CkXaXp7hrann"}"#,
        ),
        (
            "/api/accounts/deviceauth/token",
            r#"{"device_auth_id":"da-sentinel","user_code":"ABCD-12345"}"#,
        ),
        (
            "/oauth/token",
            "grant_type=authorization_code&code=ac-1&code_verifier=cv-1&redirect_uri=https%3A%2F%2Fauth.openai.com%2Fdeviceauth%2Fcallback&client_id=app_EMoamEEZ73f0CkXaXp7hrann",
        ),
    ];
    for (index, (path, body)) in [0, 1, 5].into_iter().zip(expected) {
        assert_eq!(sent[index], (format!("{base}{path}"), body.to_owned()));
    }
}

#[tokio::test]
async fn what_a_person_sees_is_what_the_endpoint_said() {
    let asking = asking(STANDARD, Scripted::new([ok(BEGUN)]));
    let login = DeviceLogin::start(&asking).await.unwrap();
    assert_eq!(login.user_code(), "WDJB-MJHT");
    assert_eq!(login.verification_uri(), "https://example.com/device");
    assert!(login.verification_uri_complete().unwrap().contains("WDJB"));
}

#[tokio::test]
async fn a_start_that_fails_is_told() {
    let start = async |yaml: &str, answer| {
        let asking = asking(yaml, Scripted::new([answer]));
        DeviceLogin::start(&asking).await.unwrap_err()
    };
    assert_eq!(
        start("client: claude-code", cut()).await,
        LoginError::NoDevice
    );
    assert!(matches!(
        start("client: codex", Ok(answer(404, &[], ""))).await,
        LoginError::Endpoint(EndpointError::Refused(_))
    ));
    for odd in [
        "",
        "{}",
        r#"{"device_code":"dc-sentinel","user_code":"A"}"#,
        r#"{"device_code":"dc-sentinel","user_code":"\u001b[2J","verification_uri":"https://a"}"#,
        r#"{"device_code":7,"user_code":"A","verification_uri":"https://a"}"#,
    ] {
        let error = start(STANDARD, ok(odd)).await;
        assert!(
            matches!(error, LoginError::Endpoint(EndpointError::Unanswered(_))),
            "{odd}"
        );
        assert!(!error.to_string().contains("sentinel"));
    }
}
