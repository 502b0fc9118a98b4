//! Tollgate never loses a grant by its own fault: processes that are killed at every moment of a renewal.

use std::collections::BTreeSet;
use std::hash::{BuildHasher as _, RandomState};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tempfile::TempDir;
use tokio::process::Command;

use crate::support::clients::{Heavy, one_at_a_time};
use crate::support::operator::{PATIENCE, put, until};
use crate::support::owner::{Owner, Stored, assert_needs_login};
use crate::support::proxy::Proxy;
use crate::support::token_server::api::ProtectedApi;
use crate::support::token_server::fault::Stage;
use crate::support::token_server::server::{TokenServer, token_server};
use crate::support::token_server::truth::Truth;
use crate::support::traffic::Traffic;

/// Between two requests of an agent.
const PAUSE: Duration = Duration::from_millis(50);

/// Many processes at a time are enough for a machine.
async fn alone() -> Heavy {
    one_at_a_time("many-proxies.lock").await
}

/// A number from 0 to 1.
fn chance() -> f64 {
    let drawn = RandomState::new().hash_one(0) >> 11;
    drawn as f64 / (1u64 << 53) as f64
}

/// An owner that is killed again and again, its agent, and the provider's own view of what is left.
struct Lane {
    server: TokenServer,
    api: ProtectedApi,
    proxy: Proxy,
    traffic: Traffic,
    store: PathBuf,
    _dir: TempDir,
    tally: Outcomes,
}

/// Where in a renewal processes were killed.
#[derive(Clone, Copy, Debug, Default)]
struct Outcomes {
    /// It had not begun.
    before: usize,
    /// It had begun, and the provider had not rotated.
    unspent: usize,
    /// The provider had rotated, and the answer was lost with the process.
    lost: usize,
    /// The new tokens were stored.
    after: usize,
}

impl Outcomes {
    fn kills(self) -> usize {
        self.before + self.unspent + self.lost + self.after
    }

    fn add(&mut self, other: Self) {
        self.before += other.before;
        self.unspent += other.unspent;
        self.lost += other.lost;
        self.after += other.after;
    }
}

impl Lane {
    /// `lines` of its `source.oauth`.
    async fn new(lines: &[&str]) -> Self {
        let server = token_server().start().await;
        let api = server.protected_api(&["api.example.com"]).await;
        let dir = tempfile::tempdir().unwrap();
        let store = dir.path().join("grant.json");
        let mut owner = Owner::of(&server, &api).store(&store);
        for line in lines {
            owner = owner.with(line);
        }
        let proxy = owner.seeded(server.login().refresh()).build();
        let proxy = proxy.secret(server.sentinel()).start().await;
        let traffic = proxy.traffic(PAUSE);
        traffic.passes("its first token").await;
        Self {
            server,
            api,
            proxy,
            traffic,
            store,
            _dir: dir,
            tally: Outcomes::default(),
        }
    }

    fn calls(&self) -> usize {
        self.server.origin.requests().len()
    }

    /// Starts again after a kill. `before` is how things were when the renewal was ordered.
    ///
    /// Either the grant is whole and stored; or the answer was lost, the old refresh token was tried
    /// exactly once more, and a login is asked for.
    async fn recovers(&mut self, before: &Truth) {
        let left = Stored::read(&self.store).unwrap();
        self.proxy.restart().await;
        self.traffic.moves(self.proxy.bare_door());
        let login = self.proxy.settles(&["ok", "needsLogin"]).await;
        let truth = self.server.truth();
        let reuses = truth.reuses.len() - before.reuses.len();
        let refused = truth.refused - before.refused;
        assert_eq!(truth.violations, before.violations);
        if login["state"] == "ok" {
            let stored = Stored::read(&self.store).unwrap();
            assert!(!stored.has_intent(), "{stored:?}");
            assert_eq!(stored.refresh_token(), truth.refresh_token());
            assert_eq!((reuses, refused), (0, 0), "{truth:#?}");
            self.traffic.passes("its grant is whole").await;
            let rotated = truth.rotations > before.rotations;
            match (left.has_intent(), rotated) {
                (true, _) => self.tally.unspent += 1,
                (false, true) if left.refresh_token() == stored.refresh_token() => {
                    self.tally.after += 1;
                }
                (false, _) => self.tally.before += 1,
            }
            return;
        }
        self.tally.lost += 1;
        assert!(left.has_intent(), "{left:?}");
        let reused = truth.reuses.last().unwrap();
        assert!(
            reused.ends_with(left.refresh_token()),
            "{left:?} {truth:#?}"
        );
        assert_eq!((reuses, refused), (1, 1), "{truth:#?}");
        assert_eq!(truth.rotations, before.rotations + 1, "{truth:#?}");
        assert_eq!(truth.live_grants, 0);
        assert_needs_login(&self.proxy, &self.traffic).await;
        let asked = self.calls();
        put(&self.proxy.file("seed"), self.server.login().refresh());
        self.traffic.passes("a new login").await;
        assert_eq!(self.calls(), asked + 1);
        assert_eq!(self.server.truth().live_grants, 1);
    }

