//! The referee itself: what the token server and the API behind it let pass, refuse and remember,
//! seen by a plain client.

use std::collections::BTreeSet;
use std::time::Duration;

use http::Request;
use serde_json::json;

use super::support::caller::{FORM, JSON, Scene, json_of, refresh_form, refused};
use super::support::token_server::api::Verdict;
use super::support::token_server::fault::{Fault, Stage};
use super::support::token_server::jwt::claims_of;
use super::support::token_server::server::token_server;
use super::support::{reply, tunnel};

#[tokio::test]
async fn a_refresh_spends_the_old_token_and_hands_out_a_live_pair() {
    let scene = Scene::plain().await;
    let answer = scene.client.refresh(scene.login.refresh()).await.unwrap();
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), Some(JSON));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let pair = json_of(&answer);
    assert_eq!(
        (&pair["token_type"], &pair["expires_in"]),
        (&json!("Bearer"), &json!(3600))
    );
    let truth = scene.server.truth();
    truth.assert_one_clean_grant();
    assert_eq!(truth.refresh_token(), pair["refresh_token"]);
    assert_eq!(truth.access_token(), pair["access_token"]);
    assert_eq!(
        (
            truth.logins,
            truth.refreshes,
            truth.rotations,
            truth.most_at_once
        ),
        (1, 1, 1, 1)
    );
    let minted = scene.server.minted();
    assert_eq!(minted.len(), 4);
    assert_eq!(minted.iter().collect::<BTreeSet<_>>().len(), 4);
    let needles = scene.server.needles();
    let found = |hay: &str| {
        needles
            .iter()
            .filter(|n| n.find(hay.as_bytes()).is_some())
            .count()
    };
    assert!(
        minted.iter().all(|token| found(token) == 2),
        "the token and the sentinel: {minted:?}"
    );
    assert_eq!(found("a-placeholder"), 0);
}

#[tokio::test]
async fn a_spent_refresh_token_revokes_the_whole_login() {
    let scene = Scene::plain().await;
    let pair = json_of(&scene.client.refresh(scene.login.refresh()).await.unwrap());
    let access = pair["access_token"].as_str().unwrap();
    assert_eq!(scene.visitor.get(access).await.status, 200);
    refused(
        scene.client.refresh(scene.login.refresh()).await,
        400,
        "invalid_grant",
    );
    let successor = pair["refresh_token"].as_str().unwrap();
    refused(scene.client.refresh(successor).await, 400, "invalid_grant");
    let answer = scene.visitor.get(access).await;
    assert_eq!(answer.status, 401);
    assert_eq!(json_of(&answer)["error"]["type"], "authentication_error");
    let truth = scene.server.truth();
    assert_eq!(
        (truth.live_grants, truth.reuses.len(), truth.rotations),
        (0, 1, 1)
    );
    assert_eq!(
        (truth.access_tokens.len(), truth.refresh_tokens.len()),
        (0, 0)
    );
    truth.assert_no_violation();
    let verdicts: Vec<Verdict> = scene.api.seen().iter().map(|seen| seen.verdict).collect();
    assert_eq!(verdicts, [Verdict::Live, Verdict::Revoked]);
}

