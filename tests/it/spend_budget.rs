//! `tollgate budget`: where limits stand, and what operators change about them while agents go on.

use serde_json::{Value, json};

use crate::support::budgeted::{Budgeted, cap, with};
use crate::support::operator::{PATIENCE, until};
use crate::support::provider::conduct::Conduct;
use crate::support::provider::gate::Gate;
use crate::support::provider::server::Provider;
use crate::support::spender::{Ask, Spender, message};

const SONNET: &str = "claude-sonnet-4-5";

/// 600 tokens of an answer, and a prompt of 40: $0.00912.
fn costly() -> Conduct {
    Conduct::says(600).input(40)
}

fn asked() -> Ask {
    Ask::message(&message(SONNET, 600))
}

/// Asks as often as there is room.
async fn spend_all(spender: &Spender) {
    while spender.ask(&asked()).await.status == 200 {}
    assert_eq!(spender.ask(&asked()).await.status, 402);
}

/// The one limit that there is.
async fn standing(scene: &Budgeted) -> Value {
    let shown = scene.proxy.cli(&["budget", "show", "-o", "json"]).await;
    let all = shown.json();
    assert_eq!(all.as_array().unwrap().len(), 1, "{all}");
    all[0].clone()
}

/// Two agents that name themselves, with one budget.
async fn two_agents(spec: &str) -> (Budgeted, Spender, Spender) {
    let provider = Provider::start().await;
    let proxy = provider
        .budgets(&[("cap", spec)])
        .env("ONE_TOKEN", "the-token-of-one-0001")
        .env("TWO_TOKEN", "the-token-of-two-0001")
        .setting(
            "identity: {agents: [{name: team-a/one, token: {env: {name: ONE_TOKEN}}}, {name: team-b/two, token: {env: {name: TWO_TOKEN}}}]}",
        )
        .start()
        .await;
    provider.usually(costly());
    let one = proxy.spender_named("team-a/one", "the-token-of-one-0001");
    let two = proxy.spender_named("team-b/two", "the-token-of-two-0001");
    (Budgeted { provider, proxy }, one, two)
}

#[tokio::test]
async fn a_limit_is_shown_with_what_is_spent_and_what_is_in_flight() {
    let scene = Budgeted::new(&with(&cap("0.05"), "alerts: [10, 90]")).await;
    let fresh = standing(&scene).await;
    assert_eq!(
        (&fresh["scope"], &fresh["spent"]),
        (&Value::Null, &json!("0.00"))
    );
    scene.provider.usually(costly());
    assert_eq!(scene.spender().ask(&asked()).await.status, 200);
    scene.agree().await;
    let settled = standing(&scene).await;
    for (field, value) in [
        ("budget", json!("cap")),
        ("unit", json!("usd")),
        ("window", json!("total")),
        ("scope", json!("agent=agent")),
        ("configured", json!("0.05")),
        ("max", json!("0.05")),
        ("spent", json!("0.00912")),
        ("reserved", json!("0.00")),
        ("held", json!("0.00")),
        ("remaining", json!("0.04088")),
        ("percent", json!(18)),
        ("resets", Value::Null),
        ("enforcement", json!("hard")),
        ("alerts", json!([10, 90])),
        ("alertsTold", json!([10])),
    ] {
        assert_eq!(settled[field], value, "{field}: {settled}");
    }

    let gate = Gate::closed();
    scene.provider.next(costly().held(0, &gate));
    let spender = scene.spender();
    let under_way = tokio::spawn(async move { spender.ask(&asked()).await.status });
    gate.arrived(1).await;
    let held = standing(&scene).await;
    assert_ne!(held["reserved"], "0.00", "{held}");
    let series = "tollgate_budget_remaining_ratio{budget=\"cap\",scope=\"agent=agent\"}";
    let ratio = scene.proxy.metric(series).await.unwrap();
    assert!(ratio > 0.0 && ratio < 0.8, "{ratio}");
    assert_eq!(scene.proxy.metric("tollgate_ledger_ok").await, Some(1.0));
    gate.open();
    assert_eq!(under_way.await.unwrap(), 200);
    scene.agree().await;
    assert_eq!(standing(&scene).await["reserved"], "0.00");

    let table = scene.proxy.cli(&["budget", "show", "cap"]).await;
    let lines: Vec<&str> = table.ok().lines().collect();
    assert!(lines[0].starts_with("BUDGET"), "{lines:?}");
    assert!(
        lines[1].starts_with("cap     agent  $0.01824  $0.05"),
        "{lines:?}"
    );
}

