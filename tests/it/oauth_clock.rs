//! Tollgate counts a token's life right by a clock that is wrong, and by one that is set while it runs.

use std::path::PathBuf;
use std::time::Duration;

use crate::support::clients::skip;
use crate::support::operator::put;
use crate::support::owner::Owner;
use crate::support::token_server::fault::Fault;
use crate::support::token_server::server::token_server;

/// Between two requests of an agent.
const PAUSE: Duration = Duration::from_millis(30);
/// Endpoints tell whole seconds: nine tenths of one are to spare.
const LIFETIME: Duration = Duration::from_millis(12_900);
/// A renewal is tried three seconds after the last one.
const EARLY: &str = "refreshBefore: 9s";

/// The provider's clock is minutes off. One process has learned that, others read what it stored.
async fn skewed(minutes: i64) {
    let server = token_server().lifetime(LIFETIME).start().await;
    server.skew(minutes);
    let api = server.protected_api(&["api.example.com"]).await;
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("grant.json");
    let owner = || Owner::of(&server, &api).with(EARLY).store(&store);
    let mut first = owner().seeded(server.login().refresh()).start().await;
    let traffic = first.traffic(PAUSE);
    let renewed = server.wait_until("two renewals", |truth| truth.rotations >= 2);
    renewed.await;
    traffic.passes("after two renewals").await;
    assert_eq!(
        traffic.tally().refusals(),
        0,
        "{minutes}: {:?}",
        traffic.tally()
    );

    // From now on tokens only end.
    server.fault(Fault::html(500));
    first.kill().await;
    let second = owner().start().await;
    let others = second.traffic(PAUSE);
    others.passes("the stored token").await;
    first.restart().await;
    traffic.moves(first.bare_door());
    traffic.passes("the stored token").await;
    let told = traffic.is_refused("its token has ended").await;
    assert!(told.contains("has expired"), "{minutes}: {told}");
    others.is_refused("its token has ended").await;
    api.assert_no_stale_token();

    server.heal();
    traffic.passes("the endpoint is well again").await;
    others.passes("the endpoint is well again").await;
    server.truth().assert_one_clean_grant();
    api.assert_no_stale_token();
}

#[tokio::test]
async fn a_provider_whose_clock_is_ten_minutes_off_is_understood_by_every_process() {
    tokio::join!(skewed(10), skewed(-10));
}

/// libfaketime, or a visible skip.
fn faketime() -> Option<PathBuf> {
    crate::support::clients::find("faketime")?;
    let libraries = std::fs::read_dir("/usr/lib").unwrap().flatten();
    let mut found = libraries.map(|entry| entry.path().join("faketime/libfaketimeMT.so.1"));
    let found = found.find(|library| library.exists());
    if found.is_none() {
        skip("faketime", "its library is not below /usr/lib");
    }
    found
}

/// The proxy's own clock is off by `first` when it starts, and by `then` from the first failure on.
async fn wrong_clock(library: PathBuf, first: &str, then: &str) {
    let server = token_server().lifetime(LIFETIME).start().await;
    let api = server.protected_api(&["api.example.com"]).await;
    let mut owner = Owner::of(&server, &api)
        .with(EARLY)
        .seeded(server.login().refresh());
    let clock = owner.builder.path("clock");
    put(&clock, first);
    for (name, value) in [
        ("LD_PRELOAD", library.to_str().unwrap()),
        ("FAKETIME_TIMESTAMP_FILE", clock.to_str().unwrap()),
        ("FAKETIME_NO_CACHE", "1"),
        // No machine has that one wrong.
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
    ] {
        owner.builder = owner.builder.env(name, value);
    }
    let mut proxy = owner.start().await;
    let traffic = proxy.traffic(PAUSE);
    let renewed = server.wait_until("two renewals", |truth| truth.rotations >= 2);
    renewed.await;
    traffic.passes("after two renewals").await;
    assert_eq!(
        traffic.tally().refusals(),
        0,
        "{first}: {:?}",
        traffic.tally()
    );

    // From now on tokens only end.
    server.fault(Fault::html(500));
    if first == then {
        proxy.kill().await;
        proxy.restart().await;
        traffic.moves(proxy.bare_door());
        traffic.passes("the stored token").await;
    }
    put(&clock, then);
    let told = traffic.is_refused("its token has ended").await;
    assert!(told.contains("has expired"), "{first} {then}: {told}");
    api.assert_no_stale_token();

    server.heal();
    traffic.passes("the endpoint is well again").await;
    server.truth().assert_one_clean_grant();
    api.assert_no_stale_token();
}

#[tokio::test]
async fn a_process_whose_own_clock_is_wrong_or_is_set_uses_no_token_after_its_end() {
    let Some(library) = faketime() else { return };
    let wrong = |first, then| wrong_clock(library.clone(), first, then);
    tokio::join!(
        wrong("+10m", "+10m"),
        wrong("-10m", "-10m"),
        wrong("-0", "-10m"),
        wrong("-0", "+10m"),
        wrong("-10m", "-0"),
    );
}
