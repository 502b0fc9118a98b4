//! Nothing is spent without a row: endpoints that cost nothing are free, those that cannot be read are
//! refused, and no request says one thing to the proxy and another to the provider.

use async_compression::tokio::write::{BrotliEncoder, GzipEncoder, ZstdEncoder};
use serde_json::json;
use tokio::io::AsyncWriteExt as _;

use crate::support::books::Row;
use crate::support::budgeted::{Budgeted, cap, error_of, with};
use crate::support::provider::conduct::Conduct;
use crate::support::provider::prices::usd;
use crate::support::provider::server::{ANTHROPIC, GEMINI, OPENAI};
use crate::support::spender::{Ask, chat, contents, message, response, streamed};

const SONNET: &str = "claude-sonnet-4-5";

#[tokio::test]
async fn what_costs_nothing_is_free_however_little_is_left() {
    let scene = Budgeted::new(&cap("0.000001")).await;
    let spender = scene.spender();
    let refused = spender.ask(&Ask::message(&message(SONNET, 10))).await;
    assert_eq!(refused.status, 402);
    let body = message(SONNET, 10).to_string();
    for ask in [
        Ask::of(ANTHROPIC, "POST", "/v1/messages/count_tokens", body),
        Ask::of(ANTHROPIC, "GET", "/v1/models", ""),
        Ask::of(OPENAI, "GET", "/v1/models", ""),
        Ask::of(OPENAI, "HEAD", "/v1/models", ""),
        Ask::gemini("gemini-2.5-pro", "countTokens", &contents(10)),
    ] {
        let answer = spender.ask(&ask).await;
        assert_eq!(answer.status, 200, "{ask:?}: {}", answer.text());
    }
    assert!(scene.provider.truth.bills().is_empty());
    assert!(scene.proxy.books().entries.is_empty());
}

/// Passing an unread endpoint on is how caps are walked around.
#[tokio::test]
async fn what_cannot_be_read_is_refused_and_nothing_is_sent() {
    let scene = Budgeted::new(&cap("1000.00")).await;
    let spender = scene.spender();
    for (host, method, path) in [
        (ANTHROPIC, "POST", "/v1/messages/batches"),
        (ANTHROPIC, "POST", "/v1/complete"),
        (ANTHROPIC, "POST", "/v1/files"),
        (ANTHROPIC, "POST", "/v1/messages/"),
        (ANTHROPIC, "POST", "/V1/MESSAGES"),
        (ANTHROPIC, "POST", "//v1/messages"),
        (ANTHROPIC, "PUT", "/v1/messages"),
        (ANTHROPIC, "POST", "/v2/messages"),
        (ANTHROPIC, "POST", "/"),
        (OPENAI, "POST", "/v1/completions"),
        (OPENAI, "POST", "/v1/batches"),
        (OPENAI, "POST", "/v1/images/generations"),
        (OPENAI, "POST", "/v1/audio/speech"),
        (OPENAI, "POST", "/v1/fine_tuning/jobs"),
        (OPENAI, "POST", "/v1/chat/completions/extra"),
        (
            GEMINI,
            "POST",
            "/v1beta/models/gemini-2.5-pro:batchGenerateContent",
        ),
        (GEMINI, "POST", "/v1beta/models/gemini-2.5-pro:predict"),
        (GEMINI, "POST", "/v1beta/cachedContents"),
    ] {
        let body = json!({"model": SONNET, "max_tokens": 10, "messages": [], "prompt": "x"});
        let ask = Ask::of(host, method, path, body.to_string());
        let answer = spender.ask(&ask).await;
        assert!(
            (400..500).contains(&answer.status),
            "{host}{path}: {} {}",
            answer.status,
            answer.text()
        );
        let wait = answer.header("retry-after");
        assert_eq!(wait, None, "it will never pass");
    }
    assert_eq!(scene.reached(), 0);
    assert!(scene.proxy.books().entries.is_empty());
}

