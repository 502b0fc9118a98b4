//! What happens to budgets over time: edits, restarts, windows, wrong clocks; and what they do side by side.

use std::time::Duration;

use crate::support::budgeted::{Budgeted, cap, error_of, is_exhausted, with};
use crate::support::operator::{PATIENCE, until};
use crate::support::provider::conduct::Conduct;
use crate::support::provider::gate::Gate;
use crate::support::provider::prices::usd;
use crate::support::provider::server::Provider;
use crate::support::spender::{Ask, chat, message};

const SONNET: &str = "claude-sonnet-4-5";

/// The documents of a scene with another text for one budget.
fn edited(scene: &Budgeted, from: &str, to: &str) -> String {
    let documents = std::fs::read_to_string(scene.proxy.file("documents.yaml")).unwrap();
    assert!(documents.contains(from), "{documents}");
    documents.replace(from, to)
}

/// 600 tokens of an answer, and a prompt of 40: $0.00912.
fn costly() -> Conduct {
    Conduct::says(600).input(40)
}

const COSTLY: &str = "0.00912";

#[tokio::test]
async fn editing_a_budget_does_not_reset_what_was_spent() {
    let scene = Budgeted::new(&cap("0.02")).await;
    scene.provider.usually(costly());
    let spender = scene.spender();
    let ask = Ask::message(&message(SONNET, 600));
    assert_eq!(spender.ask(&ask).await.status, 200);
    let refused = spender.ask(&ask).await;
    assert_eq!(refused.status, 402, "{}", refused.text());

    // More room: what is left is the new limit less what was spent.
    scene
        .proxy
        .reload(&edited(&scene, "\"0.02\"", "\"0.03\""))
        .await;
    assert_eq!(spender.ask(&ask).await.status, 200);
    let refused = spender.ask(&ask).await;
    assert_eq!(refused.status, 402, "{}", refused.text());
    let told = error_of(&refused)["message"].to_string();
    assert!(
        told.contains("limit $0.03") && told.contains("spent $0.01824"),
        "{told}"
    );

    // Less room than was spent already.
    scene
        .proxy
        .reload(&edited(&scene, "\"0.03\"", "\"0.001\""))
        .await;
    let refused = spender.ask(&ask).await;
    let told = error_of(&refused)["message"].to_string();
    assert!(
        told.contains("limit $0.001") && told.contains("spent $0.01824"),
        "{told}"
    );
    scene.agree().await;
}

/// A new name, another window, another group: what was spent before counts in whatever covers it.
#[tokio::test]
async fn neither_a_new_name_nor_another_window_resets_what_was_spent() {
    for (from, to) in [
        ("name: cap", "name: renamed"),
        ("window: total", "window: {calendar: month}"),
        ("window: total", "window: {rolling: 1h}"),
        ("unit: usd, max: \"0.02\"", "unit: usd, max: \"0.019\""),
        ("limits:", "match: {groupBy: [none]}\n  limits:"),
        ("limits:", "match: {models: [\"claude-*\"]}\n  limits:"),
        // The call is on record under the name with a date, of which this is an alias.
        ("limits:", "match: {models: [claude-sonnet-4-5]}\n  limits:"),
    ] {
        let mut scene = Budgeted::new(&cap("0.02")).await;
        scene.provider.usually(costly());
        let ask = Ask::message(&message(SONNET, 600));
        assert_eq!(scene.spender().ask(&ask).await.status, 200);
        scene.books().await;
        scene.proxy.reload(&edited(&scene, from, to)).await;
        let refused = scene.spender().ask(&ask).await;
        assert_eq!(refused.status, 402, "{to}: {}", refused.text());
        let told = error_of(&refused)["message"].to_string();
        assert!(told.contains("spent $0.00912"), "{to}: {told}");
        scene.proxy.kill().await;
        scene.proxy.restart().await;
        let refused = scene.spender().ask(&ask).await;
        let told = error_of(&refused)["message"].to_string();
        assert!(told.contains("spent $0.00912"), "{to}, restarted: {told}");
    }
}

