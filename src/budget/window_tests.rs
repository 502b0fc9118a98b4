//! Windows around everything that calendars do: clocks that change, days that are missing, leap years.

use proptest::prelude::*;

use jiff::SignedDuration;

use super::*;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn zone(name: &str) -> TimeZone {
    TimeZone::get(name).unwrap()
}

/// `start/end` of the window that `moment` lies in.
fn window(period: Period, name: &str, moment: &str) -> String {
    let window = WindowKind::Calendar(period, zone(name)).window(at(moment));
    format!("{}/{}", window.start, window.end.unwrap())
}

#[test]
fn a_day_is_from_midnight_to_midnight_there() {
    for (name, moment, expected) in [
        (
            "UTC",
            "2026-11-21T00:00:00Z",
            "2026-11-21T00:00:00Z/2026-11-22T00:00:00Z",
        ),
        (
            "UTC",
            "2026-11-21T23:59:59.999Z",
            "2026-11-21T00:00:00Z/2026-11-22T00:00:00Z",
        ),
        (
            "Asia/Kolkata",
            "2026-11-21T18:30:00Z",
            "2026-11-21T18:30:00Z/2026-11-22T18:30:00Z",
        ),
        // 23 hours, then 25.
        (
            "Europe/Berlin",
            "2026-03-29T12:00:00Z",
            "2026-03-28T23:00:00Z/2026-03-29T22:00:00Z",
        ),
        (
            "Europe/Berlin",
            "2026-10-25T12:00:00Z",
            "2026-10-24T22:00:00Z/2026-10-25T23:00:00Z",
        ),
        // Clocks went from 24:00 to 01:00: the day had no midnight.
        (
            "America/Sao_Paulo",
            "2018-11-04T12:00:00Z",
            "2018-11-04T03:00:00Z/2018-11-05T02:00:00Z",
        ),
        (
            "America/Sao_Paulo",
            "2018-11-04T02:59:59Z",
            "2018-11-03T03:00:00Z/2018-11-04T03:00:00Z",
        ),
        // At 01:00 they go back to 00:00: midnight comes twice, and the first one counts.
        (
            "America/Havana",
            "2026-11-01T05:30:00Z",
            "2026-11-01T04:00:00Z/2026-11-02T05:00:00Z",
        ),
        (
            "America/Havana",
            "2026-11-01T03:59:59Z",
            "2026-10-31T04:00:00Z/2026-11-01T04:00:00Z",
        ),
        // At 00:01 they went back to 23:01 of the day before, which does not begin again.
        (
            "America/St_Johns",
            "2010-11-07T02:45:00Z",
            "2010-11-07T02:30:00Z/2010-11-08T03:30:00Z",
        ),
        (
            "America/St_Johns",
            "2010-11-07T02:29:59Z",
            "2010-11-06T02:30:00Z/2010-11-07T02:30:00Z",
        ),
        // The 30th was left out when Samoa crossed the date line.
        (
            "Pacific/Apia",
            "2011-12-30T09:59:59Z",
            "2011-12-29T10:00:00Z/2011-12-30T10:00:00Z",
        ),
        (
            "Pacific/Apia",
            "2011-12-30T10:00:00Z",
            "2011-12-30T10:00:00Z/2011-12-31T10:00:00Z",
        ),
    ] {
        assert_eq!(
            window(Period::Day, name, moment),
            expected,
            "{name} {moment}"
        );
    }
}

#[test]
fn weeks_begin_on_monday_and_months_have_their_lengths() {
    for (period, name, moment, expected) in [
        (
            Period::Week,
            "UTC",
            "2026-11-22T23:59:59Z",
            "2026-11-16T00:00:00Z/2026-11-23T00:00:00Z",
        ),
        (
            Period::Week,
            "UTC",
            "2026-11-23T00:00:00Z",
            "2026-11-23T00:00:00Z/2026-11-30T00:00:00Z",
        ),
        (
            Period::Week,
            "UTC",
            "2026-01-01T00:00:00Z",
            "2025-12-29T00:00:00Z/2026-01-05T00:00:00Z",
        ),
        (
            Period::Week,
            "Europe/Berlin",
            "2026-03-29T21:59:59Z",
            "2026-03-22T23:00:00Z/2026-03-29T22:00:00Z",
        ),
        (
            Period::Month,
            "UTC",
            "2028-02-29T12:00:00Z",
            "2028-02-01T00:00:00Z/2028-03-01T00:00:00Z",
        ),
        (
            Period::Month,
            "UTC",
            "2026-02-28T23:59:59Z",
            "2026-02-01T00:00:00Z/2026-03-01T00:00:00Z",
        ),
        (
            Period::Month,
            "UTC",
            "2026-12-31T23:59:59Z",
            "2026-12-01T00:00:00Z/2027-01-01T00:00:00Z",
        ),
        (
            Period::Month,
            "Europe/Berlin",
            "2026-02-28T23:30:00Z",
            "2026-02-28T23:00:00Z/2026-03-31T22:00:00Z",
        ),
        (
            Period::Hour,
            "Asia/Kolkata",
            "2026-11-21T18:45:00Z",
            "2026-11-21T18:00:00Z/2026-11-21T19:00:00Z",
        ),
    ] {
        assert_eq!(window(period, name, moment), expected, "{name} {moment}");
    }
}

