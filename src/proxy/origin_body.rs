//! Owns the origin's body as it is read: as it comes, or searched for the secrets that the request had.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::error::ProxyError;
use crate::net::room::{Room, Taken};
use crate::scrub::coding::Coding;
use crate::scrub::decoder::{Decoder, Undecodable};
use crate::scrub::head::{scrub_fields, settle_trailers};
use crate::scrub::needles::Needles;
use crate::scrub::stand_in::Fit;
use crate::scrub::stream::Scrubber;
use crate::types::reached::Limit;

/// How one answer's body is searched.
pub struct Scrubbing {
    /// What for.
    pub needles: Arc<Needles>,
    /// What must be undone first, in the order in which it was applied.
    pub codings: Vec<Coding>,
    /// Whether its length may change.
    pub fit: Fit,
    /// The memory in which they are undone, where that is much.
    pub windows: Option<Taken>,
}

impl Scrubbing {
    /// The same with the memory that its codings take: what was `taken` for it, and more from `room` if the
    /// origin answers in others than it was asked for.
    ///
    /// Errors: there is no more.
    pub fn with_windows(self, taken: Option<Taken>, room: &Arc<Room>) -> Result<Self, ProxyError> {
        let wanted: u64 = self.codings.iter().map(|coding| coding.window()).sum();
        if wanted == 0 {
            return Ok(self);
        }
        let full = || Limit::Windows.bytes(room.most());
        let mut taken = taken.unwrap_or_else(|| room.nothing());
        if !taken.grow_to(wanted) {
            return Err(full().into());
        }
        taken.shrink_to(wanted);
        Ok(Self {
            windows: Some(taken),
            ..self
        })
    }

    /// What is known with the first octet of a body.
    fn begins_with(&mut self, first: u8) {
        if let (Some(windows), [coding]) = (&mut self.windows, &self.codings[..]) {
            windows.shrink_to(coding.window_of(first).unwrap_or(0));
        }
    }
}

/// Why an origin's body ends before its end.
#[derive(Debug, thiserror::Error)]
pub enum OriginError {
    /// The origin broke off.
    #[error("the body broke off")]
    Broken(#[from] hyper::Error),
    /// It is not what its coding says, so that it could not be searched for secrets.
    #[error(transparent)]
    Undecodable(#[from] Undecodable),
}

/// A body from an origin.
pub enum OriginBody {
    /// Its request had no secret.
    Plain(Incoming),
    /// Its request had one.
    Scrubbed(Box<ScrubbedBody>),
}

/// A body that is searched: its codings undone, each secret replaced, its trailers as well.
pub struct ScrubbedBody {
    inner: Incoming,
    decoder: Option<Decoder>,
    scrubber: Scrubber,
    scrubbing: Scrubbing,
    ready: VecDeque<Bytes>,
    trailers: Option<HeaderMap>,
    has_begun: bool,
    is_over: bool,
    hits: u64,
}

impl OriginBody {
    /// The body, searched if there is something to look for.
    pub fn new(inner: Incoming, scrubbing: Option<Scrubbing>) -> Self {
        let Some(scrubbing) = scrubbing else {
            return Self::Plain(inner);
        };
        let codings = &scrubbing.codings;
        Self::Scrubbed(Box::new(ScrubbedBody {
            inner,
            decoder: (!codings.is_empty()).then(|| Decoder::new(codings)),
            scrubber: Scrubber::new(scrubbing.needles.clone(), scrubbing.fit),
            scrubbing,
            ready: VecDeque::new(),
            trailers: None,
            has_begun: false,
            is_over: false,
            hits: 0,
        }))
    }

    /// How many secrets were found since this was last asked.
    pub fn take_hits(&mut self) -> u64 {
        match self {
            Self::Plain(_) => 0,
            Self::Scrubbed(body) => std::mem::take(&mut body.hits) + body.scrubber.take_hits(),
        }
    }
}

impl Body for OriginBody {
    type Data = Bytes;
    type Error = OriginError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, OriginError>>> {
        match self.get_mut() {
            Self::Plain(inner) => {
                let frame = ready!(Pin::new(inner).poll_frame(cx));
                Poll::Ready(frame.map(|frame| frame.map_err(OriginError::from)))
            }
            Self::Scrubbed(body) => body.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Plain(inner) => inner.is_end_stream(),
            Self::Scrubbed(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Plain(inner) => inner.size_hint(),
            Self::Scrubbed(body) => body.size_hint(),
        }
    }
}

impl ScrubbedBody {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, OriginError>>> {
        loop {
            if let Some(text) = self.ready.pop_front() {
                return Poll::Ready(Some(Ok(Frame::data(text))));
            }
            match self.decoder.as_mut().map_or(Ok(None), Decoder::take) {
                Ok(Some(piece)) => {
                    self.scrubber.feed(piece, &mut self.ready);
                    continue;
                }
                Ok(None) => {}
                Err(error) => return Poll::Ready(Some(Err(error.into()))),
            }
            if let Some(trailers) = self.trailers.take() {
                return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
            }
            if self.is_over {
                return Poll::Ready(None);
            }
            let frame = match ready!(Pin::new(&mut self.inner).poll_frame(cx)) {
                Some(Ok(frame)) => Some(frame),
                Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
                None => None,
            };
            if let Err(error) = self.take(frame) {
                self.is_over = true;
                return Poll::Ready(Some(Err(error.into())));
            }
        }
    }

    fn take(&mut self, frame: Option<Frame<Bytes>>) -> Result<(), Undecodable> {
        let frame = match frame.map(Frame::into_data) {
            Some(Ok(data)) => {
                match &mut self.decoder {
                    Some(decoder) => {
                        if let Some(first) = data.first().filter(|_| !self.has_begun) {
                            self.has_begun = true;
                            self.scrubbing.begins_with(*first);
                        }
                        decoder.feed(data);
                    }
                    None => self.scrubber.feed(data, &mut self.ready),
                }
                return Ok(());
            }
            Some(Err(frame)) => Some(frame),
            None => None,
        };
        self.is_over = true;
        self.decoder.as_ref().map_or(Ok(()), Decoder::finish)?;
        self.scrubber.finish(&mut self.ready);
        if let Some(mut trailers) = frame.and_then(|frame| frame.into_trailers().ok()) {
            self.hits += scrub_fields(&self.scrubbing.needles, &mut trailers);
            settle_trailers(&mut trailers);
            self.trailers = Some(trailers);
        }
        Ok(())
    }

    fn is_end_stream(&self) -> bool {
        // What is undone may be much longer than what came, and is whole only once that was asked.
        let is_over = self.is_over || self.decoder.is_none() && self.inner.is_end_stream();
        is_over && self.ready.is_empty() && self.trailers.is_none() && self.scrubber.held() == 0
    }

    fn size_hint(&self) -> SizeHint {
        if self.decoder.is_some() || self.scrubbing.fit == Fit::Free {
            return SizeHint::default();
        }
        let ready = self.ready.iter().map(|text| text.len() as u64).sum::<u64>();
        let waiting = ready + self.scrubber.held() as u64;
        let inner = self.inner.size_hint();
        let mut hint = SizeHint::new();
        if let Some(upper) = inner.upper() {
            hint.set_upper(upper + waiting);
        }
        hint.set_lower(inner.lower() + waiting);
        hint
    }
}
