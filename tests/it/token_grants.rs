//! The referee's other grants: codes, devices, services and GitHub Apps get tokens by their own rules,
//! and nobody else does.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use super::support::caller::{Caller, FORM, JSON, Scene, json_of, refused};
use super::support::recorded::sha256;
use super::support::token_server::jwt::{Algorithm, SigningKey};
use super::support::token_server::login::Asked;
use super::support::token_server::server::token_server;
use super::support::token_server::settings::ClientAuth;

const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const CALLBACK: &str = "https://console.example.com/oauth/code/callback";

fn asked() -> Asked {
    Asked {
        challenge: URL_SAFE_NO_PAD.encode(sha256(VERIFIER.as_bytes())),
        redirect_uri: CALLBACK.to_owned(),
        state: "a-state-of-twenty-two-characters".to_owned(),
        scope: "read".to_owned(),
    }
}

fn code_form(code: &str, verifier: &str) -> String {
    let callback =
        percent_encoding::utf8_percent_encode(CALLBACK, percent_encoding::NON_ALPHANUMERIC);
    format!(
        "grant_type=authorization_code&code={code}&redirect_uri={callback}&code_verifier={verifier}&client_id=client-1"
    )
}

fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

#[tokio::test]
async fn a_code_needs_its_verifier_and_works_once() {
    let server = token_server().start().await;
    let client = Caller::of(&server.origin).await;
    let code = server.code(asked()).code;
    let wrong = VERIFIER.replace('d', "e");
    refused(
        client.post(FORM, &code_form(&code, &wrong)).await,
        400,
        "invalid_grant",
    );
    let elsewhere = code_form(&code, VERIFIER).replace("callback", "other");
    refused(client.post(FORM, &elsewhere).await, 400, "invalid_grant");
    refused(
        client.post(FORM, &code_form("made-up", VERIFIER)).await,
        400,
        "invalid_grant",
    );
    assert_eq!(server.truth().violations.len(), 3);
    let answer = client
        .post(FORM, &code_form(&code, VERIFIER))
        .await
        .unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(json_of(&answer)["scope"], "read");
    assert_eq!((server.truth().logins, server.truth().live_grants), (1, 1));
    refused(
        client.post(FORM, &code_form(&code, VERIFIER)).await,
        400,
        "invalid_grant",
    );
    let truth = server.truth();
    assert_eq!(
        (truth.live_grants, truth.reuses.len()),
        (0, 1),
        "what a stolen code began is ended"
    );
}

#[tokio::test]
async fn a_person_opens_the_authorization_url_and_gets_a_code() {
    let server = token_server().claude().start().await;
    let Asked {
        challenge, state, ..
    } = asked();
    let url = format!(
        "https://claude.ai/oauth/authorize?code=true&client_id={}&response_type=code&redirect_uri=https%3A%2F%2Fa.example%2Fb\
         &scope=user%3Ainference+user%3Aprofile&code_challenge={challenge}&code_challenge_method=S256&state={state}",
        server.client_id()
    );
    let consent = server.authorize(&url);
    assert_eq!(consent.pasted, format!("{}#{state}", consent.code));
    assert!(
        consent.location.starts_with("https://a.example/b?code="),
        "{consent:?}"
    );
    let body = json!({
        "grant_type": "authorization_code", "code": consent.code, "state": state, "code_verifier": VERIFIER,
        "redirect_uri": "https://a.example/b", "client_id": server.client_id(),
    });
    let client = Caller::of(&server.origin).await;
    let headers = [("content-type", JSON)];
    let answer = client
        .send("POST", "/v1/oauth/token", &headers, &body.to_string())
        .await;
    assert_eq!(
        json_of(&answer.unwrap())["scope"],
        "user:inference user:profile"
    );
    server.truth().assert_no_violation();
}