#[test]
fn fixed_windows_count_from_the_epoch_and_total_never_ends() {
    let fixed = WindowKind::Fixed(Duration::from_secs(6 * 3600));
    let six = fixed.window(at("2026-11-21T13:00:00Z"));
    assert_eq!(six.start, at("2026-11-21T12:00:00Z"));
    assert_eq!(six.end, Some(at("2026-11-21T18:00:00Z")));
    let before = fixed.window(at("1969-12-31T23:59:59.9995Z"));
    assert_eq!(before.end, Some(Timestamp::UNIX_EPOCH));
    for kind in [WindowKind::Total, WindowKind::Execution] {
        assert_eq!(kind.window(at("2026-11-21T13:00:00Z")).end, None);
        assert_eq!(kind.reach(), Duration::ZERO);
    }
}

/// The start of the oldest bucket that counts at a moment.
fn counts_from(kind: &WindowKind, at: Timestamp) -> Timestamp {
    let reach = SignedDuration::try_from(kind.reach()).unwrap();
    kind.window(at - reach).start
}

#[test]
fn a_rolling_window_reaches_back_its_length_and_a_sixtieth_at_most() {
    let hour = WindowKind::Rolling(HOUR);
    let now = at("2026-11-21T13:00:30Z");
    let bucket = hour.window(now);
    assert_eq!(bucket.start, at("2026-11-21T13:00:00Z"));
    assert_eq!(bucket.end, Some(at("2026-11-21T13:01:00Z")));
    assert_eq!(counts_from(&hour, now), at("2026-11-21T12:00:00Z"));
    // A length that sixty does not divide is rounded up.
    let odd = WindowKind::Rolling(Duration::from_secs(100));
    assert_eq!(
        odd.window(Timestamp::UNIX_EPOCH).end,
        Some(Timestamp::from_millisecond(1667).unwrap())
    );
}

const ZONES: [&str; 12] = [
    "UTC",
    "Europe/Berlin",
    "Europe/London",
    "America/New_York",
    "America/St_Johns",
    "America/Sao_Paulo",
    "America/Havana",
    "Asia/Kolkata",
    "Asia/Beirut",
    "Australia/Lord_Howe",
    "Pacific/Apia",
    "Africa/Cairo",
];

fn kinds() -> impl Strategy<Value = WindowKind> {
    let periods =
        prop::sample::select(vec![Period::Hour, Period::Day, Period::Week, Period::Month]);
    let calendars = (periods, prop::sample::select(ZONES.to_vec()))
        .prop_map(|(period, name)| WindowKind::Calendar(period, zone(name)));
    let lengths = (60..31_622_400_u64).prop_map(Duration::from_secs);
    prop_oneof![
        4 => calendars,
        1 => lengths.clone().prop_map(WindowKind::Fixed),
        1 => lengths.prop_map(WindowKind::Rolling),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Every moment is in exactly one window: it lies in its own, and both neighbours end where it does.
    #[test]
    fn windows_tile_time(kind in kinds(), second in 0_i64..4_102_444_800, nano in 0_i32..1_000_000_000) {
        let moment = Timestamp::new(second, nano).unwrap();
        let own = kind.window(moment);
        let end = own.end.unwrap();
        prop_assert!(own.start <= moment && moment < end);
        let instant = SignedDuration::from_nanos(1);
        prop_assert_eq!(kind.window(own.start), own);
        prop_assert_eq!(kind.window(end - instant), own);
        prop_assert_eq!(kind.window(end).start, end);
        prop_assert_eq!(kind.window(own.start - instant).end, Some(own.start));
    }

    /// What was spent less than a length ago counts, and nothing that is older by more than a sixtieth.
    #[test]
    fn a_rolling_window_counts_all_of_its_length(length in 60..1_000_000_u64, second in 0_i64..4_102_444_800) {
        let kind = WindowKind::Rolling(Duration::from_secs(length));
        let now = Timestamp::from_second(second).unwrap();
        let whole = SignedDuration::from_secs(length.try_into().unwrap());
        let from = counts_from(&kind, now);
        prop_assert!(from <= now - whole);
        let most = SignedDuration::try_from(bucket(Duration::from_secs(length))).unwrap();
        // Rounding up to milliseconds adds sixty of them at most.
        prop_assert!((now - whole).duration_since(from) <= most + SignedDuration::from_millis(60));
    }
}
