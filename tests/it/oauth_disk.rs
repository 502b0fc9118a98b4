//! Tollgate never loses a grant to a disk: one that is full, and one that is read-only, found at start and later.

use std::time::Duration;

use crate::support::operator::{PATIENCE, until};
use crate::support::owner::{Owner, Stored};
use crate::support::proxy::Proxy;
use crate::support::token_server::api::ProtectedApi;
use crate::support::token_server::fault::Stage;
use crate::support::token_server::server::{TokenServer, token_server};
use crate::support::traffic::Traffic;
use crate::support::volume::Volume;

/// Between two requests of an agent.
const PAUSE: Duration = Duration::from_millis(30);
/// Endpoints tell whole seconds: nine tenths of one are to spare.
const LIFETIME: Duration = Duration::from_millis(12_900);
/// A renewal is tried three seconds after the last one.
const EARLY: &str = "refreshBefore: 9s";

/// The volume, or a visible skip.
macro_rules! volume {
    ($kib:expr) => {
        match Volume::mounted($kib) {
            Some(volume) => volume,
            None => return,
        }
    };
}

/// A proxy whose store is on a volume.
struct Scene {
    server: TokenServer,
    api: ProtectedApi,
    proxy: Proxy,
    traffic: Traffic,
}

impl Scene {
    async fn on(volume: &Volume, lifetime: Duration) -> Self {
        let server = token_server().lifetime(lifetime).start().await;
        let api = server.protected_api(&["api.example.com"]).await;
        let owner = Owner::of(&server, &api).with(EARLY);
        let owner = owner.store(&volume.file("grant.json"));
        let proxy = owner.seeded(server.login().refresh()).start().await;
        let traffic = proxy.traffic(PAUSE);
        traffic.passes("its first token").await;
        Self {
            server,
            api,
            proxy,
            traffic,
        }
    }

    fn calls(&self) -> usize {
        self.server.origin.requests().len()
    }

    /// Nothing is redeemed; the token is used until its end; people are told of the mount.
    async fn holds_still(&self, volume: &Volume, calls: usize, says: &[&str]) {
        let mut why = String::new();
        until("a renewal fails", 2 * PATIENCE, async || {
            let error = self.proxy.login().await["lastError"].clone();
            why = error.as_str().unwrap_or_default().to_owned();
            !why.is_empty()
        })
        .await;
        let mount = volume.path().display().to_string();
        for said in says.iter().chain(&[mount.as_str()]) {
            assert!(why.contains(said), "{why}");
        }
        assert_eq!(self.traffic.tally().refusals(), 0);
        self.traffic.passes("the old token is still good").await;
        let told = self.traffic.is_refused("its token has ended").await;
        assert!(told.contains("has expired"), "{told}");
        assert_eq!(self.calls(), calls);
        let stored = Stored::read(&volume.file("grant.json")).unwrap();
        assert_eq!(stored.refresh_token(), self.server.truth().refresh_token());
        assert!(!stored.has_intent(), "{stored:?}");
    }

    #[track_caller]
    fn assert_clean(&self) {
        let truth = self.server.truth();
        truth.assert_one_clean_grant();
        assert_eq!(truth.refused, 0);
        self.api.assert_no_stale_token();
    }
}

#[tokio::test]
async fn without_room_for_the_answer_a_refresh_token_is_not_redeemed() {
    let volume = volume!(128);
    let scene = Scene::on(&volume, LIFETIME).await;
    let calls = scene.calls();
    volume.fill();
    scene
        .holds_still(&volume, calls, &["there is no room", "free space"])
        .await;
    volume.make_room();
    scene.traffic.passes("there is room again").await;
    scene.assert_clean();
}

#[tokio::test]
async fn what_fills_the_disk_while_the_endpoint_answers_does_not_keep_the_answer_out() {
    let volume = volume!(128);
    let scene = Scene::on(&volume, Duration::from_secs(3600)).await;
    for stage in [Stage::Received, Stage::Rotated] {
        let gate = scene.server.gate(stage);
        let filling = async {
            gate.arrived(1).await;
            volume.fill();
            gate.open();
        };
        let (said, ()) = tokio::join!(scene.proxy.refresh(), filling);
        assert_eq!(said.status, 200, "{}", said.text);
        let stored = Stored::read(&volume.file("grant.json")).unwrap();
        assert_eq!(stored.refresh_token(), scene.server.truth().refresh_token());
        scene.traffic.passes("the new token").await;
        volume.make_room();
    }
    scene.assert_clean();
}

#[tokio::test]
async fn on_a_disk_that_became_read_only_nothing_is_redeemed_until_it_can_be_written() {
    let volume = volume!(128);
    let scene = Scene::on(&volume, LIFETIME).await;
    let calls = scene.calls();
    volume.remount("ro").await;
    scene
        .holds_still(&volume, calls, &["read-only mount"])
        .await;
    volume.remount("rw").await;
    scene.traffic.passes("it can be written again").await;
    scene.assert_clean();
}

#[tokio::test]
async fn a_store_that_can_keep_nothing_is_found_at_start_with_its_mount_and_the_way_out() {
    let volume = volume!(64);
    let server = token_server().start().await;
    let api = server.protected_api(&["api.example.com"]).await;
    let login = server.login();
    let starts = async || {
        let owner = Owner::of(&server, &api).store(&volume.file("grant.json"));
        let ended = owner.seeded(login.refresh()).build().serve_ends().await;
        let mount = volume.path().display().to_string();
        assert_eq!(ended.code, Some(78), "{}", ended.stderr);
        assert!(ended.stderr.contains(&mount), "{}", ended.stderr);
        ended.stderr
    };
    volume.fill();
    let said = starts().await;
    assert!(
        said.contains("there is no room") && said.contains("larger volume"),
        "{said}"
    );
    volume.make_room();
    volume.remount("ro").await;
    let said = starts().await;
    assert!(
        said.contains("read-only mount") && said.contains("PersistentVolumeClaim"),
        "{said}"
    );
    assert_eq!(server.origin.requests().len(), 0);
}
