//! The referee itself: what the stand-in for the providers of models answers, bills and remembers, seen
//! by a plain client.

use std::time::Duration;

use async_compression::tokio::bufread::{BrotliDecoder, GzipDecoder, ZstdDecoder};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt as _;

use super::support::provider::conduct::{Coding, Conduct, Fate, Tells};
use super::support::provider::gate::Gate;
use super::support::provider::prices::{UNREADABLE, cost, usd};
use super::support::provider::server::{ANTHROPIC, GEMINI, OPENAI, Provider};
use super::support::provider::truth::Used;
use super::support::spender::{Ask, chat, contents, message, response, streamed};
use super::support::wire::Answer;

const SONNET: &str = "claude-sonnet-4-5";

fn json_of(answer: &Answer) -> Value {
    serde_json::from_slice(&answer.body).unwrap_or_else(|e| panic!("{e}: {}", answer.text()))
}

/// The data of each event.
fn data(text: &str) -> Vec<Value> {
    let lines = text.lines().filter_map(|line| line.strip_prefix("data: "));
    lines
        .filter_map(|data| serde_json::from_str(data).ok())
        .collect()
}

#[test]
fn list_prices_come_to_what_is_reckoned_by_hand() {
    let used = |model: &str, input, write_5m, write_1h, read, output, searches| Used {
        model: model.to_owned(),
        input,
        write_5m,
        write_1h,
        read,
        output,
        searches,
    };
    for (used, dollars) in [
        (used(SONNET, 1000, 0, 0, 0, 1000, 0), "0.018"),
        (used(SONNET, 1, 0, 0, 1, 0, 0), "0.0000033"),
        (used(SONNET, 0, 1000, 1000, 1000, 0, 2), "0.03005"),
        (used(SONNET, 200_000, 0, 0, 0, 0, 0), "0.6"),
        (used(SONNET, 200_001, 0, 0, 0, 2, 0), "1.200051"),
        (used("gpt-5", 3, 0, 0, 1, 1, 0), "0.000013875"),
        // 0.075 and 0.15 dollars a million: less than a nano-dollar is left over, and counts as one.
        (used("gpt-4o-mini", 0, 0, 0, 1, 0, 0), "0.000000075"),
        (used("gemini-2.5-flash", 0, 0, 0, 1, 0, 0), "0.00000003"),
        (used("never-heard-of-it", 1, 0, 0, 0, 0, 0), "0.0001"),
    ] {
        assert_eq!(cost(&used), usd(dollars), "{used:?}");
    }
}

#[tokio::test]
async fn every_api_answers_whole_and_in_pieces_and_bills_both() {
    let provider = Provider::start().await;
    let (customer, _relay) = provider.customer().await;
    provider.usually(Conduct::says(100).input(1000).cached(0, 0, 50).hidden(10));
    let mut plain_chat = streamed(chat("gpt-5", 200));
    let silent = customer
        .ask(&Ask::chat(&plain_chat).call("chat, not asked"))
        .await;
    assert!(!silent.text().contains("usage"), "{}", silent.text());
    plain_chat["stream_options"] = json!({"include_usage": true});
    for (name, ask, usage) in [
        (
            "message",
            Ask::message(&message(SONNET, 200)),
            "input_tokens",
        ),
        (
            "message, streamed",
            Ask::message(&streamed(message(SONNET, 200))),
            "input_tokens",
        ),
        ("chat", Ask::chat(&chat("gpt-5", 200)), "prompt_tokens"),
        ("chat, streamed", Ask::chat(&plain_chat), "prompt_tokens"),
        (
            "response",
            Ask::response(&response("gpt-5", 200)),
            "input_tokens",
        ),
        (
            "response, streamed",
            Ask::response(&streamed(response("gpt-5", 200))),
            "input_tokens",
        ),
        (
            "gemini",
            Ask::gemini("gemini-2.5-pro", "generateContent", &contents(200)),
            "promptTokenCount",
        ),
        (
            "gemini, events",
            Ask::gemini(
                "gemini-2.5-pro",
                "streamGenerateContent?alt=sse",
                &contents(200),
            ),
            "promptTokenCount",
        ),
        (
            "gemini, array",
            Ask::gemini("gemini-2.5-pro", "streamGenerateContent", &contents(200)),
            "promptTokenCount",
        ),
    ] {
        let answer = customer.ask(&ask.call(name)).await;
        assert_eq!(answer.status, 200, "{name}: {}", answer.text());
        let text = answer.text();
        assert!(text.contains(usage), "{name}: {text}");
        // Nine tenths are shown; Responses says everything three times.
        let words = text.matches("word").count();
        assert!(
            (70..=220).contains(&words),
            "{name}: {words} words in {text}"
        );
        if text.starts_with(['{', '[']) {
            serde_json::from_str::<Value>(&text).unwrap();
        }
        let bill = provider.truth.bill(name);
        assert!(bill.whole);
        let used = &bill.used[0];
        assert_eq!((used.input, used.read, used.output), (1000, 50, 100));
        assert_eq!(bill.cost, cost(used));
    }
    assert_eq!(provider.truth.bills().len(), 10);
    assert_eq!(provider.truth.by_model().len(), 3);
}

