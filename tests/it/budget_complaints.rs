//! Twenty complaints about the budgets of today's systems, and where each is shown not to be true of
//! Tollgate. Tests named here without a file are in this one.
//!
//! | complaint | test |
//! |---|---|
//! | 1. LiteLLM #26672: a $10 key spent $217 | `budgets_cap::two_hundred_plain_calls_at_once_…`, `budgets_cap::two_hundred_streams_at_once_…` |
//! | 2. LiteLLM #42653: store down for seconds at the start, 3.86 times the cap | `complaint_2_…` |
//! | 3. LiteLLM #28247: each restart adds to what was spent | `complaint_3_…` |
//! | 4. LiteLLM #30460: the counter and the rows drift apart | `complaint_4_…` |
//! | 5. LiteLLM PR 27509: without `max_tokens` the whole budget is reserved | `complaint_5_…` |
//! | 6. LiteLLM PR 38647: "$25.000000000000004 of $25" with nothing spent | `complaint_6_…` |
//! | 7. LiteLLM PR 40002: long prompts are not reserved at their price | `complaint_7_…`, and at `meter::bound` |
//! | 8. LiteLLM #34732, #40095: check, then add | `budgets_cap::streams_that_share_a_connection_share_no_reservation` |
//! | 9. LiteLLM PR 33736 and others: who disconnects does not pay | `budgets_usage::an_agent_that_leaves_…` (two) |
//! | 10. LiteLLM #37992: the provider said zero, an estimate was billed | `complaint_10_…`, and at `meter::charge` |
//! | 11. LiteLLM #9812: cache writes are charged twice | `complaint_11_to_13_…`, and at `meter::price` |
//! | 12. LiteLLM #11789, #11973: streamed cache reads at the full price | the same |
//! | 13. earendil-works/pi #5603: cache writes of an hour at the rate of five minutes | the same |
//! | 14. LiteLLM PR 39294: a fallback is priced at one model | `budgets_usage::each_model_that_worked_on_a_call_…` |
//! | 15. LiteLLM #13882, #10238, Bifrost #2873: passthrough routes ignore budgets | `budgets_endpoints::what_cannot_be_read_…` |
//! | 16. LiteLLM #24770, PR 30715, PR 36561: what has no price is free | `budgets_refusals::a_model_without_a_price_…` (two) |
//! | 17. LiteLLM #20532, #25495, #8364, #7129, #22013, #34492: windows that never reset, or at once | `budgets_life::a_window_that_has_passed_…`, `budgets_clock` |
//! | 18. LiteLLM #38157, #34805, #34820, #35531: queues of spend are dropped at the end | `budgets_crash` |
//! | 19. Bifrost #3547, #5673: a cap for each process; a field that nothing reads | `complaint_19_…` |
//! | 20. Envoy AI Gateway #2290, #2279, PR 1631: 5 of 9,038 tokens, twice, or zero at the end | `complaint_20_…`, `budgets_usage::usage_that_comes_late_or_shrinks_is_booked_whole` |

use futures_util::future::join_all;
use serde_json::json;

use crate::support::budgeted::{Budgeted, cap, error_of, is_exhausted, with};
use crate::support::operator::{PATIENCE, until};
use crate::support::provider::conduct::{Conduct, Tells};
use crate::support::provider::gate::Gate;
use crate::support::provider::prices::usd;
use crate::support::provider::server::Provider;
use crate::support::spender::{Ask, chat, message, streamed};
use crate::support::volume::Volume;
use crate::support::wire::Answer;

const SONNET: &str = "claude-sonnet-4-5";

fn spent(answer: &Answer) -> u64 {
    let told = answer.header("x-tollgate-budget-spent");
    usd(told
        .unwrap_or_else(|| panic!("{answer:?}"))
        .trim_start_matches('$'))
}

/// While the ledger cannot be written nothing is let through, and it goes on by itself afterwards.
#[tokio::test]
async fn complaint_2_a_store_that_is_down_lets_nothing_through_and_is_tried_again_for_ever() {
    let Some(volume) = Volume::mounted(2048) else {
        return;
    };
    let provider = Provider::start().await;
    provider.usually(Conduct::says(100));
    let builder = provider.budgets(&[("cap", &cap("1000.00"))]);
    std::os::unix::fs::symlink(volume.path(), builder.path("state")).unwrap();
    let proxy = builder.start().await;
    let scene = Budgeted { provider, proxy };
    let ask = Ask::message(&message(SONNET, 100));
    assert_eq!(scene.spender().ask(&ask).await.status, 200);
    scene.books().await;
    volume.fill();
    let mut refused = None;
    until("the ledger is full", PATIENCE, async || {
        let answer = scene.spender().ask(&ask).await;
        let down = answer.status == 503;
        refused = down.then_some(answer);
        down
    })
    .await;
    let refused = refused.unwrap();
    assert_eq!(
        refused.header("retry-after"),
        Some("5"),
        "{}",
        refused.text()
    );
    assert_eq!(
        error_of(&refused)["type"],
        "overloaded_error",
        "{}",
        refused.text()
    );
    let reached = scene.reached();
    for _ in 0..5 {
        assert_eq!(scene.spender().ask(&ask).await.status, 503);
    }
    assert_eq!(scene.reached(), reached, "nothing passes");
    volume.make_room();
    until("it goes on", PATIENCE, async || {
        scene.spender().ask(&ask).await.status == 200
    })
    .await;
    scene.never_under().await;
}

