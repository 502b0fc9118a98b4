//! Owns a lock among replicas: a Lease of `coordination.k8s.io/v1`, taken as client-go's leader election
//! takes it. It keeps two replicas from refreshing one grant at the same time; that a late writer
//! changes nothing is up to the version of what it writes.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use kube::Client;
use tokio::time::{Instant, sleep};

use super::call::CallError;
use super::lease_guard::{Claim, LeaseGuard};
use super::lease_object::{LeaseObject, Run};
use super::lease_record::{Observed, Verdict, created, taken};
use super::name::ObjectName;

pub use super::lease_object::LeaseError;
pub use super::lease_record::LeaseTimes;

/// A lock that one holder at a time has, in this process and in all others that use the same Lease.
#[derive(Clone)]
pub struct LeaseLock {
    object: LeaseObject,
    holder: String,
    times: LeaseTimes,
    obstacle: Arc<ArcSwapOption<String>>,
}

impl LeaseLock {
    /// The lock that `lease` is. `holder` is for people who read the Lease, the pod's name for one;
    /// a random suffix makes every acquisition's identity its own. It is created when first taken.
    pub fn new(client: Client, lease: ObjectName, holder: String, times: LeaseTimes) -> Self {
        Self {
            object: LeaseObject {
                client,
                name: lease,
                limit: times.request(),
            },
            holder,
            times,
            obstacle: Arc::default(),
        }
    }

    /// Finds out whether RBAC allows what holding it needs, without changing anything.
    pub async fn probe(&self) -> Result<(), LeaseError> {
        let probed = match self.object.get().await {
            Ok(lease) => self.object.replace(&lease, Run::Dry).await,
            Err(CallError::NotFound) => {
                let lease = created(&self.object.name, &self.holder, self.times);
                self.object.create(&lease, Run::Dry).await
            }
            Err(error) => Err(error),
        };
        match probed {
            // Another holder was faster: RBAC had been asked by then.
            Ok(_) | Err(CallError::Conflict | CallError::AlreadyExists) => Ok(()),
            Err(error) => Err(self.object.error(error)),
        }
    }

    /// Waits until the Lease is ours. Waits for ever if need be, also for an API server that does not
    /// answer: put a timeout around it and tell [`LeaseLock::obstacle`] when it ends. An error is one
    /// that waiting does not mend.
    pub async fn acquire(&self) -> Result<LeaseGuard, LeaseError> {
        let mut claim = Claim {
            object: self.object.clone(),
            identity: format!("{}_{}", self.holder, suffix()?),
            retry: self.times.retry,
            written: false,
        };
        let mut observed = Observed::default();
        loop {
            let pause = match self.attempt(&mut claim, &mut observed).await {
                Ok(Attempt::Held(lease, sent)) => {
                    self.obstacle.store(None);
                    return Ok(LeaseGuard::new(claim, self.times, *lease, sent));
                }
                Ok(Attempt::Wait { holder, time }) => {
                    self.note(format!("{holder} holds the Lease {}", self.object.name));
                    time.min(self.times.retry)
                }
                Err(error) if error.is_passing() => {
                    self.note(self.object.error(error.clone()).to_string());
                    let wanted = error.retry_after().unwrap_or(Duration::ZERO);
                    wanted.min(self.times.duration).max(self.times.retry)
                }
                Err(error) => return Err(self.object.error(error)),
            };
            sleep(jittered(pause)).await;
        }
    }

    /// What an acquisition waits for at the moment.
    pub fn obstacle(&self) -> Option<String> {
        self.obstacle.load().as_deref().cloned()
    }

    /// One look, and one write if the Lease may be taken.
    async fn attempt(
        &self,
        claim: &mut Claim,
        observed: &mut Observed,
    ) -> Result<Attempt, CallError> {
        let found = match self.object.get().await {
            Ok(lease) => Some(lease),
            Err(CallError::NotFound) => None,
            Err(error) => return Err(error),
        };
        if let Some(lease) = &found
            && let Verdict::Wait { holder, time } =
                observed.judge(lease, &claim.identity, Instant::now())
        {
            return Ok(Attempt::Wait { holder, time });
        }
        // Others count from when they see the write, which is later: our time ends first.
        let sent = Instant::now();
        claim.written = true;
        let stored = match found {
            Some(lease) => {
                let lease = taken(lease, &claim.identity, self.times);
                self.object.replace(&lease, Run::Real).await
            }
            None => {
                let lease = created(&self.object.name, &claim.identity, self.times);
                self.object.create(&lease, Run::Real).await
            }
        };
        Ok(Attempt::Held(Box::new(stored?), sent))
    }

    fn note(&self, obstacle: String) {
        self.obstacle.store(Some(Arc::new(obstacle)));
    }
}

enum Attempt {
    Held(Box<k8s_openapi::api::coordination::v1::Lease>, Instant),
    Wait { holder: String, time: Duration },
}

fn suffix() -> Result<String, LeaseError> {
    let mut bytes = [0; 8];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| LeaseError::Random)?;
    Ok(format!("{:016x}", u64::from_be_bytes(bytes)))
}

/// Up to a fifth more, so that many replicas do not ask at the same moments.
fn jittered(time: Duration) -> Duration {
    let mut byte = [0; 1];
    // Without random numbers the replicas ask at the same moments.
    aws_lc_rs::rand::fill(&mut byte).ok();
    time + time * u32::from(byte[0]) / (5 * 255)
}
