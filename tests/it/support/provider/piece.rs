//! Owns the pieces an answer is made of: octets, and how many tokens had been made by then.

use async_compression::tokio::write::{BrotliEncoder, GzipEncoder, ZstdEncoder};
use bytes::Bytes;
use serde_json::Value;
use tokio::io::{AsyncWrite, AsyncWriteExt as _};

use super::conduct::{Coding, Conduct};

/// One event.
#[derive(Clone, Debug)]
pub struct Piece {
    pub octets: Bytes,
    /// Tokens of the answer made so far.
    pub produced: u64,
}

impl Piece {
    pub fn new(octets: impl Into<Bytes>, produced: u64) -> Self {
        Self {
            octets: octets.into(),
            produced,
        }
    }

    /// A server-sent event (<https://html.spec.whatwg.org/multipage/server-sent-events.html>).
    pub fn event(name: Option<&str>, data: &str, newline: &str, produced: u64) -> Self {
        let name = name.map_or_else(String::new, |name| format!("event: {name}{newline}"));
        Self::new(format!("{name}data: {data}{newline}{newline}"), produced)
    }
}

/// `usage` said twice under one name, which no JSON value can hold: a small one before each.
pub fn said_twice(event: &Value, name: &str, small: &str) -> String {
    event.to_string().replace(
        &format!("\"{name}\":"),
        &format!("\"{name}\":{small},\"{name}\":"),
    )
}

/// What is sent: with garbage after it, compressed and cut up as the conduct says.
pub async fn finished(mut pieces: Vec<Piece>, conduct: &Conduct) -> Vec<Piece> {
    let made = pieces.last().map_or(0, |piece| piece.produced);
    if !conduct.garbage.is_empty() {
        pieces.push(Piece::new(conduct.garbage, made));
    }
    match conduct.coding {
        Some(coding) => compressed(pieces, coding).await,
        None => pieces,
    }
}

/// Each piece can be read once it is there: the coder is flushed after it.
async fn compressed(pieces: Vec<Piece>, coding: Coding) -> Vec<Piece> {
    match coding {
        Coding::Gzip => through(pieces, GzipEncoder::new(Vec::new()), GzipEncoder::get_mut).await,
        Coding::Brotli => {
            through(
                pieces,
                BrotliEncoder::new(Vec::new()),
                BrotliEncoder::get_mut,
            )
            .await
        }
        Coding::Zstd => through(pieces, ZstdEncoder::new(Vec::new()), ZstdEncoder::get_mut).await,
    }
}

async fn through<E: AsyncWrite + Unpin>(
    pieces: Vec<Piece>,
    mut encoder: E,
    written: fn(&mut E) -> &mut Vec<u8>,
) -> Vec<Piece> {
    let mut coded = Vec::new();
    let mut made = 0;
    for piece in pieces {
        encoder.write_all(&piece.octets).await.unwrap();
        encoder.flush().await.unwrap();
        made = piece.produced;
        coded.push(Piece::new(std::mem::take(written(&mut encoder)), made));
    }
    encoder.shutdown().await.unwrap();
    coded.push(Piece::new(std::mem::take(written(&mut encoder)), made));
    coded
}
