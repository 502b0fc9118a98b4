//! What an agent could do to spend more than its budget lets it: each of these once worked.

use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::support::budgeted::{Budgeted, cap, is_exhausted, with};
use crate::support::operator::{PATIENCE, until};
use crate::support::provider::conduct::Conduct;
use crate::support::provider::gate::Gate;
use crate::support::provider::prices::usd;
use crate::support::provider::server::Provider;
use crate::support::spender::{Ask, message, streamed};

const SONNET: &str = "claude-sonnet-4-5";

/// A body of so many octets that says no more than a short one.
fn padded(mut body: Value, octets: usize) -> Value {
    body["metadata"] = json!({"user_id": "a"});
    let padding = "lorem ipsum dolor ".repeat(octets / 18);
    body["messages"] = json!([{"role": "user", "content": padding}]);
    body
}

/// Long bodies with short prompts teach that a body costs little. Then long prompts come, all at once.
#[tokio::test]
async fn what_an_agent_teaches_is_believed_for_one_call_at_a_time() {
    let scene = Budgeted::new(&with(&cap("1.00"), "contention: {queue: 1s}")).await;
    let spender = scene.spender();
    let teaching = Ask::message(&streamed(padded(message(SONNET, 100), 300_000)));
    scene.provider.usually(Conduct::says(1).input(10));
    for _ in 0..10 {
        assert_eq!(spender.ask(&teaching).await.status, 200);
    }
    let taught = scene.books().await.total();

    // Nothing is told of these prompts before all of them have been asked for: 60 cents each.
    let gate = Gate::closed();
    scene
        .provider
        .usually(Conduct::says(1).input(200_000).held(0, &gate));
    let ended = AtomicUsize::new(0);
    let calls = (0..20).map(|_| async {
        let answer = spender.begin(&teaching).await.whole().await;
        ended.fetch_add(1, Ordering::SeqCst);
        answer
    });
    let (answers, ()) = tokio::join!(join_all(calls), async {
        // Two at most are let through: one on its estimate, one by its size.
        until("all but two are refused", PATIENCE, async || {
            ended.load(Ordering::SeqCst) >= 18
        })
        .await;
        gate.open();
    });
    let served = answers.iter().filter(|answer| answer.status == 200).count();
    assert!(served >= 1, "{answers:?}");
    let spent = scene.never_under().await.total() - taught;
    // One that was believed is 60 cents beyond its estimate; the others were reserved by their size.
    assert!(spent <= usd("1.00") + usd("0.60"), "{spent} for {served}");
}

/// A model's other names are the same model.
#[tokio::test]
async fn a_budget_for_a_model_holds_for_its_other_names() {
    let budget = format!("match: {{models: [{SONNET}]}}\n{}", cap("0.0001"));
    let scene = Budgeted::new(&budget).await;
    let spender = scene.spender();
    for name in [SONNET, "claude-sonnet-4-5-20250929", "Claude-Sonnet-4-5"] {
        let refused = spender.ask(&Ask::message(&message(name, 600))).await;
        assert_ne!(refused.status, 200, "{name}: {}", refused.text());
    }
    assert_eq!(scene.reached(), 0);
}

/// Names that an agent makes up do not each get a budget of their own.
#[tokio::test]
async fn models_that_nobody_knows_share_one_budget() {
    let budget =
        "match: {groupBy: [agent, model]}\nlimits:\n  - {unit: tokens, max: 1500, window: total}\n";
    let scene = Budgeted::new(budget).await;
    scene.provider.usually(Conduct::says(600).input(40));
    let spender = scene.spender();
    let mut served = 0;
    for name in ["made-up", "Made-Up", "made-up-2", "made-up-3"] {
        let answer = spender.ask(&Ask::message(&message(name, 600))).await;
        match answer.status {
            200 => served += 1,
            _ => assert!(is_exhausted(&answer), "{}", answer.text()),
        }
    }
    assert!(served <= 2, "{served}");
}

/// A helper that nobody knows is charged as another model; the one that is known is not.
#[tokio::test]
async fn a_made_up_model_beside_a_dear_one_does_not_make_it_cheap() {
    let budget = with(&cap("0.03"), "unknownModel: {priceAs: claude-haiku-4-5}");
    let scene = Budgeted::new(&budget).await;
    // 2,000 tokens of Opus are 5 cents, of Haiku one.
    let mut body = message("claude-opus-4-5", 2000);
    body["fallbacks"] = json!([{"model": "made-up"}]);
    let refused = scene.spender().ask(&Ask::message(&body)).await;
    assert!(is_exhausted(&refused), "{}", refused.text());
    assert_eq!(scene.reached(), 0);
}

/// A budget on a model is a budget on it wherever it runs, however it is written.
#[tokio::test]
async fn no_spelling_of_a_models_name_passes_a_budget_on_it() {
    let opus = "anthropic.claude-opus-4-5-20251101-v1:0";
    let spec = format!(
        "match: {{models: [\"{opus}\", llama3, \"qwen3:latest\", claude-opus-4-5]}}\n\
         limits: [{{unit: tokens, max: 10, window: total}}]\n"
    );
    let provider = Provider::start().await;
    let proxy = provider.proxy_of_clouds();
    let proxy = proxy.document("EgressBudget", "cap", &spec).start().await;
    let scene = Budgeted { provider, proxy };
    let local = |model: &str| {
        let body = json!({"model": model, "messages": [{"role": "user", "content": "Hi"}]});
        Ask::ollama("chat", &body)
    };
    let claude = json!({
        "anthropic_version": "bedrock-2023-05-31", "max_tokens": 100,
        "messages": [{"role": "user", "content": "Hi"}],
    });
    let mut asks = Vec::new();
    for place in ["", "us.", "global."] {
        asks.push(Ask::bedrock(&format!("{place}{opus}"), "invoke", &claude));
    }
    for model in [
        "llama3",
        "LLAMA3:latest",
        "library/llama3",
        "registry.ollama.ai/library/llama3:latest",
        "qwen3",
        "qwen3:latest",
    ] {
        asks.push(local(model));
    }
    let vertex = "anthropic/models/claude-opus-4-5@default:rawPredict";
    asks.push(Ask::vertex(vertex, &claude));
    for ask in &asks {
        let answer = scene.proxy.spender().ask(ask).await;
        let text = answer.text();
        assert!(text.contains("budget exhausted"), "{}: {text}", ask.target);
    }
    assert_eq!(scene.reached(), 0);
    // Another model is none of its business.
    let other = scene.proxy.spender().ask(&local("llama3:8b")).await;
    assert_eq!(other.status, 200, "{}", other.text());
}
