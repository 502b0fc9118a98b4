//! Clocks that are set while the proxy runs: what it showed and remembered under the old time does no harm.
//! Budgets are in `budgets_clock.rs`, tokens in `oauth_clock.rs`.

use jiff::{SignedDuration, Timestamp};

use super::budgets_clock::{faketime, set};
use super::support::echo::{self, PLACEHOLDER};
use super::support::operator::{PATIENCE, until};
use super::support::visitor::get;

/// A machine that starts with a wrong clock is put right once it has a network: agents, whose clocks
/// are right, must not be shown a certificate of the future, nor one that has ended.
#[tokio::test]
async fn a_certificate_made_under_a_wrong_clock_is_made_again() {
    let Some(library) = faketime() else { return };
    let echo = echo::echo().await;
    let builder = echo::in_front_of(&echo);
    let clock = builder.path("clock");
    let at = |off: i64| (Timestamp::now() + SignedDuration::from_secs(off)).to_string();
    set(&clock, &at(0));
    let builder = [
        ("LD_PRELOAD", library.to_str().unwrap()),
        ("FAKETIME_TIMESTAMP_FILE", clock.to_str().unwrap()),
        ("FAKETIME_NO_CACHE", "1"),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
    ]
    .into_iter()
    .fold(builder, |builder, (name, value)| builder.env(name, value));
    let proxy = builder.start().await;
    let door = proxy.bare_door();
    // Hours by which it is wrong: agents refuse what it makes then, and the origin's is refused here.
    for wrong in [5 * 3600, -26 * 3600] {
        set(&clock, &at(wrong));
        let stream = super::support::tunnel::connect(&door, "echo.example.com:443")
            .await
            .0;
        let shown =
            super::support::tunnel::handshake(&door, echo::HOST, &[b"http/1.1"], stream).await;
        assert!(shown.is_err(), "{wrong}: the agent's clock is right");
        set(&clock, &at(0));
        until("a certificate of now", PATIENCE, async || {
            let stream = super::support::tunnel::connect(&door, "echo.example.com:443")
                .await
                .0;
            super::support::tunnel::handshake(&door, echo::HOST, &[b"http/1.1"], stream)
                .await
                .is_ok()
        })
        .await;
        assert_eq!(get(&door, PLACEHOLDER, "/first").await.0, 200, "{wrong}");
    }
}
