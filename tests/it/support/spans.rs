//! Collectors of spans: rotel, a real one from PyPI that prints what it gets, and a strict stand-in that can
//! also be slow, busy, unwilling or away.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::AnyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};

use super::clients;
use super::origin::{Exchange, Origin};
use super::proxy::ProxyBuilder;
use super::recorded::Recorded;
use super::reply::{self, Reply};

/// One span, as a collector read it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Seen {
    pub trace: String,
    pub id: String,
    pub parent: String,
    pub name: String,
    pub kind: String,
    pub failed: bool,
    /// Each with its type: `Str(x)`, `Int(1)`, `Double(0.5)`, `Bool(true)`, `Slice(Str(x))`.
    pub attributes: BTreeMap<String, String>,
}

impl Seen {
    #[track_caller]
    pub fn get(&self, key: &str) -> &str {
        let found = self.attributes.get(key);
        found.unwrap_or_else(|| panic!("no {key} in {self:#?}"))
    }

    /// The text of an attribute, without its type.
    #[track_caller]
    pub fn text(&self, key: &str) -> &str {
        let value = self.get(key);
        let text = value.strip_prefix("Str(").and_then(|v| v.strip_suffix(')'));
        text.unwrap_or_else(|| panic!("{key} is {value}"))
    }
}

impl ProxyBuilder {
    /// Sends spans to this address soon after they end.
    #[must_use]
    pub fn spans_to(self, addr: SocketAddr) -> Self {
        self.env("OTEL_EXPORTER_OTLP_ENDPOINT", &format!("http://{addr}"))
            .env("OTEL_BSP_SCHEDULE_DELAY", "100")
    }
}

/// The real one.
pub struct Rotel {
    pub addr: SocketAddr,
    _child: Child,
    output: Arc<Mutex<String>>,
}

