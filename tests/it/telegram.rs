//! A bot's token is part of the path; the placeholder must not slip through in any spelling.

use std::path::Path;

use super::support::agent::Agent;
use super::support::origin::Origin;
use super::support::telegram::{self, REAL_TOKEN};

const BODY: &str = r#"{"chat_id":42,"text":"hello"}"#;

/// Sends one message to `base`.
pub async fn send(curl: &Path, agent: &Agent, base: &str) -> serde_json::Value {
    let url = format!("{base}/sendMessage?disable_notification=true");
    let args = [
        "-sS",
        "-H",
        "content-type: application/json",
        "-d",
        BODY,
        &url,
    ];
    agent.run(curl, &args).await.json()
}

/// The token was in its place, the rest of target and body untouched.
pub fn assert_sent(origin: &Origin, said: &serde_json::Value) {
    assert_eq!(said["result"]["text"], "hello", "{said}");
    let request = origin.requests().pop().unwrap();
    let target = request.target.replace("%3A", ":").replace("%3a", ":");
    assert_eq!(
        target,
        format!("/bot{REAL_TOKEN}/sendMessage?disable_notification=true")
    );
    assert_eq!(request.body, BODY.as_bytes());
}

#[tokio::test]
async fn the_token_in_the_path_is_swapped_in_any_spelling() {
    let curl = client!("curl");
    let origin = telegram::telegram().await;
    let proxy = telegram::in_front_of(&origin).start().await;
    let agent = Agent::at(&proxy.door().await);
    let placeholder = agent.var("TELEGRAM_BOT_TOKEN").to_owned();
    for spelling in [
        placeholder.clone(),
        placeholder.replace(':', "%3A"),
        placeholder.replace(':', "%3a"),
    ] {
        let base = format!("https://api.telegram.org/bot{spelling}");
        let said = send(&curl, &agent, &base).await;
        assert_sent(&origin, &said);
    }
    assert_eq!(origin.requests().len(), 3);
    origin.assert_no_head_mentions(&placeholder);
    // The path itself must be redacted in the log; that no secret is there is checked when the proxy ends.
    let records = proxy.access_log(3).await;
    assert!(
        records
            .iter()
            .all(|r| r.to_string().contains("api.telegram.org"))
    );
}

#[tokio::test]
async fn the_base_url_door_swaps_the_path_behind_its_route() {
    let curl = client!("curl");
    let origin = telegram::telegram().await;
    let proxy = telegram::in_front_of(&origin).start().await;
    let door = proxy.door().await;
    let placeholder = &door.env["TELEGRAM_BOT_TOKEN"];
    let base = format!("{}/bot{placeholder}", proxy.base_url("telegram"));
    let said = send(&curl, &Agent::alone(), &base).await;
    assert_sent(&origin, &said);
    origin.assert_no_head_mentions(placeholder);
}

#[tokio::test]
async fn a_foreign_token_in_the_path_does_not_leave() {
    let curl = client!("curl");
    let origin = telegram::telegram().await;
    let proxy = telegram::in_front_of(&origin).start().await;
    let agent = Agent::at(&proxy.door().await);
    let base = "https://api.telegram.org/bot1234567890:AAsomebodyelsesomebodyelsesomebodye";
    let args = [
        "-sS",
        "-o",
        "/dev/null",
        "-w",
        "%{http_code}",
        &format!("{base}/getMe"),
    ];
    assert_eq!(agent.run(&curl, &args).await.ok(), "403");
    assert!(origin.requests().is_empty());
}