#[tokio::test]
async fn clients_authenticate_in_the_one_agreed_way() {
    let secret = "s+e:c%r&t=";
    let coded = "s%2Be%3Ac%25r%26t%3D";
    let base64 = |text: String| format!("Basic {}", STANDARD.encode(text));
    let basic = Scene::of(token_server().confidential(ClientAuth::Basic, "an id", secret)).await;
    let form = format!(
        "grant_type=refresh_token&refresh_token={}",
        basic.login.refresh()
    );
    let send = async |authorization: String, body: String| {
        let headers = [("content-type", FORM), ("authorization", &authorization)];
        basic
            .client
            .send("POST", "/oauth/token", &headers, &body)
            .await
    };
    let right = base64(format!("an+id:{coded}"));
    refused(
        send(base64(format!("an id:{secret}")), form.clone()).await,
        401,
        "invalid_client",
    );
    refused(
        send(base64("an+id:other".to_owned()), form.clone()).await,
        401,
        "invalid_client",
    );
    let both = format!("{form}&client_secret={coded}");
    refused(send(right.clone(), both).await, 400, "invalid_request");
    assert_eq!(send(right.clone(), form).await.unwrap().status, 200);
    assert_eq!(basic.server.truth().violations.len(), 3);

    let post = Scene::of(token_server().confidential(ClientAuth::Post, "an id", secret)).await;
    let form = format!(
        "grant_type=refresh_token&refresh_token={}&client_id=an+id",
        post.login.refresh()
    );
    refused(post.client.post(FORM, &form).await, 401, "invalid_client");
    let form = format!("{form}&client_secret={coded}");
    let headers = [("content-type", FORM), ("authorization", &right)];
    let both = post
        .client
        .send("POST", "/oauth/token", &headers, &form)
        .await;
    refused(both, 401, "invalid_client");
    assert_eq!(post.client.post(FORM, &form).await.unwrap().status, 200);
}

#[tokio::test]
async fn a_confidential_client_gets_an_access_token_for_itself() {
    let builder = token_server()
        .confidential(ClientAuth::Post, "client-1", "s3cret")
        .scope("jobs")
        .knows("client_credentials", "audience");
    let scene = Scene::of(builder).await;
    let form = "grant_type=client_credentials&client_id=client-1&client_secret=s3cret&audience=x";
    let answer = json_of(&scene.client.post(FORM, form).await.unwrap());
    assert_eq!(answer["scope"], "jobs");
    assert!(answer["refresh_token"].is_null(), "{answer}");
    assert_eq!(
        scene
            .visitor
            .get(answer["access_token"].as_str().unwrap())
            .await
            .status,
        200
    );
    assert_eq!(scene.server.truth().granted["client_credentials"], 1);
    refused(
        scene
            .client
            .post(FORM, &format!("{form}&scope=admin"))
            .await,
        400,
        "invalid_scope",
    );
    let public = Scene::plain().await;
    let form = "grant_type=client_credentials&client_id=client-1";
    refused(
        public.client.post(FORM, form).await,
        400,
        "unauthorized_client",
    );
}

#[tokio::test]
async fn an_assertion_counts_if_signed_for_this_server_and_this_hour() {
    for key in [SigningKey::rs256(), SigningKey::es256()] {
        let scene = Scene::of(
            token_server()
                .names(&["oauth2.googleapis.com"])
                .path("/token")
                .service_account("robot@example.com", key.public())
                .audience("https://www.example.com/token"),
        )
        .await;
        let url = "https://oauth2.googleapis.com/token";
        assert_eq!(scene.server.url(), url);
        let right = json!({
            "iss": "robot@example.com", "aud": "https://www.example.com/token", "scope": "read", "iat": now(), "exp": now() + 3600,
        });
        let send = async |assertion: String| {
            let form = format!(
                "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion={assertion}"
            );
            let headers = [("content-type", FORM)];
            scene.client.send("POST", "/token", &headers, &form).await
        };
        let with = |name: &str, value: Value| {
            let mut claims = right.clone();
            claims[name] = value;
            key.sign(&claims)
        };
        let unsigned = right.to_string();
        let none = format!(
            "{}.{}.",
            URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#),
            URL_SAFE_NO_PAD.encode(&unsigned)
        );
        let foreign = match key.public().algorithm {
            Algorithm::Rs256 => SigningKey::rs256(),
            Algorithm::Es256 => SigningKey::es256(),
        };
        for bad in [
            none,
            foreign.sign(&right),
            with("iss", json!("another@example.com")),
            with("aud", json!(url)),
            with("iat", json!("now")),
            with("exp", json!(now() + 7200)),
        ] {
            refused(send(bad).await, 400, "invalid_grant");
        }
        assert_eq!(scene.server.truth().violations.len(), 6);
        scene.server.skew(-5);
        refused(send(key.sign(&right)).await, 400, "invalid_grant");
        assert_eq!(
            scene.server.truth().violations.len(),
            6,
            "its clock is wrong, not the client"
        );
        scene.server.skew(0);
        let answer = json_of(&send(key.sign(&right)).await.unwrap());
        assert_eq!(answer["scope"], "read");
        assert_eq!(
            scene
                .visitor
                .get(answer["access_token"].as_str().unwrap())
                .await
                .status,
            200
        );
    }
}

