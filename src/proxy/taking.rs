//! Owns the end of HTTP/2 streams whose agent takes nothing of an answer: it is dropped, which resets the stream.
//!
//! The library asks an answer's body for more only once the last of it found room in the agent's window, so
//! nothing in a body notices that there is none. What runs the stream does, and its window is the stream's own:
//! others on the connection go on.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};
use hyper::rt::Executor;

use super::body::{BodyError, ResponseBody};
use crate::net::places::StreamPlace;
use crate::net::stall::Stall;

tokio::task_local! {
    /// Of the stream that the task is for: who runs a stream is not told which answer goes over it.
    static TAKING: Arc<Taking>;
}

/// How far the agent has taken the answer on one stream.
#[derive(Debug, Default)]
struct Taking {
    /// Pieces that were handed on.
    given: AtomicU64,
    /// The last of them has not found room yet.
    waiting: AtomicBool,
    /// Milliseconds for which that may be so.
    patience: AtomicU64,
    stalled: AtomicBool,
}

/// Runs streams, each for as long as its agent takes what is there for it.
#[derive(Clone, Copy, Debug)]
pub struct Streams;

impl<F> Executor<F> for Streams
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        let taking = Arc::new(Taking::default());
        tokio::spawn(TAKING.scope(taking.clone(), run(stream, taking)));
    }
}

async fn run(stream: impl Future<Output = ()>, taking: Arc<Taking>) {
    let mut stream = pin!(stream);
    let mut stall = Stall::default();
    let mut seen = 0;
    let ended = poll_fn(|cx| {
        if stream.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        if !taking.waiting.load(Ordering::Relaxed) {
            return Poll::Pending;
        }
        let given = taking.given.load(Ordering::Relaxed);
        if given != seen {
            seen = given;
            stall.moved();
        }
        let patience = taking.patience.load(Ordering::Relaxed);
        ready!(stall.poll(Duration::from_millis(patience), cx));
        taking.stalled.store(true, Ordering::Relaxed);
        tracing::debug!("the agent took nothing of its answer on a stream");
        Poll::Ready(())
    });
    ended.await;
}

/// An answer's body on a stream that is run by [`Streams`].
pub struct TakenBody {
    body: ResponseBody,
    taking: Option<Arc<Taking>>,
    place: Option<Arc<StreamPlace>>,
    _open: Arc<()>,
}

/// What a stream has until its end: its place, if there was one, and a sign for its connection that it is there.
pub type Held = (Option<StreamPlace>, Arc<()>);

/// A piece of an answer. The library takes it whole where the agent's window has room for one octet, and is done
/// with a stream that it has the last piece of: the stream has its place until the connection has written that.
pub struct Piece {
    octets: Bytes,
    _place: Option<Arc<StreamPlace>>,
}

impl Buf for Piece {
    fn remaining(&self) -> usize {
        self.octets.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.octets.chunk()
    }

    fn advance(&mut self, count: usize) {
        self.octets.advance(count);
    }

    fn copy_to_bytes(&mut self, length: usize) -> Bytes {
        self.octets.copy_to_bytes(length)
    }
}

impl TakenBody {
    /// The body of the answer on this task's stream.
    pub fn new(body: ResponseBody, (place, open): Held) -> Self {
        let taking = TAKING.try_with(Arc::clone).ok();
        if let Some(taking) = &taking {
            let millis = u64::try_from(body.patience().as_millis()).unwrap_or(u64::MAX);
            taking.patience.store(millis, Ordering::Relaxed);
        }
        Self {
            body,
            taking,
            place: place.map(Arc::new),
            _open: open,
        }
    }
}

impl Body for TakenBody {
    type Data = Piece;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Piece>, BodyError>>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.body).poll_frame(cx);
        if let Some(taking) = &this.taking {
            let given = matches!(polled, Poll::Ready(Some(Ok(_))));
            taking.given.fetch_add(u64::from(given), Ordering::Relaxed);
            taking.waiting.store(given, Ordering::Relaxed);
        }
        let piece = |octets| Piece {
            octets,
            _place: this.place.clone(),
        };
        polled.map_ok(|frame| frame.map_data(piece))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for TakenBody {
    fn drop(&mut self) {
        let taking = self.taking.as_ref();
        if taking.is_some_and(|taking| taking.stalled.load(Ordering::Relaxed)) {
            self.body.stalled();
        }
    }
}
