//! Owns an agent that asks models with requests written by hand, and reads the answers octet by octet.

use std::net::SocketAddr;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::anthropic::REAL_KEY as ANTHROPIC_KEY;
use super::door::{Door, Relay};
use super::openai::REAL_KEY as OPENAI_KEY;
use super::provider::clouds::{
    AZURE, AZURE_KEY, BEDROCK, BEDROCK_KEY, OLLAMA, PUBLISHERS, VERTEX, VERTEX_TOKEN,
};
use super::provider::server::{ANTHROPIC, GEMINI, GEMINI_KEY, OPENAI, Provider};
use super::proxy::Proxy;
use super::recorded::fields;
use super::reply::full;
use super::tunnel;
use super::wire::Answer;

/// At most this long for one answer, whatever holds it.
const PATIENCE: Duration = Duration::from_secs(90);

/// A request to a model.
#[derive(Clone, Debug)]
pub struct Ask {
    pub host: &'static str,
    pub method: &'static str,
    pub target: String,
    pub headers: Vec<(String, String)>,
    pub body: Bytes,
}

impl Ask {
    /// Any request.
    pub fn of(
        host: &'static str,
        method: &'static str,
        target: &str,
        body: impl Into<Bytes>,
    ) -> Self {
        Self {
            host,
            method,
            target: target.to_owned(),
            headers: Vec::new(),
            body: body.into(),
        }
    }

    /// Anthropic Messages.
    pub fn message(body: &Value) -> Self {
        Self::of(ANTHROPIC, "POST", "/v1/messages", body.to_string())
    }

    /// OpenAI Chat Completions.
    pub fn chat(body: &Value) -> Self {
        Self::of(OPENAI, "POST", "/v1/chat/completions", body.to_string())
    }

    /// OpenAI Responses.
    pub fn response(body: &Value) -> Self {
        Self::of(OPENAI, "POST", "/v1/responses", body.to_string())
    }

    /// Gemini; `method` is what follows the colon.
    pub fn gemini(model: &str, method: &str, body: &Value) -> Self {
        let target = format!("/v1beta/models/{model}:{method}");
        Self::of(GEMINI, "POST", &target, body.to_string())
    }

    /// Bedrock; `operation` is what follows the model.
    pub fn bedrock(model: &str, operation: &str, body: &Value) -> Self {
        // As the SDKs write it.
        let model = model.replace(':', "%3A");
        let target = format!("/model/{model}/{operation}");
        Self::of(BEDROCK, "POST", &target, body.to_string())
    }

    /// Vertex AI; `model` with its publisher, and the method behind a colon.
    pub fn vertex(model: &str, body: &Value) -> Self {
        let target = format!("{PUBLISHERS}/{model}");
        Self::of(VERTEX, "POST", &target, body.to_string())
    }

    /// A deployment on Azure.
    pub fn azure(deployment: &str, operation: &str, body: &Value) -> Self {
        let target = format!("/openai/deployments/{deployment}/{operation}?api-version=2024-10-21");
        Self::of(AZURE, "POST", &target, body.to_string())
    }

    /// Ollama.
    pub fn ollama(operation: &str, body: &Value) -> Self {
        let target = format!("/api/{operation}");
        Self::of(OLLAMA, "POST", &target, body.to_string())
    }

    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// What the provider's bill calls it.
    #[must_use]
    pub fn call(self, name: &str) -> Self {
        self.header("x-call", name)
    }
}

/// A plain question to Claude.
pub fn message(model: &str, max_tokens: u64) -> Value {
    json!({
        "model": model,
        "max_tokens": max_tokens,
        "messages": [{"role": "user", "content": "Say something, größer."}],
    })
}

/// A plain question to GPT.
pub fn chat(model: &str, max_tokens: u64) -> Value {
    json!({
        "model": model,
        "max_completion_tokens": max_tokens,
        "messages": [{"role": "user", "content": "Say something, größer."}],
    })
}

/// The same for Responses.
pub fn response(model: &str, max_tokens: u64) -> Value {
    json!({"model": model, "max_output_tokens": max_tokens, "input": "Say something, größer."})
}

/// The same for Gemini.
pub fn contents(max_tokens: u64) -> Value {
    json!({
        "contents": [{"role": "user", "parts": [{"text": "Say something, größer."}]}],
        "generationConfig": {"maxOutputTokens": max_tokens},
    })
}

/// With `stream: true`.
pub fn streamed(mut body: Value) -> Value {
    body["stream"] = true.into();
    body
}

/// Which way it goes.
#[derive(Clone)]
enum Way {
    /// CONNECT and TLS; some name themselves.
    Tunnel(Door, Option<String>),
    /// The base-URL door.
    Base(SocketAddr),
}

