//! Owns HTTP/2 frame by frame: what no library would send, and how the other side takes it.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::door::Door;
use super::tunnel;

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PUSH_PROMISE: u8 = 5;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
/// Of PING and SETTINGS.
pub const ACK: u8 = 1;
pub const END_HEADERS: u8 = 4;

pub const NO_ERROR: u32 = 0;
pub const PROTOCOL_ERROR: u32 = 1;
pub const FLOW_CONTROL_ERROR: u32 = 3;
pub const REFUSED_STREAM: u32 = 7;
pub const CANCEL: u32 = 8;
pub const COMPRESSION_ERROR: u32 = 9;
pub const ENHANCE_YOUR_CALM: u32 = 11;

/// A frame as it stands on the wire (RFC 9113, section 4.1).
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// Field lines, each a literal that no table keeps (RFC 7541, section 6.2.2), however malformed.
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        string(&mut block, name.as_bytes());
        string(&mut block, value.as_bytes());
    }
    block
}

/// A literal string without Huffman coding, with its length (RFC 7541, section 5.1).
pub fn string(block: &mut Vec<u8>, text: &[u8]) {
    let mut length = text.len();
    if length < 127 {
        block.push(u8::try_from(length).unwrap());
    } else {
        block.push(127);
        length -= 127;
        while length >= 128 {
            block.push(u8::try_from(length % 128).unwrap() | 128);
            length /= 128;
        }
        block.push(u8::try_from(length).unwrap());
    }
    block.extend(text);
}

/// A whole request without a body.
pub fn get(stream: u32, host: &str, path: &str) -> Vec<u8> {
    let fields = request("GET", host, path);
    frame(HEADERS, END_STREAM | END_HEADERS, stream, &block(&fields))
}

/// The pseudo-header fields of a request.
pub fn request<'a>(method: &'a str, host: &'a str, path: &'a str) -> [(&'a str, &'a str); 4] {
    [
        (":method", method),
        (":scheme", "https"),
        (":authority", host),
        (":path", path),
    ]
}

#[derive(Clone, Debug)]
pub struct Frame {
    pub kind: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl Frame {
    /// The error code of RST_STREAM and GOAWAY.
    pub fn code(&self) -> u32 {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        u32::from_be_bytes(self.payload[at..at + 4].try_into().unwrap())
    }
}

/// What becomes of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is answered 200.
    Fine,
    /// It is answered something else.
    Refused,
    /// It is reset with this code.
    Reset(u32),
    /// The connection goes away with this code.
    GoneAway(u32),
    /// The connection is closed without a word.
    Closed,
}

/// One side of a connection.
pub struct Peer<S> {
    pub stream: S,
}

impl Peer<TlsStream<TcpStream>> {
    /// An agent on an intercepted connection, its preface and empty settings sent.
    pub async fn agent(door: &Door, host: &str) -> Self {
        let stream = tunnel::tls(door, host, &[b"h2"]).await;
        let mut peer = Self { stream };
        peer.send(&[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat())
            .await;
        peer
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Peer<S> {
    /// An origin that has heard the preface and sent its settings.
    pub async fn origin(mut stream: S, settings: &[u8]) -> Option<Self> {
        let mut preface = [0; PREFACE.len()];
        stream.read_exact(&mut preface).await.ok()?;
        assert_eq!(preface, PREFACE);
        let mut peer = Self { stream };
        peer.send(&frame(SETTINGS, 0, 0, settings)).await;
        Some(peer)
    }

    /// Writes, if the other side still listens; says whether it does.
    pub async fn send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).await.is_ok() && self.stream.flush().await.is_ok()
    }

    /// The next frame; none if the connection ended.
    pub async fn next(&mut self) -> Option<Frame> {
        let read = async {
            let mut head = [0; 9];
            self.stream.read_exact(&mut head).await.ok()?;
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let mut payload = vec![0; length as usize];
            self.stream.read_exact(&mut payload).await.ok()?;
            Some(Frame {
                kind: head[3],
                stream: u32::from_be_bytes(head[5..9].try_into().unwrap()),
                payload,
            })
        };
        let read = tokio::time::timeout(Duration::from_secs(30), read);
        read.await.expect("neither a frame nor an end")
    }

    /// The next frame that is wanted; none if the connection ends before.
    pub async fn find(&mut self, wanted: impl Fn(&Frame) -> bool) -> Option<Frame> {
        loop {
            let frame = self.next().await?;
            if wanted(&frame) {
                return Some(frame);
            }
        }
    }

    /// The head of the next request, for origins.
    pub async fn request(&mut self) -> Option<u32> {
        let head = self.find(|f| f.kind == HEADERS).await?;
        Some(head.stream)
    }

    /// What becomes of a stream that was opened.
    pub async fn fate(&mut self, stream: u32) -> Fate {
        let end = self.find(|f| match f.kind {
            HEADERS | RST_STREAM => f.stream == stream,
            GOAWAY => f.code() != NO_ERROR,
            _ => false,
        });
        match end.await {
            None => Fate::Closed,
            Some(f) if f.kind == RST_STREAM => Fate::Reset(f.code()),
            Some(f) if f.kind == GOAWAY => Fate::GoneAway(f.code()),
            // `:status 200` by its index (RFC 7541, appendix A), maybe behind a change of the table's size.
            Some(f) if f.payload.iter().find(|b| **b & 0xe0 != 0x20) == Some(&0x88) => Fate::Fine,
            Some(_) => Fate::Refused,
        }
    }

    /// With what code the connection ends; nothing if it just ends.
    pub async fn goodbye(&mut self) -> Option<u32> {
        let goodbye = self.find(|f| f.kind == GOAWAY && f.code() != NO_ERROR);
        goodbye.await.map(|goodbye| goodbye.code())
    }
}
