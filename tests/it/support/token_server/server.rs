//! Owns a running token server and everything a test does with it.

use std::sync::Arc;
use std::time::Duration;

use super::super::needles::Needle;
use super::super::origin::Origin;
use super::api::{Guard, ProtectedApi};
use super::clock::Clock;
use super::device::{Decision, Devices};
use super::endpoint::{Provider, exchange};
use super::fault::{Fault, Faults, Stage};
use super::gate::{Gate, Gates};
use super::ledger::Ledger;
use super::login::{self, Asked, Codes, Consent};
use super::mint::{Issued, Mint};
use super::settings::TokenServerBuilder;
use super::truth::Truth;

/// Starts to describe a token server.
pub fn token_server() -> TokenServerBuilder {
    TokenServerBuilder::new()
}

/// A running token server; ends when dropped.
pub struct TokenServer {
    pub origin: Arc<Origin>,
    provider: Arc<Provider>,
}

impl TokenServerBuilder {
    pub async fn start(self) -> TokenServer {
        let settings = Arc::new(self.settings);
        let clock = Arc::new(Clock::default());
        let mint = Mint::new(settings.shape, clock.clone());
        let ledger = Arc::new(Ledger::new(settings.clone(), mint));
        let provider = Arc::new(Provider {
            clock,
            codes: Codes::default(),
            devices: Devices::default(),
            faults: Faults::default(),
            gates: Gates::default(),
            guard: settings
                .serves_api
                .then(|| Arc::new(Guard::new(ledger.clone()))),
            ledger,
            settings: settings.clone(),
        });
        let names: Vec<&str> = settings.names.iter().map(String::as_str).collect();
        let behind = provider.clone();
        let origin = Origin::tls(&names, move |asked| exchange(behind.clone(), asked)).await;
        TokenServer {
            origin: Arc::new(origin),
            provider,
        }
    }
}

impl TokenServer {
    /// The token endpoint, as clients are told.
    pub fn url(&self) -> String {
        self.provider.settings.url()
    }

    pub fn client_id(&self) -> &str {
        &self.provider.settings.client_id
    }

    /// The account that Claude's answers and OpenAI's claims name.
    pub fn account(&self) -> &str {
        &self.provider.ledger.mint.account
    }

    // --- logins

    /// A login that took place elsewhere, before.
    pub fn login(&self) -> Issued {
        let scope = &self.provider.settings.scope;
        self.provider.ledger.log_in("elsewhere", scope, None).1
    }

    /// Opens an authorization URL as a person who says yes; panics where a provider would show an error.
    #[track_caller]
    pub fn authorize(&self, url: &str) -> Consent {
        let asked = login::read(&self.provider.settings, url);
        self.provider.codes.issue(asked)
    }

    /// A code for these values.
    pub fn code(&self, asked: Asked) -> Consent {
        self.provider.codes.issue(asked)
    }

    /// Waits until the newest device login was polled for so often; returns the code that its person types.
    pub async fn device_polled(&self, polls: usize) -> String {
        self.provider.devices.wait_for_polls(polls).await
    }

    /// The person says yes.
    #[track_caller]
    pub fn approve(&self, user_code: &str) {
        self.provider.devices.decide(user_code, Decision::Approved);
    }

    /// The person says no.
    #[track_caller]
    pub fn deny(&self, user_code: &str) {
        self.provider.devices.decide(user_code, Decision::Denied);
    }

    /// Nobody came in time.
    #[track_caller]
    pub fn expire_device(&self, user_code: &str) {
        self.provider.devices.decide(user_code, Decision::Expired);
    }

    /// The next poll gets `slow_down`: five seconds more between polls.
    #[track_caller]
    pub fn slow_down(&self, user_code: &str) {
        self.provider.devices.slow_down(user_code);
    }

    /// Logs everybody out. Nothing was reused; refresh tokens get `invalid_grant`. Whoever goes on with
    /// an access token counts as [`Verdict::Revoked`](super::api::Verdict), though nobody told him.
    pub fn revoke_all(&self) {
        self.provider.ledger.revoke_all();
    }

    /// Ends a live access token; the refresh token stays good.
    #[track_caller]
    pub fn revoke_access(&self, token: &str) {
        self.provider.ledger.withdraw(token);
    }

    /// Of access tokens that are made from now on.
    pub fn set_lifetime(&self, lifetime: Duration) {
        self.provider.ledger.set_lifetime(lifetime);
    }

    // --- trouble

    /// For the next token requests that are in good order; a gate at [`Stage::Received`] comes before it.
    pub fn fault_next(&self, requests: usize, fault: Fault) {
        self.provider.faults.add(fault, Some(requests));
    }

    /// Until [`Self::heal`].
    pub fn fault(&self, fault: Fault) {
        self.provider.faults.add(fault, None);
    }

    /// Ends all faults.
    pub fn heal(&self) {
        self.provider.faults.heal();
    }

    /// Sets the provider's clock ahead of true time, or behind: `Date`, the times of assertions, JWTs.
    pub fn skew(&self, minutes: i64) {
        self.provider.clock.skew(minutes);
    }

    /// Closes the gate at a stage.
    pub fn gate(&self, stage: Stage) -> Gate {
        self.provider.gates.close(stage)
    }

    // --- the truth

    pub fn truth(&self) -> Truth {
        self.provider.ledger.truth()
    }

    /// Waits until the truth is as wanted.
    pub async fn wait_until(&self, what: &str, wanted: impl Fn(&Truth) -> bool) -> Truth {
        self.provider.ledger.wait_until(what, wanted).await
    }

    /// Every token that was ever made, live or not.
    pub fn minted(&self) -> Vec<String> {
        self.provider.ledger.mint.minted()
    }

    /// Stands in the clear in every one of them.
    pub fn sentinel(&self) -> &str {
        &self.provider.ledger.mint.sentinel
    }

    /// What to search for in places where no token may stand: the sentinel, and every token.
    pub fn needles(&self) -> Vec<Needle> {
        let tokens = self.minted().into_iter().enumerate();
        let mut needles: Vec<Needle> = tokens
            .map(|(number, token)| Needle::new(&format!("token {number}"), &token))
            .collect();
        needles.push(Needle::new("the sentinel", self.sentinel()));
        needles
    }

    // --- the API behind it

    /// An API with names of its own that accepts this server's tokens.
    pub async fn protected_api(&self, names: &[&str]) -> ProtectedApi {
        let Provider { ledger, clock, .. } = &*self.provider;
        ProtectedApi::start(names, ledger.clone(), clock.clone()).await
    }

    /// The API on the server's own names, if it was built with one.
    #[track_caller]
    pub fn own_api(&self) -> ProtectedApi {
        let guard = self.provider.guard.clone();
        ProtectedApi {
            origin: self.origin.clone(),
            guard: guard.expect("a server that was built with serves_api()"),
        }
    }
}