/// A look is enough: nobody has to call first.
#[tokio::test]
async fn what_was_spent_is_shown_at_once_after_an_edit() {
    for (from, to, scope) in [
        ("window: total", "window: {calendar: month}", "agent=agent"),
        ("window: total", "window: {rolling: 1h}", "agent=agent"),
        ("limits:", "match: {groupBy: [none]}\n  limits:", ""),
        (
            "limits:",
            "match: {models: [claude-sonnet-4-5]}\n  limits:",
            "agent=agent",
        ),
    ] {
        let scene = Budgeted::new(&cap("0.05")).await;
        scene.provider.usually(costly());
        assert_eq!(scene.spender().ask(&asked()).await.status, 200);
        scene.agree().await;
        let documents = std::fs::read_to_string(scene.proxy.file("documents.yaml")).unwrap();
        scene.proxy.reload(&documents.replace(from, to)).await;
        let shown = standing(&scene).await;
        assert_eq!(
            (&shown["spent"], &shown["scope"]),
            (&json!("0.00912"), &json!(scope)),
            "{to}: {shown}"
        );
    }
}

#[tokio::test]
async fn a_raise_lets_an_exhausted_agent_go_on_and_is_written_down() {
    let mut scene = Budgeted::new(&cap("0.02")).await;
    scene.provider.usually(costly());
    spend_all(&scene.spender()).await;
    let raise = [
        "budget", "raise", "cap", "--by", "0.03usd", "--until", "2h", "--reason",
    ];
    let raise = [&raise[..], &["the release"]].concat();
    let raised = scene.proxy.cli(&raise).await;
    let line = raised.ok();
    assert!(
        line.starts_with("agent cap $0.02 → $0.05 until ") && line.trim_end().ends_with(" UTC"),
        "{line}"
    );
    assert_eq!(scene.spender().ask(&asked()).await.status, 200);
    let shown = standing(&scene).await;
    assert_eq!(
        (&shown["max"], &shown["configured"]),
        (&json!("0.05"), &json!("0.02"))
    );
    let log = scene.proxy.output();
    let line = log
        .lines()
        .find(|line| line.contains("a budget was raised"));
    let line = line.unwrap_or_else(|| panic!("{log}"));
    for told in [
        "cap",
        "agent=agent",
        "$0.02",
        "$0.05",
        "the release",
        "uid ",
    ] {
        assert!(line.contains(told), "{told}: {line}");
    }
    let audit = scene.proxy.amendments();
    assert_eq!(audit.len(), 1);
    assert_eq!(audit[0].text("kind"), "raise");
    assert_eq!(audit[0].text("budget"), "cap");
    assert_eq!(audit[0].text("scope"), "agent=agent");
    assert_eq!(audit[0].text("reason"), "the release");
    assert!(audit[0].text("who").starts_with("uid "), "{audit:?}");
    assert_eq!(
        (audit[0].number("old"), audit[0].number("new")),
        (20_000_000, 50_000_000)
    );
    // It is kept, and comes on top of what the document says.
    scene.proxy.kill().await;
    scene.proxy.restart().await;
    assert_eq!(scene.spender().ask(&asked()).await.status, 200);
    let order = json!({"by": "1requests", "until": "never", "reason": "x", "who": "alice"});
    let wrong = scene.proxy.order("/v1/budgets/cap/raise", &order).await;
    assert_eq!(wrong.status, 400, "{}", wrong.text);
    let order = json!({"by": "1usd", "until": "never", "reason": "x", "who": "alice"});
    let raised = scene.proxy.order("/v1/budgets/cap/raise", &order).await;
    assert_eq!(raised.status, 200, "{}", raised.text);
    let told = raised.json();
    assert_eq!(
        (&told["old"], &told["new"], &told["until"], &told["who"]),
        (
            &json!("0.05"),
            &json!("1.05"),
            &Value::Null,
            &json!("alice")
        )
    );
}

#[tokio::test]
async fn a_raise_is_over_when_it_was_said_to_be() {
    let scene = Budgeted::new(&cap("0.02")).await;
    scene.provider.usually(costly());
    spend_all(&scene.spender()).await;
    let raised = scene
        .proxy
        .cli(&[
            "budget", "raise", "cap", "--by", "5usd", "--until", "4s", "--reason", "a moment",
            "-o", "json",
        ])
        .await
        .json();
    assert_eq!(raised["new"], "5.02");
    // Nobody has to call for it to be over.
    until("the raise is over", PATIENCE, async || {
        standing(&scene).await["max"] == "0.02"
    })
    .await;
    assert_eq!(scene.spender().ask(&asked()).await.status, 402);
}

#[tokio::test]
async fn a_raise_for_one_agent_is_not_for_another() {
    let (scene, one, two) = two_agents(&cap("0.02")).await;
    spend_all(&one).await;
    spend_all(&two).await;
    let raise = |more: &'static [&'static str]| {
        let args = ["budget", "raise", "cap", "--by", "0.1usd", "--until", "2h"];
        [&args[..], &["--reason", "the release"], more].concat()
    };
    let unclear = scene.proxy.cli(&raise(&[])).await;
    assert_eq!(unclear.code, Some(1), "{}", unclear.stderr);
    for told in ["agent=team-a/one, agent=team-b/two", "--scope all"] {
        assert!(unclear.stderr.contains(told), "{}", unclear.stderr);
    }
    let raised = scene.proxy.cli(&raise(&["--agent", "team-a/one"])).await;
    assert!(
        raised
            .ok()
            .starts_with("team-a/one cap $0.02 → $0.12 until "),
        "{}",
        raised.stdout
    );
    assert_eq!(one.ask(&asked()).await.status, 200);
    assert_eq!(two.ask(&asked()).await.status, 402);
    let raised = scene.proxy.cli(&raise(&["--scope", "all"])).await;
    assert!(raised.ok().starts_with("cap, each group, cap"));
    assert_eq!(two.ask(&asked()).await.status, 200);
}

