//! What a provider says of its use, or hides, or garbles, is booked for no less than it bills, and the
//! octets go to the agent as they came.

use serde_json::{Value, json};

use crate::provider::undone;
use crate::support::budgeted::{Budgeted, cap};
use crate::support::provider::conduct::{Coding, Conduct, Fate, Tells};
use crate::support::provider::gate::Gate;
use crate::support::provider::prices::usd;
use crate::support::provider::server::Provider;
use crate::support::provider::truth::Used;
use crate::support::spender::{Ask, chat, contents, message, response, streamed};

const SONNET: &str = "claude-sonnet-4-5";

fn asking_for_usage() -> Value {
    let mut body = streamed(chat("gpt-5", 300));
    body["stream_options"] = json!({"include_usage": true});
    body
}

/// Every way of asking, by name.
fn asks() -> Vec<(&'static str, Ask)> {
    vec![
        ("message", Ask::message(&message(SONNET, 300))),
        (
            "message stream",
            Ask::message(&streamed(message(SONNET, 300))),
        ),
        ("chat", Ask::chat(&chat("gpt-5", 300))),
        ("chat stream", Ask::chat(&asking_for_usage())),
        ("response", Ask::response(&response("gpt-5", 300))),
        (
            "response stream",
            Ask::response(&streamed(response("gpt-5", 300))),
        ),
        (
            "gemini",
            Ask::gemini("gemini-2.5-pro", "generateContent", &contents(300)),
        ),
        (
            "gemini events",
            Ask::gemini(
                "gemini-2.5-pro",
                "streamGenerateContent?alt=sse",
                &contents(300),
            ),
        ),
        (
            "gemini array",
            Ask::gemini("gemini-2.5-pro", "streamGenerateContent", &contents(300)),
        ),
    ]
}

/// Asks in every way with and without the proxy between; the agent gets the very octets of the origin, without
/// their coding where there is one: they are searched for the key that went out.
async fn untouched(scene: &Budgeted, conduct: &Conduct) {
    let (customer, _relay) = scene.provider.customer().await;
    for (name, ask) in asks() {
        scene.provider.next(conduct.clone());
        let direct = customer.ask(&ask.clone().call("direct")).await;
        scene.provider.next(conduct.clone());
        let through = scene.spender().ask(&ask.call(name)).await;
        assert_eq!(through.status, 200, "{name}: {}", through.text());
        let sent = match conduct.coding {
            Some(coding) => undone(coding, &direct.body).await,
            None => direct.body.to_vec(),
        };
        assert!(
            through.body == sent,
            "{name} {conduct:?}: {}",
            through.text()
        );
        assert_eq!(through.header("content-encoding"), None, "{name}");
        for header in ["content-type", "x-request-id"] {
            assert_eq!(through.header(header), direct.header(header), "{name}");
        }
    }
    scene.provider.truth.idle().await;
}

/// Bills of the calls that went through the proxy.
fn through(scene: &Budgeted) -> (usize, u64) {
    let bills = scene.provider.truth.bills();
    let own = bills.iter().filter(|bill| bill.call != "direct");
    own.fold((0, 0), |(count, sum), bill| (count + 1, sum + bill.cost))
}

#[tokio::test]
async fn honest_usage_is_booked_to_the_nano_dollar_and_no_octet_is_changed() {
    let scene = Budgeted::new(&cap("100.00")).await;
    for conduct in [
        Conduct::says(137).input(1001),
        Conduct::says(137).input(1001).cached(0, 0, 500).hidden(40),
        Conduct::says(137).input(1001).chunk(1),
        Conduct::says(137).input(1001).chunk(7),
        Conduct::says(137).input(1001).piece(1),
        Conduct::says(0).input(1),
        Conduct::says(250).input(250_001),
    ] {
        untouched(&scene, &conduct).await;
        let (count, billed) = through(&scene);
        let books = scene.proxy.books_of(count).await;
        assert_eq!(books.total(), billed, "{conduct:?}: {books:#?}");
        assert!(
            books.served().iter().all(|row| !row.is_estimated()),
            "{conduct:?}"
        );
    }
}