/// The agent.
#[derive(Clone)]
pub struct Spender {
    way: Way,
    keys: [&'static str; 6],
}

/// What the proxies of [`Provider::proxy`] give their agents.
const PLACEHOLDERS: [&str; 6] = [
    "sk-ant-api03-placeholder-0001",
    "sk-proj-placeholder-0001",
    "AIzaSy-placeholder-0001",
    "ABSK-placeholder-0001",
    "ya29-placeholder-0001",
    "azure-placeholder-0001",
];

impl Provider {
    /// An agent that holds the real keys, and the relay it goes through.
    pub async fn customer(&self) -> (Spender, Relay) {
        let relay = Relay::to(&[&self.origin]).await;
        let spender = Spender {
            way: Way::Tunnel(relay.door(), None),
            keys: [
                ANTHROPIC_KEY,
                OPENAI_KEY,
                GEMINI_KEY,
                BEDROCK_KEY,
                VERTEX_TOKEN,
                AZURE_KEY,
            ],
        };
        (spender, relay)
    }
}

impl Proxy {
    /// An agent by the forward door.
    pub fn spender(&self) -> Spender {
        Spender {
            way: Way::Tunnel(self.bare_door(), None),
            keys: PLACEHOLDERS,
        }
    }

    /// One that names itself.
    pub fn spender_named(&self, name: &str, token: &str) -> Spender {
        let credentials = STANDARD.encode(format!("{name}:{token}"));
        Spender {
            way: Way::Tunnel(self.bare_door(), Some(format!("Basic {credentials}"))),
            keys: PLACEHOLDERS,
        }
    }

    /// An agent by the base-URL door: no TLS on its side, for many at a time.
    pub fn spender_by_base_url(&self) -> Spender {
        Spender {
            way: Way::Base(self.addr),
            keys: PLACEHOLDERS,
        }
    }
}

impl Spender {
    /// The head of the answer, over a connection of its own.
    pub async fn begin(&self, ask: &Ask) -> Answering {
        self.try_begin(ask).await.unwrap()
    }

    /// The same where the proxy may be killed meanwhile.
    pub async fn try_begin(&self, ask: &Ask) -> Result<Answering, String> {
        let request = self.request(ask, &self.prefix(ask));
        let answer = async {
            let sent = match &self.way {
                Way::Base(addr) => {
                    let stream = TcpStream::connect(addr).await.map_err(|e| e.to_string())?;
                    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
                        .await
                        .map_err(|e| e.to_string())?;
                    tokio::spawn(async move { connection.await.ok() });
                    sender.send_request(request).await
                }
                Way::Tunnel(door, user) => {
                    let stream = through(door, ask.host, user.as_deref()).await?;
                    let stream = tunnel::handshake(door, ask.host, &[b"http/1.1"], stream)
                        .await
                        .map_err(|e| e.to_string())?;
                    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
                        .await
                        .map_err(|e| e.to_string())?;
                    tokio::spawn(async move { connection.await.ok() });
                    sender.send_request(request).await
                }
            };
            sent.map_err(|e| e.to_string())
        };
        let answer = tokio::time::timeout(PATIENCE, answer).await;
        Ok(Answering::new(answer.map_err(|_| "no answer".to_owned())??))
    }

    /// The whole answer.
    pub async fn ask(&self, ask: &Ask) -> Answer {
        self.begin(ask).await.whole().await
    }

    /// One connection of HTTP/2 for many requests; only through a tunnel.
    pub async fn multiplexed(&self, host: &'static str) -> Multiplexed {
        self.multiplexed_within(host, None).await
    }

    /// The same with so many octets of an answer taken unread.
    pub async fn multiplexed_within(&self, host: &'static str, window: Option<u32>) -> Multiplexed {
        let Way::Tunnel(door, user) = &self.way else {
            panic!("the base-URL door speaks HTTP/1.1");
        };
        let stream = through(door, host, user.as_deref()).await.unwrap();
        let stream = tunnel::handshake(door, host, &[b"h2"], stream)
            .await
            .unwrap();
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .initial_stream_window_size(window)
            .handshake(TokioIo::new(stream))
            .await
            .unwrap();
        tokio::spawn(async move { connection.await.ok() });
        Multiplexed {
            spender: self.clone(),
            sender,
        }
    }

    fn prefix(&self, ask: &Ask) -> String {
        match (&self.way, ask.host) {
            (Way::Tunnel(..), _) => String::new(),
            (Way::Base(_), ANTHROPIC) => "/anthropic".to_owned(),
            (Way::Base(_), OPENAI) => "/openai".to_owned(),
            (Way::Base(_), BEDROCK) => "/bedrock".to_owned(),
            (Way::Base(_), VERTEX) => "/vertex".to_owned(),
            (Way::Base(_), AZURE) => "/azure".to_owned(),
            (Way::Base(_), OLLAMA) => "/ollama".to_owned(),
            (Way::Base(_), _) => "/gemini".to_owned(),
        }
    }