#[tokio::test]
async fn a_reset_clears_the_window_and_not_the_history() {
    let mut scene = Budgeted::new(&cap("0.02")).await;
    scene.provider.usually(costly());
    spend_all(&scene.spender()).await;
    let books = scene.agree().await;
    let reset = scene
        .proxy
        .cli(&["budget", "reset", "cap", "--reason", "a test ran wild"])
        .await;
    assert_eq!(reset.ok(), "agent spent $0.00912 → $0 (total)\n");
    assert_eq!(standing(&scene).await["spent"], "0.00");
    assert_eq!(scene.spender().ask(&asked()).await.status, 200);
    scene.agree().await;
    let report = scene.proxy.cli(&["spend", "-o", "json"]).await.json();
    assert_eq!(report["total"]["requests"], 2, "{report}");
    assert_eq!(books.total(), 9_120_000);
    scene.proxy.kill().await;
    scene.proxy.restart().await;
    assert_eq!(standing(&scene).await["spent"], "0.00912");
    let audit = scene.proxy.amendments();
    assert_eq!(
        (audit[0].text("kind"), audit[0].number("old")),
        ("reset", 9_120_000)
    );
}

#[tokio::test]
async fn what_cannot_be_changed_is_answered_with_the_way_out() {
    let scene = Budgeted::new(&cap("0.02")).await;
    for (args, code, said) in [
        (
            "budget raise capp --by 5usd --until 2h --reason x",
            1,
            "did you mean `cap`?",
        ),
        ("budget show other", 1, "there is no budget `other`"),
        (
            "budget raise cap --by 5usd --until 2h",
            2,
            "--reason <TEXT>",
        ),
        (
            "budget raise cap --by 5 --until 2h --reason x",
            2,
            "has no unit",
        ),
        (
            "budget raise cap --by -5usd --until 2h --reason x",
            2,
            "amounts are positive",
        ),
        (
            "budget raise cap --agent nobody --by 5usd --reason x",
            1,
            "there is no agent `nobody`",
        ),
        (
            "budget raise cap --agent agnet --by 5usd --reason x",
            1,
            "did you mean `agent`?",
        ),
        (
            "budget raise cap --scope agent=nobody --by 5usd --reason x",
            1,
            "there is no agent `nobody`",
        ),
        (
            "budget raise cap --by 5usd --until soon --reason x",
            2,
            "is not a time",
        ),
        (
            "budget raise cap --by 5usd --until 2020-01-01T00:00:00Z --reason x",
            1,
            "lies in the past",
        ),
        (
            "budget raise cap --by 5usd --reason x",
            1,
            "has no end by itself",
        ),
        (
            "budget raise cap --by 5tokens --until 2h --reason x",
            1,
            "no limit in tokens",
        ),
        (
            "budget raise cap --by 5usd --until 2h --window day --reason x",
            1,
            "its windows are: total",
        ),
        (
            "budget raise cap --by 5usd --until 2h --reason x",
            1,
            "counted none yet",
        ),
        (
            "budget reset cap --scope nobody --reason x",
            1,
            "write agent=NAME",
        ),
    ] {
        let args: Vec<&str> = args.split(' ').collect();
        let told = scene.proxy.cli(&args).await;
        assert_eq!(told.code, Some(code), "{args:?}: {}", told.stderr);
        assert!(told.stderr.contains(said), "{args:?}: {}", told.stderr);
    }
    let path = "/v1/budgets/cap/raise";
    for (body, status, said) in [
        (json!({"by": "5usd", "who": "alice"}), 400, "`reason`"),
        (json!({"by": "5usd", "reason": "x"}), 400, "`who`"),
        (json!({"reason": "x", "who": "alice"}), 400, "`by`"),
        (
            json!({"by": 5, "reason": "x", "who": "alice"}),
            422,
            "invalid type",
        ),
        (json!({"amount": "5usd"}), 422, "unknown field"),
    ] {
        let told = scene.proxy.order(path, &body).await;
        assert_eq!(told.status, status, "{body}: {}", told.text);
        let message = told.json()["error"]["message"].to_string();
        assert!(message.contains(said), "{body}: {message}");
    }
    let guessed = scene.proxy.admin_with("POST", path, "Bearer guessed");
    assert_eq!(guessed.await.status, 401);
    assert!(scene.proxy.amendments().is_empty());
}