#[tokio::test]
async fn complaint_3_restarts_do_not_multiply_what_was_spent() {
    let mut scene = Budgeted::new(&cap("10.00")).await;
    let ask = Ask::message(&message(SONNET, 100));
    assert_eq!(scene.spender().ask(&ask).await.status, 200);
    for _ in 0..4 {
        scene.books().await;
        let billed = scene.provider.truth.total();
        scene.proxy.kill().await;
        scene.proxy.restart().await;
        let answer = scene.spender().ask(&ask).await;
        assert_eq!(answer.status, 200);
        let told = spent(&answer);
        let own = scene.provider.truth.total() - billed;
        assert!(
            told == billed || told == billed + own,
            "{told} is neither {billed} nor {own} more"
        );
    }
    scene.agree().await;
}

#[tokio::test]
async fn complaint_4_what_is_told_as_spent_is_the_sum_of_the_rows() {
    let scene = Budgeted::new(&cap("2.00")).await;
    let dear = Ask::message(&message("claude-opus-4-1", 32_000));
    let spender = scene.spender();
    scene.provider.usually(Conduct::says(77).input(333));
    let asks = [
        Ask::message(&message(SONNET, 100)),
        Ask::message(&streamed(message("claude-haiku-4-5", 100))),
        Ask::chat(&streamed(chat("gpt-4o-mini", 100))),
    ];
    for round in 0..5 {
        join_all(asks.iter().map(|ask| spender.ask(ask))).await;
        scene.provider.next(Conduct::fails(500));
        spender.ask(&asks[round % 3]).await;
        let books = scene.agree().await;
        // $2.40 for its answer alone: it is refused, is told what was spent, and spends nothing itself.
        let refused = spender.ask(&dear).await;
        assert_eq!(refused.status, 402, "{}", refused.text());
        assert_eq!(spent(&refused), books.total());
    }
}

