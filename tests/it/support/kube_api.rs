//! Owns a strict stand-in for the part of a Kubernetes API server that a token store needs: Secrets and
//! Leases over TLS, with optimistic concurrency, RBAC, and faults that a test switches on and off.
//!
//! It answers as kube-apiserver does where its source says so; what that one lets pass with a warning
//! (unknown fields and parameters) is refused here and remembered as a violation. A test that leaves
//! violations behind fails.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{HeaderMap, Request};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use kube::Config;
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use super::ca::TestCa;
use super::kube_access::{Account, Rule};
use super::kube_faults::{Fault, Gate, Gates, Stage};
use super::kube_objects::{Author, Change, Key, Kind, Overlap, Run, Store, Write};
use super::kube_request::{self as read, MAX_BODY, View};
use super::kube_status::Refusal;
use super::origin::acceptor;
use super::reply::{self, Reply};

/// Where the accounts of a test and their objects live.
pub const NAMESPACE: &str = "egress-system";

/// A running API server; ends when dropped.
pub struct KubeApi {
    pub addr: SocketAddr,
    ca_pem: String,
    state: Arc<State>,
    files: TempDir,
    accept: JoinHandle<()>,
}

/// A request by an account that the server knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    pub account: String,
    pub method: String,
    /// Path and query.
    pub target: String,
}

/// The files and variables that a pod gets.
pub struct InCluster {
    /// Holds `token`, `ca.crt` and `namespace`.
    pub folder: PathBuf,
    /// `KUBERNETES_SERVICE_HOST`
    pub host: String,
    /// `KUBERNETES_SERVICE_PORT`
    pub port: String,
}

#[derive(Default)]
struct State {
    clients: Mutex<Vec<Client>>,
    store: Mutex<Store>,
    asked: Mutex<Vec<Asked>>,
    violations: Mutex<Vec<String>>,
    gates: Gates,
    /// Counts what happened, for those who wait.
    changes: watch::Sender<u64>,
}

struct Client {
    account: Account,
    fault: Option<Fault>,
    once: VecDeque<Fault>,
    /// How many writes to a kind of object are done and not answered.
    unanswered: BTreeMap<Kind, usize>,
}

/// How a request ends.
enum End {
    Answer(Reply),
    Cut,
}

impl Drop for KubeApi {
    fn drop(&mut self) {
        self.accept.abort();
        let left = self.take_violations();
        if !std::thread::panicking() {
            assert!(left.is_empty(), "sent to the Kubernetes API: {left:#?}");
        }
    }
}

impl KubeApi {
    pub async fn start() -> Self {
        let ca = TestCa::new();
        let tls = acceptor(ca.leaf(&["127.0.0.1", "localhost"]), &[b"http/1.1"]);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let state = Arc::new(State::default());
        let serving = state.clone();
        let accept = tokio::spawn(async move {
            let mut connections = JoinSet::new(); // ends them all with the server
            while let Ok((stream, _)) = listener.accept().await {
                let (tls, state) = (tls.clone(), serving.clone());
                connections.spawn(async move {
                    stream.set_nodelay(true).unwrap();
                    let Ok(stream) = tls.accept(stream).await else {
                        return; // a client that does not trust us: its own test notices
                    };
                    let service = service_fn(move |request| serve(request, state.clone()));
                    let mut server = hyper::server::conn::http1::Builder::new();
                    let connection = server
                        .timer(TokioTimer::new())
                        .serve_connection(TokioIo::new(stream), service);
                    connection.await.ok();
                });
                while connections.try_join_next().is_some() {}
            }
        });
        Self {
            addr,
            ca_pem: ca.pem().to_owned(),
            state,
            files: tempfile::tempdir().unwrap(),
            accept,
        }
    }

    /// Makes a ServiceAccount in [`NAMESPACE`] whose Role has these rules; returns its token.
    pub fn account(&self, name: &str, rules: Vec<Rule>) -> String {
        let token = format!("kube-token-of-{name}");
        self.state.clients.lock().unwrap().push(Client {
            account: Account {
                name: name.to_owned(),
                token: token.clone(),
                namespace: NAMESPACE.to_owned(),
                rules,
            },
            fault: None,
            once: VecDeque::new(),
            unanswered: BTreeMap::new(),
        });
        token
    }

    /// Replaces the rules of an account's Role.
    pub fn set_rules(&self, account: &str, rules: Vec<Rule>) {
        self.change_client(account, |client| client.account.rules = rules);
    }

    /// From now on, until healed.
    pub fn fault(&self, account: &str, fault: Fault) {
        self.change_client(account, |client| client.fault = Some(fault));
    }