#[tokio::test]
async fn an_answer_never_has_more_tokens_than_the_request_allows() {
    let provider = Provider::start().await;
    let (customer, _relay) = provider.customer().await;
    provider.usually(Conduct::says(1000));
    let answer = customer
        .ask(&Ask::message(&message(SONNET, 10)).call("short"))
        .await;
    assert_eq!(json_of(&answer)["usage"]["output_tokens"], 10);
    let used = provider.truth.bill("short").used;
    assert_eq!(used[0].output, 10);
    assert_eq!(
        used[0].input,
        message(SONNET, 10).to_string().len() as u64 / 4
    );
}

#[tokio::test]
async fn who_leaves_in_the_middle_pays_for_what_was_made_by_then() {
    let provider = Provider::start().await;
    let (customer, _relay) = provider.customer().await;
    let gate = Gate::closed();
    // message_start, ping, content_block_start, then 10 tokens each.
    provider.usually(Conduct::says(100).input(1000).piece(10).held(6, &gate));
    let mut answer = customer
        .begin(&Ask::message(&streamed(message(SONNET, 200))).call("left"))
        .await;
    gate.arrived(1).await;
    for _ in 0..5 {
        answer.event().await.unwrap();
    }
    assert_eq!(provider.truth.under_way(), 1);
    assert!(provider.truth.bills().is_empty());
    drop(answer);
    provider.truth.idle().await;
    let bill = provider.truth.bill("left");
    assert!(!bill.whole);
    assert_eq!((bill.used[0].input, bill.used[0].output), (1000, 20));
    assert_eq!(bill.cost, usd("0.0033"));

    let others = Ask::message(&streamed(message(SONNET, 200))).call("stayed");
    let others = customer.begin(&others).await;
    gate.arrived(2).await;
    gate.open();
    let answer = others.whole().await;
    assert!(answer.text().ends_with("\n\n") && answer.text().contains("message_stop"));
    assert!(provider.truth.bill("stayed").whole);
}

#[tokio::test]
async fn it_says_what_it_is_told_to_say_of_its_use() {
    let provider = Provider::start().await;
    let (customer, _relay) = provider.customer().await;
    let mut asked = streamed(chat("gpt-5", 200));
    asked["stream_options"] = json!({"include_usage": true});
    let asks = [
        Ask::message(&message(SONNET, 200)),
        Ask::message(&streamed(message(SONNET, 200))),
        Ask::chat(&asked),
        Ask::response(&streamed(response("gpt-5", 200))),
        Ask::gemini(
            "gemini-2.5-pro",
            "streamGenerateContent?alt=sse",
            &contents(200),
        ),
    ];
    for tells in [
        Tells::Nothing,
        Tells::Null,
        Tells::Late,
        Tells::Shrinking,
        Tells::Twice,
        Tells::Nonsense,
    ] {
        for (number, ask) in asks.iter().enumerate() {
            provider.next(Conduct::says(20).input(77).tells(tells));
            let text = customer.ask(ask).await.text();
            let told = text.contains("77");
            let name = text.to_lowercase().contains("usage");
            match tells {
                Tells::Nothing => assert!(!name, "{number} {text}"),
                Tells::Null | Tells::Nonsense => assert!(name && !told, "{number} {text}"),
                Tells::Late | Tells::Shrinking => assert!(told, "{number} {tells:?} {text}"),
                Tells::Twice => {
                    let twice =
                        text.contains("},\"usage\":{") || text.contains("},\"usageMetadata\":{");
                    assert!(twice, "{number} {text}");
                }
                Tells::Usage | Tells::Zeros => unreachable!(),
            }
        }
    }
    assert!(
        provider
            .truth
            .bills()
            .iter()
            .all(|bill| bill.used[0].input == 77)
    );
}

