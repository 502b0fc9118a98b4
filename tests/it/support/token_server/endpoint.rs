//! Owns the way of a request through the provider: read, held, granted, held, answered.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Value, json};

use super::super::origin::Exchange;
use super::super::recorded::Recorded;
use super::super::reply::{self, Reply};
use super::api::Guard;
use super::clock::Clock;
use super::fault::{Faults, Stage};
use super::gate::Gates;
use super::ledger::Ledger;
use super::login::Codes;
use super::mint::{Issued, Shape};
use super::request::{self, Parameters, Refused};
use super::settings::{Settings, grant};

/// Everything that stands behind the names.
pub struct Provider {
    pub settings: Arc<Settings>,
    pub clock: Arc<Clock>,
    pub ledger: Arc<Ledger>,
    pub codes: Codes,
    pub faults: Faults,
    pub gates: Gates,
    /// Guards every other path of the server's own names.
    pub guard: Option<Arc<Guard>>,
}

/// Answers one exchange. What has been read whole is dealt with even if the client goes away.
pub async fn exchange(provider: Arc<Provider>, mut exchange: Exchange) -> Reply {
    let hangup = exchange.hangup();
    let Some(body) = exchange.complete_body().await else {
        return hangup.now().await;
    };
    let head = exchange.head.clone();
    let clock = provider.clock.clone();
    let work = tokio::spawn(async move { provider.answer(&head, body).await });
    match work.await.unwrap() {
        Some(reply) => clock.date(reply),
        None => hangup.now().await,
    }
}

impl Provider {
    /// `None` where the connection is to be cut.
    async fn answer(&self, head: &Recorded, body: Bytes) -> Option<Reply> {
        if self.settings.paths.iter().any(|path| path == head.path()) {
            return self.token(head, &body).await;
        }
        match &self.guard {
            Some(guard) => Some(guard.answer(head, &body)),
            None => {
                let what = format!("{} {}: no such endpoint", head.method, head.path());
                self.ledger.violation(what);
                Some(reply::json(404, &json!({"error": "not_found"})))
            }
        }
    }

    async fn token(&self, head: &Recorded, body: &[u8]) -> Option<Reply> {
        let sent = match request::token(&self.settings, head, body) {
            Ok(sent) => sent,
            Err(refused) => return Some(self.refuse(&refused, head)),
        };
        let refresh_token = sent.get("refresh_token");
        let _redeeming = refresh_token.and_then(|token| self.ledger.redeeming(token));
        let granting = || {
            let issued = self.grant(&sent)?;
            Ok((200, self.token_answer(&issued)))
        };
        self.staged(head, granting).await
    }

    /// The part in which things may go wrong.
    async fn staged(
        &self,
        head: &Recorded,
        grant: impl FnOnce() -> Result<(u16, Value), Refused>,
    ) -> Option<Reply> {
        let trouble = self.faults.next();
        self.gates.pass(Stage::Received).await?;
        if let Some(answer) = trouble.before().await? {
            return Some(answer);
        }
        match grant() {
            Err(refused) => Some(self.refuse(&refused, head)),
            Ok((status, answer)) => {
                self.gates.pass(Stage::Rotated).await?;
                let answer = trouble.after(status, &answer).await?;
                Some(reply::with(answer, "cache-control", "no-store"))
            }
        }
    }

    fn refuse(&self, refused: &Refused, head: &Recorded) -> Reply {
        self.ledger.note(refused, head.path());
        refused.reply()
    }

    fn grant(&self, sent: &Parameters) -> Result<Issued, Refused> {
        match sent.need("grant_type") {
            grant::REFRESH => self
                .ledger
                .redeem(sent.need("refresh_token"), sent.get("scope")),
            grant::CODE => self.codes.redeem(sent, &self.ledger),
            other => Err(Refused::breach("unsupported_grant_type", other)),
        }
    }

    /// RFC 6749, section 5.1, with what Claude's and OpenAI's answers hold beyond it.
    fn token_answer(&self, issued: &Issued) -> Value {
        let mut answer = json!({
            "token_type": "Bearer",
            "access_token": issued.access_token,
            "scope": issued.scope,
        });
        if let Some(seconds) = self.ledger.expires_in(issued) {
            answer["expires_in"] = seconds.into();
        }
        if let Some(token) = &issued.refresh_token {
            answer["refresh_token"] = token.as_str().into();
        }
        if let Some(token) = &issued.id_token {
            answer["id_token"] = token.as_str().into();
        }
        if self.settings.shape == Shape::Claude {
            let account = &self.ledger.mint.account;
            answer["account"] = json!({"uuid": account, "email_address": "dev@example.com"});
            answer["organization"] = json!({"uuid": account, "name": "Example"});
        }
        answer
    }
}
