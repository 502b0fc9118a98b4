//! Owns the handle to a grant: what its owner works with, and what requests, operators and agents may ask of
//! it. The work itself belongs to no caller and goes on when a caller leaves.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde_json::{Map, Value};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::task::TaskTracker;

use super::requester::TokenRequester;
use super::seed::Seed;
use super::store::TokenStore;
use super::token::TokenSet;
use crate::credential::held::{Renewer, Unavailable};

/// What a grant's owner works with.
pub struct GrantParts {
    /// Where it outlives the process.
    pub store: Arc<dyn TokenStore>,
    /// Who asks for tokens.
    pub requester: Arc<dyn TokenRequester>,
    /// Where the first refresh token comes from while the store is empty.
    pub seed: Option<Seed>,
    /// How long before its expiry a token is renewed; after two thirds of its life when absent.
    pub refresh_before: Option<Duration>,
    /// Largest request body kept for a second try, in octets.
    pub replay_limit: u64,
    /// Renewals that are under way: the end of the process waits for them.
    pub tasks: TaskTracker,
    /// This process, as intents name it.
    pub me: Arc<str>,
    /// Hears of each renewal: `ok`, `adopted`, `failed` or `needs_login`.
    pub count: Arc<dyn Fn(&'static str) + Send + Sync>,
}

/// A grant's owner, seen from outside. Cloning is shallow.
#[derive(Debug, Clone)]
pub struct GrantOwner {
    credential: Arc<str>,
    replay_limit: u64,
    orders: mpsc::Sender<Order>,
    about: watch::Receiver<About>,
}

/// What may be known of a grant: nothing of it is secret. Cloning is shallow.
#[derive(Debug, Clone, Default)]
pub struct About {
    /// How it stands.
    pub standing: Standing,
    /// What its tokens may be used for, if the endpoint said so.
    pub scopes: Arc<[String]>,
    /// Whose login it is: account, organization, subscription.
    pub profile: Arc<Map<String, Value>>,
}

/// How the grant stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Standing {
    /// The store has not been read yet.
    #[default]
    Unknown,
    /// There is no login yet.
    Absent,
    /// A grant is held and can be renewed.
    Held,
    /// The grant is gone; only a new login helps.
    NeedsLogin,
}

/// What came of a renewal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Renewed {
    /// The generation of the tokens now in force.
    pub generation: u64,
    /// When they end, if that is known.
    pub expires_at: Option<SystemTime>,
}

/// Why it was not done. Holds no part of a token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotDone(pub String);

/// What is asked of the owner.
#[derive(Debug)]
pub(super) enum Order {
    /// Renew unless that has happened since this version of the credential.
    Renew {
        /// The version that an origin refused.
        rejected: u64,
        /// Where the outcome goes, if somebody still waits.
        answer: oneshot::Sender<Result<Renewed, NotDone>>,
    },
    /// Renew now, because an operator says so.
    Refresh {
        /// Where the outcome goes.
        answer: oneshot::Sender<Result<Renewed, NotDone>>,
    },
    /// Store the tokens of a new login and use them from then on.
    Adopt {
        /// The tokens.
        tokens: Box<TokenSet>,
        /// Where the outcome goes.
        answer: oneshot::Sender<Result<Renewed, NotDone>>,
    },
}

impl GrantOwner {
    pub(super) fn new(
        credential: Arc<str>,
        replay_limit: u64,
        orders: mpsc::Sender<Order>,
        about: watch::Receiver<About>,
    ) -> Self {
        Self {
            credential,
            replay_limit,
            orders,
            about,
        }
    }

    /// The credential it is the owner for.
    pub fn credential(&self) -> &Arc<str> {
        &self.credential
    }

    /// How the grant stands now.
    pub fn standing(&self) -> Standing {
        self.about.borrow().standing
    }

    /// What may be known of it now.
    pub fn about(&self) -> About {
        self.about.borrow().clone()
    }

    /// Renews the tokens now, whatever their age.
    ///
    /// Errors: the token endpoint or the store failed, or a login is needed; the text says what to do.
    pub async fn refresh(&self) -> Result<Renewed, NotDone> {
        self.ask(|answer| Order::Refresh { answer }).await
    }

    /// Stores the tokens of a new login, durably, and uses them from then on. They replace what was held.
    ///
    /// Errors: the store cannot be written; the tokens are kept in memory and storing is tried again.
    pub async fn adopt(&self, tokens: TokenSet) -> Result<Renewed, NotDone> {
        let tokens = Box::new(tokens);
        self.ask(|answer| Order::Adopt { tokens, answer }).await
    }

    async fn ask(
        &self,
        order: impl FnOnce(oneshot::Sender<Result<Renewed, NotDone>>) -> Order,
    ) -> Result<Renewed, NotDone> {
        let gone = || {
            NotDone(format!(
                "the credential `{}` is not in use any more",
                self.credential
            ))
        };
        let (answer, outcome) = oneshot::channel();
        if self.orders.send(order(answer)).await.is_err() {
            return Err(gone());
        }
        outcome.await.unwrap_or_else(|_| Err(gone()))
    }
}

impl Renewer for GrantOwner {
    fn renew(&self, rejected: u64) -> BoxFuture<'_, Result<(), Unavailable>> {
        async move {
            let renewed = self.ask(|answer| Order::Renew { rejected, answer }).await;
            renewed.map(drop).map_err(|NotDone(reason)| Unavailable {
                credential: self.credential.clone(),
                reason,
            })
        }
        .boxed()
    }

    fn replay_limit(&self) -> u64 {
        self.replay_limit
    }
}