#[tokio::test]
async fn each_model_of_a_call_is_billed_at_its_own_price() {
    let provider = Provider::start().await;
    let (customer, _relay) = provider.customer().await;
    let used = |model: &str, input, output| Used {
        model: model.to_owned(),
        input,
        output,
        ..Used::default()
    };
    provider.usually(
        Conduct::says(0)
            .iteration("message", used(SONNET, 1000, 100))
            .iteration("compaction", used("claude-haiku-4-5", 5000, 200))
            .iteration("fallback_message", used("claude-opus-4-5", 1000, 100)),
    );
    let ask = Ask::message(&streamed(message(SONNET, 1000))).call("three");
    let events = data(&customer.ask(&ask).await.text());
    let last = events
        .iter()
        .rev()
        .find(|e| e["type"] == "message_delta")
        .unwrap();
    assert_eq!(last["usage"]["input_tokens"], 2000, "{last}");
    assert_eq!(
        last["usage"]["iterations"][1]["input_tokens"], 5000,
        "{last}"
    );
    let dollars = usd("0.0045") + usd("0.006") + usd("0.0075");
    assert_eq!(provider.truth.bill("three").cost, dollars);
}

/// An answer without its coding.
pub async fn undone(coding: Coding, octets: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    let read = match coding {
        Coding::Gzip => GzipDecoder::new(octets).read_to_end(&mut plain).await,
        Coding::Brotli => BrotliDecoder::new(octets).read_to_end(&mut plain).await,
        Coding::Zstd => ZstdDecoder::new(octets).read_to_end(&mut plain).await,
    };
    read.unwrap();
    plain
}

async fn decoded(coding: Coding, octets: &[u8]) -> String {
    String::from_utf8(undone(coding, octets).await).unwrap()
}

#[tokio::test]
async fn it_compresses_cuts_up_and_adds_as_it_is_told() {
    let provider = Provider::http1().await;
    let (customer, _relay) = provider.customer().await;
    let ask = Ask::message(&streamed(message(SONNET, 200)));
    let plain = customer.ask(&ask).await.text();
    for coding in Coding::ALL {
        provider.next(Conduct::says(64).coded(coding).chunk(3));
        let answer = customer.ask(&ask).await;
        assert_eq!(answer.header("content-encoding"), Some(coding.name()));
        assert_eq!(decoded(coding, &answer.body).await, plain);
        provider.next(Conduct::says(64).coded(coding));
        let answer = customer.ask(&Ask::message(&message(SONNET, 200))).await;
        let whole = decoded(coding, &answer.body).await;
        assert_eq!(
            serde_json::from_str::<Value>(&whole).unwrap()["type"],
            "message"
        );
    }
    provider.next(Conduct::says(64).chunk(1).garbage("event: x\n"));
    let answer = customer.ask(&ask).await.text();
    assert_eq!(answer, format!("{plain}event: x\n"));
    provider.next(Conduct::says(64).newline("\r\n"));
    let answer = customer.ask(&ask).await.text();
    assert_eq!(answer, plain.replace('\n', "\r\n"));
}