#[tokio::test]
async fn events_may_end_their_lines_as_they_like() {
    let scene = Budgeted::new(&cap("100.00")).await;
    for newline in ["\r\n", "\r"] {
        untouched(&scene, &Conduct::says(137).input(1001).newline(newline)).await;
        let (count, billed) = through(&scene);
        let books = scene.proxy.books_of(count).await;
        assert_eq!(books.total(), billed, "{newline:?}: {books:#?}");
    }
}

/// A provider is asked for `identity`, and some compress all the same.
#[tokio::test]
async fn compressed_answers_are_read_in_passing_and_passed_on_without_their_coding() {
    let scene = Budgeted::new(&cap("100.00")).await;
    for coding in Coding::ALL {
        for conduct in [
            Conduct::says(137).input(1001).coded(coding),
            Conduct::says(137).input(1001).coded(coding).chunk(1),
        ] {
            untouched(&scene, &conduct).await;
            let (count, billed) = through(&scene);
            let books = scene.proxy.books_of(count).await;
            assert_eq!(books.total(), billed, "{coding:?}: {books:#?}");
        }
    }
    for request in scene.provider.origin.requests() {
        // What the agent accepts is not what the proxy asks for.
        if request.header("x-call") != Some("direct") {
            assert_eq!(
                request.header("accept-encoding"),
                Some("identity"),
                "{request:#?}"
            );
        }
    }
}

#[tokio::test]
async fn the_agents_own_wish_for_compression_does_not_reach_the_provider() {
    let scene = Budgeted::new(&cap("100.00")).await;
    let ask =
        Ask::message(&message(SONNET, 100)).header("accept-encoding", "gzip, deflate, br, zstd");
    assert_eq!(scene.spender().ask(&ask).await.status, 200);
    let sent = scene.provider.origin.requests().remove(0);
    assert_eq!(sent.header("accept-encoding"), Some("identity"));
}

/// Missing, empty and garbled usage is never nothing.
#[tokio::test]
async fn usage_that_is_hidden_or_garbled_is_booked_for_no_less_than_it_costs() {
    let scene = Budgeted::new(&cap("100.00")).await;
    for tells in [Tells::Nothing, Tells::Null, Tells::Nonsense, Tells::Twice] {
        // The prompt's tokens are a quarter of its octets: what is reserved for them is more.
        untouched(&scene, &Conduct::says(137).tells(tells)).await;
        let (count, billed) = through(&scene);
        let books = scene.proxy.books_of(count).await;
        assert!(books.total() >= billed, "{tells:?}: {billed} {books:#?}");
        assert!(
            books.served().iter().all(|row| row.cost() > 0),
            "{tells:?}: {books:#?}"
        );
    }
}

/// A later report never lowers an earlier one, and the last place it can stand in is looked at too.
#[tokio::test]
async fn usage_that_comes_late_or_shrinks_is_booked_whole() {
    let scene = Budgeted::new(&cap("100.00")).await;
    for tells in [Tells::Late, Tells::Shrinking] {
        untouched(
            &scene,
            &Conduct::says(137).input(1001).cached(0, 0, 77).tells(tells),
        )
        .await;
        let (count, billed) = through(&scene);
        let books = scene.proxy.books_of(count).await;
        let (booked, most) = (books.total(), billed + billed / 2);
        assert!(
            (billed..=most).contains(&booked),
            "{tells:?}: {billed} {books:#?}"
        );
    }
}

#[tokio::test]
async fn garbage_after_the_end_changes_nothing() {
    let scene = Budgeted::new(&cap("100.00")).await;
    let garbage = "event: message_delta\ndata: {\"usage\":{\"output_tokens\":0}}\n\ndata: x\n";
    let ask = Ask::message(&streamed(message(SONNET, 300)));
    scene.provider.next(Conduct::says(137).garbage(garbage));
    let answer = scene.spender().ask(&ask).await;
    assert!(answer.text().ends_with(garbage), "{}", answer.text());
    scene.never_under().await;
}

/// One event of several megabytes.
#[tokio::test]
async fn a_huge_event_is_passed_and_booked() {
    let scene = Budgeted::new(&cap("100.00")).await;
    scene
        .provider
        .usually(Conduct::says(1_000_000).piece(1_000_000).input(10));
    for ask in [
        Ask::message(&streamed(message("claude-haiku-4-5", 1_000_000))),
        Ask::message(&message("claude-haiku-4-5", 1_000_000)),
    ] {
        let answer = scene.spender().ask(&ask).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert!(answer.body.len() > 4_000_000);
    }
    scene.never_under().await;
}

