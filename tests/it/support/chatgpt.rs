//! Stands in for chatgpt.com as Codex uses it with a login: one account, one access token that is good.

use serde_json::json;

use super::openai;
use super::origin::Origin;
use super::reply;

/// Accepts this access token, for this account.
pub async fn chatgpt(access_token: &str, account: &str) -> Origin {
    let authorization = format!("Bearer {access_token}");
    let account = account.to_owned();
    Origin::tls(&["chatgpt.com"], move |mut exchange| {
        let (authorization, account) = (authorization.clone(), account.clone());
        async move {
            exchange.complete_body().await;
            let head = &exchange.head;
            if head.header("authorization") != Some(&authorization) {
                let body = json!({"error": {"message": "Your session has ended", "code": "token_invalidated"}});
                return reply::json(401, &body);
            }
            match (head.method.as_str(), head.path()) {
                ("GET", "/backend-api/wham/accounts/check") => reply::json(
                    200,
                    &json!({"accounts": [{
                        "id": account, "workspace_backend_origin": "NO_CONSTRAINT",
                        "account_routing_override": "NO_CONSTRAINT",
                    }]}),
                ),
                ("GET", "/backend-api/codex/responses") => {
                    reply::json(426, &json!({"error": {"message": "no WebSocket here"}}))
                }
                ("POST", "/backend-api/codex/responses")
                    if head.header("chatgpt-account-id") == Some(&account) =>
                {
                    openai::streamed()
                }
                ("POST", "/backend-api/codex/responses") => {
                    reply::json(403, &json!({"error": {"message": "another account"}}))
                }
                _ => reply::json(404, &json!({"error": {"message": "not found"}})),
            }
        }
    })
    .await
}