#[tokio::test]
async fn only_well_formed_requests_are_answered() {
    let scene = Scene::plain().await;
    let token = scene.login.refresh();
    let form = refresh_form(token);
    let object =
        json!({"grant_type": "refresh_token", "refresh_token": token, "client_id": "client-1"});
    let cases = [
        (JSON, object.to_string(), 400, "invalid_request"),
        (
            "application/x-www-form-urlencoded; charset=utf-8",
            form.clone(),
            400,
            "invalid_request",
        ),
        (FORM, format!("{form}&audience=x"), 400, "invalid_request"),
        (
            FORM,
            format!("{form}&refresh_token={token}"),
            400,
            "invalid_request",
        ),
        (FORM, format!("{form}&scope="), 400, "invalid_request"),
        (
            FORM,
            format!("{form}&scope=re%zzad"),
            400,
            "invalid_request",
        ),
        (
            FORM,
            format!("{form}&scope=read+admin"),
            400,
            "invalid_scope",
        ),
        (
            FORM,
            format!("{form}&client_secret=x"),
            400,
            "invalid_request",
        ),
        (
            FORM,
            form.replace("client-1", "client-2"),
            401,
            "invalid_client",
        ),
        (
            FORM,
            form.replace("refresh_token=", "refresh_tokens="),
            400,
            "invalid_request",
        ),
        (
            FORM,
            form.replace("=refresh_token", "=password"),
            400,
            "unsupported_grant_type",
        ),
        (FORM, refresh_form("a-placeholder"), 400, "invalid_grant"),
    ];
    let count = cases.len();
    for (content_type, body, status, error) in cases {
        refused(scene.client.post(content_type, &body).await, status, error);
    }
    assert_eq!(
        scene.server.truth().violations.len(),
        count,
        "{:#?}",
        scene.server.truth()
    );
    assert_eq!(scene.server.truth().rotations, 0);
    scene.still_serves().await;
}

#[tokio::test]
async fn a_json_server_takes_json_only_and_answers_as_claudes_does() {
    let scene = Scene::of(token_server().claude()).await;
    let token = scene.login.refresh();
    assert!(
        token.starts_with("sk-ant-ort01-") && token.len() == 108,
        "{token}"
    );
    let client = scene.server.client_id();
    let form = format!("grant_type=refresh_token&refresh_token={token}&client_id={client}");
    let path = "/v1/oauth/token";
    let send = async |kind, body: &str| {
        scene
            .client
            .send("POST", path, &[("content-type", kind)], body)
            .await
    };
    refused(send(FORM, &form).await, 400, "invalid_request");
    let twice = format!(
        r#"{{"grant_type":"refresh_token","refresh_token":"{token}","refresh_token":"{token}","client_id":"{client}"}}"#
    );
    refused(send(JSON, &twice).await, 400, "invalid_request");
    assert_eq!(scene.server.truth().violations.len(), 2);
    let body = json!({
        "grant_type": "refresh_token", "refresh_token": token, "client_id": client,
        "scope": "user:profile user:inference",
    });
    let answer = json_of(&send(JSON, &body.to_string()).await.unwrap());
    let access = answer["access_token"].as_str().unwrap();
    assert!(
        access.starts_with("sk-ant-oat01-") && access.len() == 108,
        "{access}"
    );
    assert_eq!(answer["expires_in"], 28800);
    assert_eq!(answer["scope"], "user:profile user:inference");
    assert_eq!(answer["account"]["uuid"], scene.server.account());
    assert!(answer["organization"]["name"].is_string(), "{answer}");
}

#[tokio::test]
async fn codex_tokens_are_jwts_that_name_the_account() {
    let scene = Scene::of(token_server().codex()).await;
    let body = json!({
        "grant_type": "refresh_token", "refresh_token": scene.login.refresh(),
        "client_id": scene.server.client_id(), "refresh_reason": "proactive_expiry",
    });
    let answer = json_of(&scene.client.post(JSON, &body.to_string()).await.unwrap());
    for name in ["access_token", "id_token"] {
        let claims = claims_of(answer[name].as_str().unwrap());
        let auth = &claims["https://api.openai.com/auth"];
        assert_eq!(
            auth["chatgpt_account_id"],
            scene.server.account(),
            "{claims}"
        );
        assert_eq!(
            claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(),
            3600
        );
    }
    assert_eq!(
        scene
            .visitor
            .get(answer["access_token"].as_str().unwrap())
            .await
            .status,
        200
    );
}