#[tokio::test]
async fn it_fails_cuts_and_falls_silent_as_it_is_told() {
    let provider = Provider::http1().await;
    let (customer, _relay) = provider.customer().await;
    for (host, status, says) in [
        (ANTHROPIC, 529, "overloaded_error"),
        (OPENAI, 429, "rate_limit_exceeded"),
        (GEMINI, 500, "INTERNAL"),
    ] {
        provider.next(Conduct::fails(status));
        let ask = match host {
            ANTHROPIC => Ask::message(&message(SONNET, 10)),
            OPENAI => Ask::response(&response("gpt-5", 10)),
            _ => Ask::gemini("gemini-2.5-pro", "generateContent", &contents(10)),
        };
        let answer = customer.ask(&ask).await;
        assert_eq!(answer.status, status);
        assert!(answer.text().contains(says), "{}", answer.text());
    }
    assert!(provider.truth.bills().is_empty(), "errors cost nothing");

    let ask = Ask::message(&streamed(message(SONNET, 200)));
    provider.next(Conduct::says(64).fate(Fate::Cut(0)));
    assert!(customer.try_begin(&ask).await.is_err());
    provider.next(Conduct::says(64).piece(8).fate(Fate::Cut(5)));
    let mut answer = customer.begin(&ask.clone().call("cut")).await;
    assert_eq!(
        data(&String::from_utf8(answer.rest().await).unwrap()).len(),
        5
    );
    assert!(answer.cut);
    provider.truth.idle().await;
    assert_eq!(provider.truth.bill("cut").used[0].output, 16);

    provider.next(Conduct::says(64).piece(8).fate(Fate::Silent(5)));
    let mut answer = customer.begin(&ask.call("silent")).await;
    for _ in 0..5 {
        answer.event().await.unwrap();
    }
    let more = tokio::time::timeout(Duration::from_millis(50), answer.event()).await;
    assert!(more.is_err(), "{more:?}");
    drop(answer);
    provider.truth.idle().await;
    assert!(!provider.truth.bill("silent").whole);
}

#[tokio::test]
async fn only_the_right_key_gets_an_answer_and_what_cannot_be_read_costs_too() {
    let provider = Provider::start().await;
    let (customer, _relay) = provider.customer().await;
    let ask = Ask::message(&message(SONNET, 10)).header("x-api-key", "another");
    assert_eq!(customer.ask(&ask).await.status, 401);
    let nameless = Ask::message(&json!({"max_tokens": 1, "messages": []}));
    assert_eq!(customer.ask(&nameless).await.status, 400);
    for free in [
        Ask::of(ANTHROPIC, "POST", "/v1/messages/count_tokens", "{}"),
        Ask::of(OPENAI, "GET", "/v1/models", ""),
        Ask::gemini("gemini-2.5-pro", "countTokens", &contents(1)),
    ] {
        assert_eq!(customer.ask(&free).await.status, 200);
    }
    assert!(provider.truth.bills().is_empty());
    let batch = Ask::of(ANTHROPIC, "POST", "/v1/messages/batches", "{}").call("batch");
    assert_eq!(customer.ask(&batch).await.status, 200);
    assert_eq!(provider.truth.bill("batch").cost, UNREADABLE);
}

#[tokio::test]
async fn many_at_a_time_are_billed_one_by_one() {
    let provider = Provider::start().await;
    let (customer, _relay) = provider.customer().await;
    let gate = Gate::closed();
    provider.usually(Conduct::says(32).input(10).held(4, &gate));
    let connection = customer.multiplexed(ANTHROPIC).await;
    let ask = |number: usize| {
        let ask = Ask::message(&streamed(message(SONNET, 100)));
        ask.call(&format!("call {number}"))
    };
    let asks: Vec<Ask> = (0..50).map(ask).collect();
    let begun = asks.iter().map(|ask| connection.begin(ask));
    let answers = futures_util::future::join_all(begun).await;
    gate.arrived(50).await;
    assert_eq!(provider.truth.under_way(), 50);
    gate.let_go(20);
    provider.truth.billed(20).await;
    gate.open();
    for answer in answers {
        assert!(answer.whole().await.text().contains("message_stop"));
    }
    provider.truth.idle().await;
    assert_eq!(provider.truth.total(), 50 * usd("0.00051"));
}
