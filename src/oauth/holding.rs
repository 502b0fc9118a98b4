//! Owns what requests may use of a grant: its access token while that is good, and else the reason.

use std::time::{Duration, SystemTime};

use super::record::{GrantRecord, NeedsLogin};
use super::token::TokenSet;
use crate::credential::held::HeldCredential;
use crate::credential::source::{Fetched, SourceError};
use crate::types::secret::Secret;

/// Why nothing is used while a lost answer is being cleared up.
pub(super) const IN_DOUBT: &str = "it is being found out whether the grant still stands";

/// Lets requests use the access token of `record`, if it is good; says why where it is not.
/// `clock_offset` is how many seconds the endpoint's clock is ahead, if that was learned.
pub fn hold_out(held: &HeldCredential, record: &GrantRecord, clock_offset: Option<i64>) {
    let name = held.name();
    if let Some(NeedsLogin { why, .. }) = &record.needs_login {
        return held.report(Err(SourceError::NeedsLogin(format!(
            "it needs a login: {why}. Run `tollgate creds login {name}`"
        ))));
    }
    let Some(tokens) = &record.tokens else {
        if held.current().is_ok() {
            return held.report(Err(SourceError::NeedsLogin(format!(
                "its login was taken out of the store; run `tollgate creds login {name}`"
            ))));
        }
        return held.report(Err(SourceError::Missing(format!(
            "there is no login yet; run `tollgate creds login {name}` or `tollgate creds import FILE --as {name}`"
        ))));
    };
    if record.is_doubtful() {
        return held.report(Err(SourceError::Withdrawn(IN_DOUBT.to_owned())));
    }
    let end = record.ends_here(clock_offset);
    let expires_at = end.map(|end| end - margin(tokens.issued_at, end));
    let ended = expires_at.is_some_and(|end| end <= SystemTime::now());
    if tokens.access.is_empty() || ended {
        let why = "the access token has expired and was not renewed yet".to_owned();
        return held.report(Err(match held.current().is_ok() {
            // The one from before it, which may have been revoked for it.
            true => SourceError::Withdrawn(why),
            false => SourceError::Broken(why),
        }));
    }
    held.report(Ok(Fetched {
        secret: Secret::new(tokens.access.expose().to_vec()),
        expires_at,
        beside: renewing(tokens),
    }));
    if let Some(at) = record.refreshed_at {
        held.renewed(at);
    }
}

/// What `tokens` are renewed with. It never goes into a request, and must not stand in an answer either.
pub fn renewing(tokens: &TokenSet) -> Option<Secret> {
    let refresh = tokens.refresh.as_ref()?;
    Some(Secret::new(refresh.expose().to_vec()))
}

/// Requests take time to arrive: a token is not put into one in its last seconds.
fn margin(issued_at: SystemTime, end: SystemTime) -> Duration {
    let life = end.duration_since(issued_at).unwrap_or_default();
    (life / 20).min(Duration::from_secs(10))
}
