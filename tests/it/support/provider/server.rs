//! Owns the stand-in itself: all providers' hosts in one origin, strict about credentials and requests.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::super::anthropic::REAL_KEY as ANTHROPIC_KEY;
use super::super::openai::REAL_KEY as OPENAI_KEY;
use super::super::origin::{Exchange, Origin};
use super::super::proxy::{ProxyBuilder, proxy};
use super::super::recorded::Recorded;
use super::super::reply::{self, Reply};
use super::conduct::{Asked, Conduct, Fate};
use super::piece::{Piece, finished};
use super::truth::{Truth, Used};
use super::{anthropic, bedrock, chat, clouds, embeddings, gemini, ollama, responses, stream};

pub const ANTHROPIC: &str = "api.anthropic.com";
pub const OPENAI: &str = "api.openai.com";
pub const GEMINI: &str = "generativelanguage.googleapis.com";

const HOSTS: [&str; 7] = [
    ANTHROPIC,
    OPENAI,
    GEMINI,
    clouds::BEDROCK,
    clouds::VERTEX,
    clouds::AZURE,
    clouds::OLLAMA,
];

/// The key that only the proxy may know.
pub const GEMINI_KEY: &str = "AIzaSyREAL3fKq9ZtXw7LmVb2NcHd6RgJa4UeREAL";

/// A running stand-in; ends when dropped.
pub struct Provider {
    pub origin: Origin,
    pub truth: Arc<Truth>,
    shop: Arc<Shop>,
}

/// What it will do, and what it did.
struct Shop {
    truth: Arc<Truth>,
    usually: Mutex<Conduct>,
    next: Mutex<VecDeque<Conduct>>,
    named: Mutex<BTreeMap<String, Conduct>>,
}

impl Provider {
    /// Speaks HTTP/2 and HTTP/1.1.
    pub async fn start() -> Self {
        Self::speaking(&[b"h2", b"http/1.1"]).await
    }

    /// Speaks HTTP/1.1 only: a cut connection is one call's alone.
    pub async fn http1() -> Self {
        Self::speaking(&[b"http/1.1"]).await
    }

    async fn speaking(protocols: &[&[u8]]) -> Self {
        let shop = Arc::new(Shop::new());
        let own = shop.clone();
        let handler = move |exchange| answer(exchange, own.clone());
        Self {
            origin: Origin::attentive(&HOSTS, protocols, handler).await,
            truth: shop.truth.clone(),
            shop,
        }
    }

    /// What it does when it is told nothing else.
    pub fn usually(&self, conduct: Conduct) {
        *self.shop.usually.lock().unwrap() = conduct;
    }

    /// What it does next, once.
    pub fn next(&self, conduct: Conduct) {
        self.shop.next.lock().unwrap().push_back(conduct);
    }

    /// What it does for the call of that name (`x-call`), each time.
    pub fn on(&self, call: &str, conduct: Conduct) {
        let mut named = self.shop.named.lock().unwrap();
        named.insert(call.to_owned(), conduct);
    }

    /// A proxy that lets agents reach all three with placeholders, by both doors.
    pub fn proxy(&self) -> ProxyBuilder {
        self.proxy_saying("")
    }

    /// The same with more in each of its rules: `, timeouts: {idle: 1s}`.
    pub fn proxy_saying(&self, more: &str) -> ProxyBuilder {
        let rules = [
            (ANTHROPIC, "anthropic"),
            (OPENAI, "openai"),
            (GEMINI, "gemini"),
        ];
        let rules = rules.map(|(host, name)| {
            format!("- {{hosts: [{host}], credentials: [{name}], route: {name}{more}}}\n")
        });
        proxy()
            .origin(&self.origin)
            .policy(&rules.concat())
            .credential_file(
                "anthropic",
                ANTHROPIC_KEY,
                "
                hosts: [api.anthropic.com]
                placements: [{header: {name: x-api-key}}, {bearer: {}}]
                placeholder: {value: sk-ant-api03-placeholder-0001, env: [ANTHROPIC_API_KEY]}
                ",
            )
            .credential_file(
                "openai",
                OPENAI_KEY,
                "
                hosts: [api.openai.com]
                placements: [{bearer: {}}]
                placeholder: {value: sk-proj-placeholder-0001, env: [OPENAI_API_KEY, CODEX_API_KEY]}
                ",
            )
            .credential_file(
                "gemini",
                GEMINI_KEY,
                "
                hosts: [generativelanguage.googleapis.com]
                placements: [{header: {name: x-goog-api-key}}]
                placeholder: {value: AIzaSy-placeholder-0001, env: [GEMINI_API_KEY]}
                ",
            )
    }
}

