//! Owns when a grant's tokens are renewed, and how long a failure is left alone.

use std::time::{Duration, SystemTime};

use super::endpoint_error::EndpointError;
use super::record::GrantRecord;
use super::redeem::RedeemError;
use crate::rt::pace::{back_off, jitter, renewal};

/// How long an operator's mistake is left alone before the endpoint is asked again.
const REFUSED_PAUSE: Duration = Duration::from_secs(300);

/// When the tokens are to be renewed. Never, if they do not end. `before` is how long ahead of their end;
/// after two thirds of their life when absent.
pub(super) fn due(
    record: &GrantRecord,
    clock_offset: Option<i64>,
    before: Option<Duration>,
    now: SystemTime,
) -> Option<SystemTime> {
    let Some(tokens) = record.tokens.as_ref().filter(|t| !t.access.is_empty()) else {
        return Some(now);
    };
    let end = record.ends_here(clock_offset)?;
    let issued = tokens.issued_at.min(now);
    let life = end.duration_since(issued).unwrap_or_default();
    Some(match before {
        Some(before) => end - before.min(life.mul_f64(0.9)),
        None => issued + renewal(life, jitter()),
    })
}

/// How long the access token still is good.
pub(super) fn left(record: &GrantRecord, clock_offset: Option<i64>) -> Duration {
    let end = record.ends_here(clock_offset);
    end.map_or(Duration::ZERO, |end| {
        end.duration_since(SystemTime::now()).unwrap_or_default()
    })
}

/// How long to wait after this failure, which is one of so many in a row. `left` is how long the access
/// token still is good, where asking again could end it.
pub(super) fn pause(error: &RedeemError, failures: u32, left: Duration) -> Duration {
    let pause = back_off(failures, jitter());
    match error {
        RedeemError::Endpoint(EndpointError::Later { after, .. }) => {
            after.unwrap_or_default().min(REFUSED_PAUSE).max(pause)
        }
        RedeemError::Endpoint(EndpointError::Refused(_)) => REFUSED_PAUSE,
        RedeemError::Endpoint(EndpointError::Unanswered(_)) | RedeemError::Doubtful(_) => {
            left.max(pause)
        }
        RedeemError::Elsewhere { wait, .. } => pause.max(*wait),
        _ => pause,
    }
}
