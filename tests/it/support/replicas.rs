//! Owns replicas that keep one grant in a Secret: a cluster, a provider, an API behind it, and proxies
//! whose Role has the documented rules and no other.

use std::time::Duration;

use futures_util::future::join_all;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::agent::Finished;
use super::kube_access::Rule;
use super::kube_api::KubeApi;
use super::kube_objects::Kind;
use super::operator::{PATIENCE, finish, until};
use super::owner::{HOST, Owner, Stored};
use super::proxy::{Proxy, ProxyBuilder, tollgate};
use super::token_server::api::ProtectedApi;
use super::token_server::mint::Issued;
use super::token_server::server::{TokenServer, token_server};
use super::traffic::Traffic;

pub const SECRET: &str = "login-grant";
pub const KEY: &str = "grant.json";
pub const LEASE: &str = "tollgate-login-grant";
/// Short enough to watch a Lease run out, long enough for a busy machine.
pub const BRISK: &str = "leaseDuration: 4s, abandonedAfter: 10s";
pub const HOUR: Duration = Duration::from_secs(3600);
/// Between two requests of an agent.
const PAUSE: Duration = Duration::from_millis(50);

/// The rules of the Role in the README.
pub fn role() -> Vec<Rule> {
    vec![
        Rule::named(Kind::Secret, SECRET, &["get", "patch"]),
        Rule::all(Kind::Lease, &["create"]),
        Rule::named(Kind::Lease, LEASE, &["get", "update"]),
    ]
}

/// The same without the right to write the Secret.
pub fn readers_role() -> Vec<Rule> {
    let mut rules = role();
    rules[0] = Rule::named(Kind::Secret, SECRET, &["get"]);
    rules
}

/// Everything around the replicas.
pub struct Cluster {
    pub kube: KubeApi,
    pub server: TokenServer,
    pub api: ProtectedApi,
    /// Of `store.kubernetesSecret`.
    times: String,
    /// More of `source.oauth`.
    lines: Vec<String>,
}

/// A proxy with an agent that never rests.
pub struct Replica {
    /// Its ServiceAccount.
    pub account: String,
    pub proxy: Proxy,
    pub traffic: Traffic,
}

impl Cluster {
    /// A provider whose access tokens live that long, and a Secret with one other key.
    pub async fn new(lifetime: Duration, times: &str, lines: &[&str]) -> Self {
        let server = token_server().lifetime(lifetime).start().await;
        let kube = KubeApi::start().await;
        kube.put_secret(SECRET, &[("other", b"untouched")]);
        Self {
            api: server.protected_api(&[HOST]).await,
            kube,
            server,
            times: times.to_owned(),
            lines: lines.iter().map(|line| (*line).to_owned()).collect(),
        }
    }

    /// The same with a login in the Secret whose access token is fresh.
    pub async fn with_login(lifetime: Duration, times: &str, lines: &[&str]) -> Self {
        let cluster = Self::new(lifetime, times, lines).await;
        let login = cluster.server.login();
        let now = Timestamp::now();
        let end = now + SignedDuration::try_from(login.lifetime).unwrap();
        let record = json!({
            "kind": "tollgate.dev/oauth-grant",
            "version": 1,
            "generation": 1,
            "tokens": {
                "access": login.access_token,
                "refresh": login.refresh(),
                "issuedAt": now.to_string(),
                "expiresAt": end.to_string(),
            },
        });
        cluster.put_beside(&[(KEY, record.to_string().as_bytes())]);
        cluster
    }

    /// Edits keys of the Secret as an operator does; the others stay.
    pub fn put_beside(&self, values: &[(&str, &[u8])]) {
        let mut all: Vec<(&str, Vec<u8>)> = [KEY, "other"]
            .into_iter()
            .filter_map(|key| Some((key, self.kube.secret_value(SECRET, key)?)))
            .collect();
        all.retain(|(key, _)| values.iter().all(|(new, _)| new != key));
        let kept = all.iter().map(|(key, value)| (*key, value.as_slice()));
        let all: Vec<(&str, &[u8])> = kept.chain(values.iter().copied()).collect();
        self.kube.put_secret(SECRET, &all);
    }

    /// A replica that is not started yet, with a ServiceAccount of its own.
    pub fn builder(&self, account: &str) -> ProxyBuilder {
        let kubeconfig = self.kube.kubeconfig(&self.kube.account(account, role()));
        let builder = self.without_cluster();
        builder.env("KUBECONFIG", kubeconfig.to_str().unwrap())
    }

    /// One that knows of no cluster.
    pub fn without_cluster(&self) -> ProxyBuilder {
        let mut owner = Owner::of(&self.server, &self.api)
            .with("timeout: 5s")
            .with(&format!(
                "store: {{kubernetesSecret: {{name: {SECRET}, {}}}}}",
                self.times
            ));
        for line in &self.lines {
            owner = owner.with(line);
        }
        owner.build().secret(self.server.sentinel())
    }