impl Shop {
    fn new() -> Self {
        Self {
            truth: Arc::default(),
            usually: Mutex::new(Conduct::says(64)),
            next: Mutex::default(),
            named: Mutex::default(),
        }
    }

    fn conduct(&self, call: &str) -> Conduct {
        if let Some(named) = self.named.lock().unwrap().get(call) {
            return named.clone();
        }
        let next = self.next.lock().unwrap().pop_front();
        next.unwrap_or_else(|| self.usually.lock().unwrap().clone())
    }
}

/// How the bodies of a request and its answer are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Api {
    Messages,
    Chat,
    Responses,
    Gemini,
    Embeddings,
    Converse,
    Invoke,
    RawPredict,
    AzureChat,
    AzureEmbeddings,
    Ollama,
    OllamaEmbed,
}

impl Api {
    fn asked(self, target: &str, body: &Value, octets: u64) -> Result<Asked, String> {
        match self {
            Self::Messages => anthropic::asked(body, octets),
            Self::Chat => chat::asked(body, octets),
            Self::Responses => responses::asked(body, octets),
            Self::Gemini => gemini::asked(target, body, octets),
            Self::Embeddings => embeddings::asked(body, octets),
            Self::Converse => bedrock::asked_of_converse(target, body, octets),
            Self::Invoke => bedrock::asked_of_invoke(target, body, octets),
            Self::RawPredict => clouds::asked_of_raw_predict(target, body, octets),
            Self::AzureChat | Self::AzureEmbeddings => clouds::asked_of_azure(target, body, octets),
            Self::Ollama => ollama::asked(body, octets),
            Self::OllamaEmbed => ollama::asked_to_embed(body, octets),
        }
    }

    fn whole(self, conduct: &Conduct, used: &[Used]) -> String {
        match self {
            Self::Messages | Self::RawPredict => anthropic::message(conduct, used),
            Self::Chat | Self::AzureChat => chat::completion(conduct, &used[0]),
            Self::Embeddings | Self::AzureEmbeddings => embeddings::vectors(&used[0]),
            Self::Converse => bedrock::converse(conduct, &used[0]),
            Self::Invoke => bedrock::invoke(conduct, used),
            Self::Ollama => ollama::answer(conduct, &used[0]),
            Self::OllamaEmbed => ollama::embeddings(&used[0]),
            Self::Responses => responses::response(conduct, &used[0]),
            Self::Gemini => gemini::content(conduct, &used[0]),
        }
    }

    fn pieces(self, asked: &Asked, conduct: &Conduct, used: &[Used]) -> Vec<Piece> {
        match self {
            Self::Messages | Self::RawPredict => anthropic::events(conduct, used),
            Self::Chat => chat::chunks(asked, conduct, &used[0]),
            Self::AzureChat => {
                let opening = clouds::azure_opening().to_string();
                let opening = Piece::event(None, &opening, conduct.newline, 0);
                let chunks = chat::chunks(asked, conduct, &used[0]);
                [vec![opening], chunks].concat()
            }
            Self::Responses => responses::events(conduct, &used[0]),
            Self::Gemini => gemini::parts(asked, conduct, &used[0]),
            Self::Converse => bedrock::converse_stream(conduct, &used[0]),
            Self::Invoke => bedrock::invoke_stream(conduct, used),
            Self::Ollama => ollama::lines(conduct, &used[0]),
            Self::Embeddings | Self::AzureEmbeddings | Self::OllamaEmbed => Vec::new(),
        }
    }

    /// The content type of its streams.
    fn streams_as(self, asked: &Asked) -> &'static str {
        match self {
            Self::Gemini if !asked.option => "application/json",
            Self::Converse | Self::Invoke => bedrock::EVENT_STREAM,
            Self::Ollama => ollama::LINES,
            _ => "text/event-stream; charset=utf-8",
        }
    }
}

fn failure(host: &str, status: u16, message: &str) -> Reply {
    if let Some(body) = clouds::error(host, status, message) {
        return reply::json(status, &body);
    }
    let body = match host {
        OPENAI => chat::error(status, message),
        _ => anthropic::error(status, message),
    };
    reply::json(status, &body)
}

