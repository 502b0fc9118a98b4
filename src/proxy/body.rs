//! Owns the response's body on its way to the agent: frames pass as they come, counted and watched for
//! silence, never gathered.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep};

use super::account::Accounting;
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
    /// Nothing came for the idle time.
    #[error("the body was silent too long")]
    Idle,
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

/// The origin's body, with what watches it.
pub struct StreamedResponse {
    inner: Incoming,
    silence: Silence,
    accounting: Accounting,
    /// While it lives the agent's connection is not idle.
    _in_flight: Option<InFlight>,
}

impl ResponseBody {
    /// A body of our own.
    pub fn own(bytes: Bytes, accounting: Accounting) -> Self {
        Self::Own(Some(bytes).filter(|b| !b.is_empty()), accounting)
    }

    /// The origin's body, cut after `idle` of silence.
    pub fn stream(
        inner: Incoming,
        idle: Duration,
        accounting: Accounting,
        in_flight: Option<InFlight>,
    ) -> Self {
        Self::Stream(Box::new(StreamedResponse {
            inner,
            silence: Silence::new(idle),
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
                Poll::Pending => Poll::Pending,
            },
        }
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
