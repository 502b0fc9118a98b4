//! Owns a Lease while it is held: renewing it, knowing when it is lost, and letting it go.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};
use tokio_util::task::AbortOnDropHandle;

use super::call::CallError;
use super::lease_object::{LeaseError, LeaseObject, Run};
use super::lease_record::{LeaseTimes, cleared, holder, taken, transitions};

/// How often letting go is tried; after that the Lease expires by itself.
const RELEASES: u32 = 3;

/// A Lease that is held. It is renewed in the background; dropping the guard lets it go in the
/// background, [`LeaseGuard::release`] waits until that is done.
pub struct LeaseGuard {
    // Before `claim`, so that nothing is renewed any more when that lets go.
    renewal: AbortOnDropHandle<()>,
    term: watch::Receiver<Term>,
    believe: Duration,
    transitions: i32,
    claim: Claim,
}

/// Until when the Lease is held for sure.
#[derive(Clone, Copy)]
struct Term {
    /// When the last renewal that succeeded was sent.
    renewed: Instant,
    gone: bool,
}

impl LeaseGuard {
    /// A guard for a Lease that the server has stored, with the request sent at `sent`.
    pub(super) fn new(claim: Claim, times: LeaseTimes, lease: Lease, sent: Instant) -> Self {
        let (tell, term) = watch::channel(Term {
            renewed: sent,
            gone: false,
        });
        let transitions = transitions(&lease);
        let renewal = Renewal {
            object: claim.object.clone(),
            identity: claim.identity.clone(),
            times,
            lease,
        };
        Self {
            renewal: AbortOnDropHandle::new(tokio::spawn(renewal.run(tell))),
            term,
            believe: times.believe(),
            transitions,
            claim,
        }
    }

    /// Whether nobody else can hold the Lease at this moment.
    pub fn is_held(&self) -> bool {
        !self.remaining().is_zero()
    }

    /// How long it is held for sure if no further renewal succeeds; zero once it is lost.
    pub fn remaining(&self) -> Duration {
        let term = *self.term.borrow();
        match term.gone {
            true => Duration::ZERO,
            false => (term.renewed + self.believe).saturating_duration_since(Instant::now()),
        }
    }

    /// Resolves when the Lease is lost: before anybody else can have it, unless a person edited or
    /// deleted it, which is noticed at the next renewal.
    pub async fn lost(&self) {
        let mut term = self.term.clone();
        loop {
            let now = *term.borrow_and_update();
            let end = now.renewed + self.believe;
            if now.gone || end <= Instant::now() {
                return;
            }
            if let Ok(Err(_)) = timeout_at(end, term.changed()).await {
                // Nobody renews any more; what is left of the time remains.
                sleep_until(end).await;
            }
        }
    }

    /// `leaseTransitions`: larger with every holder, so that a later holder's mark wins over an
    /// earlier one's. Starts over if somebody deletes the Lease.
    pub fn transitions(&self) -> i32 {
        self.transitions
    }

    /// What stands in `holderIdentity`; of this acquisition alone.
    pub fn identity(&self) -> &str {
        &self.claim.identity
    }

    /// Lets the next one have it. An error is for the log: the Lease expires by itself then.
    pub async fn release(self) -> Result<(), LeaseError> {
        let Self { renewal, claim, .. } = self;
        drop(renewal);
        claim.release().await
    }
}

/// An identity under which a Lease was, or may have been, written. Lets the Lease go when dropped.
pub(super) struct Claim {
    pub(super) object: LeaseObject,
    pub(super) identity: String,
    pub(super) retry: Duration,
    /// Whether there is anything to let go.
    pub(super) written: bool,
}

impl Claim {
    async fn release(mut self) -> Result<(), LeaseError> {
        let released = let_go(&self.object, &self.identity, self.retry).await;
        self.written = false;
        released.map_err(|source| self.object.error(source))
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if !self.written {
            return;
        }
        let (object, identity, retry) = (self.object.clone(), self.identity.clone(), self.retry);
        // Without a runtime the process is ending.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                if let Err(error) = let_go(&object, &identity, retry).await {
                    tracing::debug!(lease = %object.name, %error, "left a Lease to expire");
                }
            });
        }
    }
}

async fn let_go(object: &LeaseObject, identity: &str, retry: Duration) -> Result<(), CallError> {
    let mut tries = 0;
    loop {
        tries += 1;
        match clear(object, identity).await {
            Err(error) if error.is_passing() && tries < RELEASES => sleep(retry).await,
            done => return done,
        }
    }
}

async fn clear(object: &LeaseObject, identity: &str) -> Result<(), CallError> {
    let lease = match object.get().await {
        Ok(lease) if holder(&lease) == Some(identity) => lease,
        Ok(_) | Err(CallError::NotFound) => return Ok(()),
        Err(error) => return Err(error),
    };
    object.replace(&cleared(lease), Run::Real).await?;
    Ok(())
}

struct Renewal {
    object: LeaseObject,
    identity: String,
    times: LeaseTimes,
    /// As the server last answered it.
    lease: Lease,
}

/// Somebody else has the Lease, or it was deleted.
struct Gone;

impl Renewal {
    async fn run(mut self, term: watch::Sender<Term>) {
        loop {
            let renewed = term.borrow().renewed;
            let end = renewed + self.times.believe();
            sleep_until(renewed + self.times.renew_every()).await;
            let why = match timeout_at(end, self.renew()).await {
                // A success that comes late must not bring back what was reported as lost.
                Ok(Ok(sent)) if Instant::now() < end => {
                    term.send_modify(|term| term.renewed = sent);
                    continue;
                }
                Ok(Err(Gone)) => "somebody else took it, or deleted it",
                _ => "it could not be renewed in time",
            };
            tracing::warn!(lease = %self.object.name, why, "lost a Lease");
            term.send_modify(|term| term.gone = true);
            return;
        }
    }

    /// Tries until it succeeds; says when the successful request was sent.
    async fn renew(&mut self) -> Result<Instant, Gone> {
        loop {
            let sent = Instant::now();
            let lease = taken(self.lease.clone(), &self.identity, self.times);
            let pause = match self.object.replace(&lease, Run::Real).await {
                Ok(stored) => {
                    self.lease = stored;
                    return Ok(sent);
                }
                Err(CallError::Conflict | CallError::NotFound) => self.look_again().await?,
                Err(error) => Some(error),
            };
            if let Some(error) = pause {
                tracing::debug!(lease = %self.object.name, %error, "a Lease is not renewed yet");
                sleep(error.retry_after().unwrap_or(self.times.retry)).await;
            }
        }
    }

    /// Somebody has written the Lease: we ourselves with an answer that was lost, a person who
    /// edited its metadata, or another holder.
    async fn look_again(&mut self) -> Result<Option<CallError>, Gone> {
        match self.object.get().await {
            Ok(lease) if holder(&lease) == Some(&self.identity) => {
                self.lease = lease;
                Ok(None)
            }
            Ok(_) | Err(CallError::NotFound) => Err(Gone),
            Err(error) => Ok(Some(error)),
        }
    }
}
