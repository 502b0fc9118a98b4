//! How tokens are asked for, over real TLS: every grant and every login, against the referee.

use std::time::{Duration, SystemTime};

use tollgate::oauth::device::DeviceLogin;
use tollgate::oauth::endpoint_error::EndpointError;
use tollgate::oauth::login::AuthorizationRequest;
use tollgate::oauth::login_error::LoginError;
use tollgate::oauth::requester::TokenRequester as _;
use tollgate::oauth::token::TokenSet;

use super::support::asker::{Asker, PATIENCE, PLAIN, text};
use super::support::token_server::jwt::SigningKey;
use super::support::token_server::server::{TokenServer, token_server};
use super::support::token_server::settings::{ClientAuth, TokenServerBuilder};

/// That these are the newest tokens of the server's one live grant.
#[track_caller]
fn assert_current(server: &TokenServer, tokens: &TokenSet) {
    let truth = server.truth();
    truth.assert_one_clean_grant();
    assert_eq!(truth.access_token(), text(&tokens.access));
    let refresh = tokens.refresh.as_ref().map(text);
    assert_eq!(refresh, Some(truth.refresh_token()));
}

#[tokio::test]
async fn a_refresh_token_is_redeemed_as_each_provider_wants_it() {
    let secret = "clientSecret: { env: { name: SECRET } }\nscopes: [read]\n";
    let post = format!("{PLAIN}{secret}clientAuthentication: body");
    let basic = format!("{PLAIN}{secret}");
    let odd = "s3:cr/t &+%";
    let cases: [(TokenServerBuilder, &str); 5] = [
        (token_server(), PLAIN),
        (token_server().claude(), "client: claude-code"),
        (token_server().codex(), "client: codex"),
        (
            token_server().confidential(ClientAuth::Post, "client-1", odd),
            &post,
        ),
        (
            token_server().confidential(ClientAuth::Basic, "client-1", odd),
            &basic,
        ),
    ];
    for (builder, yaml) in cases {
        let server = builder.start().await;
        let client = Asker::of(&server, yaml, odd).await;
        let mut refresh = server.login().refresh().to_owned();
        for _ in 0..3 {
            let before = SystemTime::now();
            let tokens = client.refresh(&refresh).await.unwrap();
            assert_current(&server, &tokens);
            let life = tokens.expires_at.unwrap().duration_since(before).unwrap();
            assert!(life > Duration::from_secs(3000), "{yaml}: {life:?}");
            refresh = text(tokens.refresh.as_ref().unwrap()).to_owned();
        }
        let error = client
            .refresh(server.minted()[1].as_str())
            .await
            .unwrap_err();
        assert!(
            matches!(error, EndpointError::InvalidGrant(_)),
            "{yaml}: {error}"
        );
        assert!(!error.to_string().contains(server.sentinel()), "{error}");
        assert_eq!(server.origin.connections(), server.origin.requests().len());
    }
}

#[tokio::test]
async fn a_request_says_who_asks_and_wants_json_as_it_is() {
    let server = token_server().start().await;
    let client = Asker::of(&server, PLAIN, "").await;
    client.refresh(server.login().refresh()).await.unwrap();
    let request = server.origin.requests().remove(0);
    assert_eq!(request.header("host"), Some("token.example.com"));
    let agent = concat!("tollgate/", env!("CARGO_PKG_VERSION"));
    assert_eq!(request.header("user-agent"), Some(agent));
    assert_eq!(request.header("accept"), Some("application/json"));
    assert_eq!(request.header("accept-encoding"), Some("identity"));
    assert_eq!(request.all("content-length").len(), 1);
    assert_eq!(request.header("transfer-encoding"), None);
}

#[tokio::test]
async fn a_refresh_token_that_is_never_spent_stays_in_force() {
    let server = token_server()
        .keeps_refresh_tokens()
        .without_expires_in()
        .start()
        .await;
    let client = Asker::of(&server, PLAIN, "").await;
    let refresh = server.login().refresh().to_owned();
    let tokens = client.refresh(&refresh).await.unwrap();
    assert_eq!(tokens.refresh.as_ref().map(text), Some(refresh.as_str()));
    assert_eq!(tokens.expires_at, None);
}

#[tokio::test]
async fn a_client_asks_for_itself() {
    let server = token_server()
        .confidential(ClientAuth::Basic, "client-1", "s3cret")
        .start()
        .await;
    let yaml = format!(
        "{PLAIN}scopes: [read]\nclientSecret: {{ env: {{ name: SECRET }} }}\ngrant: {{ clientCredentials: {{}} }}"
    );
    let client = Asker::of(&server, &yaml, "s3cret").await;
    assert!(!client.asking.needs_refresh_token());
    let tokens = client.asking.request(None).await.unwrap();
    assert_eq!(text(&tokens.access), server.truth().access_token());
    assert!(tokens.refresh.is_none());
    let wrong = Asker::of(&server, &yaml, "another").await;
    let error = wrong.asking.request(None).await.unwrap_err();
    assert!(matches!(error, EndpointError::Refused(_)), "{error}");
    let missing = yaml.replace("name: SECRET", "name: NOTHING");
    let missing = Asker::of(&server, &missing, "").await;
    let error = missing.asking.request(None).await.unwrap_err();
    assert!(matches!(error, EndpointError::Incomplete(_)), "{error}");
}