/// Chat Completions tells usage in a stream only if asked. The agent did not ask: it gets what it would
/// have got without a budget, but for nothing more.
#[tokio::test]
async fn usage_is_asked_for_in_the_agents_place_and_not_shown_to_it() {
    let scene = Budgeted::new(&cap("100.00")).await;
    let (customer, _relay) = scene.provider.customer().await;
    for options in [Value::Null, json!({"include_usage": false}), json!({})] {
        for chunk in [None, Some(1), Some(13)] {
            let mut body = streamed(chat("gpt-5", 300));
            if !options.is_null() {
                body["stream_options"] = options.clone();
            }
            let mut conduct = Conduct::says(137).input(1001).cached(0, 0, 9);
            conduct.chunk = chunk;
            scene.provider.next(conduct.clone());
            let direct = customer.ask(&Ask::chat(&body).call("direct")).await;
            scene.provider.next(conduct);
            let through = scene.spender().ask(&Ask::chat(&body)).await;
            let usage_chunk = |text: &str| text.contains("\"choices\":[]");
            assert!(!usage_chunk(&through.text()), "{}", through.text());
            assert!(through.text().ends_with("data: [DONE]\n\n"));
            // The others say `"usage":null` where usage was asked for.
            let plain = through.text().replace(",\"usage\":null", "");
            assert_eq!(plain, direct.text());
        }
    }
    let (count, billed) = through(&scene);
    let books = scene.proxy.books_of(count).await;
    assert_eq!(books.total(), billed);
    for request in scene.provider.origin.requests() {
        if request.header("x-call") != Some("direct") {
            assert_eq!(request.json()["stream_options"]["include_usage"], true);
        }
    }
}

#[tokio::test]
async fn an_agent_that_leaves_pays_for_what_was_made_until_then_and_the_provider_stops() {
    let scene = Budgeted::before(Provider::http1().await, &cap("100.00")).await;
    for (name, ask) in asks().into_iter().filter(|(name, _)| name.contains(' ')) {
        let gate = Gate::closed();
        scene
            .provider
            .next(Conduct::says(300).input(30).piece(10).held(12, &gate));
        let before = scene.proxy.books();
        let mut answer = scene.spender().begin(&ask.clone().call(name)).await;
        gate.arrived(1).await;
        // Of what lies between the two nobody can tell: the agent has got all that was made.
        let mut seen = Vec::new();
        let mark: &[u8] = match name {
            "gemini array" => b"\"candidates\"",
            _ => b"data: ",
        };
        while seen
            .windows(mark.len())
            .filter(|part| *part == mark)
            .count()
            < 11
        {
            seen.extend_from_slice(&answer.piece().await.unwrap());
        }
        drop(answer);
        // The stand-in holds it: it would never end by itself.
        scene.provider.truth.idle().await;
        let bill = scene.provider.truth.bill(name);
        assert!(!bill.whole, "{name}");
        let books = scene.proxy.books_of(before.served().len() + 1).await;
        let row = books.new_since(&before);
        assert_eq!(
            (row.ending(), row.is_estimated()),
            ("agent_left", true),
            "{name}"
        );
        assert!(
            books.total() >= scene.provider.truth.total(),
            "{name}: {bill:?} {row:?}"
        );
    }
}

#[tokio::test]
async fn an_agent_that_leaves_before_the_answer_begins_leaves_a_row_too() {
    let gate = Gate::closed();
    let scene = Budgeted::before(Provider::http1().await, &cap("100.00")).await;
    scene.provider.usually(Conduct::says(100).held(0, &gate));
    let spender = scene.spender();
    let ask = Ask::message(&message(SONNET, 300));
    let asking = tokio::spawn(async move { spender.ask(&ask).await });
    gate.arrived(1).await;
    asking.abort();
    let books = scene.proxy.books_with("a row", |books| {
        books.reservations.is_empty() && !books.entries.is_empty()
    });
    let books = books.await;
    assert_eq!(books.entries.len(), 1);
    assert!(books.total() >= scene.provider.truth.total(), "{books:#?}");
    assert!(
        books.total() > 0,
        "the provider has the request: {books:#?}"
    );
}

