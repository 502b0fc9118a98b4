//! How tokens are asked for, over real TLS: every grant and every login against the referee, and an
//! exact word on whether a lost request may have been acted on.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tollgate::app::token_transport::HttpsTransport;
use tollgate::config::policy::UpstreamSpec;
use tollgate::config::root::RootsSpec;
use tollgate::credential::env::SealedEnv;
use tollgate::credential::open::SourceContext;
use tollgate::net::guard::AddressGuard;
use tollgate::net::resolve::{FixedAnswers, Resolver};
use tollgate::oauth::asking::Asking;
use tollgate::oauth::device::DeviceLogin;
use tollgate::oauth::endpoint_error::EndpointError;
use tollgate::oauth::grant::Grant;
use tollgate::oauth::grant_secrets::GrantSecrets;
use tollgate::oauth::login::AuthorizationRequest;
use tollgate::oauth::login_error::LoginError;
use tollgate::oauth::requester::TokenRequester as _;
use tollgate::oauth::settings::OAuthSettings;
use tollgate::oauth::token::TokenSet;
use tollgate::policy::decision::{DialProfile, Timeouts};
use tollgate::proxy::dial::Dialer;
use tollgate::tls::upstream::OriginTrust;
use tollgate::types::host::Host;
use tollgate::types::secret::Secret;

use super::support::ca::TestCa;
use super::support::origin::Origin;
use super::support::reply;
use super::support::token_server::fault::{Fault, Stage};
use super::support::token_server::jwt::SigningKey;
use super::support::token_server::server::{TokenServer, token_server};
use super::support::token_server::settings::{ClientAuth, TokenServerBuilder};

/// Longer than anything here takes on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a silent endpoint is waited for; the request must have gone out by then.
const SILENCE: Duration = Duration::from_secs(4);

/// Whoever asks, with the directory its authority's file is in.
struct Client {
    asking: Asking,
    _dir: TempDir,
}

impl Client {
    /// Asks `server` as `yaml` says; the variable SECRET holds `secret`.
    async fn of(server: &TokenServer, yaml: &str, secret: &str) -> Self {
        Self::at(&server.origin, yaml, secret, PATIENCE).await
    }

    async fn at(origin: &Origin, yaml: &str, secret: &str, limit: Duration) -> Self {
        Self::believing(&origin.ca_pem, origin, yaml, secret, limit).await
    }

    async fn believing(
        ca_pem: &str,
        origin: &Origin,
        yaml: &str,
        secret: &str,
        limit: Duration,
    ) -> Self {
        let spec = serde_saphyr::from_str(yaml).unwrap();
        let settings = OAuthSettings::resolve(&spec).unwrap();
        let variables = [("SECRET".to_owned(), Secret::from(secret.to_owned()))];
        let context = SourceContext {
            env: Arc::new(SealedEnv::new(variables.into())),
            ..SourceContext::default()
        };
        let secrets = GrantSecrets::open("acme", &settings, &context).await;
        let dir = tempfile::tempdir().unwrap();
        let ca_file = dir.path().join("ca.pem");
        std::fs::write(&ca_file, ca_pem).unwrap();
        let profile = DialProfile {
            upstream: UpstreamSpec {
                ca_file: Some(ca_file),
                ..UpstreamSpec::default()
            },
            timeouts: Timeouts::default(),
            ..DialProfile::default()
        };
        let trust = OriginTrust::load(&RootsSpec::Bundled).ok().unwrap();
        let transport = HttpsTransport::new(dialer(origin), trust, profile, limit);
        Self {
            asking: Asking::new(Grant::new(settings), secrets, Arc::new(transport)),
            _dir: dir,
        }
    }

    async fn refresh(&self, token: &str) -> Result<TokenSet, EndpointError> {
        let token = Secret::from(token.to_owned());
        self.asking.request(Some(&token)).await
    }
}

fn dialer(origin: &Origin) -> Dialer {
    let address = (origin.addr.ip(), Some(origin.addr.port()));
    let fixed: FixedAnswers = origin
        .names
        .iter()
        .map(|name| ((Host::parse(name).unwrap(), None), vec![address]))
        .collect();
    let resolver = Resolver::new(fixed, AddressGuard::new(Vec::new())).unwrap();
    Dialer::new(Arc::new(resolver))
}

const PLAIN: &str = "tokenEndpoint: https://token.example.com/oauth/token\nclientId: client-1\n";

fn text(secret: &Secret) -> &str {
    std::str::from_utf8(secret.expose()).unwrap()
}

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
        let client = Client::of(&server, yaml, odd).await;
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
    let client = Client::of(&server, PLAIN, "").await;
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
    let client = Client::of(&server, PLAIN, "").await;
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
    let client = Client::of(&server, &yaml, "s3cret").await;
    assert!(!client.asking.needs_refresh_token());
    let tokens = client.asking.request(None).await.unwrap();
    assert_eq!(text(&tokens.access), server.truth().access_token());
    assert!(tokens.refresh.is_none());
    let wrong = Client::of(&server, &yaml, "another").await;
    let error = wrong.asking.request(None).await.unwrap_err();
    assert!(matches!(error, EndpointError::Refused(_)), "{error}");
    let missing = yaml.replace("name: SECRET", "name: NOTHING");
    let missing = Client::of(&server, &missing, "").await;
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
        let client = Client::of(&server, &yaml, &document).await;
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
        let client = Client::of(&server, yaml, &key.pem()).await;
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
        let client = Client::of(&server, yaml, "").await;
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
        let client = Client::of(&server, yaml, "").await;
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

#[derive(Debug, PartialEq)]
enum Word {
    Unreachable,
    Unanswered,
    Failed,
    Later,
    Refused,
    Tokens,
}