/// A budget that is taken away and comes back knows what went on before, and meanwhile.
#[tokio::test]
async fn a_budget_that_comes_back_remembers() {
    let generous = cap("1000.00");
    let scene = Budgeted::of(&[("cap", &cap("0.02")), ("all", &generous)]).await;
    scene.provider.usually(costly());
    let ask = Ask::message(&message(SONNET, 600));
    let spender = scene.spender();
    assert_eq!(spender.ask(&ask).await.status, 200);
    assert_eq!(spender.ask(&ask).await.status, 402);
    let with_both = std::fs::read_to_string(scene.proxy.file("documents.yaml")).unwrap();
    scene
        .proxy
        .reload(&edited(&scene, "\"0.02\"", "\"500\""))
        .await;
    assert_eq!(spender.ask(&ask).await.status, 200);
    scene.proxy.reload(&with_both).await;
    let refused = spender.ask(&ask).await;
    let told = error_of(&refused)["message"].to_string();
    assert!(told.contains("spent $0.01824"), "{told}");
}

#[tokio::test]
async fn a_soft_budget_warns_once_for_each_threshold_and_refuses_nothing() {
    let spec = with(&cap("0.03"), "enforcement: soft\nalerts: [50, 100]");
    let mut scene = Budgeted::new(&spec).await;
    scene.provider.usually(costly());
    let ask = Ask::message(&message(SONNET, 600));
    for _ in 0..6 {
        let answer = scene.spender().ask(&ask).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    scene.agree().await;
    let warned = |output: &str, percent: &str| {
        let lines = output
            .lines()
            .filter(|line| line.contains("a threshold") && line.contains(percent));
        lines.count()
    };
    until("both thresholds are told", PATIENCE, async || {
        let output = scene.proxy.output();
        warned(&output, "50") >= 1 && warned(&output, "100") >= 1
    })
    .await;
    let before = scene.proxy.output();
    scene.proxy.kill().await;
    scene.proxy.restart().await;
    assert_eq!(scene.spender().ask(&ask).await.status, 200);
    scene.agree().await;
    let after = scene.proxy.output();
    let told = |output: &str| warned(output, "percent\":50") + warned(output, "percent\":100");
    assert_eq!(told(&after), told(&before), "told again: {after}");
}

#[tokio::test]
async fn of_several_budgets_the_most_restrictive_wins() {
    let scene = Budgeted::of(&[
        ("wide", &cap("100.00")),
        (
            "narrow",
            &with(&cap("0.02"), "match: {models: [\"claude-sonnet-*\"]}"),
        ),
        (
            "openai-only",
            &with(&cap("0.000001"), "match: {models: [\"gpt-*\"]}"),
        ),
    ])
    .await;
    scene.provider.usually(costly());
    let spender = scene.spender();
    let sonnet = Ask::message(&message(SONNET, 600));
    assert_eq!(spender.ask(&sonnet).await.status, 200);
    let refused = spender.ask(&sonnet).await;
    assert_eq!(refused.status, 402);
    assert!(
        error_of(&refused)["message"].to_string().contains("narrow"),
        "{}",
        refused.text()
    );
    assert!(
        refused
            .header("x-tollgate-budget-id")
            .unwrap()
            .contains("narrow")
    );
    let haiku = Ask::message(&message("claude-haiku-4-5", 600));
    assert_eq!(
        spender.ask(&haiku).await.status,
        200,
        "another model's cap is not its own"
    );
    let gpt = spender.ask(&Ask::chat(&chat("gpt-5", 600))).await;
    assert!(is_exhausted(&gpt), "{}", gpt.text());
    assert!(gpt.text().contains("openai-only"), "{}", gpt.text());
    // A refusal by one takes nothing of the others.
    scene.agree().await;
}

/// Two agents that name themselves.
async fn two_agents(spec: &str) -> Budgeted {
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
    Budgeted { provider, proxy }
}

#[tokio::test]
async fn an_agent_that_has_spent_all_does_not_stop_another() {
    let scene = two_agents(&cap("0.02")).await;
    scene.provider.usually(costly());
    let one = scene
        .proxy
        .spender_named("team-a/one", "the-token-of-one-0001");
    let two = scene
        .proxy
        .spender_named("team-b/two", "the-token-of-two-0001");
    let ask = Ask::message(&message(SONNET, 600));
    assert_eq!(one.ask(&ask).await.status, 200);
    let refused = one.ask(&ask).await;
    assert_eq!(refused.status, 402);
    assert!(
        error_of(&refused)["message"]
            .to_string()
            .contains("for agent team-a/one"),
        "{}",
        refused.text()
    );
    assert_eq!(two.ask(&ask).await.status, 200);
    let refused = two.ask(&ask).await;
    assert!(
        error_of(&refused)["message"]
            .to_string()
            .contains("for agent team-b/two"),
        "{}",
        refused.text()
    );
    let books = scene.agree().await;
    let agents: Vec<&str> = books.served().iter().map(|row| row.text("agent")).collect();
    assert!(
        agents.contains(&"team-a/one") && agents.contains(&"team-b/two"),
        "{agents:?}"
    );
}

/// Nobody's cap is escaped by calling oneself another: the connection says who one is.
#[tokio::test]
async fn no_header_makes_an_agent_another_one() {
    let spec = with(&cap("0.02"), "match: {agents: [\"team-a/*\"]}");
    let scene = two_agents(&spec).await;
    scene.provider.usually(costly());
    let one = scene
        .proxy
        .spender_named("team-a/one", "the-token-of-one-0001");
    let ask = Ask::message(&message(SONNET, 600));
    assert_eq!(one.ask(&ask).await.status, 200);
    for (name, value) in [
        ("x-agent", "team-b/two"),
        ("x-tollgate-agent", "team-b/two"),
        ("x-claude-code-session-id", "another"),
        (
            "proxy-authorization",
            "Basic dGVhbS1iL3R3bzp0aGUtdG9rZW4tb2YtdHdvLTAwMDE=",
        ),
        ("user", "team-b/two"),
    ] {
        let answer = one.ask(&ask.clone().header(name, value)).await;
        assert_eq!(answer.status, 402, "{name}: {}", answer.text());
    }
    let two = scene
        .proxy
        .spender_named("team-b/two", "the-token-of-two-0001");
    for _ in 0..3 {
        assert_eq!(two.ask(&ask).await.status, 200, "the budget is not for it");
    }
    assert_eq!(scene.reached(), 4);
}

#[tokio::test]
async fn one_pot_for_all_agents_is_one_pot() {
    let spec = with(&cap("0.02"), "match: {groupBy: [none]}");
    let scene = two_agents(&spec).await;
    scene.provider.usually(costly());
    let one = scene
        .proxy
        .spender_named("team-a/one", "the-token-of-one-0001");
    let two = scene
        .proxy
        .spender_named("team-b/two", "the-token-of-two-0001");
    let ask = Ask::message(&message(SONNET, 600));
    assert_eq!(one.ask(&ask).await.status, 200);
    assert_eq!(two.ask(&ask).await.status, 402);
    scene.agree().await;
}

/// A short window opens again by itself, and what was spent in the old one does not count in the new.
#[tokio::test]
async fn a_window_that_has_passed_leaves_nothing_behind() {
    let spec = "limits: [{unit: usd, max: \"0.02\", window: {rolling: 1m}}]";
    let scene = Budgeted::new(spec).await;
    scene.provider.usually(costly());
    let ask = Ask::message(&message(SONNET, 600));
    let spender = scene.spender();
    assert_eq!(spender.ask(&ask).await.status, 200);
    assert_eq!(spender.ask(&ask).await.status, 402);
    until(
        "the window has passed",
        Duration::from_secs(90),
        async || spender.ask(&ask).await.status == 200,
    )
    .await;
    scene.agree().await;
    assert_eq!(scene.reached(), 2);
}

/// What waited was judged by budgets that are none any more: it is sent back, costs nothing, and may ask again.
#[tokio::test]
async fn a_call_whose_budgets_changed_while_it_waited_is_sent_back_for_a_moment() {
    let gate = Gate::closed();
    let spec = with(&cap("0.028"), "contention: {queue: 60s, waiters: 3}");
    let scene = Budgeted::before(Provider::http1().await, &spec).await;
    scene.provider.on("held", costly().held(0, &gate));
    scene.provider.usually(costly());
    let spender = scene.spender();
    let ask = Ask::message(&message(SONNET, 600));
    let (holder, held) = (spender.clone(), ask.clone().call("held"));
    let holding = tokio::spawn(async move { holder.ask(&held).await });
    gate.arrived(1).await;
    let mut waiting = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let (spender, ask) = (spender.clone(), ask.clone());
        waiting.spawn(async move { spender.ask(&ask).await });
    }
    // That one finds no room in the queue tells that the three others are in it.
    let first = waiting.join_next().await.unwrap().unwrap();
    assert_eq!(first.status, 429, "{}", first.text());
    assert!(!is_exhausted(&first), "{}", first.text());
    scene
        .proxy
        .reload(&edited(&scene, "\"0.028\"", "\"0.05\""))
        .await;
    gate.open();
    assert_eq!(holding.await.unwrap().status, 200);
    while let Some(answer) = waiting.join_next().await {
        let answer = answer.unwrap();
        assert_eq!(answer.status, 503, "{}", answer.text());
        assert_eq!(answer.header("retry-after"), Some("1"));
        assert_eq!(error_of(&answer)["type"], "overloaded_error");
        let told = error_of(&answer)["message"].to_string();
        assert!(told.contains("changed while"), "{told}");
    }
    assert_eq!(scene.reached(), 1);
    assert_eq!(spender.ask(&ask).await.status, 200);
    scene.agree().await;
}

