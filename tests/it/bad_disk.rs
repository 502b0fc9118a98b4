//! A disk that runs full under the running process: what needs no disk goes on, what must be written is
//! refused, and once there is room everything resumes by itself, with nothing torn.

use serde_json::Value;

use super::support::books::Books;
use super::support::budgeted::cap;
use super::support::operator::{PATIENCE, until};
use super::support::provider::server::Provider;
use super::support::spender::{Ask, message};
use super::support::volume::Volume;

const SONNET: &str = "claude-sonnet-4-5";

#[tokio::test]
async fn a_disk_that_runs_full_refuses_what_must_be_kept_and_nothing_else() {
    let Some(volume) = Volume::mounted(4096) else {
        return;
    };
    let provider = Provider::start().await;
    let spec = format!("match: {{models: ['claude-*']}}\n{}", cap("100.00"));
    let builder = provider.budgets(&[("cap", &spec)]);
    // Everything the process writes is on the small disk.
    std::os::unix::fs::symlink(volume.path(), builder.file("state")).unwrap();
    std::os::unix::fs::symlink(volume.file("access.log"), builder.file("access.log")).unwrap();
    let proxy = builder.start().await;
    let spender = proxy.spender_by_base_url();
    let counted = Ask::message(&message(SONNET, 200));
    let free = Ask::of("api.openai.com", "GET", "/v1/models", "");
    assert_eq!(spender.ask(&counted).await.status, 200);
    assert_eq!(spender.ask(&free).await.status, 200);
    proxy.access_log(2).await;

    volume.fill();
    // The journal's file may have pages of its own left.
    let mut refused = None;
    for _ in 0..2000 {
        let answer = spender.ask(&counted).await;
        if answer.status != 200 {
            refused = Some(answer);
            break;
        }
    }
    let refused = refused.expect("calls were admitted that nobody wrote down");
    assert_eq!(refused.status, 503, "{}", refused.text());
    let reached = provider.origin.requests().len();
    for _ in 0..100 {
        assert_eq!(spender.ask(&counted).await.status, 503);
        assert_eq!(spender.ask(&free).await.status, 200);
    }
    let served = provider.origin.requests_for("/v1/messages").len();
    assert_eq!(
        provider.origin.requests().len(),
        reached + 100,
        "a refused call was sent"
    );
    until("lost records are counted", PATIENCE, async || {
        let metrics = proxy.admin("GET", "/metrics").await.text;
        let dropped = metrics.lines().filter(|line| {
            line.starts_with("tollgate_telemetry_dropped_total")
                && line.contains("access_log")
                && line.contains("write_failed")
        });
        dropped
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum::<f64>()
            > 0.0
    })
    .await;
    let told = proxy
        .output()
        .matches("the access log cannot be written")
        .count();
    assert!((1..=3).contains(&told), "{told} lines: {}", proxy.output());
    let checked = proxy.cli(&["-q", "check"]).await;
    assert_eq!(checked.code, Some(1), "{checked:?}");
    for part in ["ledger", "state directory", "access log"] {
        let told = checked.stdout.lines().any(|line| line == part);
        assert!(told, "{part}: {checked:?}");
    }
    assert!(checked.stdout.contains("No space left"), "{checked:?}");
    let warnings = proxy.readyz().await.text;
    assert!(warnings.contains("ledger"), "{warnings}");

    volume.make_room();
    until("calls are counted again", PATIENCE, async || {
        spender.ask(&counted).await.status == 200
    })
    .await;
    let lines = |text: &str| text.lines().count();
    let log = || std::fs::read_to_string(volume.file("access.log")).unwrap();
    let before = lines(&log());
    assert_eq!(spender.ask(&free).await.status, 200);
    until("exchanges are logged again", PATIENCE, async || {
        lines(&log()) > before
    })
    .await;
    for line in log().lines() {
        serde_json::from_str::<Value>(line).unwrap_or_else(|e| panic!("{e}: {line}"));
    }
    until("it is well again", PATIENCE, async || {
        !proxy.readyz().await.text.contains("ledger")
    })
    .await;
    provider.truth.idle().await;
    let again = provider.origin.requests_for("/v1/messages").len() - served;
    assert!(again >= 1);
    // Nothing that was served is missing, and nothing is held.
    let file = volume.file("ledger.db");
    until("the books are complete", PATIENCE, async || {
        let books = Books::read(&file);
        books.reservations.is_empty() && books.total() == provider.truth.total()
    })
    .await;
    let verified = proxy.cli(&["audit", "verify"]).await;
    assert_eq!(verified.code, Some(0), "{verified:?}");
}
