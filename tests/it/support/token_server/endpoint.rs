//! Owns the way of a request through the provider: read, held, granted, held, answered.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Value, json};

use super::super::origin::Exchange;
use super::super::recorded::Recorded;
use super::super::reply::{self, Reply};
use super::api::Guard;
use super::assertion::{self, App};
use super::clock::Clock;
use super::codex;
use super::device::Devices;
use super::fault::{Faults, Stage};
use super::gate::Gates;
use super::ledger::{Ledger, covers};
use super::login::Codes;
use super::mint::{Issued, Shape};
use super::request::{self, Parameters, Refused};
use super::settings::{ClientAuth, Settings, grant};

/// Everything that stands behind the names.
pub struct Provider {
    pub settings: Arc<Settings>,
    pub clock: Arc<Clock>,
    pub ledger: Arc<Ledger>,
    pub codes: Codes,
    pub devices: Devices,
    pub faults: Faults,
    pub gates: Gates,
    /// Guards every other path of the server's own names.
    pub guard: Option<Arc<Guard>>,
}

/// What came of a request that asked for tokens.
enum Outcome {
    Granted(u16, Value),
    Refused(Reply),
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
        let settings = &self.settings;
        let path = head.path();
        if settings.paths.iter().any(|token| token == path) {
            return self.token(head, &body).await;
        }
        if let Some(app) = &settings.app
            && assertion::installation(path).is_some()
        {
            return self.installation(app, head, &body).await;
        }
        let answer = match path {
            _ if path == settings.revoke_path => self.revoke(head, &body),
            _ if path == settings.device_path => self.device(head, &body),
            codex::USER_CODE if settings.shape == Shape::Codex => {
                codex::begin(settings, &self.devices, head, &body)
                    .map(|told| reply::json(200, &told))
            }
            codex::POLL if settings.shape == Shape::Codex => {
                codex::poll(settings, &self.devices, &self.codes, head, &body)
            }
            _ => match &self.guard {
                Some(guard) => Ok(guard.answer(head, &body)),
                None => Err(Refused {
                    status: 404,
                    ..Refused::breach("invalid_request", "there is no such endpoint")
                }),
            },
        };
        Some(answer.unwrap_or_else(|refused| self.refuse(&refused, head)))
    }

    async fn token(&self, head: &Recorded, body: &[u8]) -> Option<Reply> {
        let sent = match request::token(&self.settings, head, body) {
            Ok(sent) => sent,
            Err(refused) => return Some(self.refuse(&refused, head)),
        };
        let refresh_token = sent.get("refresh_token");
        let _redeeming = refresh_token.and_then(|token| self.ledger.redeeming(token));
        let granting = || match self.grant(&sent) {
            Ok(issued) => Outcome::Granted(200, self.token_answer(&issued)),
            Err(refused) => Outcome::Refused(self.refuse(&refused, head)),
        };
        self.staged(granting).await
    }

    async fn installation(&self, app: &App, head: &Recorded, body: &[u8]) -> Option<Reply> {
        let granting = || match assertion::install(app, &self.clock, &self.ledger, head, body) {
            Ok(answer) => Outcome::Granted(201, answer),
            Err((status, why)) => Outcome::Refused(assertion::refusal(status, &why)),
        };
        self.staged(granting).await
    }

    /// RFC 8628, section 3.1.
    fn device(&self, head: &Recorded, body: &[u8]) -> Result<Reply, Refused> {
        let settings = &self.settings;
        let mode = settings.mode_of(grant::DEVICE);
        let sent = request::other(settings, head, body, mode, &[], &["client_id", "scope"])?;
        request::authenticate(settings, head, &sent)?;
        Ok(reply::json(200, &self.devices.begin(settings, &sent)))
    }

    /// RFC 7009; Claude Code and Codex send JSON.
    fn revoke(&self, head: &Recorded, body: &[u8]) -> Result<Reply, Refused> {
        let settings = &self.settings;
        let mode = settings.mode_of(grant::REFRESH);
        let optional = ["token_type_hint", "client_id"];
        let sent = request::other(settings, head, body, mode, &["token"], &optional)?;
        request::authenticate(settings, head, &sent)?;
        self.ledger.revoke_token(sent.need("token"))?;
        Ok(reply::json(200, &json!({})))
    }

    /// The part in which things may go wrong.
    async fn staged(&self, grant: impl FnOnce() -> Outcome) -> Option<Reply> {
        self.gates.pass(Stage::Received).await?;
        let trouble = self.faults.next();
        if let Some(answer) = trouble.before().await? {
            return Some(answer);
        }
        let (status, answer) = match grant() {
            Outcome::Granted(status, answer) => (status, answer),
            Outcome::Refused(refusal) => return Some(refusal),
        };
        self.gates.pass(Stage::Rotated).await?;
        let answer = trouble.after(status, &answer).await?;
        Some(reply::with(answer, "cache-control", "no-store"))
    }

    fn refuse(&self, refused: &Refused, head: &Recorded) -> Reply {
        self.ledger.note(refused, head.path());
        refused.reply(self.settings.shape)
    }

    fn grant(&self, sent: &Parameters) -> Result<Issued, Refused> {
        match sent.need("grant_type") {
            grant::REFRESH => {
                let token = sent.need("refresh_token");
                self.ledger
                    .redeem(token, sent.get("scope"), sent.lifetime())
            }
            grant::CODE => self.codes.redeem(sent, &self.ledger),
            grant::DEVICE => self.devices.redeem(sent, &self.ledger),
            grant::JWT => assertion::redeem(&self.settings, &self.clock, &self.ledger, sent),
            _ => self.client_credentials(sent),
        }
    }

    /// RFC 6749, section 4.4: for confidential clients, without a refresh token.
    fn client_credentials(&self, sent: &Parameters) -> Result<Issued, Refused> {
        if self.settings.client_auth == ClientAuth::Public {
            return Err(Refused::breach(
                "unauthorized_client",
                "a public client has none",
            ));
        }
        let scope = sent.get("scope").unwrap_or(&self.settings.scope);
        if !covers(&self.settings.scope, scope) {
            return Err(Refused::breach("invalid_scope", scope));
        }
        Ok(self.ledger.access_only(grant::CLIENT, scope))
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
