//! Owns what a Lease says and when it may be taken, without any clock but the local monotonic one: as
//! in client-go's leader election, another holder's time begins when a change of its record is seen
//! here, and what `renewTime` says is never compared with anything.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use tokio::time::Instant;

use super::name::ObjectName;
use crate::config::source::LEASE_DURATION;

/// How long a Lease holds, and how often it is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseTimes {
    /// How long others wait after a renewal before they take over. On the wire in whole seconds,
    /// rounded up.
    pub duration: Duration,
    /// Between two looks at a Lease that another holds, and after a renewal that failed.
    pub retry: Duration,
}

impl Default for LeaseTimes {
    fn default() -> Self {
        Self::lasting(LEASE_DURATION)
    }
}

impl LeaseTimes {
    /// Of this duration, in the proportions of the Kubernetes core components: `RetryPeriod` 2 s of 15.
    pub fn lasting(duration: Duration) -> Self {
        Self {
            duration,
            retry: duration * 2 / 15,
        }
    }

    /// Between two renewals.
    pub(super) fn renew_every(self) -> Duration {
        self.duration / 3
    }

    /// How long after the last renewal was sent the holder believes that it holds. The rest of
    /// `duration` covers machines whose clocks run at different speeds (client-go: `RenewDeadline`,
    /// 10 s of 15).
    pub(super) fn believe(self) -> Duration {
        self.duration * 2 / 3
    }

    /// The limit of one request: after one that got stuck there is time for a second.
    pub(super) fn request(self) -> Duration {
        self.duration / 4
    }

    fn seconds(self) -> i32 {
        let whole = self.duration.as_secs() + u64::from(self.duration.subsec_nanos() > 0);
        i32::try_from(whole).unwrap_or(i32::MAX).max(1)
    }
}

/// What a candidate has seen of a Lease.
#[derive(Default)]
pub(super) struct Observed {
    last: Option<(LeaseSpec, Instant)>,
}

/// What a candidate may do.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Take it, if the server agrees that it has not changed.
    Take,
    /// Wait this long for `holder`, unless it lets go before.
    Wait { holder: String, time: Duration },
}

impl Observed {
    /// Judges a Lease as it was just read.
    pub(super) fn judge(&mut self, lease: &Lease, identity: &str, now: Instant) -> Verdict {
        let spec = lease.spec.clone().unwrap_or_default();
        let Some(holder) = holder(lease).map(ToOwned::to_owned) else {
            return Verdict::Take;
        };
        // Our own write, whose answer got lost: nobody else uses this identity.
        if holder == identity {
            return Verdict::Take;
        }
        let seconds = spec.lease_duration_seconds.unwrap_or(i32::MAX);
        let since = match &self.last {
            Some((last, since)) if *last == spec => *since,
            _ => {
                self.last = Some((spec, now));
                now
            }
        };
        let whole = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
        match whole.saturating_sub(now - since) {
            Duration::ZERO => Verdict::Take,
            time => Verdict::Wait { holder, time },
        }
    }
}

/// Who holds it by what it says.
pub(super) fn holder(lease: &Lease) -> Option<&str> {
    let holder = lease.spec.as_ref()?.holder_identity.as_deref()?;
    (!holder.is_empty()).then_some(holder)
}

/// How often it has changed hands; grows with every holder, for as long as nobody deletes the Lease.
pub(super) fn transitions(lease: &Lease) -> i32 {
    let spec = lease.spec.as_ref();
    spec.and_then(|s| s.lease_transitions).unwrap_or(0)
}

/// A Lease that does not exist yet, held by `identity`.
pub(super) fn created(name: &ObjectName, identity: &str, times: LeaseTimes) -> Lease {
    let empty = Lease {
        metadata: ObjectMeta {
            name: Some(name.name().to_owned()),
            namespace: Some(name.namespace().to_owned()),
            ..ObjectMeta::default()
        },
        spec: None,
    };
    let mut lease = taken(empty, identity, times);
    if let Some(spec) = &mut lease.spec {
        spec.lease_transitions = Some(0);
    }
    lease
}

