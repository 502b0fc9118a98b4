//! Owns an origin that fails at the stage its path names, by HTTP/1.1 or HTTP/2, written octet by octet.

use std::net::SocketAddr;
use std::os::fd::AsFd as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use socket2::SockRef;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::ca::TestCa;
use super::origin::acceptor;

type Stream = TlsStream<TcpStream>;

/// One request that came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    /// The server name that the connection was opened for.
    pub sni: String,
    pub path: String,
    /// Every `authorization` in its head.
    pub authorization: Vec<String>,
}

/// A running origin; ends when dropped.
pub struct Faulty {
    pub addr: SocketAddr,
    pub ca_pem: String,
    heard: Arc<Mutex<Vec<Heard>>>,
    open: Arc<()>,
    _task: JoinSet<()>,
}

/// What it speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaks {
    Http1,
    Http2,
}

impl Faulty {
    pub async fn speaking(speaks: Speaks, names: &[&str]) -> Self {
        let ca = TestCa::new();
        let protocols: &[&[u8]] = match speaks {
            Speaks::Http1 => &[b"http/1.1"],
            Speaks::Http2 => &[b"h2"],
        };
        let tls = acceptor(ca.leaf(names), protocols);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let heard = Arc::<Mutex<Vec<Heard>>>::default();
        let open = Arc::new(());
        let mut task = JoinSet::new();
        task.spawn(accept(listener, tls, speaks, heard.clone(), open.clone()));
        Self {
            addr,
            ca_pem: ca.pem().to_owned(),
            heard,
            open,
            _task: task,
        }
    }

    pub fn heard(&self) -> Vec<Heard> {
        self.heard.lock().unwrap().clone()
    }

    /// The same; they are not remembered any more.
    #[allow(dead_code)] // wanted by the soak alone
    pub fn forget(&self) -> Vec<Heard> {
        std::mem::take(&mut *self.heard.lock().unwrap())
    }

    /// Connections that are open on this side.
    pub fn open(&self) -> usize {
        // Its own, and that of whoever accepts.
        Arc::strong_count(&self.open) - 2
    }
}

async fn accept(
    listener: TcpListener,
    tls: TlsAcceptor,
    speaks: Speaks,
    heard: Arc<Mutex<Vec<Heard>>>,
    open: Arc<()>,
) {
    let mut running = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let (tls, heard, open) = (tls.clone(), heard.clone(), open.clone());
        running.spawn(async move {
            let _open = open;
            stream.set_nodelay(true).unwrap();
            let Ok(stream) = tls.accept(stream).await else {
                return;
            };
            match speaks {
                Speaks::Http1 => http1(stream, &heard).await.ok(),
                Speaks::Http2 => http2(stream, &heard).await.ok(),
            };
        });
        while running.try_join_next().is_some() {}
    }
}

/// Ends with a reset instead of a proper close.
fn reset(stream: Stream) -> std::io::Result<()> {
    SockRef::from(stream.get_ref().0).set_linger(Some(Duration::ZERO))
}

fn sni(stream: &Stream) -> String {
    stream
        .get_ref()
        .1
        .server_name()
        .unwrap_or_default()
        .to_owned()
}

/// Longer than anybody waits.
async fn stall() {
    tokio::time::sleep(Duration::from_secs(600)).await;
}