    #[track_caller]
    fn assert_clean(&self) {
        let truth = self.server.truth();
        truth.assert_no_violation();
        assert_eq!(truth.live_grants, 1, "{truth:#?}");
        assert_eq!(truth.reuses.len(), self.tally.lost, "{truth:#?}");
        self.api.assert_no_stale_token();
    }
}

#[tokio::test]
async fn killed_while_it_waits_for_the_answer_a_process_leaves_a_grant_or_a_plain_call_for_a_login()
{
    let mut lane = Lane::new(&[]).await;
    for (stage, rotates) in [
        (Stage::Received, false),
        (Stage::Received, true),
        (Stage::Rotated, true),
    ] {
        let before = lane.server.truth();
        let gate = lane.server.gate(stage);
        let order = lane.proxy.order_refresh().await;
        gate.arrived(1).await;
        assert!(Stored::read(&lane.store).unwrap().has_intent());
        lane.proxy.kill().await;
        drop(order);
        if rotates {
            gate.open();
            let gone_on = |truth: &Truth| truth.rotations > before.rotations;
            lane.server
                .wait_until("the provider has rotated", gone_on)
                .await;
        } else {
            gate.cut();
            gate.open();
        }
        lane.recovers(&before).await;
    }
    assert_eq!(
        (lane.tally.unspent, lane.tally.lost),
        (1, 2),
        "{:?}",
        lane.tally
    );
    lane.assert_clean();

    // Without anything to do there is nothing to ask.
    let calls = lane.calls();
    for _ in 0..2 {
        lane.proxy.kill().await;
        lane.proxy.restart().await;
        lane.traffic.moves(lane.proxy.bare_door());
        lane.traffic.passes("the stored token").await;
    }
    assert_eq!(lane.calls(), calls);
}

/// Killed at random while it renews because an operator ordered it.
async fn killed_on_order(kills: usize) -> Outcomes {
    let mut lane = Lane::new(&[]).await;
    let mut spans = Vec::new();
    for _ in 0..kills {
        // How long it takes is measured each time: the machine does other things, too.
        let begun = Instant::now();
        assert_eq!(lane.proxy.refresh().await.status, 200);
        spans.push(begun.elapsed());
        let before = lane.server.truth();
        let order = lane.proxy.order_refresh().await;
        tokio::time::sleep(spans[spans.len() - 1].mul_f64(chance())).await;
        lane.proxy.kill().await;
        drop(order);
        lane.recovers(&before).await;
    }
    lane.assert_clean();
    spans.sort_unstable();
    eprintln!("renewals take {:?}: {:?}", spans[kills / 2], lane.tally);
    lane.tally
}

/// A token that is due a tenth of a second later.
const DUE: Duration = Duration::from_millis(1900);
const EARLY: &str = "refreshBefore: 1h";

impl Lane {
    /// Leaves a stored token that the next process renews while it starts.
    async fn is_due(&mut self) {
        self.server.set_lifetime(DUE);
        let said = self.proxy.refresh().await;
        assert_eq!(said.status, 200, "{}", said.text);
        // It may be renewing the new one already, which would be another kill.
        self.proxy.terminate().await;
        self.proxy.ended().await;
        self.server.set_lifetime(Duration::from_secs(12 * 3600));
        let stored = Stored::read(&self.store).unwrap();
        let issued: jiff::Timestamp = stored.0["tokens"]["issuedAt"]
            .as_str()
            .unwrap()
            .parse()
            .unwrap();
        let due = issued + jiff::SignedDuration::from_millis(110);
        let left = due.duration_since(jiff::Timestamp::now());
        tokio::time::sleep(left.try_into().unwrap_or_default()).await;
    }
}

/// Killed at random while it starts, with a token that is due.
async fn killed_at_start(kills: usize) -> Outcomes {
    let mut lane = Lane::new(&[EARLY]).await;
    let mut spans = Vec::new();
    for _ in 0..kills {
        lane.is_due().await;
        let begun = Instant::now();
        lane.proxy.restart().await;
        spans.push(begun.elapsed());
        lane.is_due().await;
        let before = lane.server.truth();
        lane.proxy.respawn();
        // It opens its other files first.
        tokio::time::sleep(spans[spans.len() - 1].mul_f64(0.3 + 0.7 * chance())).await;
        lane.proxy.kill().await;
        lane.recovers(&before).await;
    }
    lane.assert_clean();
    spans.sort_unstable();
    eprintln!("starts take {:?}: {:?}", spans[kills / 2], lane.tally);
    lane.tally
}

