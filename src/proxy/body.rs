//! Owns the response's body on its way to the agent: frames pass as they come, counted and watched for
//! silence, never gathered.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::time::{Instant, Sleep};

use super::account::Accounting;
use super::error::OriginFault;
use super::headers::end_trailers_hop;
use super::metered::{Meter, Turn};
use super::observe::Observer;
use super::origin_body::{OriginBody, OriginError};
use crate::budget::ledger::Ending;
use crate::net::gate::{ANSWER_PATIENCE, GateState};
use crate::policy::decision::Timeouts;

/// What ends a body early.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The other side broke off.
    #[error("the body broke off")]
    Broken(#[from] hyper::Error),
    /// Nothing of the agent's came for too long.
    #[error("nothing of the body came for too long")]
    Slow,
    /// The origin answered without asking for it.
    #[error("the origin did not want the body")]
    NotWanted,
    /// It was cut here, and could not be told so in its own words.
    #[error("the body was cut: the budget is exhausted")]
    Cut,
    /// The origin's did.
    #[error(transparent)]
    Origin(#[from] OriginError),
    /// Nothing came for the idle time.
    #[error("the body was silent too long")]
    Idle,
}

impl BodyError {
    /// What an origin did wrong whose body ends so.
    fn fault(&self) -> Option<OriginFault> {
        match self {
            Self::Origin(OriginError::Broken(_)) => Some(OriginFault::Body),
            Self::Origin(OriginError::Undecodable(_)) => Some(OriginFault::Coding),
            _ => None,
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

/// The origin's body, with what watches it.
pub struct StreamedResponse {
    /// Until it is given to somebody who reads it to its end.
    inner: Option<OriginBody>,
    /// What it costs is read beside it.
    meter: Option<Box<Meter>>,
    /// What it used is, where nothing of it costs anything here.
    observer: Option<Box<Observer>>,
    silence: Silence,
    /// How long the agent may take nothing of it.
    patience: Duration,
    accounting: Accounting,
    /// Whether its agent has taken nothing for too long, on HTTP/1.1.
    gate: Option<Arc<GateState>>,
    /// What was known of its length before any of it was read, until it is asked for.
    announced: Option<SizeHint>,
    /// What was read before the head went on, until it is asked for.
    ahead: Option<Ahead>,
    /// What ends it, told at the next turn.
    broken: Option<BodyError>,
}

/// A body's beginning, read before its head went on.
enum Ahead {
    Piece(Frame<Bytes>),
    /// There is none.
    End,
}

/// A body that ends before anything of it, or of its head, has gone on.
pub struct Broken {
    /// What is wrong with it.
    pub fault: OriginFault,
    /// Its exchange's account.
    pub accounting: Accounting,
}

impl ResponseBody {
    /// A body of our own.
    pub fn own(bytes: Bytes, accounting: Accounting) -> Self {
        Self::Own(Some(bytes).filter(|b| !b.is_empty()), accounting)
    }

    /// How long the agent may take nothing of it.
    pub fn patience(&self) -> Duration {
        match self {
            Self::Stream(stream) => stream.patience,
            Self::Own(..) | Self::Nothing => ANSWER_PATIENCE,
        }
    }

    /// The agent took nothing of it for longer than that: it ends here.
    pub fn stalled(&mut self) {
        match self {
            Self::Stream(stream) => stream.accounting.stalled(),
            Self::Own(..) | Self::Nothing => {}
        }
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
            Self::Stream(stream) => stream.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Own(bytes, _) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64))
            }
            Self::Nothing => SizeHint::with_exact(0),
            Self::Stream(stream) => stream.size_hint(),
        }
    }
}

impl StreamedResponse {
    /// The origin's body, held to the times for silence on either side.
    ///
    /// Errors: what the origin sent with its head is no body. The library that speaks to the agent would
    /// drop the head with it, so that nothing at all would be told.
    pub async fn begin(
        inner: OriginBody,
        timeouts: &Timeouts,
        accounting: Accounting,
        gate: Option<Arc<GateState>>,
        (meter, observer): (Option<Box<Meter>>, Option<Box<Observer>>),
    ) -> Result<Box<Self>, Broken> {
        let mut begun = Box::new(Self {
            inner: Some(inner),
            meter,
            observer,
            silence: Silence::new(timeouts.idle),
            patience: timeouts.agent_idle,
            accounting,
            gate,
            announced: None,
            ahead: None,
            broken: None,
        });
        begun.announced = Some(begun.announce());
        if begun.is_end_stream() {
            return Ok(begun);
        }
        // What has not come is not waited for.
        let first = poll_fn(|cx| Poll::Ready(begun.next(cx))).await;
        match first {
            Poll::Pending => {}
            Poll::Ready(Some(Ok(frame))) => begun.ahead = Some(Ahead::Piece(frame)),
            Poll::Ready(None) => begun.ahead = Some(Ahead::End),
            Poll::Ready(Some(Err(error))) => match error.fault() {
                Some(fault) => {
                    let accounting = begun.accounting.hand_over();
                    return Err(Broken { fault, accounting });
                }
                None => begun.broken = Some(error),
            },
        }
        Ok(begun)
    }

    fn is_end_stream(&self) -> bool {
        match self.ahead {
            Some(Ahead::Piece(_)) => false,
            Some(Ahead::End) => true,
            None => self.broken.is_none() && self.is_read(),
        }
    }

    fn is_read(&self) -> bool {
        self.inner.as_ref().is_none_or(Body::is_end_stream)
            && self.meter.as_ref().is_none_or(|meter| meter.is_idle())
    }