    /// For one request; several are used up in order. [`Fault::LoseAnswer`] waits for a write.
    pub fn fault_once(&self, account: &str, fault: Fault) {
        self.change_client(account, |client| client.once.push_back(fault));
    }

    /// [`Fault::LoseAnswer`] for the next writes to this kind of object, and no others.
    pub fn lose_answers(&self, account: &str, kind: Kind, writes: usize) {
        self.change_client(account, |client| {
            client.unanswered.insert(kind, writes);
        });
    }

    pub fn heal(&self, account: &str) {
        self.change_client(account, |client| {
            client.fault = None;
            client.once.clear();
            client.unanswered.clear();
        });
    }

    /// Holds this account's writes to this kind of object. Dry runs pass.
    pub fn hold(&self, account: &str, kind: Kind, stage: Stage) -> Gate {
        self.state.gates.hold(account, kind, stage)
    }

    /// A kubeconfig for `kube::Client` and kubectl.
    pub fn kubeconfig(&self, token: &str) -> PathBuf {
        let text = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "fake", "cluster": {
                "server": format!("https://{}", self.addr),
                "certificate-authority-data": base64(self.ca_pem.as_bytes()),
            }}],
            "users": [{"name": "account", "user": {"token": token}}],
            "contexts": [{"name": "fake", "context": {
                "cluster": "fake", "user": "account", "namespace": NAMESPACE,
            }}],
            "current-context": "fake",
        });
        let path = self.files.path().join(format!("{token}.kubeconfig"));
        std::fs::write(&path, text.to_string()).unwrap(); // JSON is YAML
        path
    }

    /// The `kube` crate's own client, which repeats nothing.
    pub async fn client(&self, token: &str) -> kube::Client {
        let kubeconfig = Kubeconfig::read_from(self.kubeconfig(token)).unwrap();
        let options = KubeConfigOptions::default();
        let config = Config::from_custom_kubeconfig(kubeconfig, &options).await;
        let mut config = config.unwrap();
        config.default_retry = false;
        kube::Client::try_from(config).unwrap()
    }

    /// What a pod of this account finds in `/var/run/secrets/kubernetes.io/serviceaccount`.
    pub fn in_cluster(&self, token: &str) -> InCluster {
        let folder = self.files.path().join(format!("{token}.serviceaccount"));
        std::fs::create_dir_all(&folder).unwrap();
        for (name, text) in [
            ("token", token),
            ("ca.crt", &self.ca_pem),
            ("namespace", NAMESPACE),
        ] {
            std::fs::write(folder.join(name), text).unwrap();
        }
        InCluster {
            folder,
            host: self.addr.ip().to_string(),
            port: self.addr.port().to_string(),
        }
    }

    /// Puts an object of [`NAMESPACE`] in place, new or instead of another; returns its version.
    pub fn put(&self, kind: Kind, name: &str, object: Value) -> String {
        let mut object = object;
        object["apiVersion"] = json!(kind.api_version());
        object["kind"] = json!(kind.name());
        object["metadata"]["name"] = json!(name);
        let key = key(kind, name);
        let operator = Author {
            account: "operator".to_owned(),
            user_agent: "test".to_owned(),
        };
        let mut store = self.state.store.lock().unwrap();
        let change = match store.get(&key) {
            // A Lease needs its version in a PUT.
            Ok(old) => {
                object["metadata"]["resourceVersion"] = old["metadata"]["resourceVersion"].clone();
                Change::Replace(object)
            }
            Err(_) => Change::Create(object),
        };
        let written = store.write(&key, change, Run::Real, &operator);
        let (_, object) = written.unwrap_or_else(|e| panic!("{e:?}"));
        drop(store);
        self.state.changed();
        version(&object)
    }

    /// Puts a Secret in place that has these values.
    pub fn put_secret(&self, name: &str, values: &[(&str, &[u8])]) -> String {
        let data: Value = values
            .iter()
            .map(|(key, value)| ((*key).to_owned(), json!(base64(value))))
            .collect::<serde_json::Map<_, _>>()
            .into();
        self.put(Kind::Secret, name, json!({"metadata": {}, "data": data}))
    }

    pub fn remove(&self, kind: Kind, name: &str) {
        let removed = self.state.store.lock().unwrap().remove(&key(kind, name));
        assert!(removed.is_some(), "there is no {name}");
        self.state.changed();
    }

    /// The object of [`NAMESPACE`] as it stands.
    pub fn object(&self, kind: Kind, name: &str) -> Option<Value> {
        self.state.store.lock().unwrap().get(&key(kind, name)).ok()
    }

    /// A value of a Secret as it stands.
    pub fn secret_value(&self, name: &str, entry: &str) -> Option<Vec<u8>> {
        let store = self.state.store.lock().unwrap();
        store.secret_value(&key(Kind::Secret, name), entry)
    }

    /// Who holds a Lease, by what stands in it.
    pub fn holder(&self, lease: &str) -> Option<String> {
        let lease = self.object(Kind::Lease, lease)?;
        lease["spec"]["holderIdentity"]
            .as_str()
            .map(ToOwned::to_owned)
    }

    /// Every write that was done to an object of [`NAMESPACE`], in order.
    pub fn writes(&self, kind: Kind, name: &str) -> Vec<Write> {
        let wanted = key(kind, name);
        let store = self.state.store.lock().unwrap();
        let all = store.writes.iter().filter(|w| w.key == wanted);
        all.cloned().collect()
    }

    /// Every time a Lease was taken from a holder whose time was not over.
    pub fn overlaps(&self) -> Vec<Overlap> {
        self.state.store.lock().unwrap().overlaps.clone()
    }

    /// Every request with a known token, also those that a fault kept from being done.
    pub fn asked(&self, account: &str) -> Vec<Asked> {
        let mut all = self.state.asked.lock().unwrap().clone();
        all.retain(|asked| asked.account == account);
        all
    }

    /// What no client of ours should have sent; they are forgotten with this.
    pub fn take_violations(&self) -> Vec<String> {
        std::mem::take(&mut *self.state.violations.lock().unwrap())
    }

    /// Waits until `found` finds something; it is asked again whenever something happened here.
    pub async fn wait_for<T>(&self, what: &str, found: impl Fn(&Self) -> Option<T>) -> T {
        let mut changes = self.state.changes.subscribe();
        let waited = tokio::time::timeout(Duration::from_secs(20), async {
            loop {
                changes.mark_unchanged();
                if let Some(found) = found(self) {
                    return found;
                }
                changes.changed().await.unwrap();
            }
        });
        waited
            .await
            .unwrap_or_else(|_| panic!("the Kubernetes API never saw {what}"))
    }

    fn change_client(&self, name: &str, change: impl FnOnce(&mut Client)) {
        let mut clients = self.state.clients.lock().unwrap();
        let found = clients.iter_mut().find(|c| c.account.name == name);
        change(found.unwrap_or_else(|| panic!("there is no account {name}")));
    }
}

