//! Owns the origin's half of an upgraded connection: what it sends is searched for the secrets that the
//! request had.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::scrub::needles::Needles;
use crate::scrub::websocket::{Broken, ServerFrames};

/// Read from the origin at once, in octets.
const PIECE: usize = 16 << 10;

/// A connection to an origin that speaks WebSocket.
pub struct ScrubbedSocket<S> {
    inner: S,
    search: Option<Search>,
    seen: Arc<Seen>,
}

/// What was seen in it so far.
#[derive(Debug, Default)]
pub struct Seen {
    /// How many secrets were found.
    pub hits: AtomicU64,
    /// Whether a frame was too long.
    pub too_long: AtomicBool,
}

struct Search {
    frames: ServerFrames,
    room: Box<[u8]>,
    ready: Vec<u8>,
    /// How much of it was taken.
    taken: usize,
    is_over: bool,
}

impl<S> ScrubbedSocket<S> {
    /// Searches what `inner` gives, if there is something to look for.
    /// A frame longer than `longest` octets ends it then.
    pub fn new(inner: S, needles: Option<Arc<Needles>>, longest: u64) -> Self {
        Self {
            inner,
            search: needles.map(|needles| Search {
                frames: ServerFrames::new(needles, longest),
                room: vec![0; PIECE].into(),
                ready: Vec::new(),
                taken: 0,
                is_over: false,
            }),
            seen: Arc::default(),
        }
    }

    /// What was seen in it, as that grows.
    pub fn seen(&self) -> Arc<Seen> {
        self.seen.clone()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ScrubbedSocket<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let Some(search) = &mut this.search else {
            return Pin::new(&mut this.inner).poll_read(cx, buffer);
        };
        loop {
            let waiting = &search.ready[search.taken..];
            if !waiting.is_empty() || search.is_over {
                let length = waiting.len().min(buffer.remaining());
                buffer.put_slice(&waiting[..length]);
                search.taken += length;
                return Poll::Ready(Ok(()));
            }
            search.ready.clear();
            search.taken = 0;
            let mut room = ReadBuf::new(&mut search.room);
            ready!(Pin::new(&mut this.inner).poll_read(cx, &mut room))?;
            match room.filled() {
                [] => {
                    search.frames.finish(&mut search.ready);
                    search.is_over = true;
                }
                octets => match search.frames.feed(octets, &mut search.ready) {
                    Ok(()) => {}
                    Err(Broken::TooLong) => {
                        this.seen.too_long.store(true, Ordering::Relaxed);
                        search.is_over = true;
                    }
                    Err(broken) => return Poll::Ready(Err(io::Error::other(broken))),
                },
            }
            this.seen
                .hits
                .fetch_add(search.frames.take_hits(), Ordering::Relaxed);
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ScrubbedSocket<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write(cx, buffer)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(cx)
    }
}
