//! Owns an agent that asks an API through a proxy all the time, whatever becomes of the proxy.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::Request;
use http_body_util::BodyExt as _;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::door::Door;
use super::operator::{PATIENCE, until};
use super::reply::full;
use super::tunnel::{self, Outgoing};

/// An agent that never rests; it ends when dropped.
pub struct Traffic {
    door: watch::Sender<Door>,
    tally: Arc<Mutex<Tally>>,
    task: JoinHandle<()>,
}

/// What the agent was answered.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Answers 200.
    pub passed: usize,
    /// Other answers, by their text.
    pub refused: BTreeMap<String, usize>,
    /// The last of those.
    pub last_refusal: String,
    /// Connections that broke, or never came about.
    pub broken: usize,
}

impl Tally {
    pub fn refusals(&self) -> usize {
        self.refused.values().sum()
    }
}

impl Traffic {
    /// Asks `host` with `placeholder`, and pauses this long between two requests.
    pub fn at(door: Door, host: &str, placeholder: &str, pause: Duration) -> Self {
        let (door, seen) = watch::channel(door);
        let tally = Arc::new(Mutex::new(Tally::default()));
        let agent = Agent {
            host: host.to_owned(),
            authorization: format!("Bearer {placeholder}"),
            tally: tally.clone(),
        };
        let task = tokio::spawn(agent.work(seen, pause));
        Self { door, tally, task }
    }

    /// Goes through another door from now on: a proxy that was started again has other ports.
    pub fn moves(&self, door: Door) {
        self.door.send_replace(door);
    }

    pub fn tally(&self) -> Tally {
        self.tally.lock().unwrap().clone()
    }

    /// Waits until it gets answers again, from a request that began after this was asked.
    pub async fn passes(&self, what: &str) {
        let before = self.tally().passed;
        // One may be under way already.
        let enough = async || self.tally().passed > before + 1;
        self.wait(what, enough).await;
    }

    /// The same for refusals; returns the last one's text.
    pub async fn is_refused(&self, what: &str) -> String {
        let before = self.tally().refusals();
        let enough = async || self.tally().refusals() > before + 1;
        self.wait(what, enough).await;
        self.tally().last_refusal
    }

    async fn wait(&self, what: &str, enough: impl AsyncFnMut() -> bool) {
        let what = format!(
            "the agent: {what}; last refused: {}",
            self.tally().last_refusal
        );
        until(&what, 2 * PATIENCE, enough).await;
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Agent {
    host: String,
    authorization: String,
    tally: Arc<Mutex<Tally>>,
}

impl Agent {
    async fn work(self, mut door: watch::Receiver<Door>, pause: Duration) {
        let mut connection = None;
        loop {
            if door.has_changed().unwrap_or(false) {
                connection = None;
            }
            if connection.is_none() {
                let door = door.borrow_and_update().clone();
                connection = self.connect(&door).await;
            }
            let answer = match &mut connection {
                Some(sender) => {
                    let asked = tokio::time::timeout(PATIENCE, self.ask(sender));
                    asked.await.ok().flatten()
                }
                None => None,
            };
            if answer.is_none() {
                connection = None;
            }
            self.note(answer);
            tokio::time::sleep(pause).await;
        }
    }

    fn note(&self, answer: Option<(u16, String)>) {
        let mut tally = self.tally.lock().unwrap();
        match answer {
            Some((200, _)) => tally.passed += 1,
            Some((status, text)) => {
                let text = format!("{status}: {text}");
                *tally.refused.entry(text.clone()).or_default() += 1;
                tally.last_refusal = text;
            }
            None => tally.broken += 1,
        }
    }

    async fn connect(&self, door: &Door) -> Option<SendRequest<Outgoing>> {
        let mut stream = TcpStream::connect(door.addr).await.ok()?;
        let target = format!("{}:443", self.host);
        let request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n");
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.ok()?);
        }
        if !head.starts_with(b"HTTP/1.1 200") {
            return None;
        }
        let stream = tunnel::handshake(door, &self.host, &[b"http/1.1"], stream);
        let (sender, connection) = http1::handshake(TokioIo::new(stream.await.ok()?))
            .await
            .ok()?;
        tokio::spawn(async move { connection.await.ok() });
        Some(sender)
    }

    async fn ask(&self, sender: &mut SendRequest<Outgoing>) -> Option<(u16, String)> {
        sender.ready().await.ok()?;
        let request = Request::get("/v1/things")
            .header("host", &self.host)
            .header("authorization", &self.authorization)
            .body(full(""))
            .unwrap();
        let answer = sender.send_request(request).await.ok()?;
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await.ok()?.to_bytes();
        Some((status, String::from_utf8_lossy(&body).into_owned()))
    }
}
