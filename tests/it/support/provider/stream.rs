//! Owns how an answer leaves the stand-in: piece by piece, at its pace, past its gates, to its fate.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::HeaderMap;
use http_body::Frame;

use super::super::origin::{Hangup, Reset};
use super::super::reply::{self, Body};
use super::conduct::{Conduct, Fate};
use super::piece::Piece;
use super::truth::Tab;

/// An answer on its way. When it is dropped, what was made of it is billed.
struct Way {
    pieces: VecDeque<Piece>,
    conduct: Conduct,
    /// What is left of the piece under way.
    rest: Bytes,
    /// Pieces that were begun.
    begun: usize,
    tab: Tab,
    hangup: Hangup,
    reset: Reset,
}

/// The body of an answer.
pub fn body(
    pieces: Vec<Piece>,
    conduct: Conduct,
    tab: Tab,
    (hangup, reset): (Hangup, Reset),
) -> Body {
    let way = Way {
        pieces: pieces.into(),
        conduct,
        rest: Bytes::new(),
        begun: 0,
        tab,
        hangup,
        reset,
    };
    reply::streamed(stream::unfold(way, |mut way| async move {
        let frame = way.next().await?;
        Some((frame, way))
    }))
}

impl Way {
    async fn next(&mut self) -> Option<Frame<Bytes>> {
        while self.rest.is_empty() {
            match self.conduct.fate {
                Fate::Cut(after) if self.begun == after => {
                    self.hangup.clone().now().await;
                }
                Fate::Reset(after) if self.begun == after => {
                    self.reset.clone().now().await;
                }
                Fate::Silent(after) if self.begun == after => std::future::pending().await,
                _ => {}
            }
            let Some(piece) = self.pieces.pop_front() else {
                self.tab.whole();
                if !std::mem::take(&mut self.conduct.trailers) {
                    return None;
                }
                let mut trailers = HeaderMap::new();
                trailers.insert("x-checksum", "1234".parse().unwrap());
                return Some(Frame::trailers(trailers));
            };
            if self.conduct.pace > Duration::ZERO {
                tokio::time::sleep(self.conduct.pace).await;
            }
            self.begun += 1;
            if let Some(gate) = self.conduct.gate(self.begun) {
                gate.clone().stand().await;
            }
            self.tab.produced(piece.produced);
            self.rest = piece.octets;
        }
        let length = self.conduct.chunk.unwrap_or(usize::MAX);
        let length = length.min(self.rest.len());
        Some(Frame::data(self.rest.split_to(length)))
    }
}
