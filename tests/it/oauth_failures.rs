//! What is known when no tokens came: an exact word on whether a provider may have acted.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tollgate::oauth::endpoint_error::EndpointError;
use tollgate::oauth::token::TokenSet;

use super::support::asker::{Asker, PATIENCE, PLAIN};
use super::support::ca::TestCa;
use super::support::origin::Origin;
use super::support::reply;
use super::support::token_server::fault::{Fault, Stage};
use super::support::token_server::server::token_server;

/// How long a silent endpoint is waited for; the request must have gone out by then.
const SILENCE: Duration = Duration::from_secs(4);

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
        (Fault::html(200), Word::Unanswered, 0),
        (Fault::html(502), Word::Unanswered, 0),
        (Fault::oauth(500, "server_error"), Word::Failed, 0),
        (Fault::RateLimit(7), Word::Later, 0),
        (Fault::oauth(400, "invalid_client"), Word::Refused, 0),
    ] {
        let server = token_server().start().await;
        let client = Asker::of(&server, PLAIN, "").await;
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
    let client = Asker::at(&server.origin, PLAIN, "", SILENCE).await;
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
    let stranger = Asker::believing(other.pem(), &server.origin, PLAIN, "", PATIENCE).await;
    let outcome = stranger.refresh("rt-sentinel").await;
    assert_eq!(word(&outcome), Word::Unreachable);
    assert!(server.origin.requests().is_empty());
    let elsewhere = PLAIN.replace("token.example.com", "127.0.0.1:1");
    let guarded = Asker::of(&server, &elsewhere, "").await;
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
    let gone = Asker::at(&gone, PLAIN, "", PATIENCE).await;
    assert_eq!(word(&gone.refresh("rt-sentinel").await), Word::Unreachable);
}

#[tokio::test]
async fn an_endpoint_that_never_shakes_hands_was_told_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut mute = Origin::tls(&["token.example.com"], |_| async { reply::text(200, "") }).await;
    mute.addr = listener.local_addr().unwrap();
    let client = Asker::at(&mute, PLAIN, "", Duration::from_millis(300)).await;
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
    let client = Asker::at(&origin, PLAIN, "", PATIENCE).await;
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
    let client = Asker::at(&origin, PLAIN, "", PATIENCE).await;
    let outcome = client.refresh("rt-sentinel").await;
    assert_eq!(word(&outcome), Word::Refused);
    let error = outcome.unwrap_err().to_string();
    assert!(
        error.contains("other.example.com") && !error.contains("sentinel"),
        "{error}"
    );
    assert_eq!(origin.requests().len(), 1);
}