#[tokio::test]
async fn a_cut_comes_before_or_after_the_rotation() {
    let scene = Scene::plain().await;
    let token = scene.login.refresh();
    scene.server.fault_next(1, Fault::Cut(Stage::Received));
    assert!(scene.client.refresh(token).await.is_err());
    assert_eq!(scene.server.truth().rotations, 0);
    assert_eq!(
        scene.server.truth().refresh_token(),
        token,
        "nothing was spent"
    );
    scene.server.fault_next(1, Fault::Cut(Stage::Rotated));
    assert!(scene.client.refresh(token).await.is_err());
    let truth = scene.server.truth();
    truth.assert_one_clean_grant();
    assert_eq!((truth.refreshes, truth.rotations), (1, 1));
    assert_ne!(
        truth.refresh_token(),
        token,
        "the next one exists, and nobody was told"
    );
    refused(scene.client.refresh(token).await, 400, "invalid_grant");
    assert_eq!(
        (
            scene.server.truth().reuses.len(),
            scene.server.truth().live_grants
        ),
        (1, 0)
    );
}

#[tokio::test]
async fn spoilt_answers_are_spoilt_as_told_and_only_as_often() {
    let scene = Scene::plain().await;
    let live = || scene.server.truth().refresh_token().to_owned();
    scene.server.fault_next(1, Fault::html(503));
    scene
        .server
        .fault_next(1, Fault::Latency(Duration::from_millis(1)));
    let answer = scene.client.refresh(&live()).await.unwrap();
    assert_eq!(
        (answer.status, answer.header("content-type")),
        (503, Some("text/html"))
    );
    scene.server.fault_next(1, Fault::RateLimit(7));
    let answer = scene.client.refresh(&live()).await.unwrap();
    assert_eq!(
        (answer.status, answer.header("retry-after")),
        (429, Some("7"))
    );
    scene
        .server
        .fault_next(1, Fault::oauth(400, "invalid_grant"));
    refused(scene.client.refresh(&live()).await, 400, "invalid_grant");
    assert_eq!(scene.server.truth().rotations, 0);

    scene.server.fault_next(1, Fault::Truncated);
    assert!(
        scene.client.refresh(&live()).await.is_err(),
        "half an answer is none"
    );
    scene.server.fault_next(1, Fault::TooLarge(3 << 20));
    assert!(scene.client.refresh(&live()).await.unwrap().body.len() > 3 << 20);
    scene.server.fault_next(1, Fault::NotJson);
    assert_eq!(
        scene.client.refresh(&live()).await.unwrap().text(),
        "granted."
    );
    scene.server.fault_next(1, Fault::WrongContentType);
    let answer = scene.client.refresh(&live()).await.unwrap();
    assert_eq!(answer.header("content-type"), Some("text/html"));
    assert_eq!(scene.server.truth().rotations, 4);

    scene.server.fault(Fault::html(500));
    for _ in 0..3 {
        assert_eq!(scene.client.refresh(&live()).await.unwrap().status, 500);
    }
    scene.server.heal();
    scene.server.skew(-10);
    let answer = scene.client.refresh(&live()).await.unwrap();
    let date = jiff::fmt::rfc2822::parse(answer.header("date").unwrap()).unwrap();
    let behind = jiff::Timestamp::now().duration_since(date.timestamp());
    assert!((595..=620).contains(&behind.as_secs()), "{behind:?}");
    assert_eq!(
        answer
            .headers
            .iter()
            .filter(|(name, _)| name == "date")
            .count(),
        1
    );
    scene.server.truth().assert_one_clean_grant();
}

#[tokio::test]
async fn a_silent_provider_says_nothing_before_or_after_it_rotated() {
    for (stage, rotations) in [(Stage::Received, 0), (Stage::Rotated, 1)] {
        let scene = Scene::plain().await;
        scene.server.fault_next(1, Fault::Silent(stage));
        let behind = scene.server.gate(Stage::Received);
        let refresh = scene.client.refresh(scene.login.refresh());
        tokio::pin!(refresh);
        tokio::select! {
            answer = &mut refresh => panic!("{answer:?}"),
            () = behind.arrived(1) => behind.open(),
        }
        tokio::select! {
            answer = &mut refresh => panic!("{answer:?}"),
            _ = scene.server.wait_until("granted", |truth| truth.rotations == rotations) => {}
        }
        let heard = tokio::time::timeout(Duration::from_millis(200), refresh).await;
        assert!(heard.is_err(), "{heard:?}");
        assert_eq!(scene.server.truth().rotations, rotations);
        scene.still_serves().await;
    }
}