fn word(outcome: &Result<TokenSet, EndpointError>) -> Word {
    match outcome {
        Ok(_) => Word::Tokens,
        Err(EndpointError::Unreachable(_)) => Word::Unreachable,
        Err(EndpointError::Unanswered(_)) => Word::Unanswered,
        Err(EndpointError::Failed(_)) => Word::Failed,
        Err(EndpointError::Later { .. }) => Word::Later,
        Err(error) => {
            assert!(matches!(error, EndpointError::Refused(_)), "{error}");
            Word::Refused
        }
    }
}

#[tokio::test]
async fn a_failure_says_whether_the_endpoint_may_have_acted() {
    for (fault, expected, rotated) in [
        (Fault::Cut(Stage::Received), Word::Unanswered, 0),
        (Fault::Cut(Stage::Rotated), Word::Unanswered, 1),
        (Fault::Truncated, Word::Unanswered, 1),
        (Fault::TooLarge(300 << 10), Word::Unanswered, 1),
        (Fault::TooLarge(200 << 10), Word::Tokens, 1),
        (Fault::WrongContentType, Word::Tokens, 1),
        (Fault::html(500), Word::Failed, 0),
        (Fault::html(200), Word::Failed, 0),
        (Fault::html(502), Word::Unanswered, 0),
        (Fault::oauth(500, "server_error"), Word::Failed, 0),
        (Fault::RateLimit(7), Word::Later, 0),
        (Fault::oauth(400, "invalid_client"), Word::Refused, 0),
    ] {
        let server = token_server().start().await;
        let client = Client::of(&server, PLAIN, "").await;
        server.fault(fault.clone());
        let outcome = client.refresh(server.login().refresh()).await;
        assert_eq!(word(&outcome), expected, "{fault:?}: {outcome:?}");
        if let Err(error) = outcome {
            assert!(!error.to_string().contains(server.sentinel()), "{error}");
        }
        assert_eq!(server.truth().rotations, rotated, "{fault:?}");
    }
}

async fn silence(stage: Stage, rotated: usize) {
    let server = token_server().start().await;
    let client = Client::at(&server.origin, PLAIN, "", SILENCE).await;
    server.fault(Fault::Silent(stage));
    let outcome = client.refresh(server.login().refresh()).await;
    assert_eq!(word(&outcome), Word::Unanswered, "{outcome:?}");
    assert_eq!(server.truth().rotations, rotated);
}

#[tokio::test]
async fn silence_before_a_rotation_leaves_it_open_what_was_done() {
    silence(Stage::Received, 0).await;
}

#[tokio::test]
async fn silence_after_a_rotation_leaves_it_open_what_was_done() {
    silence(Stage::Rotated, 1).await;
}

#[tokio::test]
async fn nothing_is_sent_to_an_endpoint_that_is_not_believed_or_not_there() {
    let server = token_server().start().await;
    let other = TestCa::new();
    let stranger = Client::believing(other.pem(), &server.origin, PLAIN, "", PATIENCE).await;
    let outcome = stranger.refresh("rt-sentinel").await;
    assert_eq!(word(&outcome), Word::Unreachable);
    assert!(server.origin.requests().is_empty());
    let elsewhere = PLAIN.replace("token.example.com", "127.0.0.1:1");
    let guarded = Client::of(&server, &elsewhere, "").await;
    let outcome = guarded.refresh("rt-sentinel").await;
    assert_eq!(word(&outcome), Word::Unreachable, "{outcome:?}");
    assert!(outcome.unwrap_err().to_string().contains("127.0.0.1"));
    // Nobody listens any more.
    let mut gone = Origin::tls(&["token.example.com"], |_| async { reply::text(200, "") }).await;
    gone.addr = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let gone = Client::at(&gone, PLAIN, "", PATIENCE).await;
    assert_eq!(word(&gone.refresh("rt-sentinel").await), Word::Unreachable);
}

#[tokio::test]
async fn an_endpoint_that_never_shakes_hands_was_told_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut mute = Origin::tls(&["token.example.com"], |_| async { reply::text(200, "") }).await;
    mute.addr = listener.local_addr().unwrap();
    let client = Client::at(&mute, PLAIN, "", Duration::from_millis(300)).await;
    let outcome = client.refresh("rt-sentinel").await;
    assert_eq!(word(&outcome), Word::Unreachable, "{outcome:?}");
}

#[tokio::test]
async fn whoever_answers_with_another_protocol_may_have_acted() {
    let origin = Origin::rude(&["token.example.com"], |mut stream| async move {
        stream.read_u8().await.ok();
        stream.write_all(b"SSH-2.0-sentinel\r\n\r\n").await.ok();
        stream.shutdown().await.ok();
    })
    .await;
    let client = Client::at(&origin, PLAIN, "", PATIENCE).await;
    let outcome = client.refresh("rt-sentinel").await;
    assert_eq!(word(&outcome), Word::Unanswered, "{outcome:?}");
    assert!(!outcome.unwrap_err().to_string().contains("sentinel"));
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let origin = Origin::tls(&["token.example.com", "other.example.com"], |_| async {
        let mut answer = reply::text(307, "");
        let there = "https://other.example.com/token?sentinel".parse().unwrap();
        answer.headers_mut().insert("location", there);
        answer
    })
    .await;
    let client = Client::at(&origin, PLAIN, "", PATIENCE).await;
    let outcome = client.refresh("rt-sentinel").await;
    assert_eq!(word(&outcome), Word::Refused);
    let error = outcome.unwrap_err().to_string();
    assert!(
        error.contains("other.example.com") && !error.contains("sentinel"),
        "{error}"
    );
    assert_eq!(origin.requests().len(), 1);
}