async fn answer(mut exchange: Exchange, shop: Arc<Shop>) -> Reply {
    let Some(body) = exchange.complete_body().await else {
        return exchange.hangup().now().await;
    };
    let head = exchange.head.clone();
    let host = head
        .authority
        .split(':')
        .next()
        .unwrap_or_default()
        .to_owned();
    let path = head.path().to_owned();
    let call = head.header("x-call").unwrap_or_default().to_owned();
    if !may(&head, &host) {
        return failure(&host, 401, "no such key");
    }
    let json: Value = serde_json::from_slice(&body).unwrap_or_default();
    let of_cloud = clouds::api(&host, &path).filter(|_| head.method == "POST");
    let api = match (&*host, head.method.as_str(), &*path) {
        _ if of_cloud.is_some() => of_cloud.unwrap(),
        (OPENAI, "POST", "/v1/embeddings") => Api::Embeddings,
        (ANTHROPIC, "POST", "/v1/messages") => Api::Messages,
        (OPENAI, "POST", "/v1/chat/completions") => Api::Chat,
        (OPENAI, "POST", "/v1/responses") => Api::Responses,
        (GEMINI, "POST", path)
            if path.ends_with(":generateContent") || path.ends_with(":streamGenerateContent") =>
        {
            Api::Gemini
        }
        (_, "POST", path) if path.ends_with("count_tokens") || path.ends_with(":countTokens") => {
            return reply::json(200, &json!({"input_tokens": 7, "totalTokens": 7}));
        }
        (_, "GET" | "HEAD", path) if path.ends_with("/models") => {
            let models = [json!({"id": "gpt-5", "object": "model", "type": "model"})];
            return reply::json(
                200,
                &json!({"object": "list", "data": models, "has_more": false}),
            );
        }
        (_, "GET" | "HEAD", _) => return failure(&host, 404, "not found"),
        // Flags and telemetry of Claude Code.
        (ANTHROPIC, _, path) if path.starts_with("/api/") => {
            return failure(&host, 404, "not found");
        }
        _ => {
            // It does something that costs, and nothing in its answer says how much.
            shop.truth.unreadable(&call, &path);
            return reply::json(200, &json!({"id": "thing_1", "status": "accepted"}));
        }
    };
    if api == Api::Messages && head.header("anthropic-version").is_none() {
        return failure(&host, 400, "anthropic-version: header is required");
    }
    let asked = match api.asked(&head.target, &json, body.len() as u64) {
        Ok(asked) => asked,
        Err(wrong) => return failure(&host, 400, &wrong),
    };
    serve(exchange, &shop, api, &asked, &call).await
}

/// Answers an honest request.
async fn serve(exchange: Exchange, shop: &Shop, api: Api, asked: &Asked, call: &str) -> Reply {
    let conduct = shop.conduct(call);
    let (hangup, reset) = (exchange.hangup(), exchange.reset());
    if let Fate::Fails(status) = conduct.fate {
        let host = exchange
            .head
            .authority
            .split(':')
            .next()
            .unwrap_or_default();
        return failure(host, status, "told to fail");
    }
    let used = conduct.used(asked);
    let mut tab = shop
        .truth
        .open(call, exchange.head.path(), conduct.billed(&used));
    if let Some(gate) = conduct.gate(0) {
        gate.clone().stand().await;
    }
    match conduct.fate {
        Fate::Cut(0) => {
            tab.void();
            return hangup.now().await;
        }
        Fate::Reset(0) => {
            tab.void();
            return reset.now().await;
        }
        Fate::Silent(0) => return std::future::pending().await,
        _ => {}
    }
    let (kind, pieces) = match asked.stream {
        true => (api.streams_as(asked), api.pieces(asked, &conduct, &used)),
        false => {
            // Nothing can be called back of an answer that is there as a whole.
            tab.whole();
            let whole = api.whole(&conduct, &used);
            let (first, second) = whole.split_at(whole.len() / 2);
            let pieces = [first, second].map(|half| Piece::new(half.to_owned(), used[0].output));
            ("application/json", pieces.to_vec())
        }
    };
    let pieces = finished(pieces, &conduct).await;
    let mut reply = reply::with(reply::status(200), "content-type", kind);
    reply = reply::with(reply, "x-request-id", "req_test");
    if let Some(coding) = conduct.coding {
        reply = reply::with(reply, "content-encoding", coding.name());
    }
    if !asked.stream {
        let length: usize = pieces.iter().map(|piece| piece.octets.len()).sum();
        reply = reply::with(reply, "content-length", &length.to_string());
    }
    *reply.body_mut() = stream::body(pieces, conduct, tab, (hangup, reset));
    reply
}

fn may(head: &Recorded, host: &str) -> bool {
    let has = |name: &str, value: &str| head.all(name) == [value];
    if let Some(may) = clouds::may(head, host) {
        return may;
    }
    match host {
        ANTHROPIC => {
            has("x-api-key", ANTHROPIC_KEY)
                || has("authorization", &format!("Bearer {ANTHROPIC_KEY}"))
        }
        OPENAI => has("authorization", &format!("Bearer {OPENAI_KEY}")),
        GEMINI => has("x-goog-api-key", GEMINI_KEY),
        _ => false,
    }
}
