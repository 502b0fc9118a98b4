//! Owns the bodies of the data path: frames pass as they come, counted and watched for silence,
//! never gathered.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep};

use super::account::Accounting;
use super::headers::clean_trailers;
use super::lease::Lease;
use super::snapshot::SnapshotStore;
use super::upgrade::revoked;
use crate::net::gate::InFlight;

/// What ends a body early.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The other side broke off.
    #[error("the body broke off")]
    Broken(#[from] hyper::Error),
    /// The origin answered without asking for it.
    #[error("the origin did not want the body")]
    NotWanted,
    /// Policy no longer allows it.
    #[error("the policy no longer allows this exchange")]
    Revoked,
    /// Nothing came for the idle time.
    #[error("the body was silent too long")]
    Idle,
}

/// Most that is read of a body nobody wants, and how long for.
const UNWANTED: usize = 1 << 20;
const MOMENT: Duration = Duration::from_millis(500);

/// Reads the body of a request that is refused, within reason. Clients in the middle of an upload miss
/// an answer that comes with a reset: curl up to 7.88 on HTTP/2, most on HTTP/1.1.
pub async fn read_away<B: Body<Data = Bytes> + Unpin>(mut body: B) {
    if body.size_hint().lower() > UNWANTED as u64 {
        return;
    }
    let mut left = UNWANTED;
    let reading = async {
        while let Some(Ok(frame)) = body.frame().await {
            let read = frame.data_ref().map_or(0, Bytes::len);
            match left.checked_sub(read) {
                Some(rest) => left = rest,
                None => return,
            }
        }
    };
    // What is not there by then is not waited for.
    tokio::time::timeout(MOMENT, reading).await.ok();
}

/// A request's body on its way to the origin.
#[derive(Default)]
pub enum RequestBody {
    /// None.
    #[default]
    Empty,
    /// One that was read whole.
    Whole(Option<Bytes>),
    /// One that is passed on as it comes.
    Stream(Incoming, Arc<AtomicU64>),
    /// One that the agent holds back until the origin asks for it.
    Expecting(Incoming, Arc<AtomicU64>, Continuation),
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        if let Self::Expecting(_, _, wait) = this {
            std::task::ready!(wait.poll(cx))?;
            if let Self::Expecting(inner, count, _) = std::mem::take(this) {
                *this = Self::Stream(inner, count);
            }
        }
        match this {
            Self::Empty | Self::Expecting(..) => Poll::Ready(None),
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Stream(inner, count) => {
                let mut frame = std::task::ready!(Pin::new(inner).poll_frame(cx));
                if let Some(Ok(frame)) = &mut frame {
                    if let Some(data) = frame.data_ref() {
                        count.fetch_add(data.len() as u64, Ordering::Relaxed);
                    }
                    if let Some(trailers) = frame.trailers_mut() {
                        clean_trailers(trailers);
                    }
                }
                Poll::Ready(frame.map(|frame| frame.map_err(BodyError::from)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Whole(bytes) => bytes.is_none(),
            Self::Stream(inner, _) | Self::Expecting(inner, ..) => inner.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Whole(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64))
            }
            Self::Stream(inner, _) | Self::Expecting(inner, ..) => inner.size_hint(),
        }
    }
}

/// The wait for an origin's `100 Continue` (RFC 9110, section 10.1.1). The agent is told to continue
/// when its body is first asked for, so holding back the asking leaves the decision to the origin.
pub struct Continuation {
    shared: Arc<Asked>,
    patience: Pin<Box<Sleep>>,
}

/// What the origin said about the body.
#[derive(Default)]
pub struct Asked {
    verdict: AtomicU8,
    waker: AtomicWaker,
}

/// An origin that never says 100 (HTTP/1.0, HTTP/2 here) gets the body after this long.
const PATIENCE: Duration = Duration::from_secs(1);
const CONTINUE: u8 = 1;
const ANSWERED: u8 = 2;

impl Asked {
    /// The origin wants the body.
    pub fn go_on(&self) {
        self.say(CONTINUE);
    }

    /// The origin has answered already; a body that was not asked for by then is not sent.
    pub fn answered(&self) {
        self.say(ANSWERED);
    }

    fn say(&self, verdict: u8) {
        self.verdict
            .compare_exchange(0, verdict, Ordering::AcqRel, Ordering::Acquire)
            .ok();
        self.waker.wake();
    }
}