    fn size_hint(&self) -> SizeHint {
        self.announced.unwrap_or_default()
    }

    fn announce(&self) -> SizeHint {
        match &self.inner {
            // What is cut or hidden makes it another length; where none may be, it is still the origin's.
            Some(inner) if self.meter.as_ref().is_none_or(|meter| meter.keeps_length()) => {
                inner.size_hint()
            }
            _ => SizeHint::default(),
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.announced = None;
        match self.ahead.take() {
            Some(Ahead::Piece(frame)) => return Poll::Ready(Some(Ok(frame))),
            Some(Ahead::End) => return Poll::Ready(None),
            None => {}
        }
        if let Some(error) = self.broken.take() {
            return Poll::Ready(Some(Err(error)));
        }
        match ready!(self.next(cx)) {
            Some(Err(error)) => {
                // The library writes what it was given when there is nothing more to be had just now, and
                // drops it at an error: the head and what came before are let out first.
                self.broken = Some(error);
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            next => Poll::Ready(next),
        }
    }

    fn next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        loop {
            if let Some(meter) = &mut self.meter {
                let turn = ready!(meter.poll(cx));
                if let Some(cost) = meter.cost() {
                    self.accounting.billed(&cost);
                }
                match turn {
                    Turn::Pass(frame) => return self.pass(frame),
                    Turn::End => {
                        self.accounting.complete();
                        return Poll::Ready(None);
                    }
                    Turn::Cut => {
                        self.accounting.ended("budget_cut");
                        self.inner = None;
                        return Poll::Ready(None);
                    }
                    Turn::Break => {
                        self.accounting.ended("budget_cut");
                        return Poll::Ready(Some(Err(BodyError::Cut)));
                    }
                    Turn::Read => {}
                }
            }
            let Some(inner) = &mut self.inner else {
                return Poll::Ready(None);
            };
            let polled = Pin::new(&mut *inner).poll_frame(cx);
            self.accounting.scrubbed(inner.take_hits());
            match polled {
                Poll::Ready(Some(Ok(frame))) => match &mut self.meter {
                    Some(meter) => {
                        self.silence.broken();
                        // Nothing comes behind trailers, and nobody asks for it.
                        let is_last = frame.is_trailers();
                        meter.take(frame);
                        if is_last || inner.is_end_stream() {
                            meter.end();
                        }
                    }
                    None => return self.pass(frame),
                },
                Poll::Ready(Some(Err(error))) => {
                    if self.meter.as_mut().is_some_and(|meter| meter.broke()) {
                        self.inner = None;
                        continue;
                    }
                    self.give_up(Ending::OriginBroke);
                    self.accounting.ended(match error {
                        OriginError::Undecodable(_) => "origin_undecodable",
                        OriginError::Broken(_) => "origin_broke_off",
                    });
                    return Poll::Ready(Some(Err(error.into())));
                }
                Poll::Ready(None) => match &mut self.meter {
                    Some(meter) => meter.end(),
                    None => {
                        self.accounting.complete();
                        return Poll::Ready(None);
                    }
                },
                Poll::Pending => {
                    ready!(self.silence.poll(cx));
                    self.give_up(Ending::OriginBroke);
                    self.accounting.ended("origin_silent");
                    return Poll::Ready(Some(Err(BodyError::Idle)));
                }
            }
        }
    }

    fn pass(&mut self, mut frame: Frame<Bytes>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(data) = frame.data_ref() {
            self.accounting.sent(data.len() as u64);
            if let Some(observer) = &mut self.observer {
                observer.see(data);
            }
        } else if let Some(trailers) = frame.trailers_mut() {
            end_trailers_hop(trailers);
        }
        self.silence.broken();
        if frame.is_trailers() || self.is_read() {
            match self.meter.as_ref().is_some_and(|meter| meter.is_cut()) {
                true => self.accounting.ended("budget_cut"),
                false => self.accounting.complete(),
            }
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn give_up(&mut self, ending: Ending) {
        let Some(meter) = &mut self.meter else {
            return;
        };
        meter.abandon(ending);
        if let Some(cost) = meter.cost() {
            self.accounting.billed(&cost);
        }
    }
}

impl Drop for StreamedResponse {
    /// An answer that the agent left is billed as far as it came, and what is under way has come: it is
    /// read on for a moment without the agent, or to its end where the provider bills it whole.
    fn drop(&mut self) {
        if self.gate.as_ref().is_some_and(|gate| gate.is_stalled()) {
            self.accounting.stalled();
        }
        if let Some(observer) = self.observer.take() {
            self.accounting.observed(*observer);
        }
        let Some(mut meter) = self.meter.take() else {
            return;
        };
        let mut accounting = self.accounting.hand_over();
        if let (Some((room, time)), Some(mut inner)) = (meter.drain_room(), self.inner.take())
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(async move {
                let reading = async {
                    while let Some(Ok(frame)) = inner.frame().await {
                        if let Some(data) = frame.data_ref() {
                            meter.drain(data);
                        }
                    }
                };
                // However it ends, what was read is what counts.
                tokio::time::timeout(time, reading).await.ok();
                meter.abandon(Ending::AgentLeft);
                if let Some(cost) = meter.cost() {
                    accounting.billed(&cost);
                }
                drop(room);
            });
            return;
        }
        meter.abandon(Ending::AgentLeft);
        if let Some(cost) = meter.cost() {
            accounting.billed(&cost);
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
            ready!(timer.as_mut().poll(cx));
            let deadline = self.heard + self.limit;
            if deadline <= Instant::now() {
                return Poll::Ready(());
            }
            timer.as_mut().reset(deadline);
        }
    }
}
