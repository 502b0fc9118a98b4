//! Owns the second try: an origin that refuses a credential which can be renewed is asked once more
//! with the new one, as long as the agent has seen nothing of the first answer.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use http::StatusCode;
use http::request::Parts;

use super::account::{Accounting, Replay};
use super::admission::Admission;
use super::attempt::{Attempt, Sent};
use super::error::ProxyError;
use super::spool::Keep;
use super::upload::Upload;
use crate::credential::held::{HeldCredential, Renewer};
use crate::inject::error::InjectError;
use crate::inject::injector::InjectedCredential;
use crate::inject::set::Injectors;
use crate::net::room::Room;

/// How long an agent waits for a renewal before it gets the first answer. The renewal itself goes on.
const PATIENCE: Duration = Duration::from_secs(60);

/// Sends a request, and once more if that may help. What comes then is the answer, whatever it is.
///
/// `is_current` says whether what was allowed is still allowed: a renewal takes its time.
pub async fn send(
    attempt: &Attempt<'_>,
    head: Parts,
    upload: &mut Upload<'_>,
    room: &Arc<Room>,
    is_current: impl Fn() -> bool,
    admission: &mut Admission,
    accounting: &mut Accounting,
) -> Result<Sent, ProxyError> {
    let injectors = &attempt.snapshot.injectors;
    let Some(limit) = replay_limit(injectors, attempt.permit.credentials()) else {
        let ready = attempt.inject(head)?;
        return attempt
            .send(ready, upload, None, admission, accounting)
            .await;
    };
    let spare = head.clone();
    let ready = match attempt.inject(head) {
        Err(InjectError::Unavailable { credential, .. })
            if being_renewed(injectors, &credential).await =>
        {
            attempt.inject(spare.clone())?
        }
        injected => injected?,
    };
    let keep = ready.has_credential().then(|| Keep {
        limit,
        room: room.clone(),
    });
    let mut first = attempt
        .send(ready, upload, keep, admission, accounting)
        .await?;
    if first.response.status() != StatusCode::UNAUTHORIZED {
        return Ok(first);
    }
    let refused = Refused::of(&first.credentials, injectors);
    if refused.0.is_empty() {
        return Ok(first);
    }
    if !upload.can_rewind() {
        // The next request profits from it.
        tokio::spawn(refused.renewal());
        accounting.replay(refused.names(), Replay::NotKept);
        return Ok(first);
    }
    if !refused.renewal().await {
        accounting.replay(refused.names(), Replay::NotRenewed);
        return Ok(first);
    }
    // The first answer is given up only for a request that can be sent.
    let ready = attempt.inject(spare).ok().filter(|_| is_current());
    let Some(ready) = ready.filter(|_| upload.rewind()) else {
        accounting.replay(refused.names(), Replay::NotKept);
        return Ok(first);
    };
    let shown = std::mem::take(&mut first.shown);
    drop(first);
    admission.retry().await?;
    let mut second = attempt
        .send(ready, upload, None, admission, accounting)
        .await;
    if let Ok(sent) = &mut second {
        // The origin has seen both values.
        sent.shown.extend(shown);
    }
    let outcome = match &second {
        Ok(sent) if sent.response.status() == StatusCode::UNAUTHORIZED => Replay::Rejected,
        Ok(_) => Replay::Accepted,
        Err(_) => Replay::Failed,
    };
    accounting.replay(refused.names(), outcome);
    second
}

/// Waits for the new value of a credential that is just being renewed; says whether it is.
async fn being_renewed(injectors: &Injectors, credential: &str) -> bool {
    match injectors.held(credential) {
        Some(held) => held.wait_for_renewal(PATIENCE).await,
        None => false,
    }
}

/// How much of a body is kept for a second try; nothing if no credential that may go in can be renewed.
fn replay_limit(injectors: &Injectors, granted: &[Arc<str>]) -> Option<u64> {
    let held = granted.iter().filter_map(|name| injectors.held(name));
    let renewers = held.filter_map(|held| held.renewer());
    renewers.map(|renewer| renewer.replay_limit()).max()
}

/// The credentials of a refused request that can be renewed, each with the version that was sent.
struct Refused(Vec<(Arc<HeldCredential>, Arc<dyn Renewer>, u64)>);

impl Refused {
    fn of(sent: &[InjectedCredential], injectors: &Injectors) -> Self {
        let mut refused: Vec<(Arc<HeldCredential>, Arc<dyn Renewer>, u64)> = Vec::new();
        for credential in sent {
            let Some(held) = injectors.held(&credential.name) else {
                continue;
            };
            held.rejected();
            let known = refused.iter().any(|(other, ..)| Arc::ptr_eq(other, held));
            if let Some(renewer) = held.renewer().filter(|_| !known) {
                refused.push((held.clone(), renewer.clone(), credential.version));
            }
        }
        Self(refused)
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(held, ..)| held.name())
    }

    /// Renews them; true once one of them has a new value.
    fn renewal(&self) -> impl Future<Output = bool> + Send + use<> {
        let renewals = self.0.iter().map(|(_, renewer, version)| {
            let (renewer, version) = (renewer.clone(), *version);
            async move { renewer.renew(version).await.is_ok() }
        });
        let all = join_all(renewals);
        async {
            let renewed = tokio::time::timeout(PATIENCE, all).await;
            renewed.is_ok_and(|renewed| renewed.contains(&true))
        }
    }
}
