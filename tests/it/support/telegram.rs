//! Stands in for api.telegram.org: the token is part of the path, with a plain or an encoded colon.

use serde_json::json;

use super::origin::{Exchange, Origin};
use super::proxy::{ProxyBuilder, proxy};
use super::reply::{self, Reply};

/// The token that only the proxy may know.
pub const REAL_TOKEN: &str = "7216554321:AAREALq3ZvXtLw8KnRy5MbPc2HdJf9REAL";

pub async fn telegram() -> Origin {
    Origin::tls(&["api.telegram.org"], answer).await
}

/// A proxy that lets agents reach it with a placeholder.
pub fn in_front_of(origin: &Origin) -> ProxyBuilder {
    proxy()
        .origin(origin)
        .policy(
            "
            - hosts: [api.telegram.org]
              credentials: [telegram]
              route: telegram
            ",
        )
        .credential_file(
            "telegram",
            REAL_TOKEN,
            "
            hosts: [api.telegram.org]
            placements: [{path: {template: \"/bot{}/\"}}]
            placeholder: {shape: \"[0-9:10]:AA[A-Za-z0-9_-:33]\", env: [TELEGRAM_BOT_TOKEN]}
            ",
        )
}

async fn answer(mut exchange: Exchange) -> Reply {
    let body = exchange.json().await;
    let path = exchange.head.path();
    let Some((token, method)) = path.strip_prefix("/bot").and_then(|p| p.split_once('/')) else {
        return error(404, "Not Found");
    };
    let token = percent_encoding::percent_decode_str(token).decode_utf8_lossy();
    if token != REAL_TOKEN {
        return error(401, "Unauthorized");
    }
    match method {
        "getMe" => reply::json(
            200,
            &json!({"ok": true, "result": {"id": 7_216_554_321_u64, "is_bot": true, "first_name": "Test"}}),
        ),
        "sendMessage" => reply::json(
            200,
            &json!({"ok": true, "result": {"message_id": 1, "text": body["text"], "chat": {"id": body["chat_id"]}}}),
        ),
        _ => error(404, "Not Found: method not found"),
    }
}

fn error(code: u16, description: &str) -> Reply {
    reply::json(
        code,
        &json!({"ok": false, "error_code": code, "description": description}),
    )
}