    pub async fn start(&self, count: usize) -> Vec<Replica> {
        let starting = (0..count).map(|n| self.replica(format!("replica-{n}")));
        join_all(starting).await
    }

    pub async fn pair(&self) -> (Replica, Replica) {
        let mut both = self.start(2).await.into_iter();
        (both.next().unwrap(), both.next().unwrap())
    }

    pub async fn replica(&self, account: String) -> Replica {
        let proxy = self.builder(&account).start().await;
        Replica {
            account,
            traffic: proxy.traffic(PAUSE),
            proxy,
        }
    }

    /// A command on a machine that is no pod and runs no proxy.
    pub async fn outside(&self, builder: &ProxyBuilder, args: &[&str]) -> Finished {
        let config = builder.write();
        let mut command = tollgate(builder.path("").as_path(), &builder.env);
        command.args(args).arg("--config").arg(config);
        finish(command).await
    }

    /// A file with a login, as Claude Code writes it.
    pub fn login_file(&self, builder: &ProxyBuilder, login: &Issued) -> String {
        let end = Timestamp::now() + SignedDuration::try_from(login.lifetime).unwrap();
        let file = json!({"claudeAiOauth": {
            "accessToken": login.access_token,
            "refreshToken": login.refresh(),
            "expiresAt": end.as_millisecond(),
            "scopes": login.scope.split(' ').collect::<Vec<_>>(),
        }});
        let path = builder.path("login.json");
        std::fs::write(&path, file.to_string()).unwrap();
        path.to_str().unwrap().to_owned()
    }

    pub fn stored(&self) -> Stored {
        let bytes = self.kube.secret_value(SECRET, KEY).expect("a record");
        Stored(serde_json::from_slice(&bytes).unwrap())
    }

    /// The accounts that stored new tokens, with the generation, in order.
    pub fn renewals(&self) -> Vec<(String, u64)> {
        let mut seen = 0;
        let mut renewals = Vec::new();
        for write in self.kube.writes(Kind::Secret, SECRET) {
            let generation = record(&write.object).map_or(0, |record| record.generation());
            if generation > seen && write.account != "operator" {
                renewals.push((write.account.clone(), generation));
            }
            seen = seen.max(generation);
        }
        renewals
    }

    /// Who began the renewal that has no result yet.
    pub fn redeemer(&self) -> String {
        let writes = self.kube.writes(Kind::Secret, SECRET);
        let begun = |object: &Value| record(object).is_some_and(|record| record.has_intent());
        let last = writes.iter().rfind(|write| begun(&write.object));
        last.expect("a renewal was begun").account.clone()
    }

    /// Nothing was lost, redeemed twice or used too long; only what is ours was written.
    #[track_caller]
    pub fn assert_clean(&self) {
        self.server.truth().assert_one_clean_grant();
        self.assert_orderly();
    }

    /// The same for a grant that is gone.
    #[track_caller]
    pub fn assert_orderly(&self) {
        self.api.assert_no_stale_token();
        self.server.truth().assert_no_violation();
        let overlaps = self.kube.overlaps();
        assert!(overlaps.is_empty(), "{overlaps:#?}");
        assert!(self.kube.secret_value(SECRET, "other").is_some());
    }
}

/// What a Secret holds of a grant.
fn record(secret: &Value) -> Option<Stored> {
    use base64::Engine as _;
    let coded = secret["data"][KEY].as_str()?;
    let bytes = base64::engine::general_purpose::STANDARD.decode(coded);
    Some(Stored(serde_json::from_slice(&bytes.unwrap()).unwrap()))
}

impl Replica {
    /// Has it renew, and leaves it alone once `reached` is.
    pub async fn begins<T>(&self, reached: impl Future<Output = T>) -> T {
        tokio::select! {
            said = self.proxy.refresh() => panic!("it was not held: {said:?}"),
            reached = reached => reached,
        }
    }

    /// Grows with each new token.
    pub async fn version(&self) -> u64 {
        self.proxy.login().await["version"].as_u64().unwrap()
    }

    /// Waits until it has a newer token than that one.
    pub async fn renewed_since(&self, version: u64) {
        let what = format!("{} has a new token", self.account);
        until(&what, 2 * PATIENCE, async || self.version().await > version).await;
    }

    /// Waits until its state says this.
    pub async fn says(&self, words: &str) {
        let mut login = Value::Null;
        let what = format!("{} says {words:?}", self.account);
        until(&what, 2 * PATIENCE, async || {
            login = self.proxy.login().await;
            let error = login["lastError"].as_str();
            error.is_some_and(|error| error.contains(words))
        })
        .await;
    }

    /// Its agent has been served all the time.
    #[track_caller]
    pub fn assert_no_gap(&self) {
        let tally = self.traffic.tally();
        let bad = (tally.refusals(), tally.broken);
        assert_eq!(bad, (0, 0), "{}: {tally:?}", self.account);
    }

    /// Starts it again, after it was killed.
    pub async fn restart(&mut self) {
        self.proxy.restart().await;
        self.traffic.moves(self.proxy.bare_door());
    }
}
