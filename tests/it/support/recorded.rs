//! Owns what an origin remembers of each request: everything that came over the wire.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, Method, Version};
use tokio::sync::Notify;

/// One request as the origin read it.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// The server name of the TLS handshake.
    pub sni: Option<String>,
    pub version: Version,
    pub method: Method,
    /// Path and query, byte-exact.
    pub target: String,
    /// `:authority` or `Host`.
    pub authority: String,
    /// In the order they came; names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub trailers: Vec<(String, String)>,
    /// The body was read to its proper end.
    pub complete: bool,
    /// The other side went away before that.
    pub cut: bool,
}

impl Recorded {
    pub fn new(head: &http::request::Parts, sni: Option<String>) -> Self {
        let target = head
            .uri
            .path_and_query()
            .map_or_else(|| head.uri.to_string(), ToString::to_string);
        let host = head
            .headers
            .get("host")
            .map(|h| String::from_utf8_lossy(h.as_bytes()).into_owned());
        Self {
            sni,
            version: head.version,
            method: head.method.clone(),
            target,
            authority: host.unwrap_or_else(|| {
                head.uri
                    .authority()
                    .map(ToString::to_string)
                    .unwrap_or_default()
            }),
            headers: fields(&head.headers),
            body: Vec::new(),
            trailers: Vec::new(),
            complete: false,
            cut: false,
        }
    }

    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    /// All values of a field, in order.
    pub fn all(&self, name: &str) -> Vec<&str> {
        self.headers
            .iter()
            .filter(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, v)| v.as_str())
            .collect()
    }

    /// The value of a field that came once or not at all.
    #[track_caller]
    pub fn header(&self, name: &str) -> Option<&str> {
        let all = self.all(name);
        assert!(all.len() < 2, "{name} came {} times: {all:?}", all.len());
        all.first().copied()
    }

    pub fn bearer(&self) -> Option<&str> {
        self.header("authorization")?.strip_prefix("Bearer ")
    }

    /// User and password of `Authorization: Basic`.
    pub fn basic(&self) -> Option<(String, String)> {
        let coded = self.header("authorization")?.strip_prefix("Basic ")?;
        let plain = String::from_utf8(STANDARD.decode(coded).ok()?).ok()?;
        let (user, password) = plain.split_once(':')?;
        Some((user.to_owned(), password.to_owned()))
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| {
            panic!(
                "body of {} is no JSON ({e}): {:?}",
                self.target,
                String::from_utf8_lossy(&self.body)
            )
        })
    }

    /// Whether the text stands anywhere in the request's head: raw, percent-encoded, or inside Basic.
    pub fn head_mentions(&self, text: &str) -> bool {
        let target = percent_encoding::percent_decode_str(&self.target)
            .decode_utf8_lossy()
            .into_owned();
        let basic = self.basic().map(|(u, p)| format!("{u}:{p}"));
        [Some(target), Some(self.target.clone()), basic]
            .into_iter()
            .flatten()
            .chain(self.headers.iter().map(|(_, v)| v.clone()))
            .any(|place| place.contains(text))
    }
}

pub fn sha256(bytes: &[u8]) -> Vec<u8> {
    aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes)
        .as_ref()
        .to_vec()
}

pub fn fields(map: &HeaderMap) -> Vec<(String, String)> {
    map.iter()
        .map(|(n, v)| {
            (
                n.to_string(),
                String::from_utf8_lossy(v.as_bytes()).into_owned(),
            )
        })
        .collect()
}

/// All requests of one origin.
#[derive(Default)]
pub struct RequestLog {
    entries: Mutex<Vec<Arc<Mutex<Recorded>>>>,
    changed: Notify,
}

impl RequestLog {
    pub fn open(&self, recorded: Recorded) -> Arc<Mutex<Recorded>> {
        let entry = Arc::new(Mutex::new(recorded));
        self.entries.lock().unwrap().push(entry.clone());
        self.changed.notify_waiters();
        entry
    }

    pub fn append(&self, entry: &Mutex<Recorded>, bytes: &Bytes) {
        entry.lock().unwrap().body.extend_from_slice(bytes);
        self.changed.notify_waiters();
    }

    pub fn close(&self, entry: &Mutex<Recorded>, trailers: Option<&HeaderMap>) {
        let mut entry = entry.lock().unwrap();
        entry.trailers = trailers.map(fields).unwrap_or_default();
        entry.complete = true;
        drop(entry);
        self.changed.notify_waiters();
    }

    pub fn cut(&self, entry: &Mutex<Recorded>) {
        entry.lock().unwrap().cut = true;
        self.changed.notify_waiters();
    }

    pub fn all(&self) -> Vec<Recorded> {
        let entries = self.entries.lock().unwrap();
        entries.iter().map(|e| e.lock().unwrap().clone()).collect()
    }

    /// Gives all of them up, but for those that are still being read.
    #[allow(dead_code)] // wanted by the soak alone
    pub fn take(&self) -> Vec<Recorded> {
        let mut entries = self.entries.lock().unwrap();
        let all = std::mem::take(&mut *entries).into_iter();
        let (ended, open): (Vec<_>, Vec<_>) = all.partition(|entry| {
            let entry = entry.lock().unwrap();
            entry.complete || entry.cut
        });
        *entries = open;
        let ended = ended.iter().map(|entry| entry.lock().unwrap().clone());
        ended.collect()
    }

    /// Waits until a request is as wanted.
    pub async fn wait_for(&self, what: &str, wanted: impl Fn(&Recorded) -> bool) -> Recorded {
        let found = tokio::time::timeout(Duration::from_secs(20), async {
            loop {
                let changed = self.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                if let Some(found) = self.all().into_iter().find(&wanted) {
                    return found;
                }
                changed.await;
            }
        });
        found
            .await
            .unwrap_or_else(|_| panic!("the origin never saw {what}; it saw {:#?}", self.all()))
    }
}