/// Documents are written anew for many reasons; only a change of what counts sends anybody back.
#[tokio::test]
async fn a_call_that_waits_is_served_after_a_reload_that_changes_no_budget() {
    let gate = Gate::closed();
    let spec = with(&cap("0.028"), "contention: {queue: 60s, waiters: 1}");
    let scene = Budgeted::before(Provider::http1().await, &spec).await;
    scene.provider.on("held", costly().held(0, &gate));
    scene.provider.usually(costly());
    let spender = scene.spender();
    let ask = Ask::message(&message(SONNET, 600));
    let (holder, held) = (spender.clone(), ask.clone().call("held"));
    let holding = tokio::spawn(async move { holder.ask(&held).await });
    gate.arrived(1).await;
    let mut waiting = tokio::task::JoinSet::new();
    for _ in 0..2 {
        let (spender, ask) = (spender.clone(), ask.clone());
        waiting.spawn(async move { spender.ask(&ask).await });
    }
    // That one finds no room in the queue tells that the other is in it.
    let first = waiting.join_next().await.unwrap().unwrap();
    assert_eq!(first.status, 429, "{}", first.text());
    let wider = "---\napiVersion: tollgate.dev/v1alpha1\nkind: EgressPolicy\nmetadata: {name: wider}\nspec:\n  \
                 egress: [{hosts: [wider.example.com]}]\n";
    let documents = std::fs::read_to_string(scene.proxy.file("documents.yaml")).unwrap();
    scene.proxy.reload(&format!("{documents}{wider}")).await;
    gate.open();
    assert_eq!(holding.await.unwrap().status, 200);
    let served = waiting.join_next().await.unwrap().unwrap();
    assert_eq!(served.status, 200, "{}", served.text());
    scene.agree().await;
}

/// A stream that outlives a reload is settled where it was admitted.
#[tokio::test]
async fn a_call_under_way_survives_an_edit() {
    let gate = Gate::closed();
    let scene = Budgeted::new(&cap("0.02")).await;
    scene.provider.on("held", costly().held(0, &gate));
    let spender = scene.spender();
    let ask = Ask::message(&message(SONNET, 600)).call("held");
    let asking = tokio::spawn({
        let spender = spender.clone();
        async move { spender.ask(&ask).await }
    });
    gate.arrived(1).await;
    scene
        .proxy
        .reload(&edited(&scene, "\"0.02\"", "\"0.021\""))
        .await;
    gate.open();
    assert_eq!(asking.await.unwrap().status, 200);
    let books = scene.agree().await;
    assert_eq!(books.total(), usd(COSTLY));
    let refused = spender.ask(&Ask::message(&message(SONNET, 600))).await;
    let told = error_of(&refused)["message"].to_string();
    assert!(
        told.contains("limit $0.021") && told.contains("spent $0.00912"),
        "{told}"
    );
}