async fn http1(mut stream: Stream, heard: &Mutex<Vec<Heard>>) -> std::io::Result<()> {
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await?);
        }
        let head = String::from_utf8(head).unwrap();
        let field = |name: &'static str| {
            let lines = head.lines().filter_map(|line| line.split_once(": "));
            let named = lines.filter(move |(n, _)| n.eq_ignore_ascii_case(name));
            named.map(|(_, value)| value.to_owned())
        };
        let path = head.split(' ').nth(1).unwrap().to_owned();
        heard.lock().unwrap().push(Heard {
            sni: sni(&stream),
            path: path.clone(),
            authorization: field("authorization").collect(),
        });
        let length: u64 = field("content-length")
            .next()
            .map_or(0, |l| l.parse().unwrap());
        let fault = path.split('/').nth(1).unwrap_or_default().to_owned();
        if fault != "answers-early" {
            let mut body = vec![0; usize::try_from(length).unwrap()];
            stream.read_exact(&mut body).await?;
        }
        let event = b"7\r\ndata: a\r\n";
        match fault.as_str() {
            "closes-before" => return stream.shutdown().await,
            "resets-before" => return reset(stream),
            "resets-in-head" => {
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Le").await?;
                stream.flush().await?;
                return reset(stream);
            }
            "stalls-before" => stall().await,
            // It says that it will say nothing more, and goes on listening.
            "half-closes-before" => {
                stream.shutdown().await?;
                stall().await;
            }
            "stalls-in-head" => {
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Le").await?;
                stall().await;
            }
            "drips-head" => {
                stream.write_all(b"HTTP/1.1 200 OK\r\n").await?;
                loop {
                    stream.write_all(b"x-drip: 1\r\n").await?;
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
            "garbage" => {
                stream
                    .write_all(b"\x15\x03 SMTP? 220 hello\r\n\r\n")
                    .await?
            }
            "resets-in-body"
            | "stalls-in-body"
            | "closes-in-body"
            | "half-closes-in-body"
            | "short" => {
                stream
                    .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this")
                    .await?;
                stream.flush().await?;
                match fault.as_str() {
                    "resets-in-body" => return reset(stream),
                    "stalls-in-body" => stall().await,
                    "half-closes-in-body" => {
                        stream.shutdown().await?;
                        stall().await;
                    }
                    _ => return stream.shutdown().await,
                }
            }
            "resets-in-stream" | "stalls-in-stream" | "closes-in-stream" | "wrong-chunk" => {
                let head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
                stream.write_all(head).await?;
                stream.write_all(event).await?;
                stream.flush().await?;
                match fault.as_str() {
                    "resets-in-stream" => return reset(stream),
                    "stalls-in-stream" => stall().await,
                    "wrong-chunk" => stream.write_all(b"99999999999999999\r\nhi\r\n").await?,
                    _ => return stream.shutdown().await,
                }
            }
            "drips-body" => {
                stream
                    .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n")
                    .await?;
                for _ in 0..20 {
                    stream.write_all(b"d").await?;
                    stream.flush().await?;
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
            "resets-after" | "closes-after" | "babbles-after" => {
                stream
                    .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nreached")
                    .await?;
                stream.flush().await?;
                match fault.as_str() {
                    "resets-after" => return reset(stream),
                    "closes-after" => return stream.shutdown().await,
                    // An answer to a request that nobody sent.
                    _ => {
                        stream
                            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison")
                            .await?
                    }
                }
            }
            "answers-early" => {
                stream
                    .write_all(
                        b"HTTP/1.1 403 No\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno",
                    )
                    .await?;
                return stream.shutdown().await;
            }
            _ => {
                stream
                    .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nreached")
                    .await?
            }
        }
        stream.flush().await?;
    }
}

/// Whoever asks for a host of this name hears HTTP/1.1, although HTTP/2 was agreed on.
const GARBAGE: &str = "garbage.";

async fn http2(mut stream: Stream, heard: &Mutex<Vec<Heard>>) -> std::io::Result<()> {
    let sni = sni(&stream);
    if sni.starts_with(GARBAGE) {
        stream
            .write_all(b"HTTP/1.1 200 OK\r\n\r\nthis is the other protocol")
            .await?;
        return stream.shutdown().await;
    }
    // Below the library, which closes in good order only.
    let socket = socket2::Socket::from(stream.get_ref().0.as_fd().try_clone_to_owned()?);
    let mut connection = h2::server::handshake(stream)
        .await
        .map_err(std::io::Error::other)?;
    let (cut, mut cuts) = tokio::sync::mpsc::channel(1);
    let mut answers = JoinSet::new();
    loop {
        let end = tokio::select! {
            asked = connection.accept() => match asked {
                Some(Ok((request, respond))) => {
                    let values = request.headers().get_all("authorization").iter();
                    heard.lock().unwrap().push(Heard {
                        sni: sni.clone(),
                        path: request.uri().path().to_owned(),
                        authorization: values.map(|v| v.to_str().unwrap().to_owned()).collect(),
                    });
                    answers.spawn(stage(request, respond, cut.clone()));
                    continue;
                }
                _ => return Ok(()),
            },
            end = cuts.recv() => end.unwrap(),
        };
        // What was sent last is still within the library.
        for _ in 0..20 {
            let pushed = tokio::time::timeout(Duration::from_millis(2), connection.accept());
            if pushed.await.is_ok() {
                break;
            }
        }
        match end {
            End::Reset => socket.set_linger(Some(Duration::ZERO))?,
            End::Close => socket.shutdown(std::net::Shutdown::Write)?,
            End::GoAway => {
                connection.abrupt_shutdown(h2::Reason::INTERNAL_ERROR);
                std::future::poll_fn(|cx| connection.poll_closed(cx))
                    .await
                    .ok();
            }
        }
        return Ok(());
    }
}

/// How a connection of HTTP/2 ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Close,
    Reset,
    GoAway,
}

/// Answers one request, or does not.
async fn stage(
    request: http::Request<h2::RecvStream>,
    mut respond: h2::server::SendResponse<Bytes>,
    cut: tokio::sync::mpsc::Sender<End>,
) {
    let path = request.uri().path().to_owned();
    let fault = path.split('/').nth(1).unwrap_or_default().to_owned();
    let mut body = request.into_body();
    while let Some(Ok(piece)) = body.data().await {
        body.flow_control().release_capacity(piece.len()).ok();
    }
    match fault.as_str() {
        "closes-before" => return cut.send(End::Close).await.unwrap(),
        "resets-before" => return cut.send(End::Reset).await.unwrap(),
        "goes-away-before" => return cut.send(End::GoAway).await.unwrap(),
        "refuses-before" => return respond.send_reset(h2::Reason::INTERNAL_ERROR),
        "stalls-before" => return stall().await,
        _ => {}
    }
    let head = http::Response::builder();
    let head = match fault.as_str() {
        "short" => head.header("content-length", "100"),
        "long" => head.header("content-length", "3"),
        _ => head,
    };
    let mut stream = respond
        .send_response(head.body(()).unwrap(), false)
        .unwrap();
    match fault.as_str() {
        "short" | "long" => stream.send_data("only this".into(), true).unwrap(),
        "drips-body" => {
            for _ in 0..20 {
                stream.send_data("d".into(), false).unwrap();
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            stream.send_data(Bytes::new(), true).unwrap();
        }
        "stalls-in-body" => {
            stream.send_data("only this".into(), false).unwrap();
            stall().await;
        }
        "refuses-in-body" => {
            stream.send_data("only this".into(), false).unwrap();
            tokio::time::sleep(Duration::from_millis(100)).await;
            stream.send_reset(h2::Reason::INTERNAL_ERROR);
        }
        "closes-in-body" | "resets-in-body" | "goes-away-in-body" => {
            stream.send_data("only this".into(), false).unwrap();
            let end = match fault.as_str() {
                "closes-in-body" => End::Close,
                "resets-in-body" => End::Reset,
                _ => End::GoAway,
            };
            cut.send(end).await.unwrap();
            stall().await;
        }
        "closes-after" | "resets-after" => {
            stream.send_data("reached".into(), true).unwrap();
            let end = if fault == "closes-after" {
                End::Close
            } else {
                End::Reset
            };
            cut.send(end).await.unwrap();
        }
        _ => stream.send_data("reached".into(), true).unwrap(),
    }
}