    fn request(&self, ask: &Ask, prefix: &str) -> Request<tunnel::Outgoing> {
        let [anthropic, openai, gemini, bedrock, vertex, azure] = self.keys;
        let mut request = Request::builder()
            .method(ask.method)
            .uri(format!("{prefix}{}", ask.target))
            .header("content-type", "application/json");
        request = match ask.host {
            ANTHROPIC => request
                .header("x-api-key", anthropic)
                .header("anthropic-version", "2023-06-01"),
            OPENAI => request.header("authorization", format!("Bearer {openai}")),
            BEDROCK => request.header("authorization", format!("Bearer {bedrock}")),
            VERTEX => request.header("authorization", format!("Bearer {vertex}")),
            AZURE => request.header("api-key", azure),
            OLLAMA => request,
            _ => request.header("x-goog-api-key", gemini),
        };
        if prefix.starts_with('/') || ask.target.starts_with('/') {
            let host = match &self.way {
                Way::Base(addr) => addr.to_string(),
                Way::Tunnel(..) => ask.host.to_owned(),
            };
            request = request.header("host", host);
        }
        for (name, value) in &ask.headers {
            request = request.header(name, value);
        }
        request.body(full(ask.body.clone())).unwrap()
    }
}

/// Many requests on one connection.
pub struct Multiplexed {
    spender: Spender,
    sender: http2::SendRequest<tunnel::Outgoing>,
}

impl Multiplexed {
    pub async fn begin(&self, ask: &Ask) -> Answering {
        let mut request = self.spender.request(ask, "");
        let uri = format!("https://{}{}", ask.host, ask.target);
        *request.uri_mut() = uri.parse().unwrap();
        request.headers_mut().remove("host");
        let answer = self.sender.clone();
        let answer = async move {
            let mut sender = answer;
            sender.send_request(request).await
        };
        let answer = tokio::time::timeout(PATIENCE, answer).await;
        Answering::new(answer.unwrap().unwrap())
    }
}

async fn through(door: &Door, host: &str, user: Option<&str>) -> Result<TcpStream, String> {
    let mut stream = TcpStream::connect(door.addr)
        .await
        .map_err(|e| e.to_string())?;
    let user = user.map_or_else(String::new, |u| format!("Proxy-Authorization: {u}\r\n"));
    let request = format!("CONNECT {host}:443 HTTP/1.1\r\nHost: {host}:443\r\n{user}\r\n");
    let sent = stream.write_all(request.as_bytes()).await;
    sent.map_err(|e| e.to_string())?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.map_err(|e| e.to_string())?);
    }
    match head.starts_with(b"HTTP/1.1 200") {
        true => Ok(stream),
        false => Err(String::from_utf8_lossy(&head).into_owned()),
    }
}

/// An answer that is being read. Dropping it before its end is leaving.
#[derive(Debug)]
pub struct Answering {
    pub status: u16,
    pub headers: HeaderMap,
    body: Incoming,
    /// Read, and not looked at yet.
    ahead: Vec<u8>,
    /// The connection ended before the body.
    pub cut: bool,
    /// Fields that came behind it.
    pub trailers: HeaderMap,
}

impl Answering {
    fn new(answer: Response<Incoming>) -> Self {
        let (head, body) = answer.into_parts();
        Self {
            status: head.status.as_u16(),
            headers: head.headers,
            body,
            ahead: Vec::new(),
            cut: false,
            trailers: HeaderMap::new(),
        }
    }

    /// The next octets; `None` at the end, of whatever kind.
    pub async fn piece(&mut self) -> Option<Bytes> {
        loop {
            let frame = tokio::time::timeout(PATIENCE, self.body.frame()).await;
            match frame.expect("the answer stands still") {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) if data.is_empty() => {}
                    Ok(data) => return Some(data),
                    Err(frame) => self.trailers.extend(frame.into_trailers().unwrap()),
                },
                Some(Err(_)) => {
                    self.cut = true;
                    return None;
                }
                None => return None,
            }
        }
    }

    /// The next event of a stream, its empty line with it.
    pub async fn event(&mut self) -> Option<String> {
        loop {
            if let Some(at) = self.ahead.windows(2).position(|two| two == b"\n\n") {
                let rest = self.ahead.split_off(at + 2);
                let event = std::mem::replace(&mut self.ahead, rest);
                return Some(String::from_utf8(event).unwrap());
            }
            let piece = self.piece().await?;
            self.ahead.extend_from_slice(&piece);
        }
    }

    /// Everything that is left.
    pub async fn rest(&mut self) -> Vec<u8> {
        let mut all = std::mem::take(&mut self.ahead);
        while let Some(piece) = self.piece().await {
            all.extend_from_slice(&piece);
        }
        all
    }

    pub async fn whole(mut self) -> Answer {
        let body = self.rest().await;
        Answer {
            status: self.status,
            phrase: String::new(),
            headers: fields(&self.headers),
            body,
        }
    }
}