#[tokio::test]
async fn a_provider_that_breaks_off_is_paid_for_what_came() {
    let scene = Budgeted::before(Provider::http1().await, &cap("100.00")).await;
    for (name, ask) in asks() {
        let after = if name.contains(' ') { 9 } else { 1 };
        scene.provider.next(
            Conduct::says(300)
                .input(30)
                .piece(10)
                .fate(Fate::Cut(after)),
        );
        let before = scene.proxy.books();
        let mut answer = scene.spender().begin(&ask.call(name)).await;
        assert_eq!(answer.status, 200);
        answer.rest().await;
        scene.provider.truth.idle().await;
        let books = scene.proxy.books_of(before.served().len() + 1).await;
        let row = books.new_since(&before);
        assert_eq!(row.ending(), "origin_broke", "{name}: {row:?}");
        assert!(row.is_estimated(), "{name}: {row:?}");
        assert!(
            books.total() >= scene.provider.truth.total(),
            "{name}: {row:?}"
        );
    }
}

/// Refusals and failures of the provider cost nothing, and give back what was reserved.
#[tokio::test]
async fn a_provider_that_fails_is_paid_nothing() {
    let scene = Budgeted::before(Provider::http1().await, &cap("0.06")).await;
    for status in [400, 429, 500, 503, 529] {
        for (name, ask) in asks() {
            scene.provider.next(Conduct::fails(status));
            let answer = scene.spender().ask(&ask).await;
            assert_eq!(answer.status, status, "{name}: {}", answer.text());
        }
    }
    let ask = Ask::message(&message(SONNET, 300));
    scene.provider.next(Conduct::says(1).fate(Fate::Cut(0)));
    scene.provider.next(Conduct::says(1).fate(Fate::Cut(0)));
    let answer = scene.spender().ask(&ask).await;
    assert!(answer.status >= 500, "{}", answer.text());
    let books = scene
        .proxy
        .books_with("nothing under way", |books| books.reservations.is_empty())
        .await;
    assert!(scene.provider.truth.bills().is_empty());
    let whole = books.exact().into_iter().any(|row| row.cost() > 0);
    assert!(!whole, "{books:#?}");
}

#[tokio::test]
async fn each_model_that_worked_on_a_call_is_booked_at_its_own_price() {
    let scene = Budgeted::new(&cap("100.00")).await;
    let used = |model: &str, input, output| Used {
        model: model.to_owned(),
        input,
        output,
        ..Used::default()
    };
    let conduct = Conduct::says(0)
        .iteration("message", used(SONNET, 1000, 100))
        .iteration("compaction", used("claude-haiku-4-5", 5000, 200))
        .iteration("fallback_message", used("claude-opus-4-5", 1000, 100));
    scene.provider.usually(conduct);
    for body in [message(SONNET, 1000), streamed(message(SONNET, 1000))] {
        assert_eq!(scene.spender().ask(&Ask::message(&body)).await.status, 200);
    }
    let books = scene.books().await;
    assert_eq!(books.total(), 2 * usd("0.018"), "{books:#?}");
}

#[tokio::test]
async fn searches_are_paid_by_the_piece() {
    let scene = Budgeted::new(&cap("100.00")).await;
    scene
        .provider
        .usually(Conduct::says(100).input(1000).searches(3));
    let mut body = message(SONNET, 1000);
    body["tools"] = json!([{"type": "web_search_20250305", "name": "web_search", "max_uses": 5}]);
    for body in [body.clone(), streamed(body)] {
        assert_eq!(scene.spender().ask(&Ask::message(&body)).await.status, 200);
    }
    let books = scene.books().await;
    assert_eq!(books.total(), scene.provider.truth.total(), "{books:#?}");
    assert_eq!(books.total(), 2 * usd("0.0345"));
}

#[tokio::test]
async fn the_model_that_answers_decides_the_price() {
    let scene = Budgeted::new(&cap("100.00")).await;
    scene
        .provider
        .usually(Conduct::says(100).input(1000).by("claude-opus-4-5"));
    let ask = Ask::message(&streamed(message("claude-haiku-4-5", 100)));
    assert_eq!(scene.spender().ask(&ask).await.status, 200);
    let books = scene.agree().await;
    assert_eq!(books.total(), usd("0.0075"));
}