#[tokio::test]
async fn killed_at_two_hundred_random_moments_a_process_leaves_a_grant_or_a_plain_call_for_a_login()
{
    let _alone = alone().await;
    let begun = Instant::now();
    let on_order = join_all((0..6).map(|_| killed_on_order(25)));
    let at_start = join_all((0..4).map(|_| killed_at_start(15)));
    let (on_order, at_start) = tokio::join!(on_order, at_start);
    let mut all = Outcomes::default();
    for outcomes in on_order.into_iter().chain(at_start) {
        all.add(outcomes);
    }
    eprintln!("{} kills in {:?}: {all:?}", all.kills(), begun.elapsed());
    assert!(all.kills() >= 200);
    assert!(all.before > 0 && all.unspent > 0 && all.lost > 0, "{all:?}");
}

/// What a process asks of the file system to store something.
const CALLS: &str = "flock,fallocate,pwrite64,ftruncate,fchmod,fsync,/^rename,/^unlink";

impl Lane {
    /// Starts below strace(1), which puts every one of [`CALLS`] off for a moment.
    fn respawn_slowly(&mut self) -> PathBuf {
        let log = self.proxy.file("strace.log");
        std::fs::remove_file(&log).ok();
        let args = [
            "-f".to_owned(),
            "-qq".to_owned(),
            format!("--output={}", log.display()),
            format!("--trace={CALLS}"),
            format!("--inject={CALLS}:delay_enter=30000"),
        ];
        self.proxy.respawn_below("strace", &args);
        log
    }
}

/// How many calls have been made, and the process that made the first.
fn made(log: &Path) -> (usize, Option<String>) {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let mut made = text.lines().filter(|line| line.contains(" = "));
    let first = made.next();
    let process = first.and_then(|line| line.split(' ').next());
    let count = usize::from(first.is_some()) + made.count();
    (count, process.map(ToOwned::to_owned))
}

/// Kills a process that starts when it has made so many calls on files, one number after the other.
/// Returns how many calls had been made each time.
async fn killed_after(calls: impl Iterator<Item = usize>) -> (Outcomes, BTreeSet<usize>) {
    let mut lane = Lane::new(&[EARLY]).await;
    let mut reached = BTreeSet::new();
    for count in calls {
        lane.is_due().await;
        let before = lane.server.truth();
        let log = lane.respawn_slowly();
        until("so many calls", 2 * PATIENCE, async || {
            made(&log).0 >= count || !lane.proxy.runs() || lane.proxy.is_ready()
        })
        .await;
        // The process itself: its tracer would let it go.
        let process = made(&log).1.unwrap();
        let killed = Command::new("kill").args(["-KILL", &process]).status();
        killed.await.unwrap();
        lane.proxy.gone().await;
        reached.insert(made(&log).0);
        lane.recovers(&before).await;
    }
    lane.assert_clean();
    eprintln!("{:?}, after so many calls: {reached:?}", lane.tally);
    (lane.tally, reached)
}

#[tokio::test]
async fn killed_before_any_system_call_on_its_store_a_process_leaves_a_grant_or_a_plain_call_for_a_login()
 {
    const LANES: usize = 4;
    client!("strace");
    let _alone = alone().await;
    let begun = Instant::now();
    // One that is not killed shows where the store's lock is taken and where it all ends.
    let mut lane = Lane::new(&[EARLY]).await;
    lane.is_due().await;
    let log = lane.respawn_slowly();
    lane.proxy.ready().await;
    let text = std::fs::read_to_string(&log).unwrap();
    lane.proxy.admin("POST", "/quitquitquit").await;
    lane.proxy.ended().await;
    let calls: Vec<&str> = text.lines().filter(|line| line.contains(" = ")).collect();
    // Whoever only looks lets the lock go at once.
    let keeps = |pair: &[&str]| pair[0].contains("LOCK_EX|LOCK_NB") && !pair[1].contains("LOCK_UN");
    let locked = calls.windows(2).rposition(keeps);
    let (first, last) = (locked.unwrap(), calls.len());
    assert!(last - first >= 16, "{text}");

    let places = |lane| (first..=last).skip(lane).step_by(LANES);
    let lanes = join_all((0..LANES).map(|lane| killed_after(places(lane)))).await;
    let (mut all, mut reached) = (Outcomes::default(), BTreeSet::new());
    for (outcomes, places) in lanes {
        all.add(outcomes);
        reached.extend(places);
    }
    eprintln!(
        "{all:?} in {:?}; calls {first} to {last}, reached {reached:?}",
        begun.elapsed()
    );
    assert!(
        all.unspent > 0 && all.lost > 0 && reached.len() >= 8,
        "{all:?} {reached:?}"
    );
}