#[tokio::test]
async fn a_gate_holds_a_request_until_it_is_let_go() {
    let scene = Scene::plain().await;
    let received = scene.server.gate(Stage::Received);
    let refresh = scene.client.refresh(scene.login.refresh());
    tokio::pin!(refresh);
    tokio::select! {
        answer = &mut refresh => panic!("{answer:?}"),
        () = received.arrived(1) => {}
    }
    assert_eq!(scene.server.truth().rotations, 0);
    let rotated = scene.server.gate(Stage::Rotated);
    received.open();
    tokio::select! {
        answer = &mut refresh => panic!("{answer:?}"),
        () = rotated.arrived(1) => {}
    }
    assert_eq!(scene.server.truth().rotations, 1);
    rotated.let_one_go();
    assert_eq!(refresh.await.unwrap().status, 200);
    rotated.open();
    scene.still_serves().await;
    scene.server.truth().assert_one_clean_grant();
}

#[tokio::test]
async fn what_stands_at_a_gate_is_dealt_with_though_its_client_is_gone() {
    let scene = Scene::plain().await;
    let token = scene.login.refresh();
    let gate = scene.server.gate(Stage::Received);
    tokio::select! {
        answer = scene.client.refresh(token) => panic!("{answer:?}"),
        () = gate.arrived(1) => {} // and the client is dropped
    }
    gate.cut();
    tokio::select! {
        answer = scene.client.refresh(token) => panic!("{answer:?}"),
        () = gate.arrived(1) => {}
    }
    gate.open();
    let truth = scene
        .server
        .wait_until("rotated", |truth| truth.rotations > 0)
        .await;
    assert_eq!(truth.rotations, 1, "the one that was cut off spent nothing");
    assert_ne!(truth.refresh_token(), token);
}

#[tokio::test]
async fn two_that_redeem_at_once_are_noticed() {
    let scene = Scene::plain().await;
    let gate = scene.server.gate(Stage::Received);
    let token = scene.login.refresh();
    let arrived = async {
        gate.arrived(2).await;
        gate.open();
    };
    let (first, second, ()) = tokio::join!(
        scene.client.refresh(token),
        scene.client.refresh(token),
        arrived
    );
    let mut statuses = [first.unwrap().status, second.unwrap().status];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 400]);
    let truth = scene.server.truth();
    assert_eq!(
        (truth.most_at_once, truth.reuses.len(), truth.live_grants),
        (2, 1, 0)
    );
}

