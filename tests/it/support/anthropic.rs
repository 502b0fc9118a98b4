//! Stands in for api.anthropic.com: strict about the credential, answers as Claude Code and the SDKs want it.

pub use super::messages::{Account, FINAL_TEXT, TOOL_COMMAND};

use super::messages::{converse, error};
use super::origin::{Exchange, Origin};
use super::proxy::{ProxyBuilder, proxy};
use super::recorded::Recorded;
use super::reply::Reply;

/// The key that only the proxy may know.
pub const REAL_KEY: &str = "sk-ant-api03-REAL7uQmZk2vXo9TtYwBnCeHs4Lp1RdGfJa8KiVbNxMzEq6WyUo3ShTcPl5DgFvRjXmQaZwSxEdCrFvTgByHnUjMiKREALAA";
/// The OAuth token that only the proxy may know.
pub const REAL_OAUTH: &str = "sk-ant-oat01-REALp4Lw8ZsXn2CvBq7MtKyRf1HdJe6GaUiOo9PlTkYjWhNxVbEmQc3SzDrFgAu5IwKeXoLnRbTyVmPqHsZdJfGcREALAA";

pub async fn anthropic(account: Account) -> Origin {
    Origin::tls(&["api.anthropic.com"], move |exchange| {
        answer(exchange, account)
    })
    .await
}

/// A proxy that lets agents reach it with a placeholder.
pub fn in_front_of(origin: &Origin, account: Account) -> ProxyBuilder {
    let policy = "
        - hosts: [api.anthropic.com]
          credentials: [anthropic]
          route: anthropic
        ";
    let (secret, credential) = match account {
        Account::ApiKey => (
            REAL_KEY,
            "
            hosts: [api.anthropic.com]
            placements: [{header: {name: x-api-key}}, {bearer: {}}]
            placeholder: {shape: \"sk-ant-api03-[A-Za-z0-9_-:93]AA\", env: [ANTHROPIC_API_KEY]}
            ",
        ),
        Account::OAuth => (
            REAL_OAUTH,
            "
            hosts: [api.anthropic.com]
            placements: [{bearer: {}}]
            placeholder: {shape: \"sk-ant-oat01-[A-Za-z0-9_-:93]AA\", env: [CLAUDE_CODE_OAUTH_TOKEN]}
            ",
        ),
    };
    proxy()
        .origin(origin)
        .policy(policy)
        .credential_file("anthropic", secret, credential)
}

async fn answer(mut exchange: Exchange, account: Account) -> Reply {
    let body = exchange.json().await;
    let head = &exchange.head;
    let is_messages = head.path() == "/v1/messages";
    let credentials = credentials(head);
    // Claude Code sends some side requests without a credential; never the wrong one.
    if credentials.iter().any(|c| !right(c, account)) || (is_messages && credentials.is_empty()) {
        return error(401, "authentication_error", "invalid x-api-key");
    }
    if !is_messages {
        return error(404, "not_found_error", "not found");
    }
    converse(head, &body, account)
}

/// Both places a key may stand in.
fn credentials(head: &Recorded) -> Vec<String> {
    let key = head
        .all("x-api-key")
        .into_iter()
        .map(|k| format!("key {k}"));
    let bearer = head.all("authorization").into_iter().map(ToOwned::to_owned);
    key.chain(bearer).collect()
}

fn right(credential: &str, account: Account) -> bool {
    match account {
        Account::ApiKey => {
            credential == format!("key {REAL_KEY}") || credential == format!("Bearer {REAL_KEY}")
        }
        Account::OAuth => credential == format!("Bearer {REAL_OAUTH}"),
    }
}
