//! Owns what of an exchange's time is the proxy's own: from the request's head until it is sent, and from
//! the origin's head until that is passed on. The origin's time and the bodies' are not.

use std::time::{Duration, Instant};

/// A watch that stops while it is the origin's turn.
#[derive(Debug, Clone, Copy)]
pub struct OwnTime {
    so_far: Duration,
    since: Option<Instant>,
    answered: Answered,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answered {
    Yes,
    No,
}

impl OwnTime {
    /// Starts it.
    pub fn from(now: Instant) -> Self {
        Self {
            so_far: Duration::ZERO,
            since: Some(now),
            answered: Answered::No,
        }
    }

    /// It is the origin's turn, or the agent's.
    pub fn stop(&mut self, now: Instant) {
        if let Some(since) = self.since.take() {
            self.so_far += now.saturating_duration_since(since);
        }
    }

    /// The origin has answered; a second try may follow.
    pub fn go_on(&mut self, now: Instant) {
        self.since = Some(now);
        self.answered = Answered::Yes;
    }

    /// What was added to the time of an origin that has answered.
    pub fn around_an_answer(&self) -> Option<Duration> {
        (self.answered == Answered::Yes).then_some(self.so_far)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_the_origin_does_not_count_and_a_renewal_between_two_tries_does() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut own = OwnTime::from(start);
        own.stop(at(3));
        assert_eq!(own.around_an_answer(), None, "nothing has come yet");
        own.go_on(at(1_000));
        own.stop(at(1_200));
        own.go_on(at(5_000));
        own.stop(at(5_001));
        own.stop(at(9_000));
        let own = own.around_an_answer();
        assert_eq!(own, Some(Duration::from_millis(204)));
    }
}
