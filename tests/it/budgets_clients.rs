//! Real agents and SDKs at a budget that is used up, and at one that others hold: one request and a plain
//! word, or a little patience and an answer.

use std::path::Path;

use serde_json::Value;

use crate::sdks::talk;
use crate::support::agent::{Agent, Finished};
use crate::support::budgeted::{Budgeted, cap, with};
use crate::support::clients::heavy;
use crate::support::provider::conduct::Conduct;
use crate::support::provider::gate::Gate;
use crate::support::provider::server::Provider;
use crate::support::spender::{Ask, message};

const SONNET: &str = "claude-sonnet-4-5";
const CLAUDE: [&str; 7] = [
    "-p",
    "Say hello",
    "--model",
    SONNET,
    "--output-format",
    "stream-json",
    "--verbose",
];
const CODEX: [&str; 8] = [
    "exec",
    "--skip-git-repo-check",
    "--sandbox",
    "read-only",
    "--json",
    "-m",
    "gpt-5",
    "Say hello",
];
const TOLD: &str = "Egress budget exhausted: budget ";

/// A budget that has no room for anything.
async fn exhausted() -> Budgeted {
    Budgeted::new(&cap("0.000001")).await
}

/// Records of requests to a model, by status.
async fn asked(scene: &Budgeted, method: &str, path: &str, status: u16) -> usize {
    let records = scene.proxy.access_log(0).await;
    let own = records.iter().filter(|record| {
        let target = record["target"].as_str().unwrap_or_default();
        record["method"] == method
            && target.split('?').next() == Some(path)
            && (status == 0 || record["status"] == status)
    });
    own.count()
}

/// Somebody else holds nearly all of a budget until the gate opens.
struct Held {
    scene: Budgeted,
    gate: Gate,
    holder: tokio::task::JoinHandle<()>,
}

/// Of 50 cents, 46 are held by a call that is not answered yet.
async fn held(queue: &str) -> Held {
    held_of("0.50", 30_000, queue).await
}

/// A call that is not answered yet holds 15 dollars for a million tokens of its answer, and a little.
async fn held_of(limit: &str, tokens: u64, queue: &str) -> Held {
    let gate = Gate::closed();
    let spec = with(&cap(limit), &format!("contention: {{queue: {queue}}}"));
    let scene = Budgeted::before(Provider::start().await, &spec).await;
    scene
        .provider
        .on("holder", Conduct::says(10).held(0, &gate));
    let spender = scene.spender();
    let ask = Ask::message(&message(SONNET, tokens)).call("holder");
    let holder = tokio::spawn(async move {
        let answer = spender.ask(&ask).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    });
    gate.arrived(1).await;
    Held {
        scene,
        gate,
        holder,
    }
}

impl Held {
    /// Lets the holder go once so many requests for the path are on record with this status.
    async fn let_go_after(&self, count: usize, method: &str, path: &str, status: u16) {
        let wanted = async || asked(&self.scene, method, path, status).await >= count;
        crate::support::operator::until(
            "the agent was answered",
            std::time::Duration::from_secs(60),
            wanted,
        )
        .await;
        self.gate.open();
    }

    async fn over(self) -> Budgeted {
        self.holder.await.unwrap();
        self.scene
    }
}

fn result_of(finished: &Finished) -> Value {
    let events = finished.json_lines();
    let result = events.iter().find(|event| event["type"] == "result");
    result
        .unwrap_or_else(|| panic!("no result: {}\n{}", finished.stdout, finished.stderr))
        .clone()
}