/// The Lease as read, now held by `identity`.
pub(super) fn taken(mut lease: Lease, identity: &str, times: LeaseTimes) -> Lease {
    let already = holder(&lease) == Some(identity);
    let next = transitions(&lease).saturating_add(i32::from(!already));
    let spec = lease.spec.get_or_insert_default();
    if !already {
        spec.acquire_time = Some(now());
    }
    spec.lease_transitions = Some(next);
    spec.holder_identity = Some(identity.to_owned());
    spec.lease_duration_seconds = Some(times.seconds());
    spec.renew_time = Some(now());
    lease
}

/// The Lease with nobody holding it. Transitions stay, so that they go on growing.
pub(super) fn cleared(mut lease: Lease) -> Lease {
    let spec = lease.spec.get_or_insert_default();
    spec.holder_identity = None;
    spec.lease_duration_seconds = Some(1);
    spec.renew_time = Some(now());
    lease
}

/// The wall clock, for people who read the Lease.
fn now() -> MicroTime {
    MicroTime(Timestamp::now())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(by: &str, seconds: i32, renewed: &str) -> Lease {
        Lease {
            spec: Some(LeaseSpec {
                holder_identity: Some(by.to_owned()),
                lease_duration_seconds: Some(seconds),
                lease_transitions: Some(4),
                renew_time: Some(MicroTime(renewed.parse().unwrap())),
                ..LeaseSpec::default()
            }),
            ..Lease::default()
        }
    }

    fn wait(by: &str, seconds: u64) -> Verdict {
        Verdict::Wait {
            holder: by.to_owned(),
            time: Duration::from_secs(seconds),
        }
    }

    const NINETIES: &str = "1999-01-01T00:00:00Z";
    const FAR: &str = "2999-01-01T00:00:00Z";

    #[test]
    fn a_holder_has_its_whole_time_from_when_its_record_was_seen_whatever_its_clock_says() {
        for renewed in [NINETIES, FAR] {
            let mut observed = Observed::default();
            let start = Instant::now();
            let lease = held("b", 15, renewed);
            let after = |s| start + Duration::from_secs(s);
            assert_eq!(observed.judge(&lease, "a", start), wait("b", 15));
            assert_eq!(observed.judge(&lease, "a", after(14)), wait("b", 1));
            assert_eq!(observed.judge(&lease, "a", after(15)), Verdict::Take);
        }
    }

    #[test]
    fn every_renewal_begins_the_wait_anew() {
        let mut observed = Observed::default();
        let start = Instant::now();
        let later = start + Duration::from_secs(14);
        assert_eq!(
            observed.judge(&held("b", 15, NINETIES), "a", start),
            wait("b", 15)
        );
        assert_eq!(
            observed.judge(&held("b", 15, FAR), "a", later),
            wait("b", 15)
        );
    }

    #[test]
    fn a_free_lease_and_our_own_are_taken_at_once() {
        let mut observed = Observed::default();
        let now = Instant::now();
        assert_eq!(observed.judge(&held("", 15, FAR), "a", now), Verdict::Take);
        assert_eq!(observed.judge(&held("a", 15, FAR), "a", now), Verdict::Take);
        assert_eq!(observed.judge(&Lease::default(), "a", now), Verdict::Take);
    }

    #[test]
    fn transitions_count_holders_not_renewals_and_survive_a_release() {
        let times = LeaseTimes::default();
        let first = taken(held("b", 15, FAR), "a", times);
        assert_eq!(transitions(&first), 5);
        let renewed = taken(first, "a", times);
        assert_eq!(transitions(&renewed), 5);
        let free = cleared(renewed);
        assert_eq!((holder(&free), transitions(&free)), (None, 5));
        assert_eq!(transitions(&taken(free, "c", times)), 6);
    }

    #[test]
    fn a_part_of_a_second_is_a_second_on_the_wire() {
        for (millis, seconds) in [(0, 1), (300, 1), (1000, 1), (1001, 2), (15_000, 15)] {
            let times = LeaseTimes {
                duration: Duration::from_millis(millis),
                ..LeaseTimes::default()
            };
            assert_eq!(times.seconds(), seconds, "{millis} ms");
        }
    }
}