/// An object of [`NAMESPACE`].
pub fn key(kind: Kind, name: &str) -> Key {
    Key {
        kind,
        namespace: NAMESPACE.to_owned(),
        name: name.to_owned(),
    }
}

/// An object's `resourceVersion`.
pub fn version(object: &Value) -> String {
    object["metadata"]["resourceVersion"]
        .as_str()
        .unwrap_or_else(|| panic!("no version in {object}"))
        .to_owned()
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

async fn serve(request: Request<Incoming>, state: Arc<State>) -> io::Result<Reply> {
    // A task of its own: what was received is done even if the client has hung up meanwhile.
    match tokio::spawn(handle(request, state)).await {
        Ok(End::Answer(reply)) => Ok(reply),
        _ => Err(io::Error::other("cut")),
    }
}

async fn handle(request: Request<Incoming>, state: Arc<State>) -> End {
    let (head, body) = request.into_parts();
    let account = match state.account(&head.headers) {
        Ok(account) => account,
        Err(refusal) => return End::Answer(refusal.reply()),
    };
    state.note(&account, &head);
    let fault = state.fault(&account, &head.method);
    if let Some(end) = suffer(fault).await {
        return end;
    }
    match answer(&state, &account, fault, head, body).await {
        Ok(Some(_)) if fault == Some(Fault::LoseAnswer) => End::Cut,
        Ok(Some(reply)) => End::Answer(reply),
        Ok(None) => End::Cut,
        Err(refusal) => {
            if refusal.violation {
                let violation = format!("{}: {}", account.name, refusal.message);
                state.violations.lock().unwrap().push(violation);
            }
            End::Answer(refusal.reply())
        }
    }
}

/// What a fault does before anything is read of the request's sense.
async fn suffer(fault: Option<Fault>) -> Option<End> {
    match fault? {
        Fault::Close => Some(End::Cut),
        Fault::Hang => std::future::pending().await,
        Fault::Latency(time) => {
            tokio::time::sleep(time).await;
            None
        }
        Fault::TooManyRequests(seconds) => {
            let reply = Refusal::too_many_requests().reply();
            let reply = reply::with(reply, "retry-after", &seconds.to_string());
            Some(End::Answer(reply))
        }
        Fault::Broken(code) => Some(End::Answer(Refusal::broken(code).reply())),
        Fault::Deny | Fault::LoseAnswer => None,
    }
}

/// `None` if the client went away before it had sent everything, or gets no answer.
async fn answer(
    state: &State,
    account: &Account,
    fault: Option<Fault>,
    head: http::request::Parts,
    body: Incoming,
) -> Result<Option<Reply>, Refusal> {
    let mut key = read::key(head.uri.path())?;
    let verb = read::verb(&head.method, &key)?;
    if !account.may(verb, &key) {
        return Err(Refusal::forbidden(&account.user(), verb, &key));
    }
    let run = read::run(verb, head.uri.query())?;
    let view = read::view(&head.headers)?;
    let body = match Limited::new(body, MAX_BODY).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => {
            return Err(Refusal::too_large());
        }
        Err(_) => return Ok(None),
    };
    let Some(change) = read::change(verb, &key, &head.headers, &body)? else {
        let found = state.store.lock().unwrap().get(&key)?;
        return Ok(Some(shown(200, found, view)));
    };
    if fault == Some(Fault::Deny) {
        return Err(Refusal::denied(&key, &body));
    }
    if let Change::Create(object) = &change {
        let name = object["metadata"]["name"].as_str();
        key.name = name.unwrap_or_default().to_owned();
    }
    let author = Author {
        account: account.name.clone(),
        user_agent: header(&head.headers, "user-agent"),
    };
    if run == Run::Real {
        state.gates.pass(&account.name, &key, Stage::Received).await;
    }
    let written = state
        .store
        .lock()
        .unwrap()
        .write(&key, change, run, &author);
    let (code, object) = written?;
    state.changed();
    if run == Run::Real {
        state
            .gates
            .pass(&account.name, &key, Stage::Committed)
            .await;
        if state.loses_answer(account, key.kind) {
            return Ok(None);
        }
    }
    Ok(Some(shown(code, object, view)))
}