#[tokio::test]
async fn claude_code_at_an_exhausted_budget_asks_once_and_shows_why() {
    let claude = client!("claude");
    let scene = exhausted().await;
    let agent = Agent::at(&scene.proxy.door().await);
    let _one_at_a_time = heavy().await;
    let finished = agent.run(&claude, &CLAUDE).await;
    assert_eq!(finished.code, Some(1), "{}", finished.stdout);
    let result = result_of(&finished);
    assert_eq!(result["api_error_status"], 402, "{result}");
    let shown = result["result"].as_str().unwrap();
    assert!(
        shown.contains("API Error: 402") && shown.contains(TOLD),
        "{shown}"
    );
    assert!(
        !finished.stdout.contains("api_retry"),
        "{}",
        finished.stdout
    );
    assert_eq!(asked(&scene, "POST", "/v1/messages", 0).await, 1);
    assert!(
        scene
            .provider
            .origin
            .requests_for("/v1/messages")
            .is_empty()
    );
}

#[tokio::test]
async fn claude_code_at_a_contended_budget_waits_and_succeeds() {
    let claude = client!("claude");
    let held = held("10ms").await;
    held.scene.provider.usually(Conduct::says(20));
    let agent = Agent::at(&held.scene.proxy.door().await);
    let _one_at_a_time = heavy().await;
    let (finished, ()) = tokio::join!(
        agent.run(&claude, &CLAUDE),
        held.let_go_after(1, "POST", "/v1/messages", 429)
    );
    let result = result_of(&finished);
    assert_eq!(result["is_error"], false, "{result}");
    assert!(
        result["result"].as_str().unwrap().contains("word"),
        "{result}"
    );
    assert!(finished.stdout.contains("api_retry"), "{}", finished.stdout);
    let scene = held.over().await;
    assert!(asked(&scene, "POST", "/v1/messages", 429).await <= 3);
    scene.agree().await;
}

/// In the queue nobody sees that there was anything to wait for.
#[tokio::test]
async fn claude_code_in_the_queue_of_a_budget_notices_nothing() {
    let claude = client!("claude");
    let held = held("60s").await;
    held.scene.provider.usually(Conduct::says(20));
    let agent = Agent::at(&held.scene.proxy.door().await);
    let _one_at_a_time = heavy().await;
    // What it asks for before its model.
    let (finished, ()) = tokio::join!(
        agent.run(&claude, &CLAUDE),
        held.let_go_after(1, "GET", "/api/claude_code/policy_limits", 0)
    );
    let result = result_of(&finished);
    assert_eq!(result["is_error"], false, "{result}");
    assert!(
        !finished.stdout.contains("api_retry"),
        "{}",
        finished.stdout
    );
    let scene = held.over().await;
    assert_eq!(asked(&scene, "POST", "/v1/messages", 429).await, 0);
    scene.agree().await;
}

#[tokio::test]
async fn codex_at_an_exhausted_budget_asks_once_and_says_why() {
    let codex = client!("codex");
    let scene = exhausted().await;
    let agent = Agent::at(&scene.proxy.door().await);
    let _one_at_a_time = heavy().await;
    let finished = agent.run(&codex, &CODEX).await;
    let said = format!("{}{}", finished.stdout, finished.stderr);
    // Codex has words of its own for this code.
    assert!(said.contains("Quota exceeded"), "{said}");
    assert_eq!(asked(&scene, "POST", "/v1/responses", 0).await, 1, "{said}");
    assert!(scene.provider.truth.bills().is_empty());
}

#[tokio::test]
async fn codex_at_a_contended_budget_waits_and_succeeds() {
    let codex = client!("codex");
    // It names no limit of its own, and its model thinks unseen: $1.28 are reserved for what may come.
    let held = held_of("2.00", 64_000, "60s").await;
    held.scene.provider.usually(Conduct::says(20));
    let agent = Agent::at(&held.scene.proxy.door().await);
    let _one_at_a_time = heavy().await;
    let (finished, ()) = tokio::join!(
        agent.run(&codex, &CODEX),
        held.let_go_after(1, "GET", "/v1/responses", 426)
    );
    finished.ok();
    let said = finished.json_lines();
    let said = said.iter().any(|event| {
        event["item"]["text"]
            .as_str()
            .is_some_and(|text| text.contains("word"))
    });
    assert!(said, "{}\n{}", finished.stdout, finished.stderr);
    let scene = held.over().await;
    scene.agree().await;
}

