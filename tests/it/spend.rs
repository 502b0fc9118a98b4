//! `tollgate spend`: what was spent, told by the running proxy or read off its ledger.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::Value;

use crate::support::budgeted::{Budgeted, cap};
use crate::support::operator::finish;
use crate::support::provider::conduct::Conduct;
use crate::support::provider::prices::usd;
use crate::support::provider::server::Provider;
use crate::support::proxy::tollgate;
use crate::support::spender::{Ask, chat, message};

const SONNET: &str = "claude-sonnet-4-5";

fn today() -> String {
    let now = Timestamp::now().to_zoned(TimeZone::UTC);
    now.strftime("%Y-%m-%d").to_string()
}

/// The rows of a report, by their name: nano-dollars and calls.
fn rows(report: &Value) -> Vec<(String, u64, u64)> {
    let rows = report["rows"].as_array().unwrap().iter();
    let row = |row: &Value| {
        (
            row["key"].as_str().unwrap().to_owned(),
            usd(row["usd"].as_str().unwrap()),
            row["requests"].as_u64().unwrap(),
        )
    };
    rows.map(row).collect()
}

/// Two agents, two providers, three calls.
async fn three_calls() -> Budgeted {
    let provider = Provider::start().await;
    let proxy = provider
        .budgets(&[("cap", &cap("100.00"))])
        .env("ONE_TOKEN", "the-token-of-one-0001")
        .env("TWO_TOKEN", "the-token-of-two-0001")
        .setting(
            "identity: {agents: [{name: team-a/one, token: {env: {name: ONE_TOKEN}}}, {name: team-b/two, token: {env: {name: TWO_TOKEN}}}]}",
        )
        .start()
        .await;
    let scene = Budgeted { provider, proxy };
    let one = scene
        .proxy
        .spender_named("team-a/one", "the-token-of-one-0001");
    let two = scene
        .proxy
        .spender_named("team-b/two", "the-token-of-two-0001");
    scene
        .provider
        .usually(Conduct::says(600).input(40).cached(0, 0, 200));
    for _ in 0..2 {
        let answer = one.ask(&Ask::message(&message(SONNET, 600))).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    let answer = two.ask(&Ask::chat(&chat("gpt-5", 600))).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    scene.agree().await;
    scene
}

#[tokio::test]
async fn spending_is_told_by_agent_model_credential_and_day_as_it_was_billed() {
    let before = today();
    let scene = three_calls().await;
    let proxy = &scene.proxy;
    let total = scene.provider.truth.total();
    let by_model = scene.provider.truth.by_model();
    let (_, claude) = by_model[SONNET];
    let (_, gpt) = by_model["gpt-5"];
    for (by, dear, cheap) in [
        ("agent", "team-a/one", "team-b/two"),
        ("model", SONNET, "gpt-5"),
        ("credential", "anthropic", "openai"),
    ] {
        let report = proxy.cli(&["spend", "--by", by, "-o", "json"]).await.json();
        let mut expected = vec![(dear.to_owned(), claude, 2), (cheap.to_owned(), gpt, 1)];
        expected.sort_by_key(|(_, cost, _)| std::cmp::Reverse(*cost));
        assert_eq!(rows(&report), expected, "{report}");
        assert_eq!(usd(report["total"]["usd"].as_str().unwrap()), total);
        assert_eq!(report["total"]["requests"], 3);
    }
    let report = proxy
        .cli(&["spend", "--by", "day", "-o", "json"])
        .await
        .json();
    let days = rows(&report);
    assert_eq!(days.iter().map(|(_, cost, _)| cost).sum::<u64>(), total);
    let known = [before, today()];
    assert!(days.iter().all(|(day, ..)| known.contains(day)), "{days:?}");

    let only = proxy
        .cli(&["spend", "--agent", "team-b/two", "-o", "json"])
        .await
        .json();
    assert_eq!(rows(&only), [("team-b/two".to_owned(), gpt, 1)]);

    let nobody = proxy.cli(&["spend", "--agent", "team-b/tow"]).await;
    assert_eq!(nobody.code, Some(0), "{}", nobody.stderr);
    assert!(
        nobody.stderr.contains("no call of an agent `team-b/tow`"),
        "{}",
        nobody.stderr
    );

    let table = proxy.cli(&["spend"]).await;
    let text = table.ok();
    assert!(text.starts_with("AGENT "), "{text}");
    for line in [
        "team-a/one",
        "team-b/two",
        "total",
        "everything the ledger has",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
    assert!(
        text.contains("BUDGET") && text.contains("$100.00"),
        "{text}"
    );
    let short = proxy.cli(&["spend", "-o", "short"]).await;
    assert!(short.ok().ends_with("in 3 requests\n"), "{}", short.stdout);
}

#[tokio::test]
async fn a_report_has_edges_and_says_what_is_wrong_with_them() {
    let scene = three_calls().await;
    let proxy = &scene.proxy;
    for (args, calls) in [
        (["--from", "2020-01-01"], 3),
        (["--from", "2999-01-01"], 0),
        (["--until", "2020-01-01"], 0),
        (["--until", "2999-12-31"], 3),
    ] {
        let report = proxy
            .cli(&["spend", args[0], args[1], "-o", "json"])
            .await
            .json();
        assert_eq!(report["total"]["requests"], calls, "{args:?}");
    }
    for (args, said) in [
        (["--from", "yesterday", "--by", "day"], "is not a date"),
        (["--from", "2026-11-31", "--by", "day"], "is not a date"),
        (
            ["--from", "2026-11-02", "--until", "2026-11-01"],
            "is not before --until",
        ),
        (["--by", "colour", "--agent", "x"], "possible values"),
        (["--csv", "-o", "json", "--by=day"], "two forms"),
    ] {
        let told = proxy.cli(&[&["spend"], &args[..]].concat()).await;
        assert_eq!(told.code, Some(2), "{args:?}: {}", told.stderr);
        assert!(told.stderr.contains(said), "{args:?}: {}", told.stderr);
    }
    for (query, status) in [
        ("?by=colour", 400),
        ("?since=2026-11-01", 400),
        ("?from=2026-11-31", 400),
        ("", 200),
    ] {
        let path = format!("/v1/spend{query}");
        let said = proxy.admin("GET", &path).await;
        assert_eq!(said.status, status, "{}", said.text);
        assert_eq!(
            proxy
                .admin_with("GET", &path, "Bearer guessed")
                .await
                .status,
            401
        );
    }
    assert_eq!(proxy.admin("POST", "/v1/spend").await.status, 405);
}

/// Where prices do not matter, an agent names any model it likes.
#[tokio::test]
async fn a_name_that_an_agent_made_up_runs_nowhere() {
    let tokens = "limits: [{unit: tokens, max: 1000000, window: total}]\n";
    let scene = Budgeted::new(tokens).await;
    let hostile = "=HYPERLINK(\"http://evil.example\";\"x\"),@SUM";
    scene
        .provider
        .usually(Conduct::says(20).input(10).by(hostile));
    let answer = scene
        .spender()
        .ask(&Ask::message(&message(hostile, 50)))
        .await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    scene.books().await;
    let csv = scene.proxy.cli(&["spend", "--by", "model", "--csv"]).await;
    let lines: Vec<&str> = csv.ok().split("\r\n").collect();
    assert!(lines[0].starts_with("\"model\",\"usd\",\"requests\""));
    assert!(
        lines[1].starts_with("\"'=HYPERLINK(\"\"http://evil.example\"\";\"\"x\"\"),"),
        "{lines:?}"
    );
    assert!(lines[1].contains(",@SUM\",0.00,1,"), "{lines:?}");
    assert_eq!((lines.len(), lines[2]), (3, ""), "{lines:?}");
    // Programs get the name as it is.
    let json = scene.proxy.cli(&["spend", "--by", "model", "-o", "json"]);
    assert_eq!(json.await.json()["rows"][0]["key"], hostile);
}

#[tokio::test]
async fn without_a_proxy_spending_is_read_off_the_ledgers_file() {
    let mut scene = three_calls().await;
    let with = scene.proxy.cli(&["spend", "-o", "json"]).await.json();
    scene.proxy.kill().await;
    let without = scene.proxy.cli(&["spend", "-o", "json"]).await;
    assert_eq!(without.json(), with);
    let file = scene.proxy.file("state/ledger.db");
    let note = format!("read from {}", file.display());
    assert!(
        without.stderr.contains("no proxy answers") && without.stderr.contains(&note),
        "{}",
        without.stderr
    );
    // It was only looked at: the next process finds it as it was left.
    scene.proxy.restart().await;
    let again = scene.proxy.cli(&["spend", "-o", "json"]).await;
    assert_eq!(again.json(), with);
    assert_eq!(again.stderr, "");

    let shown = scene.proxy.cli(&["budget", "show"]).await;
    assert_eq!(shown.code, Some(0), "{}", shown.stderr);
    scene.proxy.kill().await;
    let shown = scene.proxy.cli(&["budget", "show"]).await;
    assert_eq!(shown.code, Some(75), "{}", shown.stderr);
    assert!(shown.stderr.contains("is `tollgate serve` running"));
}

#[tokio::test]
async fn a_ledger_that_was_never_made_is_said_so() {
    let provider = Provider::start().await;
    let builder = provider.proxy();
    let config = builder.write();
    let mut command = tollgate(config.parent().unwrap(), &[].into());
    command.arg("spend").arg("--config").arg(&config);
    command.args(["--admin", "127.0.0.1:9"]);
    let told = finish(command).await;
    assert_eq!(told.code, Some(75), "{}", told.stderr);
    assert!(
        told.stderr.contains("there is no ledger at") && told.stderr.contains("EgressBudget"),
        "{}",
        told.stderr
    );
    // A proxy without a budget has none either, and has spent nothing that it counts.
    let proxy = builder.start().await;
    let report = proxy.cli(&["spend", "-o", "json"]).await.json();
    assert_eq!(report["total"]["usd"], "0.00");
    let shown = proxy.cli(&["budget", "show"]).await;
    assert_eq!(shown.ok(), "no budget has a limit\n");
}