#[tokio::test]
async fn an_unread_endpoint_that_the_budget_names_costs_what_it_says() {
    let spec = with(
        &cap("0.12"),
        "unmetered: [{methods: [POST], paths: [/v1/messages/batches], usd: \"0.05\"}]",
    );
    let scene = Budgeted::new(&spec).await;
    let spender = scene.spender();
    let ask = Ask::of(ANTHROPIC, "POST", "/v1/messages/batches", "{}");
    for _ in 0..2 {
        let answer = spender.ask(&ask).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    let third = spender.ask(&ask).await;
    assert_eq!(third.status, 402, "{}", third.text());
    let other = Ask::of(ANTHROPIC, "POST", "/v1/files", "{}");
    assert!((400..500).contains(&spender.ask(&other).await.status));
    let books = scene.books().await;
    assert_eq!(books.total(), usd("0.10"));
    assert_eq!(books.total(), scene.provider.truth.total());
    assert_eq!(scene.reached(), 2);
}

/// Two parsers may take different ones of two fields of one name.
#[tokio::test]
async fn a_request_that_says_a_metered_field_twice_is_refused() {
    let scene = Budgeted::new(&cap("1000.00")).await;
    let spender = scene.spender();
    let messages = "\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]";
    for (host, path, body) in [
        (
            ANTHROPIC,
            "/v1/messages",
            format!(
                "{{\"model\":\"claude-haiku-4-5\",\"model\":\"claude-opus-4-5\",\"max_tokens\":10,{messages}}}"
            ),
        ),
        (
            ANTHROPIC,
            "/v1/messages",
            format!(
                "{{\"model\":\"claude-opus-4-5\",\"max_tokens\":1,\"max_tokens\":32000,{messages}}}"
            ),
        ),
        (
            ANTHROPIC,
            "/v1/messages",
            format!(
                "{{\"model\":\"claude-opus-4-5\",\"max_tokens\":1,\"max_\\u0074okens\":32000,{messages}}}"
            ),
        ),
        (
            ANTHROPIC,
            "/v1/messages",
            format!(
                "{{\"model\":\"claude-opus-4-5\",\"max_tokens\":1,\"stream\":false,\"stream\":true,{messages}}}"
            ),
        ),
        (
            OPENAI,
            "/v1/chat/completions",
            format!("{{\"model\":\"gpt-5\",\"n\":1,\"n\":100,{messages}}}"),
        ),
        (
            OPENAI,
            "/v1/chat/completions",
            format!(
                "{{\"model\":\"gpt-5\",\"stream\":true,\"stream_options\":{{\"include_usage\":true}},\
                 \"stream_options\":{{\"include_usage\":false}},{messages}}}"
            ),
        ),
        (
            OPENAI,
            "/v1/responses",
            "{\"model\":\"gpt-5\",\"model\":\"gpt-4o\",\"input\":\"hi\"}".to_owned(),
        ),
    ] {
        let answer = spender
            .ask(&Ask::of(host, "POST", path, body.clone()))
            .await;
        assert_eq!(answer.status, 400, "{body}: {}", answer.text());
        let told = error_of(&answer)["message"].to_string();
        assert!(
            told.contains("twice") || told.contains("duplicate") || told.contains("more than once"),
            "{told}"
        );
    }
    assert_eq!(scene.reached(), 0);
}

#[tokio::test]
async fn numbers_that_are_none_are_refused() {
    let scene = Budgeted::new(&cap("1000.00")).await;
    let spender = scene.spender();
    for most in [json!(-1), json!(1.5), json!("10"), json!(1e30), json!([1])] {
        let mut body = message(SONNET, 10);
        body["max_tokens"] = most.clone();
        let answer = spender.ask(&Ask::message(&body)).await;
        assert_eq!(answer.status, 400, "{most}: {}", answer.text());
    }
    for body in [
        "",
        "{",
        "[]",
        "null",
        "{\"model\":5}",
        "{\"max_tokens\":1,\"messages\":[]}",
    ] {
        let ask = Ask::of(ANTHROPIC, "POST", "/v1/messages", body);
        let answer = spender.ask(&ask).await;
        assert_eq!(answer.status, 400, "{body}: {}", answer.text());
    }
    assert_eq!(scene.reached(), 0);
    assert!(scene.proxy.books().entries.is_empty());
}

/// What is read is all of it: a model behind a megabyte of nothing is still that model.
#[tokio::test]
async fn a_padded_body_hides_nothing() {
    let scene = Budgeted::new(&cap("100.00")).await;
    let pad = " ".repeat(1 << 20);
    let body = format!(
        "{{{pad}\"messages\":[{{\"role\":\"user\",\"content\":\"hi\"}}],{pad}\"max_tokens\":10,\"model\":\"claude-opus-4-5\"{pad}}}"
    );
    scene.provider.usually(Conduct::says(10).input(3));
    let ask = Ask::of(ANTHROPIC, "POST", "/v1/messages", body.clone());
    let answer = scene.spender().ask(&ask).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let sent = scene.provider.origin.requests().remove(0);
    assert!(sent.body == body.as_bytes(), "it is sent as it came");
    let books = scene.agree().await;
    assert_eq!(books.served()[0].text("model"), "claude-opus-4-5");

    // The same in front of a budget for which the octets alone are too many: nobody tokenizes a megabyte.
    let scene = Budgeted::new(&cap("1.00")).await;
    let ask = Ask::of(ANTHROPIC, "POST", "/v1/messages", body);
    let answer = scene.spender().ask(&ask).await;
    assert_eq!(answer.status, 402, "{}", answer.text());
    assert_eq!(scene.reached(), 0);
}

#[tokio::test]
async fn a_compressed_request_is_read_and_sent_as_it_came() {
    let scene = Budgeted::new(&cap("100.00")).await;
    let plain = message(SONNET, 10).to_string();
    let coded = [
        ("gzip", {
            let mut encoder = GzipEncoder::new(Vec::new());
            encoder.write_all(plain.as_bytes()).await.unwrap();
            encoder.shutdown().await.unwrap();
            encoder.into_inner()
        }),
        ("br", {
            let mut encoder = BrotliEncoder::new(Vec::new());
            encoder.write_all(plain.as_bytes()).await.unwrap();
            encoder.shutdown().await.unwrap();
            encoder.into_inner()
        }),
        ("zstd", {
            let mut encoder = ZstdEncoder::new(Vec::new());
            encoder.write_all(plain.as_bytes()).await.unwrap();
            encoder.shutdown().await.unwrap();
            encoder.into_inner()
        }),
    ];
    for (coding, octets) in coded {
        let ask = Ask::of(ANTHROPIC, "POST", "/v1/messages", octets.clone())
            .header("content-encoding", coding);
        let answer = scene.spender().ask(&ask).await;
        // The stand-in reads no codings: it has the very octets, and says so with 400.
        assert_eq!(answer.status, 400, "{coding}: {}", answer.text());
        assert!(
            answer.text().contains("model: Field required"),
            "{coding}: {}",
            answer.text()
        );
        let sent = scene.provider.origin.requests().pop().unwrap();
        assert_eq!(sent.header("content-encoding"), Some(coding));
        assert!(sent.body == octets);
    }
    for (coding, octets) in [
        ("gzip", b"no gzip at all".to_vec()),
        ("compress", plain.clone().into_bytes()),
        ("gzip, gzip", plain.clone().into_bytes()),
    ] {
        let before = scene.reached();
        let ask =
            Ask::of(ANTHROPIC, "POST", "/v1/messages", octets).header("content-encoding", coding);
        let answer = scene.spender().ask(&ask).await;
        assert!(
            [400, 415].contains(&answer.status),
            "{coding}: {} {}",
            answer.status,
            answer.text()
        );
        assert_eq!(scene.reached(), before, "{coding}");
    }
}

/// A kilobyte that unpacks to gigabytes is not unpacked.
#[tokio::test]
async fn a_compressed_bomb_is_refused() {
    let scene = Budgeted::new(&cap("100.00")).await;
    let mut encoder = GzipEncoder::new(Vec::new());
    for _ in 0..256 {
        encoder.write_all(&vec![b' '; 1 << 20]).await.unwrap();
    }
    encoder.shutdown().await.unwrap();
    let ask = Ask::of(ANTHROPIC, "POST", "/v1/messages", encoder.into_inner())
        .header("content-encoding", "gzip");
    let answer = scene.spender().ask(&ask).await;
    assert!(
        [413, 415].contains(&answer.status),
        "{} {}",
        answer.status,
        answer.text()
    );
    assert_eq!(scene.reached(), 0);
}

/// Codex opens a WebSocket first; what goes over one cannot be counted, so it is told to use the other way.
#[tokio::test]
async fn a_websocket_to_a_model_is_declined_in_the_way_that_codex_understands() {
    let scene = Budgeted::new(&cap("100.00")).await;
    let ask = Ask::of(OPENAI, "GET", "/v1/responses", "")
        .header("connection", "Upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
    let answer = scene.proxy.spender().ask(&ask).await;
    assert_eq!(answer.status, 426, "{}", answer.text());
    assert_eq!(scene.reached(), 0);
}

/// The dearest of all that a request may use decides.
#[tokio::test]
async fn many_answers_to_one_request_are_reserved_together() {
    let scene = Budgeted::new(&cap("0.10")).await;
    let mut body = chat("gpt-5", 2000);
    let spender = scene.spender();
    assert_eq!(spender.ask(&Ask::chat(&body)).await.status, 200);
    body["n"] = 5.into();
    let five = spender.ask(&Ask::chat(&body)).await;
    assert_eq!(
        error_of(&five)["code"],
        "insufficient_quota",
        "{}",
        five.text()
    );
    let mut reply = response("gpt-5", 2000);
    reply["background"] = true.into();
    let background = spender.ask(&Ask::response(&streamed(reply))).await;
    assert!(
        (400..500).contains(&background.status),
        "{}",
        background.text()
    );
    assert_eq!(scene.reached(), 1);
}

#[tokio::test]
async fn a_row_says_who_asked_for_what_and_nothing_of_what_was_said() {
    let scene = Budgeted::new(&cap("100.00")).await;
    scene
        .provider
        .usually(Conduct::says(10).by("claude-opus-4-5"));
    let mut body = message("claude-haiku-4-5", 10);
    body["messages"][0]["content"] = "a-sentence-nobody-may-keep".into();
    assert_eq!(scene.spender().ask(&Ask::message(&body)).await.status, 200);
    let books = scene.agree().await;
    let row: &Row = books.served()[0];
    assert_eq!(row.text("agent"), "agent");
    assert_eq!(row.text("model"), "claude-opus-4-5");
    // Under the one name that all spellings of it are counted by.
    assert_eq!(row.text("req_model"), "claude-haiku-4-5-20251001");
    for file in std::fs::read_dir(scene.proxy.file("state")).unwrap() {
        let octets = std::fs::read(file.unwrap().path()).unwrap_or_default();
        let found = octets
            .windows(26)
            .any(|part| part == b"a-sentence-nobody-may-keep");
        assert!(!found, "the ledger keeps what was said");
    }
}
