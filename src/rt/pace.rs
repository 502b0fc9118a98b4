//! Owns when things are tried again: ahead of an expiry, and after failures, never all at once.

use std::time::Duration;

/// First and longest pause after a failure.
const BACK_OFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// A number from 0 to 1, so that replicas do not ask all at once.
pub fn jitter() -> f64 {
    let mut bytes = [0; 2];
    match aws_lc_rs::rand::fill(&mut bytes) {
        Ok(()) => f64::from(u16::from_le_bytes(bytes)) / f64::from(u16::MAX),
        Err(_) => 0.5,
    }
}

/// How long before asking again for something that lasts `life`: two thirds of it, up to a tenth earlier.
pub fn renewal(life: Duration, jitter: f64) -> Duration {
    life.mul_f64(2.0 / 3.0 * (1.0 - 0.1 * jitter))
        .max(Duration::from_millis(100))
}

/// How long to pause after this many failures in a row.
pub fn back_off(failures: u32, jitter: f64) -> Duration {
    let (first, longest) = BACK_OFF;
    let pause = first.saturating_mul(1 << failures.saturating_sub(1).min(6));
    pause.min(longest).mul_f64(1.0 - 0.1 * jitter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renewals_come_ahead_of_the_end_and_pauses_grow_up_to_a_minute() {
        let seconds = |life, jitter| renewal(Duration::from_secs(life), jitter).as_secs_f64();
        assert_eq!((seconds(3600, 0.0), seconds(3600, 1.0)), (2400.0, 2160.0));
        assert_eq!(seconds(0, 0.0), 0.1);
        let pauses = [1, 2, 7, 8, u32::MAX].map(|failures| back_off(failures, 0.0).as_secs());
        assert_eq!(pauses, [1, 2, 60, 60, 60]);
        assert!((0.0..=1.0).contains(&jitter()));
    }
}