/// The SDKs of both providers, in both languages.
const SDKS: [(&str, &str, &str, &[&str]); 4] = [
    (
        "python-anthropic",
        "anthropic_spend.py",
        "/v1/messages",
        &["plain", "streamed"],
    ),
    (
        "node-sdks",
        "anthropic_spend.mjs",
        "/v1/messages",
        &["plain", "streamed"],
    ),
    (
        "python-openai",
        "openai_spend.py",
        "/v1/chat/completions",
        &["plain", "streamed", "response"],
    ),
    (
        "node-sdks",
        "openai_spend.mjs",
        "/v1/chat/completions",
        &["plain", "streamed", "response"],
    ),
];

async fn spend(program: &Path, scene: &Budgeted, script: &str, tokens: u64) -> Value {
    let mut agent = Agent::at(&scene.proxy.door().await).env("ASK_TOKENS", tokens.to_string());
    if script.starts_with("openai") {
        // One that does not think unseen: its streams are held in tranches.
        agent = agent.env("ASK_MODEL", "gpt-4o");
    }
    talk(program, agent, script).await
}

#[tokio::test]
async fn sdks_at_an_exhausted_budget_ask_once_and_raise_our_words() {
    for (name, script, path, calls) in SDKS {
        let program = client!(name);
        let scene = exhausted().await;
        let said = spend(&program, &scene, script, 64).await;
        for call in calls {
            let raised = &said[call];
            let status = if script.starts_with("anthropic") {
                402
            } else {
                429
            };
            assert_eq!(raised["status"], status, "{script}: {said}");
            assert!(
                raised["message"].as_str().unwrap().contains(TOLD),
                "{script}: {said}"
            );
        }
        assert_eq!(asked(&scene, "POST", path, 0).await, 2, "{script}");
        assert_eq!(scene.reached(), 0);
    }
}

#[tokio::test]
async fn sdks_at_a_contended_budget_wait_and_succeed() {
    for (name, script, path, calls) in SDKS {
        let program = client!(name);
        let held = held("10ms").await;
        // More than is left: 5,500 tokens at 15 or 10 dollars a million, and the strict bound of the prompt.
        let tokens = if script.starts_with("anthropic") {
            5500
        } else {
            9000
        };
        let (said, ()) = tokio::join!(
            spend(&program, &held.scene, script, tokens),
            held.let_go_after(1, "POST", path, 429)
        );
        for call in calls {
            assert!(said[call]["text"].as_str().is_some(), "{script}: {said}");
        }
        let scene = held.over().await;
        assert!(asked(&scene, "POST", path, 429).await >= 1, "{script}");
        scene.agree().await;
    }
}

/// A stream that is cut is an exception with our words, not a broken connection or an end that looks whole.
#[tokio::test]
async fn sdks_raise_our_words_when_a_stream_is_cut() {
    for (name, script, _, _) in SDKS {
        let program = client!(name);
        // Room for the reservation of the plain call; the whole of the streamed one costs more.
        let (limit, tokens) = match script.starts_with("anthropic") {
            true => ("0.20", 10_000),
            false => ("0.13", 10_000),
        };
        let scene = Budgeted::new(&cap(limit)).await;
        let pace = std::time::Duration::from_millis(5);
        let long = Conduct::says(20_000).input(40).piece(64).pace(pace);
        scene.provider.usually(Conduct::says(10).input(40));
        for conduct in [Conduct::says(4000).input(40), long] {
            scene.provider.next(conduct);
        }
        let said = spend(&program, &scene, script, tokens).await;
        assert!(said["plain"]["text"].as_str().is_some(), "{script}: {said}");
        let raised = said["streamed"]["message"].as_str();
        let raised = raised.unwrap_or_else(|| panic!("{script}: it was not cut: {said}"));
        assert!(raised.contains(TOLD), "{script}: {said}");
        scene.never_under().await;
    }
}