impl Rotel {
    /// Starts it; nothing, visibly, where it is not installed.
    pub async fn start() -> Option<Self> {
        let python = clients::find("python-rotel")?;
        let program = program(python).await;
        for _ in 0..5 {
            let (http, grpc) = (free_port().await, free_port().await);
            let mut child = Command::new(&program)
                .arg("start")
                .args(["--exporter", "blackhole", "--debug-log", "traces"])
                .args([
                    "--debug-log-verbosity",
                    "detailed",
                    "--batch-timeout",
                    "50ms",
                ])
                .args(["--otlp-http-endpoint", &http.to_string()])
                .args(["--otlp-grpc-endpoint", &grpc.to_string()])
                .env_clear()
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .kill_on_drop(true)
                .spawn()
                .unwrap();
            let output = Arc::new(Mutex::new(String::new()));
            gather(child.stdout.take().unwrap(), output.clone());
            gather(child.stderr.take().unwrap(), output.clone());
            let deadline = Instant::now() + Duration::from_secs(30);
            while child.try_wait().unwrap().is_none() && Instant::now() < deadline {
                if TcpStream::connect(http).await.is_ok() {
                    return Some(Self {
                        addr: http,
                        _child: child,
                        output,
                    });
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            // Somebody else took a port in between.
        }
        panic!("rotel does not start")
    }

    /// Everything it printed.
    pub fn printed(&self) -> String {
        self.output.lock().unwrap().clone()
    }

    /// What it got, once that is so many spans and it has printed them to their end.
    pub async fn spans(&self, count: usize) -> Vec<Seen> {
        let deadline = Instant::now() + Duration::from_secs(60);
        let mut before = 0;
        loop {
            let printed = self.printed();
            let is_still = printed.len() == before;
            before = printed.len();
            if is_still && printed.matches("\nSpan #").count() >= count {
                return read(&printed);
            }
            assert!(
                Instant::now() < deadline,
                "{count} spans never came: {printed}"
            );
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

/// The binary in the wheel: what it is started with by its Python package.
async fn program(python: PathBuf) -> PathBuf {
    let script =
        "import os, rotel; print(os.path.join(os.path.dirname(rotel.__file__), 'rotel-agent'))";
    let output = Command::new(python)
        .args(["-c", script])
        .output()
        .await
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap().trim().into()
}

async fn free_port() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap()
}

fn gather(stream: impl AsyncRead + Unpin + Send + 'static, into: Arc<Mutex<String>>) {
    tokio::spawn(async move {
        let mut lines = BufReader::new(stream).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            let mut text = into.lock().unwrap();
            text.push_str(&line);
            text.push('\n');
        }
    });
}

/// Reads what rotel prints of spans.
fn read(printed: &str) -> Vec<Seen> {
    let mut spans: Vec<Seen> = Vec::new();
    let mut in_span = false;
    for line in printed.lines() {
        let line = line.trim();
        if line.starts_with("Span #") {
            spans.push(Seen::default());
            in_span = true;
            continue;
        }
        // Attributes of resources look like those of spans.
        if line.starts_with("ResourceSpans #") {
            in_span = false;
        }
        let Some(span) = spans.last_mut().filter(|_| in_span) else {
            continue;
        };
        if let Some((key, value)) = line.strip_prefix("-> ").and_then(|l| l.split_once(": ")) {
            let before = span.attributes.insert(key.to_owned(), value.to_owned());
            assert_eq!(before, None, "{key} stands twice");
            continue;
        }
        let Some((name, value)) = line.split_once(':') else {
            continue;
        };
        let value = value.trim().to_owned();
        match name.trim() {
            "Trace ID" => span.trace = value,
            "Parent ID" => span.parent = value,
            "ID" => span.id = value,
            "Name" => span.name = value,
            "Kind" => span.kind = value,
            "Status code" => span.failed = value == "STATUS_CODE_ERROR",
            _ => {}
        }
    }
    spans
}

/// How the stand-in behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    /// It takes everything.
    Well,
    /// It answers with this status.
    Says(u16),
    /// It takes requests and never answers.
    Silent,
}

/// The stand-in: strict about what it is sent.
pub struct Collector {
    pub origin: Origin,
    mood: Arc<Mutex<Mood>>,
    taken: Arc<Mutex<Vec<Span>>>,
}

impl Collector {
    pub async fn start(mood: Mood) -> Self {
        let mood = Arc::new(Mutex::new(mood));
        let taken = Arc::new(Mutex::new(Vec::new()));
        let (moods, spans) = (mood.clone(), taken.clone());
        let origin = Origin::plain(&["collector.example.com"], move |exchange| {
            let mood = *moods.lock().unwrap();
            answer(exchange, mood, spans.clone())
        })
        .await;
        Self {
            origin,
            mood,
            taken,
        }
    }

    pub fn now(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
    }

    pub fn addr(&self) -> SocketAddr {
        self.origin.addr
    }

    /// The requests it got, taken or not.
    pub fn requests(&self) -> Vec<Recorded> {
        self.origin.requests()
    }

    /// What it took so far.
    pub fn taken(&self) -> Vec<Seen> {
        self.taken.lock().unwrap().iter().map(seen).collect()
    }

    /// What it took, once that is so many spans.
    pub async fn spans(&self, count: usize) -> Vec<Seen> {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let taken = self.taken();
            if taken.len() >= count {
                return taken;
            }
            assert!(
                Instant::now() < deadline,
                "{} of {count} spans",
                taken.len()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

async fn answer(mut exchange: Exchange, mood: Mood, spans: Arc<Mutex<Vec<Span>>>) -> Reply {
    let body = exchange.body().await;
    match mood {
        Mood::Says(status) => return reply::text(status, "no"),
        Mood::Silent => std::future::pending().await,
        Mood::Well => {}
    }
    let head = &exchange.head;
    let is_right = head.method == "POST"
        && head.target == "/v1/traces"
        && head.header("content-type") == Some("application/x-protobuf");
    let plain = match head.header("content-encoding") {
        None => Some(body.to_vec()),
        Some("gzip") => {
            let mut plain = Vec::new();
            let mut reader = flate2::read::GzDecoder::new(&*body);
            std::io::Read::read_to_end(&mut reader, &mut plain)
                .is_ok()
                .then_some(plain)
        }
        Some(_) => None,
    };
    let request = plain.and_then(|plain| ExportTraceServiceRequest::decode(&*plain).ok());
    let Some(request) = request.filter(|_| is_right) else {
        return reply::text(400, "not understood");
    };
    let scopes = request
        .resource_spans
        .into_iter()
        .flat_map(|r| r.scope_spans);
    spans.lock().unwrap().extend(scopes.flat_map(|s| s.spans));
    reply::with_body(200, "application/x-protobuf", "")
}

fn seen(span: &Span) -> Seen {
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    let attributes = span.attributes.iter();
    Seen {
        trace: hex(&span.trace_id),
        id: hex(&span.span_id),
        parent: hex(&span.parent_span_id),
        name: span.name.clone(),
        kind: span.kind().as_str_name().to_owned(),
        failed: span.status.as_ref().is_some_and(|status| status.code == 2),
        attributes: attributes
            .map(|pair| (pair.key.clone(), shown(pair.value.as_ref())))
            .collect(),
    }
}

/// A value with its type, as rotel prints it.
fn shown(value: Option<&AnyValue>) -> String {
    match value.and_then(|value| value.value.as_ref()) {
        Some(Value::StringValue(text)) => format!("Str({text})"),
        Some(Value::IntValue(number)) => format!("Int({number})"),
        Some(Value::DoubleValue(number)) => format!("Double({number})"),
        Some(Value::BoolValue(truth)) => format!("Bool({truth})"),
        Some(Value::ArrayValue(array)) => {
            let values: Vec<String> = array.values.iter().map(|v| shown(Some(v))).collect();
            format!("Slice({})", values.join(", "))
        }
        other => panic!("{other:?}"),
    }
}