fn shown(code: u16, object: Value, view: View) -> Reply {
    match view {
        View::Whole => reply::json(code, &object),
        View::Metadata => reply::json(
            code,
            &json!({
                "kind": "PartialObjectMetadata",
                "apiVersion": "meta.k8s.io/v1",
                "metadata": object["metadata"],
            }),
        ),
    }
}

fn header(headers: &HeaderMap, name: &str) -> String {
    let value = headers.get(name).and_then(|v| v.to_str().ok());
    value.unwrap_or_default().to_owned()
}

impl State {
    fn account(&self, headers: &HeaderMap) -> Result<Account, Refusal> {
        let all: Vec<_> = headers.get_all("authorization").iter().collect();
        let [one] = all.as_slice() else {
            return Err(Refusal::unauthorized());
        };
        let token = one.to_str().ok().and_then(|v| v.strip_prefix("Bearer "));
        let clients = self.clients.lock().unwrap();
        let found = clients
            .iter()
            .find(|c| Some(c.account.token.as_str()) == token);
        found
            .map(|c| c.account.clone())
            .ok_or_else(Refusal::unauthorized)
    }

    fn note(&self, account: &Account, head: &http::request::Parts) {
        self.asked.lock().unwrap().push(Asked {
            account: account.name.clone(),
            method: head.method.to_string(),
            target: head.uri.to_string(),
        });
        self.changed();
    }

    fn fault(&self, account: &Account, method: &http::Method) -> Option<Fault> {
        let mut clients = self.clients.lock().unwrap();
        let client = clients
            .iter_mut()
            .find(|c| c.account.name == account.name)?;
        let waits = *method == "GET";
        let next = client.once.front().copied();
        match next {
            Some(Fault::LoseAnswer) if waits => client.fault,
            Some(fault) => {
                client.once.pop_front();
                Some(fault)
            }
            None if waits && client.fault == Some(Fault::LoseAnswer) => None,
            None => client.fault,
        }
    }

    fn loses_answer(&self, account: &Account, kind: Kind) -> bool {
        let mut clients = self.clients.lock().unwrap();
        let client = clients.iter_mut().find(|c| c.account.name == account.name);
        let left = client.and_then(|client| client.unanswered.get_mut(&kind));
        let Some(left) = left.filter(|left| **left > 0) else {
            return false;
        };
        *left -= 1;
        true
    }

    fn changed(&self) {
        self.changes.send_modify(|n| *n += 1);
    }
}
