//! Owns how a moment is told to a person: how far it is from now, in one unit.

use jiff::Timestamp;

/// `in 42m`, `3m ago`, `now`.
pub fn relative(at: Timestamp, now: Timestamp) -> String {
    let seconds = at.as_second() - now.as_second();
    let distance = length(seconds.unsigned_abs());
    match seconds {
        0 => "now".to_owned(),
        1.. => format!("in {distance}"),
        _ => format!("{distance} ago"),
    }
}

/// The largest unit that is not too coarse: two days are still `48h`, an hour and a half `90m`.
fn length(seconds: u64) -> String {
    const MINUTE: u64 = 60;
    const HOUR: u64 = 60 * MINUTE;
    const DAY: u64 = 24 * HOUR;
    if seconds < MINUTE {
        format!("{seconds}s")
    } else if seconds < 2 * HOUR {
        format!("{}m", seconds / MINUTE)
    } else if seconds < 3 * DAY {
        format!("{}h", seconds / HOUR)
    } else {
        format!("{}d", seconds / DAY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_told_by_its_distance() {
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        for (seconds, told) in [
            (0, "now"),
            (42, "in 42s"),
            (42 * 60 + 59, "in 42m"),
            (90 * 60, "in 90m"),
            (8 * 3600, "in 8h"),
            (10 * 86400 - 1, "in 9d"),
            (-59, "59s ago"),
            (-180, "3m ago"),
            (-49 * 3600, "49h ago"),
            (-400 * 86400, "400d ago"),
        ] {
            let at = Timestamp::from_second(now.as_second() + seconds).unwrap();
            assert_eq!(relative(at, now), told, "{seconds}");
        }
    }
}