#[tokio::test]
async fn a_github_app_gets_its_installations_token() {
    let key = SigningKey::rs256();
    let server = token_server()
        .github_app("12345", 77, key.public())
        .serves_api()
        .start()
        .await;
    let client = Caller::of(&server.origin).await;
    let ask = async |installation: u64, jwt: String, body: &str| {
        let path = format!("/app/installations/{installation}/access_tokens");
        let bearer = format!("Bearer {jwt}");
        let headers = [("authorization", bearer.as_str()), ("user-agent", "test")];
        client.send("POST", &path, &headers, body).await.unwrap()
    };
    let right = key.sign(&json!({"iss": "12345", "iat": now() - 60, "exp": now() + 540}));
    let answer = ask(77, right.clone(), "").await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    let answer = json_of(&answer);
    let end: jiff::Timestamp = answer["expires_at"].as_str().unwrap().parse().unwrap();
    assert!(
        (3590..=3600).contains(&(end.as_second() - now())),
        "{answer}"
    );
    let token = answer["token"].as_str().unwrap();
    assert!(token.starts_with("ghs_") && token.len() == 40, "{token}");
    assert_eq!(client.get(token).await.status, 200);
    assert_eq!(server.own_api().seen()[0].token.as_deref(), Some(token));
    let chosen = ask(77, right.clone(), r#"{"repositories":["widgets"]}"#).await;
    assert_eq!(json_of(&chosen)["repository_selection"], "selected");

    let long = key.sign(&json!({"iss": 12345, "iat": now(), "exp": now() + 900}));
    let other = key.sign(&json!({"iss": "54321", "iat": now(), "exp": now() + 60}));
    assert_eq!(ask(77, long, "").await.status, 401);
    assert_eq!(ask(77, other, "").await.status, 401);
    assert_eq!(ask(78, right.clone(), "").await.status, 404);
    assert_eq!(ask(77, right.clone(), r#"{"repos":[]}"#).await.status, 422);
    assert_eq!(server.truth().granted["installation"], 2);
    server.skew(-5);
    assert_eq!(
        ask(77, right, "").await.status,
        401,
        "too far in its future"
    );
}

#[tokio::test]
async fn a_github_key_is_pkcs1_and_still_the_same_key() {
    let key = SigningKey::rs256();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), key.pkcs1_pem()).unwrap();
    let output = tokio::process::Command::new("openssl")
        .args(["pkey", "-in"])
        .arg(file.path())
        .output()
        .await
        .unwrap();
    let same = String::from_utf8(output.stdout).unwrap();
    assert_eq!(
        same.lines().collect::<String>(),
        key.pem().lines().collect::<String>()
    );
}

#[tokio::test]
async fn a_device_waits_for_its_person_at_the_agreed_pace() {
    let path = "/oauth/device/code";
    let builder = token_server().device(path, Duration::from_secs(600), Duration::ZERO);
    let server = builder.start().await;
    let client = Caller::of(&server.origin).await;
    let headers = [("content-type", FORM)];
    let begin = async || {
        let answer = client
            .send("POST", path, &headers, "client_id=client-1&scope=read")
            .await;
        json_of(&answer.unwrap())
    };
    let poll = async |device: &Value| {
        let form = format!(
            "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Adevice_code&device_code={}&client_id=client-1",
            device["device_code"].as_str().unwrap()
        );
        client.post(FORM, &form).await
    };
    let device = begin().await;
    let user_code = device["user_code"].as_str().unwrap();
    assert!(
        device["verification_uri_complete"]
            .as_str()
            .unwrap()
            .ends_with(user_code),
        "{device}"
    );
    refused(poll(&device).await, 400, "authorization_pending");
    assert_eq!(server.device_polled(1).await, user_code);
    server.approve(user_code);
    let answer = json_of(&poll(&device).await.unwrap());
    assert_eq!(answer["scope"], "read");
    assert_eq!(server.truth().refresh_token(), answer["refresh_token"]);
    server.truth().assert_no_violation();
    refused(poll(&device).await, 400, "invalid_grant");

    let denied = begin().await;
    server.deny(denied["user_code"].as_str().unwrap());
    refused(poll(&denied).await, 400, "access_denied");
    let expired = begin().await;
    server.expire_device(expired["user_code"].as_str().unwrap());
    refused(poll(&expired).await, 400, "expired_token");
    let hasty = begin().await;
    server.slow_down(hasty["user_code"].as_str().unwrap());
    refused(poll(&hasty).await, 400, "slow_down");
    assert_eq!(server.truth().violations.len(), 1);
    refused(poll(&hasty).await, 400, "slow_down");
    assert_eq!(
        server.truth().violations.len(),
        2,
        "within five seconds, though it was told"
    );
}

#[tokio::test]
async fn codex_logs_in_on_another_device_in_openais_own_way() {
    let server = token_server()
        .codex()
        .device("/none", Duration::from_secs(900), Duration::ZERO)
        .start()
        .await;
    let client = Caller::of(&server.origin).await;
    let send = async |path: &str, body: Value| {
        let headers = [("content-type", JSON)];
        client
            .send("POST", path, &headers, &body.to_string())
            .await
            .unwrap()
    };
    let begun = send(
        "/api/accounts/deviceauth/usercode",
        json!({"client_id": server.client_id()}),
    );
    let begun = json_of(&begun.await);
    assert_eq!(begun["interval"], "0", "text, as OpenAI has it");
    let asked = json!({"device_auth_id": begun["device_auth_id"], "user_code": begun["user_code"]});
    let poll = || send("/api/accounts/deviceauth/token", asked.clone());
    assert_eq!(poll().await.status, 403);
    server.approve(&server.device_polled(1).await);
    let code = json_of(&poll().await);
    let form = format!(
        "grant_type=authorization_code&code={}&code_verifier={}&client_id={}\
         &redirect_uri=https%3A%2F%2Fauth.openai.com%2Fdeviceauth%2Fcallback",
        code["authorization_code"].as_str().unwrap(),
        code["code_verifier"].as_str().unwrap(),
        server.client_id(),
    );
    let answer = json_of(&client.post(FORM, &form).await.unwrap());
    assert!(answer["id_token"].is_string(), "{answer}");
    server.truth().assert_one_clean_grant();
}

#[tokio::test]
async fn a_client_that_revokes_its_token_ends_its_login() {
    let scene = Scene::plain().await;
    let headers = [("content-type", FORM)];
    let revoke = async |token: &str| {
        let form = format!("token={token}&token_type_hint=refresh_token&client_id=client-1");
        scene
            .client
            .send("POST", "/oauth/revoke", &headers, &form)
            .await
    };
    refused(revoke("a-placeholder").await, 400, "invalid_request");
    assert_eq!(scene.server.truth().violations.len(), 1);
    assert_eq!(revoke(scene.login.refresh()).await.unwrap().status, 200);
    assert_eq!(
        scene.visitor.get(&scene.login.access_token).await.status,
        401
    );
    let truth = scene.server.truth();
    assert_eq!((truth.revocations, truth.live_grants), (1, 0));
    refused(
        scene.client.refresh(scene.login.refresh()).await,
        400,
        "invalid_grant",
    );
}