/// Most requests of the OpenAI SDK name no `max_tokens`; the model could fill the budget, and will not.
#[tokio::test]
async fn complaint_5_a_request_without_max_tokens_does_not_take_the_whole_budget() {
    let gate = Gate::closed();
    let scene = Budgeted::new(&with(&cap("0.50"), "contention: {queue: 10ms}")).await;
    scene.provider.usually(Conduct::says(100).held(1, &gate));
    let mut body = streamed(chat("gpt-4o", 1));
    body.as_object_mut()
        .unwrap()
        .remove("max_completion_tokens");
    let ask = Ask::chat(&body);
    let spender = scene.spender();
    // 16,384 tokens of an answer are 16 cents; 4,096 of them four.
    let answers = join_all((0..10).map(|_| spender.begin(&ask))).await;
    for answer in &answers {
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    gate.open();
    for answer in answers {
        answer.whole().await;
    }
    scene.agree().await;
}

/// What failing calls had reserved is all there again, to the last nano-dollar.
#[tokio::test]
async fn complaint_6_nothing_is_left_of_reservations_that_came_to_nothing() {
    let probe = Budgeted::new(&cap("0.000001")).await;
    let ask = Ask::message(&message(SONNET, 500));
    let refused = probe.spender().ask(&ask).await;
    let told = error_of(&refused)["message"].as_str().unwrap().to_owned();
    let (_, need) = told.split_once("may need $").unwrap();
    let need: String = need
        .chars()
        .take_while(|c| c.is_ascii_digit() || *c == '.')
        .collect();
    let need = need.trim_end_matches('.');
    drop(probe);

    // Just what one request needs: the smallest remainder of an earlier one would keep it out.
    let scene = Budgeted::new(&cap(need)).await;
    let spender = scene.spender();
    for _ in 0..30 {
        scene.provider.next(Conduct::fails(500));
        assert_eq!(spender.ask(&ask).await.status, 500);
    }
    let answer = spender.ask(&ask).await;
    assert_eq!(answer.status, 200, "of {need}: {}", answer.text());
    scene.agree().await;
}

#[tokio::test]
async fn complaint_7_a_long_prompt_is_reserved_at_its_own_price() {
    // 210,000 octets may be as many tokens: 63 to 79 cents at the price of short prompts, twice as much
    // at their own.
    let scene = Budgeted::new(&cap("1.00")).await;
    let mut body = message(SONNET, 10);
    body["messages"][0]["content"] = "x".repeat(210_000).into();
    scene.provider.usually(Conduct::says(10).input(205_000));
    let spender = scene.spender();
    let ask = Ask::message(&body);
    let answers = join_all((0..5).map(|_| spender.ask(&ask))).await;
    assert!(answers.iter().all(is_exhausted), "{answers:#?}");
    assert_eq!(scene.reached(), 0);
}

/// A provider's zero is a count like any other.
#[tokio::test]
async fn complaint_10_a_provider_that_counts_nothing_is_believed() {
    let scene = Budgeted::new(&cap("1.00")).await;
    scene
        .provider
        .usually(Conduct::says(100).tells(Tells::Zeros));
    for body in [message(SONNET, 100), streamed(message(SONNET, 100))] {
        let answer = scene.spender().ask(&Ask::message(&body)).await;
        assert_eq!(answer.status, 200);
        assert!(answer.text().contains("word"), "{}", answer.text());
    }
    let books = scene.agree().await;
    assert_eq!(books.served().len(), 2);
    assert!(
        books
            .served()
            .iter()
            .all(|row| row.cost() == 0 && !row.is_estimated()),
        "{books:#?}"
    );
}

/// The cases of the issues, with their own numbers.
#[tokio::test]
async fn complaint_11_to_13_each_class_of_cached_tokens_has_its_own_price_once() {
    let scene = Budgeted::new(&cap("100.00")).await;
    let mut body = message(SONNET, 1000);
    body["system"] = json!([{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral", "ttl": "1h"}}]);
    let mut billed = 0;
    for (conduct, dollars) in [
        // 12,304 tokens written to a cache, not counted as input once more.
        (Conduct::says(550).input(3).cached(12_304, 0, 0), "0.054399"),
        (Conduct::says(10).input(3).cached(0, 12_304, 0), "0.073983"),
        (Conduct::says(10).input(30).cached(0, 0, 1000), "0.00054"),
        (
            Conduct::says(10).input(30).cached(100, 200, 300),
            "0.001905",
        ),
    ] {
        for body in [body.clone(), streamed(body.clone())] {
            scene.provider.next(conduct.clone());
            assert_eq!(scene.spender().ask(&Ask::message(&body)).await.status, 200);
            billed += usd(dollars);
        }
    }
    let books = scene.agree().await;
    assert_eq!(books.total(), billed);
}

/// Two processes that count for themselves are twice the cap.
#[tokio::test]
async fn complaint_19_two_processes_never_keep_one_ledger() {
    let scene = Budgeted::new(&cap("1.00")).await;
    let second = scene.provider.budgets(&[("cap", &cap("1.00"))]);
    std::os::unix::fs::symlink(scene.proxy.file("state"), second.path("state")).unwrap();
    let mut second = second.spawn();
    // It may refuse to start, or to serve; it never counts by itself.
    until("it ends, or serves", PATIENCE, async || {
        !second.runs() || second.is_ready()
    })
    .await;
    if second.runs() {
        second.ready().await;
        let answer = second
            .spender_by_base_url()
            .ask(&Ask::message(&message(SONNET, 10)))
            .await;
        assert_eq!(answer.status, 503, "{}", answer.text());
        assert_eq!(scene.reached(), 0);
    } else {
        assert!(second.output().contains("ledger"), "{}", second.output());
    }
    assert_eq!(
        scene
            .spender()
            .ask(&Ask::message(&message(SONNET, 10)))
            .await
            .status,
        200
    );
    scene.agree().await;
}

/// 9,038 tokens, told twice and with zeros in the end, are 9,038 tokens.
#[tokio::test]
async fn complaint_20_tokens_of_a_stream_are_counted_once_and_all() {
    let scene = Budgeted::new(&cap("100.00")).await;
    for tells in [Tells::Usage, Tells::Shrinking] {
        scene
            .provider
            .next(Conduct::says(5).input(9).cached(0, 0, 9024).tells(tells));
        let ask = Ask::message(&streamed(message(SONNET, 100)));
        assert_eq!(scene.spender().ask(&ask).await.status, 200);
    }
    let books = scene.agree().await;
    for row in books.served() {
        let used = row.used();
        assert_eq!((used.input, used.read, used.output), (9, 9024, 5));
    }
}