#[tokio::test]
async fn the_api_knows_live_expired_withdrawn_and_foreign_tokens_apart() {
    let scene = Scene::of(token_server().lifetime(Duration::ZERO)).await;
    let expired = &scene.login.access_token;
    scene.server.set_lifetime(Duration::from_secs(60));
    let live = scene.still_serves().await["access_token"]
        .as_str()
        .unwrap()
        .to_owned();
    let (get, status) = (
        async |token: &str| scene.visitor.get(token).await.status,
        401,
    );
    assert_eq!(get(&live).await, 200);
    assert_eq!(get(expired).await, status);
    assert_eq!(get("a-placeholder").await, status);
    assert_eq!(
        scene
            .visitor
            .send("GET", "/", &[], "")
            .await
            .unwrap()
            .status,
        status
    );
    scene.api.refuse_next(1);
    assert_eq!(get(&live).await, status);
    assert_eq!(get(&live).await, 200);
    scene.server.revoke_access(&live);
    assert_eq!(get(&live).await, status);
    let next = scene.still_serves().await["access_token"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(get(&next).await, 200);
    scene.server.revoke_all();
    assert_eq!(get(&next).await, status);
    let verdicts: Vec<Verdict> = scene.api.seen().iter().map(|seen| seen.verdict).collect();
    assert!(
        matches!(
            verdicts[..],
            [
                Verdict::Live,
                Verdict::Expired { .. },
                Verdict::Unknown,
                Verdict::Missing,
                Verdict::Unwanted,
                Verdict::Live,
                Verdict::Withdrawn,
                Verdict::Live,
                Verdict::Revoked,
            ]
        ),
        "{verdicts:?}"
    );
}

#[tokio::test]
async fn the_api_streams_messages_and_keeps_what_bodies_hashed_to() {
    let scene = Scene::of(token_server().claude()).await;
    let bearer = format!("Bearer {}", scene.login.access_token);
    let mut headers = vec![
        ("authorization", bearer.as_str()),
        ("anthropic-version", "2023-06-01"),
        ("anthropic-beta", "oauth-2025-04-20"),
    ];
    let body = json!({"model": "m", "stream": true, "messages": []}).to_string();
    let answer = scene
        .visitor
        .send("POST", "/v1/messages", &headers, &body)
        .await
        .unwrap();
    assert_eq!(answer.header("content-type"), Some("text/event-stream"));
    assert!(
        answer.text().contains("event: message_stop"),
        "{}",
        answer.text()
    );
    headers.pop();
    let answer = scene
        .visitor
        .send("POST", "/v1/messages", &headers, &body)
        .await
        .unwrap();
    assert_eq!(
        answer.status,
        401,
        "without the beta flag: {}",
        answer.text()
    );
    let answer = scene
        .visitor
        .send("PUT", "/any?q", &headers, "abc")
        .await
        .unwrap();
    let hash = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    assert_eq!(json_of(&answer)["sha256"], hash);
    let seen = scene.api.wait_for("PUT", |seen| seen.method == "PUT").await;
    assert_eq!(
        (
            seen.target.as_str(),
            seen.body_length,
            seen.body_hash.as_str()
        ),
        ("/any?q", 3, hash)
    );
    scene.api.assert_no_stale_token();
}

#[tokio::test]
async fn a_server_may_keep_refresh_tokens_and_leave_the_lifetime_out() {
    let scene = Scene::of(token_server().keeps_refresh_tokens().without_expires_in()).await;
    for _ in 0..2 {
        let answer = scene.still_serves().await;
        assert!(
            answer["refresh_token"].is_null() && answer["expires_in"].is_null(),
            "{answer}"
        );
    }
    let truth = scene.server.truth();
    assert_eq!(truth.refresh_token(), scene.login.refresh());
    assert_eq!((truth.refreshes, truth.rotations), (2, 0));
    truth.assert_one_clean_grant();
}

#[tokio::test]
async fn a_cut_ends_http2_connections_as_well() {
    let scene = Scene::plain().await;
    scene.server.fault_next(1, Fault::Cut(Stage::Rotated));
    let door = scene.client.relay.door();
    let mut sender = tunnel::http2(&door, &scene.client.host).await;
    let request = Request::post(scene.server.url())
        .header("content-type", FORM)
        .body(reply::full(refresh_form(scene.login.refresh())))
        .unwrap();
    assert!(sender.send_request(request).await.is_err());
    assert!(
        sender.ready().await.is_err(),
        "the connection is gone, not the stream alone"
    );
    assert_eq!(scene.server.truth().rotations, 1);
}

#[tokio::test]
async fn openai_has_its_own_words_for_a_spent_token() {
    let scene = Scene::of(token_server().codex()).await;
    let body = json!({
        "grant_type": "refresh_token", "refresh_token": scene.login.refresh(),
        "client_id": scene.server.client_id(),
    });
    let refresh = async || scene.client.post(JSON, &body.to_string()).await.unwrap();
    assert_eq!(refresh().await.status, 200);
    let answer = refresh().await;
    assert_eq!(answer.status, 401);
    assert_eq!(json_of(&answer)["error"]["code"], "refresh_token_reused");
    assert_eq!(scene.server.truth().refused, 1);
}