#[tokio::test]
async fn a_service_account_asks_with_an_assertion() {
    let rsa = SigningKey::rs256();
    let google = serde_json::json!({
        "type": "service_account", "client_email": "robot@example.com", "private_key": rsa.pem(),
    });
    let curve = SigningKey::es256();
    for (key, document, more) in [
        (&rsa, google.to_string(), ""),
        (&rsa, rsa.pkcs1_pem(), ", issuer: robot@example.com"),
        (
            &curve,
            curve.pem(),
            ", issuer: robot@example.com, algorithm: ES256",
        ),
    ] {
        let server = token_server()
            .service_account("robot@example.com", key.public())
            .start()
            .await;
        let yaml = format!(
            "tokenEndpoint: {}\nscopes: [read]\ngrant: {{ jwtBearer: {{ key: {{ env: {{ name: SECRET }} }}{more} }} }}",
            server.url()
        );
        let client = Asker::of(&server, &yaml, &document).await;
        let tokens = client.asking.request(None).await.unwrap();
        assert_eq!(text(&tokens.access), server.truth().access_token());
        server.truth().assert_no_violation();
    }
}

#[tokio::test]
async fn an_app_asks_for_its_installation_by_githubs_clock() {
    let key = SigningKey::rs256();
    let server = token_server()
        .github_app("Iv23abc", 7, key.public())
        .start()
        .await;
    let yaml = "grant: { githubApp: { appId: Iv23abc, installationId: 7, key: { env: { name: SECRET } }, repositories: [one], permissions: { contents: read } } }";
    for minutes in [0, 12, -12] {
        server.skew(minutes);
        let client = Asker::of(&server, yaml, &key.pem()).await;
        let mut outcome = client.asking.request(None).await;
        if minutes != 0 {
            let error = outcome.unwrap_err();
            let EndpointError::Later { after, .. } = &error else {
                panic!("{error}");
            };
            assert_eq!(*after, Some(Duration::ZERO));
            assert!((client.asking.clock_offset() - minutes * 60).abs() < 30);
            outcome = client.asking.request(None).await;
        }
        let tokens = outcome.unwrap();
        assert_eq!(text(&tokens.access), server.truth().access_token());
        let left = tokens.expires_at.unwrap().duration_since(SystemTime::now());
        let left = left.unwrap().as_secs();
        assert!((3500..=3600).contains(&left), "{minutes}: {left}");
        let last = server.origin.requests().pop().unwrap();
        assert_eq!(last.all("accept"), ["application/vnd.github+json"]);
        server.truth().assert_no_violation();
    }
}

#[tokio::test]
async fn a_pasted_code_becomes_a_login() {
    let cases = [
        (token_server().claude(), "client: claude-code"),
        (token_server().codex(), "client: codex"),
    ];
    for (builder, yaml) in cases {
        let server = builder.start().await;
        let client = Asker::of(&server, yaml, "").await;
        let settings = client.asking.grant().settings();
        let mut logins = 0;
        for paste in [
            |c: &str, _: &str| c.to_owned(),
            |_: &str, l: &str| l.to_owned(),
        ] {
            server.revoke_all();
            let login = AuthorizationRequest::new(settings).unwrap();
            let consent = server.authorize(login.url());
            let code = login
                .parse_pasted(&paste(&consent.pasted, &consent.location))
                .unwrap();
            let tokens = login.exchange(&client.asking, &code).await.unwrap();
            logins += 1;
            assert_current(&server, &tokens);
            assert_eq!(server.truth().logins, logins);
            assert!(!tokens.profile.is_empty(), "{yaml}");
        }
        let ours = AuthorizationRequest::new(settings).unwrap();
        let theirs = AuthorizationRequest::new(settings).unwrap();
        let consent = server.authorize(theirs.url());
        let error = ours.parse_pasted(&consent.pasted).unwrap_err();
        assert_eq!(error, LoginError::OtherLogin);
        // Without its state a code passes, and is worth nothing without its verifier.
        let code = ours.parse_pasted(&consent.code).unwrap();
        let error = ours.exchange(&client.asking, &code).await.unwrap_err();
        assert!(
            matches!(error, LoginError::Endpoint(EndpointError::InvalidGrant(_))),
            "{error}"
        );
    }
}

#[tokio::test]
async fn a_code_entered_elsewhere_becomes_a_login() {
    let standard = format!(
        "{PLAIN}scopes: [read]\nlogin: {{ deviceAuthorizationEndpoint: https://token.example.com/oauth/device/code }}"
    );
    let interval = Duration::from_secs(1);
    let cases = [
        (
            token_server().device("/oauth/device/code", PATIENCE * 10, interval),
            standard.as_str(),
        ),
        (
            token_server()
                .codex()
                .device("/oauth/device/code", PATIENCE * 10, interval),
            "client: codex",
        ),
    ];
    for (builder, yaml) in cases {
        let server = builder.start().await;
        let client = Asker::of(&server, yaml, "").await;
        let login = DeviceLogin::start(&client.asking).await.unwrap();
        let shown = login.user_code().to_owned();
        let person = async {
            let asked = server.device_polled(1).await;
            assert_eq!(asked, shown);
            server.approve(&asked);
        };
        let (tokens, ()) = tokio::join!(login.wait(&client.asking), person);
        assert_current(&server, &tokens.unwrap());
    }
}
