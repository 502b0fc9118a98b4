//! Windows begin and end by the calendar of their zone, and no clock that is set gives money back.

use std::path::PathBuf;

use jiff::{SignedDuration, Timestamp};

use crate::support::budgeted::{Budgeted, error_of};
use crate::support::clients::skip;
use crate::support::operator::put;
use crate::support::provider::conduct::Conduct;
use crate::support::provider::prices::usd;
use crate::support::provider::server::Provider;
use crate::support::spender::{Ask, message};

const SONNET: &str = "claude-sonnet-4-5";

/// libfaketime, or a visible skip.
pub fn faketime() -> Option<PathBuf> {
    crate::support::clients::find("faketime")?;
    let libraries = std::fs::read_dir("/usr/lib").unwrap().flatten();
    let mut found = libraries.map(|entry| entry.path().join("faketime/libfaketimeMT.so.1"));
    let found = found.find(|library| library.exists());
    if found.is_none() {
        skip("faketime", "its library is not below /usr/lib");
    }
    found
}

/// A proxy whose clock a test sets, and a budget in which one call has room for a window.
struct Clocked {
    scene: Budgeted,
    clock: PathBuf,
    ask: Ask,
}

impl Clocked {
    async fn new(library: PathBuf, window: &str, at: &str) -> Self {
        let provider = Provider::start().await;
        provider.usually(Conduct::says(600).input(40));
        let spec = format!("limits: [{{unit: usd, max: \"0.02\", window: {window}}}]");
        let builder = provider.budgets(&[("cap", &spec)]);
        let clock = builder.path("clock");
        set(&clock, at);
        let builder = [
            ("LD_PRELOAD", library.to_str().unwrap()),
            ("FAKETIME_TIMESTAMP_FILE", clock.to_str().unwrap()),
            ("FAKETIME_NO_CACHE", "1"),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ]
        .into_iter()
        .fold(builder, |builder, (name, value)| builder.env(name, value));
        let proxy = builder.start().await;
        Self {
            scene: Budgeted { provider, proxy },
            clock,
            ask: Ask::message(&message(SONNET, 600)),
        }
    }

    fn set(&self, at: &str) {
        set(&self.clock, at);
    }

    async fn has_room(&self, when: &str) {
        let answer = self.scene.spender().ask(&self.ask).await;
        assert_eq!(answer.status, 200, "{when}: {}", answer.text());
    }

    /// Refused, with the end of the window.
    async fn is_full(&self, when: &str, resets: &str) {
        let answer = self.scene.spender().ask(&self.ask).await;
        assert_eq!(answer.status, 402, "{when}: {}", answer.text());
        let told = error_of(&answer)["message"].as_str().unwrap().to_owned();
        assert!(
            told.contains(&format!("Resets {resets}.")),
            "{when}: {told}"
        );
    }
}

/// libfaketime takes an offset from the true time: it works with every call that tells the time.
pub fn set(clock: &std::path::Path, at: &str) {
    let at: Timestamp = at.parse().unwrap();
    let off: SignedDuration = at.duration_since(Timestamp::now());
    put(clock, format!("{:+}s", off.as_secs()));
}

#[tokio::test]
async fn a_day_ends_at_midnight_of_its_zone_when_clocks_change_too() {
    let Some(library) = faketime() else { return };
    // 2027-03-28 has 23 hours in Berlin, from 23:00Z to 22:00Z.
    let window = "{calendar: day, tz: Europe/Berlin}";
    let clocked = Clocked::new(library.clone(), window, "2027-03-27T23:30:00Z").await;
    clocked.has_room("the short day begins").await;
    clocked
        .is_full("the short day", "2027-03-28T22:00:00Z")
        .await;
    clocked.set("2027-03-28T21:58:00Z");
    clocked
        .is_full("two minutes to midnight", "2027-03-28T22:00:00Z")
        .await;
    clocked.set("2027-03-28T22:01:00Z");
    clocked.has_room("the next day").await;
    clocked
        .is_full("the next day", "2027-03-29T22:00:00Z")
        .await;

    // 2026-11-01 has 25 hours in New York, from 04:00Z to 05:00Z.
    let window = "{calendar: day, tz: America/New_York}";
    let clocked = Clocked::new(library, window, "2026-11-01T04:30:00Z").await;
    clocked.has_room("the long day begins").await;
    clocked.set("2026-11-02T04:30:00Z");
    clocked
        .is_full("the 25th hour", "2026-11-02T05:00:00Z")
        .await;
    clocked.set("2026-11-02T05:01:00Z");
    clocked.has_room("the next day").await;
}

#[tokio::test]
async fn months_and_weeks_end_where_the_calendar_says() {
    let Some(library) = faketime() else { return };
    let clocked = Clocked::new(library.clone(), "{calendar: month}", "2028-02-29T12:00:00Z").await;
    clocked.has_room("the 29th of February").await;
    clocked
        .is_full("the 29th of February", "2028-03-01T00:00:00Z")
        .await;
    clocked.set("2028-03-01T00:01:00Z");
    clocked.has_room("March").await;
    clocked.is_full("March", "2028-04-01T00:00:00Z").await;

    // 2027-01-01 is a Friday.
    let clocked = Clocked::new(library, "{calendar: week}", "2027-01-01T12:00:00Z").await;
    clocked.has_room("the week of the new year").await;
    clocked
        .is_full("the week of the new year", "2027-01-04T00:00:00Z")
        .await;
    clocked.set("2027-01-04T00:01:00Z");
    clocked.has_room("Monday").await;
}

/// A clock that is set back would open a window that was spent, and one after the other again.
#[tokio::test]
async fn a_clock_that_is_set_back_gives_nothing_back() {
    let Some(library) = faketime() else { return };
    let mut clocked = Clocked::new(library, "{calendar: day}", "2027-05-10T12:00:00Z").await;
    clocked.has_room("the first day").await;
    clocked
        .is_full("the first day", "2027-05-11T00:00:00Z")
        .await;
    for restarted in [false, true] {
        clocked.set("2027-05-08T12:00:00Z");
        if restarted {
            clocked.scene.proxy.kill().await;
            clocked.scene.proxy.restart().await;
        }
        let answer = clocked.scene.spender().ask(&clocked.ask).await;
        assert_eq!(answer.status, 402, "two days back: {}", answer.text());
        clocked.set("2027-05-10T13:00:00Z");
        clocked
            .is_full("the first day again", "2027-05-11T00:00:00Z")
            .await;
    }
    clocked.set("2027-05-11T00:01:00Z");
    clocked.has_room("the next day").await;
    clocked.scene.agree().await;
    assert_eq!(clocked.scene.provider.truth.total(), 2 * usd("0.00912"));
}
