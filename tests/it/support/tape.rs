//! Owns an HTTP/1.1 origin that keeps the very bytes that reach it.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use super::origin::Origin;

/// What every connection brought, one text each.
#[derive(Clone, Default)]
pub struct Tape(Arc<Mutex<Vec<Vec<u8>>>>);

impl Tape {
    pub fn connections(&self) -> Vec<String> {
        let all = self.0.lock().unwrap();
        all.iter()
            .map(|bytes| String::from_utf8_lossy(bytes).into_owned())
            .collect()
    }

    /// All requests of all connections, in a row.
    pub fn all(&self) -> String {
        self.connections().concat()
    }

    pub fn clear(&self) {
        self.0.lock().unwrap().iter_mut().for_each(Vec::clear);
    }

    fn begin(&self) -> usize {
        let mut all = self.0.lock().unwrap();
        all.push(Vec::new());
        all.len() - 1
    }

    fn add(&self, connection: usize, bytes: &[u8]) {
        self.0.lock().unwrap()[connection].extend_from_slice(bytes);
    }

    async fn record(self, mut stream: TlsStream<TcpStream>) {
        let connection = self.begin();
        let mut pending = Vec::new();
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = stream.read(&mut buffer).await {
            self.add(connection, &buffer[..count]);
            pending.extend_from_slice(&buffer[..count]);
            while let Some(end) = end_of_request(&pending) {
                pending.drain(..end);
                let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nreached";
                if stream.write_all(answer).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// Where the first request ends, read as leniently as any server does.
fn end_of_request(bytes: &[u8]) -> Option<usize> {
    let end = memchr::memmem::find(bytes, b"\r\n\r\n")? + 4;
    let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
    if head.contains("transfer-encoding") {
        let last = memchr::memmem::find(&bytes[end..], b"0\r\n")?;
        let over = memchr::memmem::find(&bytes[end + last..], b"\r\n\r\n")?;
        return Some(end + last + over + 4);
    }
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length:"));
    let length = length.map_or(0, |length| length.trim().parse().unwrap());
    (bytes.len() >= end + length).then_some(end + length)
}

/// An origin with these names, and its tape.
pub async fn origin(names: &[&str]) -> (Origin, Tape) {
    let tape = Tape::default();
    let recorder = tape.clone();
    let origin = Origin::rude(names, move |stream| recorder.clone().record(stream)).await;
    (origin, tape)
}