impl Continuation {
    /// Waits for what `shared` hears.
    pub fn new(shared: Arc<Asked>) -> Self {
        Self {
            shared,
            patience: Box::pin(tokio::time::sleep(PATIENCE)),
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BodyError>> {
        self.shared.waker.register(cx.waker());
        match self.shared.verdict.load(Ordering::Acquire) {
            CONTINUE => Poll::Ready(Ok(())),
            ANSWERED => Poll::Ready(Err(BodyError::NotWanted)),
            _ => self.patience.as_mut().poll(cx).map(Ok),
        }
    }
}

/// A response's body on its way to the agent. Dropping it settles the exchange's account.
pub enum ResponseBody {
    /// One that was made here.
    Own(Option<Bytes>, Accounting),
    /// None at all: the account went elsewhere.
    Nothing,
    /// One that is passed on as it comes.
    Stream(Box<StreamedResponse>),
}

/// What ends the origin's body early.
pub struct StreamLimits {
    /// Longest silence.
    pub idle: Duration,
    /// What it is allowed by, asked again with every new policy.
    pub lease: Lease,
    /// Where new policies come from.
    pub snapshots: Arc<SnapshotStore>,
}

/// The origin's body, with what watches it.
pub struct StreamedResponse {
    inner: Incoming,
    silence: Silence,
    lease: Leased,
    accounting: Accounting,
    /// While it lives the agent's connection is not idle.
    _in_flight: Option<InFlight>,
}

impl ResponseBody {
    /// A body of our own.
    pub fn own(bytes: Bytes, accounting: Accounting) -> Self {
        Self::Own(Some(bytes).filter(|b| !b.is_empty()), accounting)
    }

    /// The origin's body, cut when one of the limits is passed.
    pub fn stream(
        inner: Incoming,
        limits: StreamLimits,
        accounting: Accounting,
        in_flight: Option<InFlight>,
    ) -> Self {
        Self::Stream(Box::new(StreamedResponse {
            inner,
            silence: Silence::new(limits.idle),
            lease: Leased::Unwatched(Some((limits.lease, limits.snapshots))),
            accounting,
            _in_flight: in_flight,
        }))
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Own(bytes, accounting) => {
                let Some(bytes) = bytes.take() else {
                    return Poll::Ready(None);
                };
                accounting.sent(bytes.len() as u64);
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Self::Nothing => Poll::Ready(None),
            Self::Stream(stream) => stream.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Own(bytes, _) => bytes.is_none(),
            Self::Nothing => true,
            Self::Stream(stream) => stream.inner.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Own(bytes, _) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64))
            }
            Self::Nothing => SizeHint::with_exact(0),
            Self::Stream(stream) => stream.inner.size_hint(),
        }
    }
}

impl StreamedResponse {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Leased::Watched(revoked) = &mut self.lease
            && revoked.as_mut().poll(cx).is_ready()
        {
            self.accounting.ended("revoked");
            return Poll::Ready(Some(Err(BodyError::Revoked)));
        }
        match Pin::new(&mut self.inner).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(data) = frame.data_ref() {
                    self.accounting.sent(data.len() as u64);
                }
                self.silence.broken();
                if self.inner.is_end_stream() {
                    self.accounting.complete();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                self.accounting.ended("origin_broke_off");
                Poll::Ready(Some(Err(error.into())))
            }
            Poll::Ready(None) => {
                self.accounting.complete();
                Poll::Ready(None)
            }
            Poll::Pending => match self.silence.poll(cx) {
                Poll::Ready(()) => {
                    self.accounting.ended("origin_silent");
                    Poll::Ready(Some(Err(BodyError::Idle)))
                }
                Poll::Pending if self.lease.watch() => self.poll(cx),
                Poll::Pending => Poll::Pending,
            },
        }
    }
}

/// What a body is allowed by. It is watched from the first wait on, so that short answers do not
/// pay for it.
enum Leased {
    Unwatched(Option<(Lease, Arc<SnapshotStore>)>),
    Watched(Pin<Box<dyn Future<Output = ()> + Send>>),
}

impl Leased {
    /// Begins to watch, and says whether it just did.
    fn watch(&mut self) -> bool {
        let Self::Unwatched(held) = self else {
            return false;
        };
        let Some((lease, snapshots)) = held.take() else {
            return false;
        };
        *self = Self::Watched(Box::pin(async move {
            revoked(&snapshots, || lease.holds(&snapshots.load())).await;
        }));
        true
    }
}

/// Notices silence. The timer is made at the first wait and moved only when it fires, so that a
/// stream with many frames does not touch the timer wheel for each.
struct Silence {
    limit: Duration,
    heard: Instant,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Silence {
    fn new(limit: Duration) -> Self {
        Self {
            limit,
            heard: Instant::now(),
            timer: None,
        }
    }

    fn broken(&mut self) {
        if self.timer.is_some() {
            self.heard = Instant::now();
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let limit = self.limit;
        let heard = &mut self.heard;
        let timer = self.timer.get_or_insert_with(|| {
            *heard = Instant::now();
            Box::pin(tokio::time::sleep(limit))
        });
        loop {
            std::task::ready!(timer.as_mut().poll(cx));
            let deadline = self.heard + self.limit;
            if deadline <= Instant::now() {
                return Poll::Ready(());
            }
            timer.as_mut().reset(deadline);
        }
    }
}
